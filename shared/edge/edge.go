// Package edge is the custom authorizer: it turns an API Gateway REQUEST event
// into a policy for every route the token may use, and a context from which the
// function behind rebuilds the caller. It also reads such a policy, so that the
// local gateway enforces exactly what AWS would.
// It knows no data and decides nothing by itself: authz does.
package edge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/token"
)

// Authorizer answers REQUEST events. New makes it; Log may be set after.
type Authorizer struct {
	Verifier *token.Verifier
	Policy   *authz.Policy
	Table    *route.Routes
	Agents   []string   // ids of the declared agents
	Digest   string     // of the configuration, in hex
	Log      *authz.Log // where refused tokens are logged; what a policy refuses or admits is not known here

	reached map[*route.Route]reached
}

// maxGrants bounds the ids that a policy names one by one; past it a route with
// any grant is let through for every id, and the function's own decision sorts
// them out.
const maxGrants = 50

// maxResource is API Gateway's limit for one Resource of a returned policy.
const maxResource = 512

// Authorize verifies the event's token and returns its policy, which covers the
// whole table: API Gateway caches it and applies it to the next request too.
// The error is the caller's 401 (fault.Unauthenticated) with AgentOS's text, or
// fault.Unavailable while keys can't be fetched; on AWS only its kind survives.
func (a *Authorizer) Authorize(ctx context.Context, e events.APIGatewayCustomAuthorizerRequestTypeRequest) (events.APIGatewayCustomAuthorizerResponse, error) {
	began := time.Now()
	sent := authorization(e)
	answer, err := a.authorize(ctx, sent, e.MethodArn)
	if err != nil && a.Log != nil {
		a.Log.Write(ctx, authz.Entry{
			RequestID: e.RequestContext.RequestID, Method: e.HTTPMethod, Token: token.Hash(sent),
			Decision: a.Policy.Decide(nil, e.HTTPMethod, e.Path), Err: err, Began: began,
		})
	}
	return answer, err
}

func (a *Authorizer) authorize(ctx context.Context, sent []string, methodARN string) (events.APIGatewayCustomAuthorizerResponse, error) {
	var none events.APIGatewayCustomAuthorizerResponse
	claims, err := a.Verifier.Verify(ctx, sent)
	if err != nil {
		return none, err
	}
	arn, err := apiARN(methodARN)
	if err != nil {
		return none, err
	}
	p := &authz.Principal{
		Subject: claims.Subject, SessionID: claims.SessionID, Issuer: claims.Issuer,
		TokenID: claims.ID, TokenHash: token.Hash(sent), Scopes: claims.Scopes, ExpiresAt: claims.ExpiresAt,
	}
	return events.APIGatewayCustomAuthorizerResponse{
		PrincipalID:    p.SubjectHash(),
		PolicyDocument: a.policy(a.Policy.Granted(p), arn),
		Context:        contextOf(p, a.Digest),
	}, nil
}

// authorization collects every value of the one header that may carry a token.
// API Gateway keeps the client's spelling of header names.
func authorization(e events.APIGatewayCustomAuthorizerRequestTypeRequest) (values []string) {
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

// policy lists the routes that the scopes may use. What nobody granted is not
// listed, which is a denial; a token that may do nothing gets that in so many words.
func (a *Authorizer) policy(granted scope.Set, arn string) events.APIGatewayCustomAuthorizerPolicy {
	ids, agents := slices.DeleteFunc(granted.Named(), unnameable), a.Agents
	if len(ids) > maxGrants {
		granted, ids, agents = granted.Widened(), nil, nil
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
	if len(policy.Statement) == 0 {
		add("Deny", []string{arn + "*"})
		return policy
	}
	add("Deny", a.overreach(granted, agents, arn))
	return policy
}

// allowed names the paths of each route: every id's when the token covers the
// whole family, else those of the ids that it covers. Of ids that the token
// doesn't name, MightAllow says the same as of the whole family.
func (a *Authorizer) allowed(granted scope.Set, ids []string, arn string) (out []string) {
	for r := range a.Table.All() {
		_, param := r.Resource()
		switch {
		case r.Public:
		case a.Policy.MightAllow(granted, r, ""):
			out = append(out, arn+r.Method+r.Glob(""))
		case param != "":
			for _, id := range ids {
				if a.Policy.MightAllow(granted, r, id) {
					out = append(out, arn+r.Method+r.Glob(id))
				}
			}
		}
	}
	return out
}

// overreach names the paths of declared agents that allowed reaches and the scopes
// don't: a * spans slashes, so GET/agents/* opens the runs of every agent too, and
// GET/agents/*/runs a run called "runs".
func (a *Authorizer) overreach(granted scope.Set, agents []string, arn string) (out []string) {
	for r := range a.Table.All() {
		var over []string
		all := slices.ContainsFunc(a.reached[r].byAll, func(q *route.Route) bool { return a.Policy.MightAllow(granted, q, "") })
		if !all && len(a.reached[r].byOne) == 0 {
			continue
		}
		for _, id := range agents {
			one := func(q *route.Route) bool { return a.Policy.MightAllow(granted, q, id) }
			if (all || slices.ContainsFunc(a.reached[r].byOne, one)) && !a.Policy.MightAllow(granted, r, id) {
				over = append(over, arn+r.Method+r.Glob(id))
			}
		}
		if len(over) <= maxGrants {
			out = append(out, over...)
		}
	}
	return out
}

// reached is whose Resources match paths of a route, for one id of its family.
type reached struct {
	byAll []*route.Route // with a * for the id, or without one; the route itself too
	byOne []*route.Route // with that id
}

// reaching finds once what the stars of the table's Resources span.
func reaching(table *route.Routes) map[*route.Route]reached {
	const anID = "x" // which one makes no difference, since none has a slash
	out := map[*route.Route]reached{}
	for r := range table.All() {
		_, param := r.Resource()
		if param == "" {
			continue
		}
		var by reached
		for q := range table.All() {
			if q.Public || q.Method != r.Method {
				continue
			}
			if r.OverlapsWith(param, anID, q.Glob("")) {
				by.byAll = append(by.byAll, q)
			}
			if _, own := q.Resource(); q != r && own != "" && r.OverlapsWith(param, anID, q.Glob(anID)) {
				by.byOne = append(by.byOne, q)
			}
		}
		out[r] = by
	}
	return out
}

// unnameable reports whether an id may not stand in a Resource: a policy would
// read a part of it as a wildcard or a variable, or it is too long.
func unnameable(id string) bool {
	for _, c := range []byte(id) {
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return true
		}
	}
	return len(id) >= maxResource/2
}

// apiARN cuts a method ARN after the stage:
// arn:aws:execute-api:{region}:{account}:{api}/{stage}/{VERB}/{path}.
func apiARN(methodARN string) (string, error) {
	parts := strings.SplitN(methodARN, "/", 3)
	if len(parts) < 3 || !strings.HasPrefix(methodARN, "arn:") {
		return "", fmt.Errorf("method arn %q: %w", methodARN, fault.Internal)
	}
	return parts[0] + "/" + parts[1] + "/", nil
}
