// Package edge is the custom authorizer of API Gateway. It verifies the token of a
// REQUEST event. It returns an IAM policy that lists every route the token opens, and
// a context from which the function rebuilds the principal. It also evaluates such a
// policy, so that the local gateway enforces what AWS would enforce.
// Package authz decides every permission; edge only expresses the decision as a policy.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/token"
)

// Request is API Gateway's REQUEST event of a REST API.
type Request = events.APIGatewayCustomAuthorizerRequestTypeRequest

// Response is the policy and context that the authorizer answers with.
type Response = events.APIGatewayCustomAuthorizerResponse

// Authorizer answers REQUEST events. Use New to make one. Log and Hash may be set
// before the first event; all other fields are read only. It is safe for concurrent use.
type Authorizer struct {
	// Verifier verifies the token of each event.
	Verifier *token.Verifier
	// Policy decides which routes the token's scopes open.
	Policy *authz.Policy
	// Table holds the routes that a policy can name.
	Table *route.Routes
	// Agents are the ids of the declared agents.
	Agents []string
	// Digest identifies the configuration, in hexadecimal.
	Digest string
	// Log records each rejected token. It doesn't record what a policy allows or
	// denies: API Gateway evaluates the policy after the authorizer has answered,
	// and reuses it from its cache. Defaults to no log.
	Log *authz.Log

	// Hash makes the hash by which logs name the caller. Defaults to none.
	Hash loghash.Keys

	matching map[*route.Route]matching
	made     documents
}

// maxGrants is how many ids a policy names one by one. A token with more ids gets a
// * in place of the id on each route for which it has any grant. The policy is then
// wider than the token, and the function's own decision refuses the rest.
//
// The bound keeps the policy small, since API Gateway caches one policy per token. AWS
// documents no limit for the size of a REST API's policy; the only known one is Lambda's
// limit of 6 MB for an answer.
const maxGrants = 50

// maxResource is API Gateway's limit for one Resource of a returned policy, in
// characters.
const maxResource = 512

// Authorize verifies the event's token and returns a policy for the whole route
// table. The policy can't be limited to the event's own route: API Gateway caches it
// under the identity source, which is the Authorization header, and applies it to the
// next request of the same token, whatever its route. A policy that named one route
// only would deny that request.
//
// A rejected token is an error of the kind fault.Unauthenticated with AgentOS's
// text. If the keys can't be fetched, the error is fault.Unavailable; if the method ARN
// is malformed, it is fault.Internal. On AWS the texts don't reach the caller: API
// Gateway answers 401 or 503 with the bodies of the template's GatewayResponses.
//
// Tokens with the same scopes share the lists of the policy, so a caller must not change them.
func (a *Authorizer) Authorize(ctx context.Context, e Request) (Response, error) {
	c := e.RequestContext
	v, err := a.answer(ctx, authorization(e), e.MethodArn, authz.Entry{
		RequestID: c.RequestID, Method: e.HTTPMethod, Source: c.Identity.SourceIP,
	}, e.Path)
	if err != nil {
		return Response{}, err
	}
	return Response{
		PrincipalID: v.principal, PolicyDocument: v.policy.policy, Context: contextOf(v.context),
	}, nil
}

// Answer is Authorize for an event as it arrives and an answer as it is sent, both as JSON.
func (a *Authorizer) Answer(ctx context.Context, data []byte) ([]byte, error) {
	e, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("the event is not a request to an authorizer: %w", err)
	}
	v, err := a.answer(ctx, e.sent, e.methodARN, authz.Entry{
		RequestID: e.requestID, Method: e.method, Source: e.source,
	}, e.path)
	if err != nil {
		return nil, err
	}
	return v.json(), nil
}

// answer authorizes what was sent in the Authorization header. It logs a rejected token with entry and the path of
// the event.
func (a *Authorizer) answer(
	ctx context.Context, sent []string, methodARN string, entry authz.Entry, path string,
) (verdict, error) {
	entry.Began = time.Now()
	answer, err := a.authorize(ctx, sent, methodARN)
	if err != nil && a.Log != nil {
		cause, _ := errors.AsType[token.Cause](err)
		entry.Source, entry.Token, entry.Err, entry.Cause = logging.Address(entry.Source), token.Hash(sent), err,
			string(cause)
		entry.Decision = a.Policy.Decide(nil, entry.Method, path)
		a.Log.Write(ctx, entry)
	}
	return answer, err
}

