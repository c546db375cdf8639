// Package api answers the routes of the table: one file per resource, from store
// and run loop to the wire. Every request is decided here again, whoever decided
// before.
// It knows no token, no vendor and no SQL.
package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
)

// DatabaseID is AgentOS's db_id of the one store that there is.
const DatabaseID = "keyway"

// request is an admitted request: who sends it, and what was decided.
type request struct {
	*http.Request
	principal *authz.Principal
	decision  authz.Decision
}

// param is a parameter of the path.
func (r *request) param(name string) string { return r.decision.Params[name] }

// Resource is a family of routes with what answers them.
type Resource interface {
	endpoints() []Endpoint
}

// Options of a Server; all but Decisions are required.
type Options struct {
	Table     *route.Routes
	Policy    *authz.Policy
	Leeway    time.Duration // of token expiry
	Log       *slog.Logger
	Decisions *authz.Log // one line each
	Now       func() time.Time
}

// Server answers the routes of its resources.
type Server struct {
	Options
	endpoints map[route.Name]Endpoint
}

// New makes a Server of the given resources. A function that serves a part of
// the table passes that part.
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

// ServeHTTP decides and answers. The caller is in the request's context
// (authz.WithPrincipal); without one only public routes answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.serve(w, r); err != nil {
		if fault.KindOf(err) == fault.Internal {
			s.Log.ErrorContext(r.Context(), "request failed", "request_id", logging.RequestID(r.Context()), "err", err)
		} else {
			logging.Note(r.Context(), "err", err.Error())
		}
		fault.Write(w, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	p, d, err := s.decide(r)
	if err != nil {
		return err
	}
	logging.Note(r.Context(), "route", d.Route.String())
	return s.endpoints[d.Route.Name].serve(w, &request{Request: r.WithContext(authz.WithDecision(r.Context(), p, d)), principal: p, decision: d})
}

// decide admits or refuses, and logs which, before anything is done.
func (s *Server) decide(r *http.Request) (*authz.Principal, authz.Decision, error) {
	ctx, began := r.Context(), time.Now()
	p, _ := authz.From(ctx)
	d := s.Policy.Decide(p, r.Method, r.URL.Path)
	err := d.Err(logging.RequestID(ctx))
	switch {
	case !d.Open && p != nil && !p.ExpiresAt.IsZero() && !s.Now().Before(p.ExpiresAt.Add(s.Leeway)):
		d = s.Policy.Decide(nil, r.Method, r.URL.Path) // it counts no longer
		err = fault.Public(fault.Unauthenticated, "Token has expired", nil)
	case err == nil && !s.Serves(d.Route.Name):
		err = fmt.Errorf("no endpoint for %s: %w", d.Route, fault.NotFound)
	}
	s.Decisions.Write(ctx, authz.Entry{RequestID: logging.RequestID(ctx), Method: r.Method, Principal: p, Decision: d, Err: err, Began: began})
	return p, d, err
}

// Isolation is whether callers see only what is their own.
type Isolation struct {
	On bool
	// ByIssuer: several issuers are believed, and each names its users as it likes.
	// The same subject of two of them is two owners.
	ByIssuer bool
}

// viewer is on whose behalf the request reads. Under isolation an administrator
// sees everything and a caller whom the token doesn't name nothing.
func (i Isolation) viewer(r *request) (store.Viewer, error) {
	switch {
	case !i.On || r.decision.Admin:
		return store.Viewer{All: true}, nil
	case r.principal == nil || r.principal.Subject == "":
		return store.Viewer{}, errNobody
	}
	owner, err := i.name(r.principal)
	return store.Viewer{Owner: owner}, err
}

// maxOwner is what an owner's column holds.
const maxOwner = 1024

// issuerText keeps issuer and subject apart, whatever is in them.
var issuerText = strings.NewReplacer("%", "%25", "#", "%23")

// name is what the caller's data are filed under: the subject, after its issuer
// when there are several.
func (i Isolation) name(p *authz.Principal) (string, error) {
	if !i.ByIssuer || p.Subject == "" {
		return p.Subject, nil
	}
	owner := issuerText.Replace(p.Issuer) + "#" + p.Subject
	if len(owner) > maxOwner {
		return "", fault.Public(fault.Forbidden, fmt.Sprintf("The token's issuer and subject are longer than %d bytes together", maxOwner), nil)
	}
	return owner, nil
}

// viewerIn is viewer where the request may name a database.
func (i Isolation) viewerIn(r *request, db database) (store.Viewer, error) {
	v, err := i.viewer(r)
	if err == nil {
		err = db.check()
	}
	return v, err
}

// database is AgentOS's choice of a database. There is one, and a table is named
// together with it.
type database struct {
	ID    string `query:"db_id" maxbytes:"1024" doc:"The database; there is one."`
	Table string `query:"table" maxbytes:"1024" doc:"Taken together with db_id and left alone."`
}

func (d database) check() error {
	switch {
	case d.ID != "" && d.ID != DatabaseID:
		return fault.Public(fault.NotFound, fmt.Sprintf("No database found with id '%s'", d.ID), nil)
	case d.Table != "" && d.ID == "":
		return fault.Public(fault.Invalid, "The db_id query parameter is required when passing a table", nil)
	}
	return nil
}

// owner is to whom the request writes: the token's subject, an administrator's
// too. Only without isolation may a nameless token speak for the user it names.
func (i Isolation) owner(r *request, claimed string) (string, error) {
	switch {
	case r.principal != nil && r.principal.Subject != "":
		return i.name(r.principal)
	case i.On:
		return "", errNobody
	}
	return claimed, nil
}

var errNobody = fault.Public(fault.Forbidden, "Authenticated request is missing a user identity", nil)

// DefaultOrigins are the web pages that AgentOS 3.1.10 admits by default.
var DefaultOrigins = []string{
	"http://localhost:3000", "https://agno.com", "https://www.agno.com", "https://app.agno.com",
	"https://os.agno.com", "https://os-stg.agno.com",
}

// CORS lets pages of these origins call next. It allows no credentials and never
// echoes an origin that isn't listed.
func CORS(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins:       origins,
		AllowedMethods:       []string{"GET", "POST", "PATCH", "DELETE"},
		AllowedHeaders:       []string{"*"},
		ExposedHeaders:       []string{"X-Request-Id", "Retry-After", "WWW-Authenticate", "Idempotent-Replayed"},
		MaxAge:               600,
		OptionsSuccessStatus: http.StatusOK,
	}).Handler(next)
}
