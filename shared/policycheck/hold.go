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

// Result is a promise held against a configuration.
type Result struct {
	Test
	OK            bool
	Expected, Got string   // in the words of a row: "403 without agents:x:run"
	Reasons       []string // how the decision came about
	Note          string   // what holds and is still worth knowing
}

// api stands for a deployed API: only its shape matters.
const api = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod"

// Hold puts every promise to c. Tokens are signed with a key made for this call, which
// stands in for those of c; whatever else c says of tokens counts. The error is
// config.Faults where the table doesn't fit c, or what is wrong with c.
func (t *Table) Hold(c *config.Config, now func() time.Time) ([]Result, error) {
	var agents []string
	for _, a := range c.Agents {
		agents = append(agents, a.ID)
	}
	if faults := append(t.undeclared(agents), t.unread(c.Auth.Claims)...); len(faults) > 0 {
		return nil, t.doc.Place(faults)
	}
	h, err := newHolder(c, now)
	if err != nil {
		return nil, err
	}
	admissions := map[string]admission{}
	for name, who := range t.callers {
		if admissions[name], err = h.admit(name, who); err != nil {
			return nil, err
		}
	}
	var out []Result
	for _, test := range t.Tests {
		out = append(out, h.hold(test, admissions[test.Caller]))
	}
	return out, nil
}

// holder is a configuration whose tokens can be made.
type holder struct {
	auth       config.Auth
	authorizer *edge.Authorizer
	secret     []byte
	now        func() time.Time
}

// newHolder replaces the keys, and keeps what each of them restricts.
func newHolder(c *config.Config, now func() time.Time) (*holder, error) {
	h := &holder{auth: c.Auth, secret: []byte(rand.Text() + rand.Text()), now: now}
	other := *c
	other.Auth.Algorithms, other.Auth.Keys = []string{"HS256"}, nil
	for _, k := range c.Auth.Keys {
		other.Auth.Keys = append(other.Auth.Keys, config.Key{Literal: config.Secret(h.secret), Issuer: k.Issuer, Audience: k.Audience})
	}
	if len(other.Auth.Keys) == 0 {
		other.Auth.Keys = []config.Key{{Literal: config.Secret(h.secret)}}
	}
	var err error
	h.authorizer, err = edge.New(&other, edge.Outside{Now: now})
	return h, err
}

// admission is what the authorizer says of a caller's token, or how it refuses it.
type admission struct {
	refusal   error
	principal *authz.Principal
	policy    events.APIGatewayCustomAuthorizerPolicy
}

func (h *holder) admit(name string, who caller) (admission, error) {
	e := events.APIGatewayCustomAuthorizerRequestTypeRequest{Type: "REQUEST", MethodArn: api + "/GET/"}
	if !who.none {
		text, err := h.token(name, who)
		if err != nil {
			return admission{}, err
		}
		e.Headers = map[string]string{"Authorization": "Bearer " + text}
	}
	answer, err := h.authorizer.Authorize(context.Background(), e)
	if err != nil {
		return admission{refusal: err}, nil
	}
	p, err := edge.Principal(answer.Context)
	return admission{principal: p, policy: answer.PolicyDocument}, err
}

// token signs what the caller claims. What a token needs to be believed is filled in,
// as keyway token does; null leaves a claim out.
func (h *holder) token(name string, who caller) (string, error) {
	now := h.now()
	claims := map[string]any{h.auth.Claims.Subject: name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	first := config.Key{} // its issuer's users are the usual ones
	if len(h.auth.Keys) > 0 {
		first = h.auth.Keys[0]
	}
	if iss := cmp.Or(h.auth.Issuer, first.Issuer); iss != "" {
		claims["iss"] = iss
	}
	aud := first.Audience
	if h.auth.VerifyAudience {
		aud = append(slices.Clone(aud), h.auth.Audience...)
	}
	if len(aud) > 0 {
		claims["aud"] = aud
	}
	if who.claims == nil {
		claims[h.auth.Claims.Scopes] = append([]string{}, who.scopes...)
	}
	maps.Copy(claims, who.claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	for _, claim := range dates {
		if distance, err := time.ParseDuration(text(claims[claim])); err == nil {
			claims[claim] = now.Add(distance).Unix()
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("the claims of %s: %w", name, err)
	}
	return h.sign(payload), nil
}

// sign makes a token of any payload: token.Signer refuses what no caller should claim.
func (h *holder) sign(payload []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(payload)
	mac := hmac.New(sha256.New, h.secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// hold compares one promise with what the caller would meet: the gateway first, which
// lets public routes pass and asks the authorizer for all others, then the decision.
func (h *holder) hold(t Test, a admission) Result {
	r := Result{Test: t, Expected: t.expected()}
	m := route.Table.Match(t.Method, t.Path)
	if a.refusal != nil && !m.Public {
		r.Got = fmt.Sprintf("401 %s", fault.Detail(a.refusal))
		r.Reasons = []string{"the token is refused"}
		r.OK = !t.Allow && t.Status == http.StatusUnauthorized && (t.Detail == "" || t.Detail == fault.Detail(a.refusal))
		return r
	}
	d := h.authorizer.Policy.Decide(a.principal, t.Method, t.Path)
	r.Reasons = d.Reasons()
	r.Got, r.OK = h.compare(t, d)
	if m.Route == nil || m.Public {
		return r
	}
	admitted := edge.Evaluate(a.policy, edge.MethodARN(api, t.Method, route.Clean(t.Path)))
	switch {
	case d.Allow && !admitted:
		r.OK, r.Got = false, "allowed by the decision, refused by the authorizer's policy"
	case !d.Allow && admitted:
		r.Note = "the authorizer's policy is wider than the decision here; the function behind it refuses"
	}
	return r
}

// compare tells what d is in the words of a row, and whether that was promised.
func (h *holder) compare(t Test, d authz.Decision) (got string, ok bool) {
	err := d.Err("")
	if err == nil {
		shown := h.shown(d)
		switch got = "allowed"; {
		case d.AllIDs && (t.AllIDs || t.Lists != nil):
			got += " and sees every agent"
		case t.AllIDs || t.Lists != nil:
			got += sees(shown)
		}
		// Seeing all that there are is seeing every agent; only the words differ.
		all := len(shown) == len(h.authorizer.Agents)
		return got, t.Allow && (!t.AllIDs || all) && (t.Lists == nil || slices.Equal(shown, t.Lists))
	}
	status, _, _ := fault.Answer(err)
	var missing []string
	for _, n := range d.Missing {
		missing = append(missing, n.String())
	}
	slices.Sort(missing)
	got = fmt.Sprintf("%d %s", status, fault.Detail(err))
	if status == http.StatusForbidden && t.Detail == "" {
		got = "403 without " + strings.Join(missing, " and ")
	}
	return got, !t.Allow && t.Status == status && (t.Detail == "" || t.Detail == fault.Detail(err)) &&
		(t.Missing == nil || slices.Equal(t.Missing, missing))
}

// shown are the declared agents that a list shows.
func (h *holder) shown(d authz.Decision) []string {
	out := []string{}
	for _, id := range h.authorizer.Agents {
		if d.Lists(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func sees(ids []string) string {
	if len(ids) == 0 {
		return " and sees no agent"
	}
	return " and sees only " + strings.Join(ids, " and ")
}

// expected is the promise in the same words as Got.
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