// verdict is the answer to a good token.
type verdict struct {
	principal string
	policy    *document
	context   []member
}

// authorize is Authorize without its log. It verifies the token before it looks at
// the method ARN, so that a caller without a valid token always gets a 401.
func (a *Authorizer) authorize(ctx context.Context, sent []string, methodARN string) (verdict, error) {
	claims, err := a.Verifier.Verify(ctx, sent)
	if err != nil {
		return verdict{}, err
	}
	arn, err := stageARN(methodARN)
	if err != nil {
		return verdict{}, err
	}
	p := &authz.Principal{
		Subject: claims.Subject, SessionID: claims.SessionID, Issuer: claims.Issuer,
		Realm: claims.Realm, TokenID: claims.ID, TokenHash: token.Hash(sent),
		Scopes: claims.Scopes, Origins: claims.Origins, ScopesClaim: claims.ScopesClaim, SubjectClaim: claims.SubjectClaim,
		Absent: claims.Absent, Unread: claims.Unread, Limits: claims.Limits, Audience: audience(claims.For),
		IssuedAt: claims.IssuedAt, ExpiresAt: claims.ExpiresAt,
	}
	p.Hash = a.Hash.Subject(p.Issuer, p.Subject)
	return verdict{
		// API Gateway requires a text. Without a key it is the same one for all callers.
		principal: cmp.Or(p.Hash, "caller"),
		policy:    a.documentFor(p, arn),
		context:   membersOf(p, a.Digest),
	}, nil
}

// audience returns what a token is meant for.
func audience(f token.For) authz.Audience {
	switch f {
	case token.ForBoth:
		return authz.ForBoth
	case token.ForMCP:
		return authz.ForMCP
	}
	return authz.ForAPI
}

// authorization returns every value of the Authorization header, so that the
// verifier can reject a request that sends two. The case of header names is ignored:
// API Gateway keeps the client's spelling, and HTTP/2 clients send lower case.
//
// multiValueHeaders is read first, because headers holds only the last value of a
// repeated header.
func authorization(e Request) (values []string) {
	for name, vs := range e.MultiValueHeaders {
		if strings.EqualFold(name, "Authorization") {
			values = append(values, vs...)
		}
	}
	if len(values) > 0 {
		return values
	}
	for name, v := range e.Headers {
		if strings.EqualFold(name, "Authorization") {
			values = append(values, v)
		}
	}
	return values
}

// holder is what a token grants, and what it is meant for.
type holder struct {
	scope.Set
	audience authz.Audience
}

// might reports whether the token opens some request to the route, on the resource with this id.
func (a *Authorizer) might(granted holder, r *route.Route, id string) bool {
	return granted.audience.Opens(r) && a.Policy.MightAllow(granted.Set, r, id)
}

// policy allows the routes that the scopes open, for the API and stage of arn.
//
// IAM's precedence is what makes the policy safe: a request that no statement allows
// is denied, and an explicit Deny wins over every Allow. So a route without a grant is
// simply not listed. A * in an Allow matches slashes too, so the Allow may match paths
// that the scopes don't open. overreaching lists those paths, and a Deny excludes them.
// Some routes are open to every valid token, so that no policy is without a statement: sam local
// answers such a policy with 502.
func (a *Authorizer) policy(granted holder, arn string) events.APIGatewayCustomAuthorizerPolicy {
	ids, agents := slices.DeleteFunc(granted.Named(), unnameable), a.Agents
	if len(ids) > maxGrants {
		granted.Set, ids, agents = granted.Widened(), nil, nil
	}
	policy := events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17"}
	add := func(effect string, resources []string) {
		if len(resources) > 0 {
			policy.Statement = append(policy.Statement, events.IAMPolicyStatement{
				Action: []string{"execute-api:Invoke"}, Effect: effect, Resource: resources,
			})
		}
	}
	add("Allow", a.allowed(granted, ids, arn))
	add("Deny", a.overreaching(granted, agents, arn))
	return policy
}

