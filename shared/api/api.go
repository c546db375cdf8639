// Package api answers the routes of the table in shared/route, with one file for each
// resource. It reads the request, calls the store or the run loop, and writes
// AgentOS's JSON or events.
// It decides on every request with the authorization policy, also when API Gateway's
// authorizer has decided before: the authorizer's answer may come from a cache.
// It knows nothing of token formats, model providers or SQL.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/rs/cors"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/trace"
)

// DatabaseID is the value of AgentOS's member and parameter db_id. Keyway has one
// database, so there is one value.
const DatabaseID = "keyway"

// request is a request that the policy allows, with its principal and the decision.
type request struct {
	*http.Request
	server *Server
	// principal is nil on a public route without a token.
	principal *authz.Principal
	decision  authz.Decision
	// audit is the line about the request in the audit log. It is nil for a request that has none.
	audit  *audit.Record
	bounds bound.Limits
}

// param returns a parameter of the path, such as session_id; "" when the route has no
// parameter of that name.
func (r *request) param(name string) string { return r.decision.Params[name] }

// Resource is a set of routes with the handlers that answer them. The resources are
// OS, Readiness, Agents, Runs, Sessions, Memories, Metrics, Revocations, UserData, Local and Dev.
type Resource interface {
	endpoints() []Endpoint
}

// Options configures a Server.
type Options struct {
	// Policy decides which requests are allowed. Required.
	Policy *authz.Policy
	// Leeway is how long after its expiry a token is still accepted, for clocks that
	// differ. Defaults to 0.
	Leeway time.Duration
	// Log receives the errors that the caller sees as 500. Required.
	Log *slog.Logger
	// Revoked returns an error if the caller's token was revoked (fault.Unauthenticated), or if
	// nobody can say (fault.Unavailable). Defaults to no check, for a function without a
	// database.
	Revoked func(context.Context, *authz.Principal) error
	// RevokedNow is Revoked by what the database says at this moment. Routes that only
	// administrators open need it, so that a leaked token can't undo its own revocation.
	// Required with Revoked.
	RevokedNow func(context.Context, *authz.Principal) error
	// Decisions receives one line for each decision. Defaults to no decision log.
	Decisions *authz.Log
	// Audit receives one line for each request that changes data, and for each one with which an administrator reads
	// the data of users. Defaults to no audit log.
	Audit *audit.Log
	// Now is the clock that token expiry is compared with. Required.
	Now func() time.Time
	// Bounds are the most that a request can contain. Defaults to the defaults of package bound.
	Bounds bound.Limits
}

// Server answers the routes of its resources. It is an http.Handler and safe for
// concurrent use.
type Server struct {
	Options
	endpoints map[route.Name]Endpoint
}

// New makes a Server of the given resources. A Lambda function that answers a part of
// the table passes only the resources of that part. New panics when two resources
// answer the same route, because that is a bug of the program.
func New(o Options, resources ...Resource) *Server {
	s := &Server{Options: o, endpoints: map[route.Name]Endpoint{}}
	for _, e := range Endpoints(resources...) {
		if s.Serves(e.Route) {
			panic("api: two endpoints for " + e.Route)
		}
		s.endpoints[e.Route] = e
	}
	return s
}

// Serves reports whether the server has an endpoint for the route.
func (s *Server) Serves(name route.Name) bool { return s.endpoints[name].serve != nil }

