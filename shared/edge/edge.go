// Package edge is the custom authorizer: it turns an API Gateway REQUEST event
// into a policy for every route the token may use, and a context from which the
// function behind rebuilds the caller. It also reads such a policy, so that the
// local gateway enforces exactly what AWS would.
// It knows no data and decides nothing by itself: authz does.
package edge

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/token"
)

// Authorizer answers REQUEST events. All fields are required.
type Authorizer struct {
	Verifier *token.Verifier
	Policy   *authz.Policy
	Table    *route.Routes
	Agents   []string // ids of the declared agents
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
	var none events.APIGatewayCustomAuthorizerResponse
	claims, err := a.Verifier.Verify(ctx, authorization(e))
	if err != nil {
		return none, err
	}
	arn, err := apiARN(e.MethodArn)
	if err != nil {
		return none, err
	}
	p := &authz.Principal{
		Subject: claims.Subject, SessionID: claims.SessionID, Issuer: claims.Issuer,
		TokenID: claims.ID, Scopes: claims.Scopes, ExpiresAt: claims.ExpiresAt,
	}
	return events.APIGatewayCustomAuthorizerResponse{
		PrincipalID:    SubjectHash(p),
		PolicyDocument: a.policy(p, arn),
		Context:        contextOf(p),
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

// policy lists the routes that p may use. What nobody granted is not listed,
// which is a denial; a token that may do nothing gets that in so many words.
func (a *Authorizer) policy(p *authz.Principal, arn string) events.APIGatewayCustomAuthorizerPolicy {
	ids, agents := namedIDs(p), a.Agents
	if len(ids) > maxGrants {
		p, ids, agents = anyID(p), nil, nil
	}
	policy := events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17"}
	add := func(effect string, resources []string) {
		if len(resources) > 0 {
			policy.Statement = append(policy.Statement, events.IAMPolicyStatement{
				Action: []string{"execute-api:Invoke"}, Effect: effect, Resource: resources,
			})
		}
	}
	granted := a.Policy.Granted(p)
	add("Allow", a.allowed(granted, ids, arn))
	if len(policy.Statement) == 0 {
		add("Deny", []string{arn + "*"})
		return policy
	}
	add("Deny", a.overreach(granted, agents, policy, arn))
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
			out = append(out, resource(arn, r, ""))
		case param != "":
			for _, id := range ids {
				if a.Policy.MightAllow(granted, r, id) {
					out = append(out, resource(arn, r, id))
				}
			}
		}
	}
	return out
}

// overreach names the paths of declared agents that allow reaches and the scopes
// don't: a * spans slashes, so GET/agents/* opens the runs of every agent too.
func (a *Authorizer) overreach(granted scope.Set, agents []string, allow events.APIGatewayCustomAuthorizerPolicy, arn string) (out []string) {
	for r := range a.Table.All() {
		var over []string
		if _, param := r.Resource(); param != "" {
			for _, id := range agents {
				if path := resource(arn, r, id); Evaluate(allow, path) && !a.Policy.MightAllow(granted, r, id) {
					over = append(over, path)
				}
			}
		}
		if len(over) <= maxGrants {
			out = append(out, over...)
		}
	}
	return out
}

// resource names the paths of r for one id of its family, or with "" for all.
func resource(arn string, r *route.Route, id string) string {
	_, param := r.Resource()
	return arn + r.Method + r.Path(func(name string) string {
		if name == param && id != "" {
			return id
		}
		return "*"
	})
}

// plainID is what an id must look like to stand in a Resource: nothing that a
// policy would read as a wildcard or a variable.
var plainID = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// namedIDs are the ids in the token's scopes that a Resource may hold.
func namedIDs(p *authz.Principal) (ids []string) {
	for _, text := range p.Scopes {
		if n, ok := scope.Parse(text); ok && plainID.MatchString(n.ID) && len(n.ID) < maxResource/2 {
			ids = append(ids, n.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// anyID is p with * for every id in its scopes: what it may do to one, it may do
// to all.
func anyID(p *authz.Principal) *authz.Principal {
	wide := *p
	wide.Scopes = nil
	for _, text := range p.Scopes {
		if n, ok := scope.Parse(text); ok && n.ID != "" {
			n.ID = "*"
			text = n.String()
		}
		wide.Scopes = append(wide.Scopes, text)
	}
	slices.Sort(wide.Scopes)
	wide.Scopes = slices.Compact(wide.Scopes)
	return &wide
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
