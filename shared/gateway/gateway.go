// Package gateway replaces API Gateway on the local server. It calls the authorizer
// for each new token, caches the returned policy, enforces it, and forwards the
// requests that it allows. So every local request exercises the policy that API
// Gateway enforces on AWS. It makes no decision of its own: packages edge and authz do.
package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
)

// CacheTTL is how long the gateway keeps a policy. It is the default of the template's
// parameter AuthorizerTtl, so that a local test sees the same delays as AWS: a change of
// keys takes effect for a known token when its policy leaves the cache.
const CacheTTL = time.Minute

// api is the local server's part of a method ARN, up to the stage.
const api = "arn:aws:execute-api:local:000000000000:keyway/local"

// Gateway is the http.Handler in front of the API. It is safe for concurrent use.
type Gateway struct {
	authorizer *edge.Authorizer
	next       http.Handler
	now        func() time.Time

	cache *cache
}

// admission is one answer of the authorizer, as the cache holds it. API Gateway caches
// a policy under the identity source alone, and applies it to every route; so does the
// gateway. API Gateway's key is the Authorization header as it was written, and the gateway's
// is the token in it: one token must not have as many entries as there are spellings of the
// header.
type admission struct {
	principal *authz.Principal
	policy    events.APIGatewayCustomAuthorizerPolicy
	until     time.Time
}

// New makes a gateway in front of next. now is the clock of the cache.
func New(a *edge.Authorizer, next http.Handler, now func() time.Time) *Gateway {
	return &Gateway{authorizer: a, next: next, now: now, cache: newCache(MaxCached, MaxCachedBytes)}
}

// ServeHTTP forwards the request or answers 401, 403 or 503. A path that no route
// serves needs a valid token too: without one the answer is 401, with one it is the
// handler's 404.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, err := g.admit(r)
	if err != nil {
		logging.Note(r.Context(), "refused", fault.Reason(err))
		if g.authorizer.Table.DoorAt(r.URL.Path) == route.OpenAI {
			fault.WriteOpenAI(w, err)
			return
		}
		fault.Write(w, err)
		return
	}
	g.next.ServeHTTP(w, r.WithContext(ctx))
}

// admit authenticates the request and enforces its policy. The returned context holds
// the principal. Public routes and CORS preflights need no token: a browser sends none
// with a preflight.
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
	logging.Note(ctx, "principal", a.principal.Hash)
	ctx = authz.WithPrincipal(ctx, a.principal)
	if m.Route == nil || edge.Evaluate(a.policy, edge.MethodARN(api, r.Method, path)) {
		return ctx, nil
	}
	// The policy denies the request. The decision that it was made from gives the
	// reason, in AgentOS's words.
	d := g.authorizer.Policy.Decide(a.principal, r.Method, path)
	if err = d.Err(logging.RequestID(ctx)); err == nil {
		err = fmt.Errorf("the policy is narrower than the decision for %s: %w", m.Route, fault.Forbidden)
	}
	g.log(r, authz.Entry{Principal: a.principal, Decision: d, Err: err, Began: began})
	return nil, err
}

// log records a decision that the gateway made. The authorizer records rejected tokens,
// and the API behind the gateway records every request that it receives.
func (g *Gateway) log(r *http.Request, e authz.Entry) {
	e.RequestID, e.Method, e.Source = logging.RequestID(r.Context()), r.Method, logging.Source(r.Context())
	g.authorizer.Log.Write(r.Context(), e)
}

// authorize returns the cached answer for the request's token, or calls the authorizer.
// An answer is cached no longer than the token is valid. API Gateway doesn't know exp and
// keeps it for the whole TTL; there the API itself rejects the expired principal. Errors
// are not cached, so that a key server's recovery is seen with the next request.
func (g *Gateway) authorize(r *http.Request, m route.Match) (admission, error) {
	key, one := keyOf(r.Header.Values("Authorization"))
	now := g.now()
	if a, ok := g.cache.get(key, now); one && ok {
		return a, nil
	}
	answer, err := g.authorizer.Authorize(r.Context(), event(r, m))
	if err != nil {
		return admission{}, err
	}
	a := admission{policy: answer.PolicyDocument, until: now.Add(CacheTTL)}
	if a.principal, err = edge.Principal(answer.Context); err != nil {
		g.log(r, authz.Entry{Decision: g.authorizer.Policy.Decide(nil, r.Method, r.URL.Path), Err: err, Began: now})
		return admission{}, err
	}
	if exp := a.principal.ExpiresAt; !exp.IsZero() && exp.Before(a.until) {
		a.until = exp
	}
	if one {
		g.cache.put(key, a)
	}
	return a, nil
}

// event builds the REQUEST event of a REST API for the request. API Gateway's "headers"
// hold the last value of a repeated header, and "multiValueHeaders" all of them.
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
			Identity: events.APIGatewayCustomAuthorizerRequestTypeRequestIdentity{SourceIP: logging.Source(r.Context())},
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

// Loopback answers 403 to a request whose Host header is not a loopback name or
// address. It stops DNS rebinding: a web page can make its own host name resolve to
// 127.0.0.1, and its scripts would then reach the local server under that name, with
// the same-origin policy satisfied.
func Loopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLoopback(r.Host) {
			text := fmt.Sprintf("Host %q is not a loopback address; --dev answers requests to localhost only", r.Host)
			fault.Write(w, fault.Public(fault.Forbidden, text, nil))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// IsLoopback reports whether host, with or without a port, is "localhost" or a loopback
// address of IPv4 or IPv6. No name is resolved.
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