// ServeHTTP decides on a request and answers it. The principal comes from the
// request's context (authz.WithPrincipal); without one, only public routes are
// allowed. An error is logged and answered by package fault. A caller never sees the
// text of an internal error.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Answers hold data of one caller, so no cache may store them (RFC 9111, section 5.2.2.5). nosniff keeps browsers
	// from guessing another media type from the content (WHATWG Fetch, section "X-Content-Type-Options header").
	header := w.Header()
	header["Cache-Control"], header["X-Content-Type-Options"] = noStore, noSniff
	if r.Method == http.MethodHead {
		w = bodyless{w} // net/http drops the body itself, but Lambda does not
	}
	out := &auditing{ResponseWriter: w, request: r}
	defer out.end()
	w = out
	err := s.serve(out, r)
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// net/http cancels the context of a client that has disconnected. That is no error of the
		// server, and nobody receives the answer. The status is only for the log.
		logging.Note(r.Context(), "err", "the client has disconnected")
		w.WriteHeader(statusClientClosedRequest)
		return
	case fault.KindOf(err) == fault.Internal:
		s.Log.ErrorContext(r.Context(), "request failed", "request_id", logging.RequestID(r.Context()), "err", err)
	default:
		logging.Note(r.Context(), "err", fault.Reason(err))
	}
	if s.Policy.Table().DoorAt(r.URL.Path) == route.OpenAI {
		fault.WriteOpenAI(w, err)
		return
	}
	fault.Write(w, err)
}

// Each answer has these values. They are not changed: Header.Set makes new ones, and Header.Add copies full ones.
var noStore, noSniff, jsonMedia = []string{"no-store"}, []string{"nosniff"}, []string{"application/json"}

// statusClientClosedRequest is the status that nginx logs for a client that disconnects
// before it has an answer. HTTP has no status for it.
const statusClientClosedRequest = 499

// bodyless drops the body of an answer to HEAD. The headers stay those of GET (RFC 9110,
// section 9.3.2).
type bodyless struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (b bodyless) Write(p []byte) (int, error) { return len(p), nil }

func (s *Server) serve(w *auditing, r *http.Request) error {
	admitted, err := s.admit(w, r)
	if err != nil {
		return err
	}
	return s.endpoints[admitted.decision.Route.Name].serve(w, admitted)
}

// admit decides on a request, and returns it with the decision.
func (s *Server) admit(w *auditing, r *http.Request) (*request, error) {
	p, d, err := s.decide(r)
	if err != nil {
		return nil, err
	}
	logging.Note(r.Context(), "route", d.Route.String())
	trace.Route(r.Context(), d.Route.Method, d.Route.Pattern)
	admitted := r.WithContext(authz.WithDecision(r.Context(), p, d))
	w.record = s.record(r, p, d)
	return &request{
		Request: admitted, server: s, principal: p, decision: d, audit: w.record, bounds: s.Bounds,
	}, nil
}

// decide allows or denies the request and writes the decision to the decision log. It
// runs before the body is read and before anything changes.
//
// An expired or revoked token counts as no token, so the decision says that authentication
// is missing.
func (s *Server) decide(r *http.Request) (*authz.Principal, authz.Decision, error) {
	// Now is not used here: the decision log needs the real duration, also in tests.
	ctx, began := r.Context(), time.Now()
	p, _ := authz.From(ctx)
	d := s.Policy.DecideURL(p, r.Method, r.URL)
	err := d.Err(logging.RequestID(ctx))
	if !d.Open && p != nil {
		if ended := s.ended(ctx, p, err == nil && d.Route.Admin); ended != nil {
			d, err = s.Policy.DecideURL(nil, r.Method, r.URL), ended
		}
	}
	if err == nil && !s.Serves(d.Route.Name) {
		// A Lambda function has the whole table but only its own endpoints. API Gateway
		// sends it nothing else, unless the template and the table differ.
		err = fmt.Errorf("no endpoint for %s: %w", d.Route, fault.NotFound)
	}
	if err == nil && d.Route.Name == route.Decisions {
		return p, d, nil // a page that reads the log again and again must not fill it
	}
	s.Decisions.Write(ctx, authz.Entry{
		RequestID: logging.RequestID(ctx), Method: r.Method, Source: logging.Source(ctx), Principal: p, Decision: d, Err: err,
		Began: began,
	})
	return p, d, err
}

