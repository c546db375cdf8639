// Package gateway stands in for API Gateway on a laptop: it asks the authorizer
// about each token, keeps its policy for a while, enforces that policy, and
// forwards what it allows. Every local request so exercises the policy that AWS
// would enforce.
// It knows no handler, and decides nothing that edge or authz doesn't.
package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
)

// CacheTTL is how long a policy is kept, as in the template's authorizer.
const CacheTTL = time.Minute

// maxCached bounds the cache; past it everything is forgotten at once.
const maxCached = 10_000

// api names this gateway in method ARNs.
const api = "arn:aws:execute-api:local:000000000000:keyway/local"

// Gateway admits requests to Next.
type Gateway struct {
	authorizer *edge.Authorizer
	next       http.Handler
	now        func() time.Time

	mu    sync.Mutex
	cache map[[sha256.Size]byte]admission
}

// admission is one cached answer of the authorizer.
type admission struct {
	principal *authz.Principal
	policy    events.APIGatewayCustomAuthorizerPolicy
	until     time.Time
}

// New makes a gateway in front of next.
func New(a *edge.Authorizer, next http.Handler, now func() time.Time) *Gateway {
	return &Gateway{authorizer: a, next: next, now: now, cache: map[[sha256.Size]byte]admission{}}
}

// ServeHTTP admits or refuses. A path that isn't served asks for a token too,
// before it is said to be unknown.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, err := g.admit(r)
	if err != nil {
		logging.Note(r.Context(), "refused", err.Error())
		fault.Write(w, err)
		return
	}
	g.next.ServeHTTP(w, r.WithContext(ctx))
}

func (g *Gateway) admit(r *http.Request) (context.Context, error) {
	ctx, path, began := r.Context(), route.Clean(r.URL.Path), time.Now()
	m := g.authorizer.Table.Match(r.Method, r.URL.Path)
	if m.Public || r.Method == http.MethodOptions {
		return ctx, nil
	}
	a, err := g.authorize(r, m)
	if err != nil {
		return nil, err
	}
	logging.Note(ctx, "principal", a.principal.SubjectHash())
	ctx = authz.WithPrincipal(ctx, a.principal)
	if m.Route == nil || edge.Evaluate(a.policy, edge.MethodARN(api, r.Method, path)) {
		return ctx, nil
	}
	// The policy says no; the decision behind it says why, in AgentOS's words.
	d := g.authorizer.Policy.Decide(a.principal, r.Method, path)
	if err = d.Err(logging.RequestID(ctx)); err == nil {
		err = fmt.Errorf("the policy is narrower than the decision for %s: %w", m.Route, fault.Forbidden)
	}
	g.log(r, authz.Entry{Principal: a.principal, Decision: d, Err: err, Began: began})
	return nil, err
}

// log writes a refusal of the gateway's own. Refused tokens the authorizer logs,
// what goes on whoever stands behind.
func (g *Gateway) log(r *http.Request, e authz.Entry) {
	e.RequestID, e.Method = logging.RequestID(r.Context()), r.Method
	g.authorizer.Log.Write(r.Context(), e)
}

// authorize asks the authorizer, or remembers what it said of the same token.
func (g *Gateway) authorize(r *http.Request, m route.Match) (admission, error) {
	key := sha256.Sum256([]byte(strings.Join(r.Header.Values("Authorization"), "\x00")))
	now := g.now()
	g.mu.Lock()
	a, ok := g.cache[key]
	g.mu.Unlock()
	if ok && now.Before(a.until) {
		return a, nil
	}
	answer, err := g.authorizer.Authorize(r.Context(), event(r, m))
	if err != nil {
		return admission{}, err
	}
	a = admission{policy: answer.PolicyDocument, until: now.Add(CacheTTL)}
	if a.principal, err = edge.Principal(answer.Context); err != nil {
		g.log(r, authz.Entry{Decision: g.authorizer.Policy.Decide(nil, r.Method, r.URL.Path), Err: err, Began: now})
		return admission{}, err
	}
	if exp := a.principal.ExpiresAt; !exp.IsZero() && exp.Before(a.until) {
		a.until = exp
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.cache) >= maxCached {
		clear(g.cache)
	}
	g.cache[key] = a
	return a, nil
}

// event is the request as a REST API hands it to a REQUEST authorizer.
func event(r *http.Request, m route.Match) events.APIGatewayCustomAuthorizerRequestTypeRequest {
	e := events.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type:              "REQUEST",
		MethodArn:         edge.MethodARN(api, r.Method, route.Clean(r.URL.Path)),
		Path:              r.URL.Path,
		HTTPMethod:        r.Method,
		Headers:           map[string]string{},
		MultiValueHeaders: r.Header,
		PathParameters:    m.Params,
		RequestContext: events.APIGatewayCustomAuthorizerRequestTypeRequestContext{
			RequestID: logging.RequestID(r.Context()), HTTPMethod: r.Method, Path: r.URL.Path, Stage: "local",
		},
	}
	if m.Route != nil {
		e.Resource, e.RequestContext.ResourcePath = m.Route.Pattern, m.Route.Pattern
	}
	for name, values := range r.Header {
		e.Headers[name] = values[len(values)-1]
	}
	return e
}

// Loopback refuses requests that were not addressed to this machine by a
// loopback name: a page on the web can make its own name point here (DNS
// rebinding).
func Loopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLoopback(r.Host) {
			fault.Write(w, fault.Public(fault.Forbidden, fmt.Sprintf("Host %q is not this machine; --dev answers to localhost only", r.Host), nil))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// IsLoopback reports whether host, with or without a port, names this machine.
func IsLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