// allowed returns one Resource per route with a * for the id when the scopes cover
// every id, and otherwise one Resource per covered id. An id that the token doesn't
// name is covered exactly when every id is, so only the token's own ids are tried.
// Public routes have no authorizer in the template and need no Resource.
func (a *Authorizer) allowed(granted holder, ids []string, arn string) (out []string) {
	for r := range a.Table.All() {
		_, param := r.Resource()
		switch {
		case r.Public:
		case a.might(granted, r, ""):
			out = append(out, arn+r.Method+r.Glob(""))
		case param != "":
			for _, id := range ids {
				if a.might(granted, r, id) {
					out = append(out, arn+r.Method+r.Glob(id))
				}
			}
		}
	}
	return out
}

// overreaching returns the Resources to deny: paths of declared agents that an Allow
// matches although the scopes don't cover them. IAM's * spans slashes, so an Allow of
// GET/agents/* also matches GET/agents/x/runs, and an Allow of GET/agents/*/runs also
// matches GET/agents/x/runs/runs, which is a run with the id "runs".
//
// If one route needs more than maxGrants denials, all of them are left out, to keep the
// policy small. The policy is then wider than the scopes for that route, and the
// function's own decision refuses the request.
func (a *Authorizer) overreaching(granted holder, agents []string, arn string) (out []string) {
	for r := range a.Table.All() {
		var over []string
		all := slices.ContainsFunc(a.matching[r].withStar, func(q *route.Route) bool {
			return a.might(granted, q, "")
		})
		if !all && len(a.matching[r].withID) == 0 {
			continue
		}
		for _, id := range agents {
			one := func(q *route.Route) bool { return a.might(granted, q, id) }
			matched := all || slices.ContainsFunc(a.matching[r].withID, one)
			if matched && !a.might(granted, r, id) {
				over = append(over, arn+r.Method+r.Glob(id))
			}
		}
		if len(over) <= maxGrants {
			out = append(out, over...)
		}
	}
	return out
}

// matching holds, for one route, the routes with Resources that match some path of
// it. It depends on the route table only, so New computes it once.
type matching struct {
	// withStar are the routes whose Resource matches if it has * for the id, or no id. The
	// route itself is one of them.
	withStar []*route.Route
	// withID are the other routes whose Resource matches if it has the same id.
	withID []*route.Route
}

// matchingRoutes computes the matching routes of every route that names an id.
func matchingRoutes(table *route.Routes) map[*route.Route]matching {
	const anID = "x" // any id gives the same result: an id that a policy can name holds no slash
	out := map[*route.Route]matching{}
	for r := range table.All() {
		_, param := r.Resource()
		if param == "" {
			continue
		}
		var m matching
		for q := range table.All() {
			if q.Public || q.Method != r.Method {
				continue
			}
			if r.OverlapsWith(param, anID, q.Glob("")) {
				m.withStar = append(m.withStar, q)
			}
			if _, own := q.Resource(); q != r && own != "" && r.OverlapsWith(param, anID, q.Glob(anID)) {
				m.withID = append(m.withID, q)
			}
		}
		out[r] = m
	}
	return out
}

// unnameable reports whether a Resource must not contain the id. IAM reads * and ? as
// wildcards and ${…} as a policy variable, so an id with such characters would widen
// the policy. API Gateway's encoding of other characters in a method ARN is not
// documented, so only letters, digits and ". _ -" are accepted. An id of half the
// limit or more could make the Resource longer than API Gateway accepts.
// A grant for such an id opens nothing on AWS.
func unnameable(id string) bool {
	return !scope.HasOnlyPlainBytes(id) || len(id) >= maxResource/2
}

// stageARN returns the method ARN up to and including the slash after the stage. A
// method ARN has the form
// arn:aws:execute-api:{region}:{account}:{api}/{stage}/{VERB}/{path}.
// The policy repeats API and stage of the event, so that it never opens another API
// that uses the same authorizer.
func stageARN(methodARN string) (string, error) {
	parts := strings.SplitN(methodARN, "/", 3)
	if len(parts) < 3 || !strings.HasPrefix(methodARN, "arn:") {
		return "", fmt.Errorf("method arn %q: %w", methodARN, fault.Internal)
	}
	return parts[0] + "/" + parts[1] + "/", nil
}