// ended returns an error if the caller's token is not valid any more, or may not be.
//
// The expiry is checked again: API Gateway caches the authorizer's policy for up to the
// authorizer's TTL, so a request can arrive after its token has expired. The authorizer
// doesn't know revoked tokens at all. For an admitted administrator the list is read again.
func (s *Server) ended(ctx context.Context, p *authz.Principal, administers bool) error {
	switch {
	case !p.ExpiresAt.IsZero() && !s.Now().Before(p.ExpiresAt.Add(s.Leeway)):
		return fault.Public(fault.Unauthenticated, "Token has expired", nil)
	case s.Revoked != nil && administers:
		return s.RevokedNow(ctx, p)
	case s.Revoked != nil:
		return s.Revoked(ctx, p)
	}
	return nil
}

// Isolation says which rows a caller sees.
type Isolation struct {
	// On limits callers to their own sessions, runs and memories. Administrators see
	// all of them. Defaults to false: every caller sees every row, as in AgentOS's
	// default configuration.
	On bool
	// Owners returns the record that names the owners of data. Required.
	Owners func() (*owner.Record, error)
}

// viewer returns the rows that the request may read: all of them without isolation and
// for an administrator, else those of the principal. With isolation, a token without a
// subject is an error (fault.Forbidden), because its caller owns nothing. A token that is bound to a
// session shows no other one, except to an administrator: the administrator of AgentOS's documents has a token with a
// session and reads those of users.
func (i Isolation) viewer(r *request) (store.Viewer, error) {
	session := ""
	if r.principal != nil {
		session = r.principal.SessionID
	}
	switch {
	case r.decision.Admin:
		r.audit.AllOwners()
		return store.Viewer{All: true}, nil
	case !i.On:
		r.audit.AllOwners()
		return store.Viewer{All: true, Session: session}, nil
	case r.principal == nil || r.principal.Subject == "":
		return store.Viewer{}, noSubject(r.principal)
	}
	owner, err := i.ownerOf(r.principal)
	r.audit.Owner(owner)
	return store.Viewer{Owner: owner, Session: session}, err
}

// boundSession returns the session that the token is bound to, or "" if it is bound to none. One that can't be the id
// of a session is fault.Forbidden.
func boundSession(r *request) (string, error) {
	id := r.principal.SessionID
	if id != "" && !input.IsNewID(id) {
		return "", fault.Public(fault.Forbidden, "The session of the token is not valid. "+input.NewID, nil)
	}
	return id, nil
}

// maxOwner is the length limit of the owner columns, in bytes.
const maxOwner = 1024

// ownerOf returns the name that the principal's rows are stored under. A name that is too long for
// the column is fault.Forbidden. A principal without a subject is "".
func (i Isolation) ownerOf(p *authz.Principal) (string, error) {
	names, err := i.Owners()
	if err != nil {
		return "", err
	}
	name := names.Name(p.Realm, p.Issuer, p.Subject)
	if len(name) > maxOwner {
		return "", fault.Public(fault.Forbidden,
			fmt.Sprintf("The token's issuer and subject are longer than %d bytes together", maxOwner), nil)
	}
	return name, nil
}

// spender returns the name under which the caller's use is counted: that of the caller's own data, also
// for a request about another user's. It is "" for a caller without a subject.
func (i Isolation) spender(r *request) (string, error) {
	if r.principal == nil || r.principal.Subject == "" {
		return "", nil
	}
	return i.ownerOf(r.principal)
}

// viewerIn is viewer for a request that may also name a database.
func (i Isolation) viewerIn(r *request, db database) (store.Viewer, error) {
	v, err := i.viewer(r)
	if err == nil {
		err = db.check()
	}
	return v, err
}

// database holds the parameters by which AgentOS's clients choose a database and a
// table. Keyway has one database and accepts its id; the table has no effect.
type database struct {
	ID    string `query:"db_id" bound:"short_text" doc:"The id of the database. The only one is keyway."`
	Table string `query:"table" bound:"short_text" doc:"Accepted together with db_id, and without effect."`
}

