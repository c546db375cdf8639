package policycheck

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// Result is the outcome of one promise.
type Result struct {
	Test
	// OK is whether the configuration keeps the promise.
	OK bool
	// Expected and Got are the two outcomes in the words of a row: "403 without agents:x:run".
	Expected, Got string
	// Reasons explain the decision, one step each.
	Reasons []string
	// Note is a remark about a promise that is kept. Usually empty.
	Note string
}

// api is the ARN of an imaginary deployed API. The policy of the authorizer needs one, and only its form
// matters.
const api = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod"

// Check checks every promise against cfg, and returns the results in the order of the rows. It needs none of
// cfg's keys: it replaces them with one made for this call, and keeps all other rules for tokens, such as
// issuers and audiences. now is the current time. If the table names agents or claims that cfg does not
// have, the error is config.Faults.
func (t *Table) Check(cfg *config.Config, now func() time.Time) ([]Result, error) {
	var agents []string
	for _, a := range cfg.Agents {
		agents = append(agents, a.ID)
	}
	if faults := append(t.undeclared(agents), t.unread(cfg.Auth)...); len(faults) > 0 {
		return nil, t.doc.Place(faults)
	}
	c, err := newChecker(cfg, now)
	if err != nil {
		return nil, err
	}
	admissions := map[string]admission{}
	for name, who := range t.callers {
		if admissions[name], err = c.admit(name, who); err != nil {
			return nil, err
		}
	}
	var out []Result
	for _, test := range t.Tests {
		out = append(out, c.check(test, admissions[test.Caller]))
	}
	return out, nil
}

// checker is a configuration for which tokens can be signed.
type checker struct {
	auth       config.Auth // the original one
	authorizer *edge.Authorizer
	secret     []byte // signs all tokens
	now        func() time.Time
	written    func(string) string // see config.Config.AsWritten
}

// newChecker replaces each key of cfg by the same secret, and keeps the rules for the tokens of the key. Checks
// therefore need neither the network nor any secret of the deployment. A configuration without keys, as with --dev,
// gets one key without restrictions.
func newChecker(cfg *config.Config, now func() time.Time) (*checker, error) {
	c := &checker{auth: cfg.Auth, secret: []byte(rand.Text() + rand.Text()), now: now, written: cfg.AsWritten}
	other := *cfg
	other.Auth.Algorithms, other.Auth.Keys = []string{"HS256"}, nil
	for _, k := range cfg.Auth.Keys {
		if k.Literal = config.Secret(c.secret); cfg.Auth.Issuer == "" { // otherwise that one is the issuer of discovery
			k.Issuer = k.Issuers()
		}
		k.JWKSFile, k.JWKSURL, k.Discovery, k.Secret = "", "", "", ""
		other.Auth.Keys = append(other.Auth.Keys, k)
	}
	if len(other.Auth.Keys) == 0 {
		other.Auth.Keys = []config.Key{{Literal: config.Secret(c.secret)}}
	}
	var err error
	c.authorizer, err = edge.New(&other, edge.Outside{Now: now})
	return c, err
}

// admission is the authorizer's answer to a caller's token: the error, or the principal and the policy.
type admission struct {
	refusal   error
	principal *authz.Principal
	policy    events.APIGatewayCustomAuthorizerPolicy
}

// admit asks the authorizer about a token of the caller, in the form of an event from API Gateway. Each caller
// needs this once, because the policy covers all requests of a token. An error means that no token could
// be made; a rejected token is an admission.
func (c *checker) admit(name string, who caller) (admission, error) {
	e := events.APIGatewayCustomAuthorizerRequestTypeRequest{Type: "REQUEST", MethodArn: api + "/GET/"}
	if !who.none {
		text, err := c.token(name, who)
		if err != nil {
			return admission{}, err
		}
		e.Headers = map[string]string{"Authorization": "Bearer " + text}
	}
	answer, err := c.authorizer.Authorize(context.Background(), e)
	if err != nil {
		return admission{refusal: err}, nil
	}
	p, err := edge.Principal(answer.Context)
	return admission{principal: p, policy: answer.PolicyDocument}, err
}

// firstKey returns the key whose issuer, audience and claims are the defaults of a caller.
func firstKey(auth config.Auth) config.Key {
	if len(auth.Keys) > 0 {
		return auth.Keys[0]
	}
	return config.Key{}
}