// check accepts the one database. The errors and their texts are AgentOS's: an unknown
// database is fault.NotFound, a table without a database fault.Invalid.
func (d database) check() error {
	switch {
	case d.ID != "" && d.ID != DatabaseID:
		return fault.Public(fault.NotFound, fmt.Sprintf("No database found with id '%s'", d.ID), nil)
	case d.Table != "" && d.ID == "":
		return fault.Public(fault.Invalid, "The db_id query parameter is required when passing a table", nil)
	}
	return nil
}

// owner returns the owner of the rows that the request creates: the principal, even if
// it is an administrator. claimed is the user_id that the request names; it counts
// only without isolation and for a token without a subject, as in AgentOS.
func (i Isolation) owner(r *request, claimed string) (string, error) {
	switch {
	case r.principal != nil && r.principal.Subject != "":
		name, err := i.ownerOf(r.principal)
		r.audit.Owner(name)
		return name, err
	case i.On:
		return "", noSubject(r.principal)
	}
	r.audit.Owner(claimed)
	return claimed, nil
}

// noSubject denies a caller without a subject what belongs to an owner. The text is AgentOS's. The hint names the
// claim that the subject is read from.
func noSubject(p *authz.Principal) error {
	e := fault.Public(fault.Forbidden, "Authenticated request is missing a user identity", nil)
	if p != nil && p.SubjectClaim != "" {
		e.Extra = fault.Members{{Name: "hint", Value: fmt.Sprintf("The claim %q of the token is absent or empty. "+
			"Ask the issuer for a token that names its user there", p.SubjectClaim)}}
	}
	return e
}

// DefaultOrigins are the origins that AgentOS 3.1.10 allows by default for requests of
// web pages.
var DefaultOrigins = []string{
	"http://localhost:3000", "https://agno.com", "https://www.agno.com", "https://app.agno.com",
	"https://os.agno.com", "https://os-stg.agno.com",
}

// Challenges adds to each challenge of next at the door for MCP (WWW-Authenticate, RFC 6750 section 3) the address of
// the document that says where its clients get tokens (RFC 9728 section 5.1). A token of that document would open no
// other route. Without a document, it returns next unchanged.
func Challenges(metadata string, next http.Handler) http.Handler {
	if metadata == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route.Table.DoorAt(r.URL.Path) == route.MCP {
			w = challenging{w, metadata}
		}
		next.ServeHTTP(w, r)
	})
}

// challenging is a response whose challenge names the document.
type challenging struct {
	http.ResponseWriter
	metadata string
}

// WriteHeader implements http.ResponseWriter.
func (c challenging) WriteHeader(status int) {
	if challenge := c.Header().Get("WWW-Authenticate"); challenge != "" {
		c.Header().Set("WWW-Authenticate", challenge+`, resource_metadata="`+c.metadata+`"`)
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (c challenging) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// CORS allows web pages of the given origins to call next. It never allows credentials
// (cookies): callers send a bearer token in a header, which a browser never adds by
// itself, so a foreign page can't send a request in a user's name. The response to an
// origin that is not listed has no CORS headers. Without origins, CORS returns next
// unchanged.
func CORS(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{"GET", "POST", "PATCH", "DELETE"}, // those of the route table
		AllowedHeaders: []string{"*"},
		// A page can read no other response header than the CORS-safelisted ones (WHATWG
		// Fetch) and these.
		ExposedHeaders: []string{"X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate",
			"Idempotent-Replayed", "X-Run-Id", "X-Session-Id", "X-Should-Retry"},
		MaxAge: 600, // seconds that a browser may cache a preflight; Chromium's maximum is 7200
		// Starlette, which AgentOS runs on, answers a preflight with 200 and not with 204.
		OptionsSuccessStatus: http.StatusOK,
	}).Handler(next)
}