// token returns a signed token with the caller's claims. It fills in the claims that a valid token needs,
// as keyway token does: the caller's name as subject, the times, and an issuer and audiences that the
// configuration accepts. A claim that is null in the table is left out.
func (c *checker) token(name string, who caller) (string, error) {
	now := c.now()
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	first := firstKey(c.auth)
	read := c.auth.ClaimsOf(first)
	edge.At(read.Subject).Put(claims, name)
	if iss := cmp.Or(c.auth.Issuer, first.Realm()); iss != "" {
		claims["iss"] = iss
	}
	aud := first.Audience // a key can require an audience even if verify_audience is false
	if c.auth.VerifyAudience {
		aud = append(slices.Clone(aud), c.auth.Audience...)
	}
	if len(aud) > 0 {
		claims["aud"] = aud
	}
	if len(first.Clients) > 0 {
		claims["azp"] = first.Clients[0]
	}
	if who.claims == nil { // the caller is a list of scopes, which can be empty
		scopes := []string{}
		for _, s := range who.scopes {
			scopes = append(scopes, first.Prefix+s)
		}
		if len(read.Scopes) > 0 { // otherwise there is no scope: see unread
			edge.At(read.Scopes[0]).Put(claims, scopes)
		}
	}
	maps.Copy(claims, who.claims)
	if at, ok := rolesOf(c.auth, claims); ok {
		roles := claims["roles"]
		delete(claims, "roles")
		edge.At(at).Put(claims, roles)
	}
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	for _, claim := range dates { // a duration from now becomes seconds since 1970, as RFC 7519 requires
		if distance, err := time.ParseDuration(text(claims[claim])); err == nil {
			claims[claim] = now.Add(distance).Unix()
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("the claims of %s: %w", name, err)
	}
	return c.sign(payload), nil
}

// rolesOf returns the claim that the member roles of a caller stands for: the first one with roles of the entry for the
// caller's issuer. ok is false if the caller has no such member, or if roles is a claim that is read itself.
func rolesOf(auth config.Auth, claims map[string]any) (at config.ClaimSource, ok bool) {
	if _, given := claims["roles"]; !given || slices.Contains(readClaims(auth), "roles") {
		return at, false
	}
	for _, k := range append(slices.Clone(auth.Keys), config.Key{}) {
		read := auth.ClaimsOf(k).Roles
		if own := k.Issuers(); len(read) > 0 && (len(own) == 0 || slices.Contains(own, text(claims["iss"]))) {
			return read[0], true
		}
	}
	return at, false
}

// sign returns a token with any payload. token.Signer cannot do that: it rejects claims that no issuer
// should write, and a table can test exactly those.
func (c *checker) sign(payload []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(payload)
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// text returns v if it is a string, or else "".
func text(v any) string {
	s, _ := v.(string)
	return s
}

// check checks one promise in the order of a real request. The gateway passes public routes, and asks the
// authorizer for all others; a rejected token ends there. The function behind it then decides. The
// decision must match the row, and the authorizer's policy must not deny what the decision allows. A
// policy that allows more is only noted, because the function denies the request then.
func (c *checker) check(t Test, a admission) Result {
	r := Result{Test: t, Expected: t.expected()}
	// API Gateway does not call the authorizer for a public route, so a bad token does not matter there.
	m := route.Table.Match(t.Method, t.Path)
	if a.refusal != nil && !m.Public {
		r.Got = fmt.Sprintf("401 %s", fault.Detail(a.refusal))
		r.Reasons = []string{"the token is rejected"}
		r.OK = !t.Allow && t.Status == http.StatusUnauthorized && (t.Detail == "" || t.Detail == fault.Detail(a.refusal))
		return r
	}
	// The function behind the gateway makes this decision with the principal that the authorizer passed on.
	d := c.authorizer.Policy.Decide(a.principal, t.Method, t.Path)
	r.Reasons = d.Reasons(c.written)
	r.Got, r.OK = c.compare(t, d)
	if m.Route == nil || m.Public { // the policy is about routes with authorization only
		return r
	}
	// API Gateway compares the policy with the method ARN of the request, which contains the cleaned path.
	admitted := edge.Evaluate(a.policy, edge.MethodARN(api, t.Method, route.Clean(t.Path)))
	switch {
	case d.Allow && !admitted:
		r.OK, r.Got = false, "allowed by the decision, denied by the authorizer's policy"
	case !d.Allow && admitted:
		r.Note = "the authorizer's policy allows this request; the function behind it denies it"
	}
	return r
}

// compare describes d in the words of a row, and reports whether the row promises that. What the row does not
// state is not compared: a row without scopes accepts any 403, and one without agents any list.
func (c *checker) compare(t Test, d authz.Decision) (got string, ok bool) {
	err := d.Err("")
	if err == nil {
		shown := c.shown(d)
		switch got = "allowed"; {
		case d.AllIDs && (t.AllIDs || t.Lists != nil):
			got += " and sees every agent"
		case t.AllIDs || t.Lists != nil:
			got += sees(shown)
		}
		// A list of all declared agents keeps "sees every agent", whether by a general grant or by one
		// for each agent.
		all := len(shown) == len(c.authorizer.Agents)
		return got, t.Allow && (!t.AllIDs || all) && (t.Lists == nil || slices.Equal(shown, t.Lists))
	}
	// A denied request: its status and text are those that a client would get.
	status, _, _ := fault.Answer(err)
	var missing []string
	for _, n := range d.Missing {
		missing = append(missing, n.String())
	}
	slices.Sort(missing)
	got = fmt.Sprintf("%d %s", status, fault.Detail(err))
	if status == http.StatusForbidden && t.Detail == "" {
		var written []string
		for _, m := range missing {
			written = append(written, c.written(m))
		}
		got = "403 without " + strings.Join(written, " and ")
	}
	return got, !t.Allow && t.Status == status && (t.Detail == "" || t.Detail == fault.Detail(err)) &&
		(t.Missing == nil || slices.Equal(t.Missing, missing))
}

// shown returns the ids of the declared agents that the list shows to the caller, sorted.
func (c *checker) shown(d authz.Decision) []string {
	out := []string{}
	for _, id := range c.authorizer.Agents {
		if d.Lists(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// sees describes a filtered list in the words of a row.
func sees(ids []string) string {
	if len(ids) == 0 {
		return " and sees no agent"
	}
	return " and sees only " + strings.Join(ids, " and ")
}

// expected describes the promise in the words of Result.Got.
func (t Test) expected() string {
	switch {
	case t.Allow && t.AllIDs:
		return "allowed and sees every agent"
	case t.Allow && t.Lists != nil:
		return "allowed" + sees(t.Lists)
	case t.Allow:
		return "allowed"
	case t.Missing != nil:
		return "403 without " + strings.Join(t.Missing, " and ")
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", t.Status, t.Detail))
}
