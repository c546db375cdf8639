package edge_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/authz/authztest"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// issuer signs tokens with a key that it published in a file.
type issuer struct {
	private ed25519.PrivateKey
	file    string
}

func newIssuer(tb testing.TB) issuer {
	tb.Helper()
	i := issuer{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), filepath.Join(tb.TempDir(), "keys.json")}
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","x":%q}]}`,
		base64.RawURLEncoding.EncodeToString(i.private.Public().(ed25519.PublicKey)))
	if err := os.WriteFile(i.file, []byte(set), 0o600); err != nil {
		tb.Fatal(err)
	}
	return i
}

// sign signs a header and a payload as they are.
func (i issuer) sign(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	return signed + "." + encode(ed25519.Sign(i.private, []byte(signed)))
}

type object = map[string]any

// parsed returns the configuration with these members of auth and of its one entry of keys, and nil if they are not
// allowed. The rest is fixed.
func (i issuer) parsed(t tester, auth, entry object) *config.Config {
	t.Helper()
	auth, entry = maps.Clone(auth), maps.Clone(entry)
	entry["jwks_file"] = i.file
	auth["algorithms"], auth["require_exp"], auth["keys"] = []string{"EdDSA"}, false, []any{entry}
	data, err := json.Marshal(object{"id": "os", "auth": auth,
		"agents": []any{object{"id": "a", "model": "demo:demo"}, object{"id": "b", "model": "demo:demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	c, faults := config.Parse(data, config.Options{})
	if faults != nil {
		return nil
	}
	return c
}

// claimed is a file and a token of its issuer.
type claimed struct {
	auth, entry     object
	header, payload string
}

// examine compares what the authorizer reads with what the oracle reads. It returns what the oracle reads, and false
// for
// a file or a token that is refused.
func (c claimed) examine(t tester, i issuer) (scopes map[string][]string, ok bool) {
	t.Helper()
	parsed := i.parsed(t, c.auth, c.entry)
	if parsed == nil {
		return nil, false
	}
	a := newAuthorizer(t, parsed)
	oracle := authztest.Reader{Auth: c.auth, Entry: c.entry}
	var header, payload object
	readable := json.Unmarshal([]byte(c.header), &header) == nil && json.Unmarshal([]byte(c.payload), &payload) == nil
	raw := i.sign(c.header, c.payload)
	claims, err := a.Verifier.Verify(context.Background(), []string{"Bearer " + raw})
	if err != nil {
		if !errors.Is(err, fault.Unauthenticated) || fault.Detail(err) == "" {
			t.Errorf("%+v: refused with %v", c, err)
		}
		return nil, false
	}
	if !readable || !oracle.Accepts(header, payload) {
		t.Errorf("%+v: accepted; the oracle refuses it", c)
		return nil, false
	}
	scopes = oracle.Scopes(payload)
	wantSameScopes(t, c, scopes, claims)
	limits, wellFormed := oracle.Limits(payload)
	if x, err := a.Verifier.Explain(context.Background(), []string{"Bearer " + raw}); err != nil || !wellFormed {
		t.Errorf("%+v: limits that are well-formed: %t; %v", c, wellFormed, err)
	} else {
		wantSameLimits(t, c, limits, x)
	}
	want := &authz.Principal{
		Subject: claims.Subject, SessionID: claims.SessionID, Issuer: claims.Issuer, Realm: claims.Realm,
		TokenID: claims.ID, TokenHash: token.Hash([]string{raw}), Scopes: claims.Scopes, Origins: crossing(claims.Origins),
		ScopesClaim: claims.ScopesClaim, SubjectClaim: claims.SubjectClaim, Absent: claims.Absent,
		Unread: claims.Unread, Limits: claims.Limits,
		IssuedAt: claims.IssuedAt, ExpiresAt: claims.ExpiresAt,
	}
	if claims.Origins != nil && want.Origins == nil {
		want.ScopesClaim = "several claims"
	}
	got := crossed(t, a, raw)
	sameCaller(t, want, got)
	_, isAdmin := scopes[parsed.Auth.AdminScope]
	if a.Policy.Granted(got).Admin() != isAdmin {
		t.Errorf("%+v: an administrator: %t; the oracle says %t", c, !isAdmin, isAdmin)
	}
	return scopes, true
}

// wantSameScopes compares scopes and their origins. The empty scope grants nothing; it stays if the only claim has it.
func wantSameScopes(t tester, c claimed, want map[string][]string, claims token.Claims) {
	t.Helper()
	got := map[string]bool{}
	for _, s := range claims.Scopes {
		got[s] = true
	}
	delete(got, "")
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("%+v: scopes %q; the oracle reads %q", c, claims.Scopes, want)
	}
	if claims.Origins == nil {
		for _, s := range claims.Scopes {
			if from := cmp.Or(claims.ScopesClaim, "scopes"); s != "" && !slices.Contains(want[s], from) {
				t.Errorf("%+v: %q is from %q; the oracle says %q", c, s, from, want[s])
			}
		}
		return
	}
	if len(claims.Origins) != len(claims.Scopes) || len(got) != len(claims.Scopes) {
		t.Errorf("%+v: scopes %q of %q", c, claims.Scopes, claims.Origins)
		return
	}
	for n, s := range claims.Scopes {
		if !slices.Contains(want[s], claims.Origins[n]) {
			t.Errorf("%+v: %q is from %q; the oracle says %q", c, s, claims.Origins[n], want[s])
		}
	}
}

// wantSameLimits compares limits and their origins.
func wantSameLimits(t tester, c claimed, want map[string]authztest.Limit, x token.Explanation) {
	t.Helper()
	if len(x.Limits) != len(want) {
		t.Errorf("%+v: limits %+v; the oracle reads %+v", c, x.Limits, want)
	}
	for _, l := range x.Limits {
		one := want[string(l.Name)]
		if l.Value != one.Value || !slices.Contains(one.From, l.From) || l.Value != x.Claims.Limits.Of(l.Name) {
			t.Errorf("%+v: limits %+v; the oracle reads %+v", c, x.Limits, want)
		}
	}
	for name := range x.Claims.Limits.All() {
		if _, ok := want[string(name)]; !ok {
			t.Errorf("%+v: limits %+v; the oracle reads %+v", c, x.Claims.Limits, want)
		}
	}
}

// crossing returns the origins, or nil if their text is too long for the context.
func crossing(origins []string) []string {
	if data, err := json.Marshal(origins); err != nil || len(data) > 8<<10 {
		return nil
	}
	return origins
}

// crossed sends the token through the authorizer and API Gateway, and returns the principal that the function sees.
func crossed(t tester, a *edge.Authorizer, raw string) *authz.Principal {
	t.Helper()
	e := event(t, "")
	e.Headers, e.MultiValueHeaders = map[string]string{"authorization": raw}, nil
	answer, err := a.Authorize(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(answer.Context)
	if err != nil {
		t.Fatal(err)
	}
	var passed object
	if err := json.Unmarshal(data, &passed); err != nil {
		t.Fatal(err)
	}
	p, err := edge.Principal(passed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzClaims compares the reading of claims with the oracle, for any claims, grants and rules that config.Parse
// accepts.
// auth and entry are JSON: members of auth, and of its one entry of keys.
func FuzzClaims(f *testing.F) {
	for _, seed := range realTokens {
		f.Add(seed.auth, seed.entry, seed.header, seed.payload)
	}
	i := newIssuer(f)
	f.Fuzz(func(t *testing.T, auth, entry, header, payload string) {
		c := claimed{header: header, payload: payload}
		if len(auth)+len(entry)+len(payload) > 8<<10 || strings.Contains(auth+entry, "${") {
			return
		}
		if json.Unmarshal([]byte(auth), &c.auth) != nil || json.Unmarshal([]byte(entry), &c.entry) != nil ||
			c.auth == nil || c.entry == nil {
			return
		}
		for _, fixed := range []string{"keys", "algorithms", "require_exp"} {
			delete(c.auth, fixed)
		}
		for _, fixed := range []string{"jwks_file", "jwks_url", "discovery", "secret", "ca", "http"} {
			delete(c.entry, fixed)
		}
		c.examine(t, i)
	})
}

// The texts of the draws touch each other: prefixes of one another, with spaces of several kinds inside, and roles that
// are named like scopes.
var (
	claimNames = []string{"scope", "scp", "scopes", "groups", "realm_access", "roles", "a.b"}
	anyName    = rapid.SampledFrom(claimNames)
	anyScope   = rapid.SampledFrom([]string{admin, "agents:a:run", "agents:b:run", "agents:read", "sessions:read"})
	anyRole    = rapid.OneOf(rapid.SampledFrom([]string{"staff", "admins", "rs/staff"}), anyScope,
		rapid.SampledFrom([]string{" ", "staff admins", "rs/", "Staff", `"`, `","` + admin, "\x00",
			"\u2028", "日本", "]", "=",
			"groups=staff", strings.Repeat("long", 600)}))
	between = rapid.SampledFrom([]string{" ", " ", " ", "  ", "\t", "\u00a0", ",", "", " rs/", "/"})
	anyText = rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.OneOf(anyScope, anyRole, rapid.SampledFrom([]string{"", "rs/", "openid"})), 0, 4)
		return rapid.SampledFrom([]string{"", "", "rs/", " "}).Draw(t, "before") +
			strings.Join(parts.Draw(t, "parts"), between.Draw(t, "between"))
	})
)

// oneIn is true once in n draws.
func oneIn(t *rapid.T, n int) bool { return rapid.IntRange(1, n).Draw(t, "one of") == n }

func anySource(t *rapid.T) any {
	name := anyName.Draw(t, "name")
	source := object{"claim": name}
	switch rapid.IntRange(0, 5).Draw(t, "form") {
	case 0, 1:
		return name
	case 2:
		source = object{"path": []any{"realm_access", name}}
	case 3:
		source = object{"path": []any{name}}
	}
	if rapid.Bool().Draw(t, "chosen") {
		source["split"] = rapid.Bool().Draw(t, "split")
	}
	return source
}

func anyClaims(t *rapid.T) object {
	claims := object{}
	for _, name := range []string{"scopes", "roles"} {
		switch rapid.IntRange(0, 3).Draw(t, name) {
		case 0, 1:
			claims[name] = anySource(t)
		case 2:
			least := map[string]int{"scopes": 0, "roles": 1}[name] // scopes: [] reads no claim with scopes
			claims[name] = rapid.SliceOfN(rapid.Custom(anySource), least, 3).Draw(t, "sources")
		}
	}
	return claims
}

func anyGrants(t *rapid.T) object {
	grants := object{}
	for _, role := range rapid.SliceOfNDistinct(anyRole, 0, 6, rapid.ID).Draw(t, "grants") {
		grants[role] = rapid.SliceOfN(anyScope, 1, 3).Draw(t, "granted")
	}
	return grants
}

// anyFile returns members of auth and of the entry of keys.
func anyFile(t *rapid.T) (auth, entry object) {
	auth, entry = object{}, object{}
	for _, part := range []object{auth, entry} {
		if !oneIn(t, 3) {
			part["claims"] = anyClaims(t)
		}
		if !oneIn(t, 3) {
			part["grants"] = anyGrants(t)
		}
	}
	for _, part := range []object{auth, entry} {
		if !oneIn(t, 3) {
			part["limits"] = anyRoleLimits(t)
		}
		if claims, ok := part["claims"].(object); ok && !oneIn(t, 3) {
			source := rapid.SampledFrom([]any{"lim", object{"path": []any{"quota", "lim"}}})
			claims["limits"] = source.Draw(t, "claim with limits")
		}
	}
	if oneIn(t, 2) {
		entry["prefix"] = rapid.SampledFrom([]string{"rs/", "r", "agent_os:", admin, " "}).Draw(t, "prefix")
	}
	return asJSON(t, auth), asJSON(t, entry)
}

var limitNames = []string{
	"concurrent_runs", "waiting_runs", "runs_per_minute", "runs_per_day", "tokens_per_run", "tokens_per_day",
	"usd_per_day",
}

// anyLimits draws at least one limit. They are small, so that limits of several places are often equal.
func anyLimits(t *rapid.T) object {
	limits := object{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(limitNames), 1, 4, rapid.ID).Draw(t, "limited") {
		limits[name] = rapid.SampledFrom([]int{1, 2, 3, 1e12}).Draw(t, "limit")
		if name == "usd_per_day" {
			limits[name] = rapid.SampledFrom([]float64{0.01, 1, 2.5, 1e12}).Draw(t, "usd")
		}
	}
	return limits
}

func anyRoleLimits(t *rapid.T) object {
	all := object{}
	for _, role := range rapid.SliceOfNDistinct(rapid.OneOf(anyRole, rapid.Just("*")), 0, 6, rapid.ID).Draw(t, "tiers") {
		all[role] = anyLimits(t)
	}
	return all
}

// anyLimitsClaim is mostly well-formed.
func anyLimitsClaim(t *rapid.T) any {
	limits := anyLimits(t)
	switch rapid.IntRange(0, 15).Draw(t, "claim") {
	case 0:
		return rapid.SampledFrom([]any{nil, object{}, object{"tier": "gold"}}).Draw(t, "no limits")
	case 1:
		return rapid.SampledFrom([]any{1, "x", true, []any{limits}}).Draw(t, "no object")
	case 2:
		name := rapid.SampledFrom(limitNames).Draw(t, "malformed")
		limits[name] = rapid.SampledFrom([]any{0, -1, "1", nil, 1e13, object{}}).Draw(t, "value")
	case 3:
		limits["tier"], limits["Concurrent_runs"] = "gold", -1
	}
	return limits
}

func anyValue(t *rapid.T) any {
	texts := rapid.SliceOfN(rapid.OneOf(anyText, anyRole, anyRole), 1, 5)
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0:
		return rapid.SampledFrom([]any{nil, 1, true, object{}, []any{"staff", 1}, []any{nil}, []any{[]any{admin}}, []any{}}).
			Draw(t, "other")
	case 1, 2, 3:
		return anyText.Draw(t, "text")
	case 4, 5:
		return object{anyName.Draw(t, "member"): texts.Draw(t, "texts"), anyName.Draw(t, "another"): anyText.Draw(t,
			"its text")}
	}
	return texts.Draw(t, "texts")
}

func anyPayload(t *rapid.T) string {
	token := object{"sub": "ann", "iat": now.Unix() - rapid.Int64Range(0, 1<<31).Draw(t, "age")}
	for _, name := range claimNames {
		if !oneIn(t, 4) {
			token[name] = anyValue(t)
		}
	}
	if !oneIn(t, 3) {
		token["lim"] = anyLimitsClaim(t)
	}
	if !oneIn(t, 3) {
		token["quota"] = object{"lim": anyLimitsClaim(t)}
	}
	data, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestScopesOfAnyTokenAreThoseOfTheOracle(t *testing.T) {
	t.Parallel()
	i, seen := newIssuer(t), map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		auth, entry := anyFile(t)
		for range 16 {
			c := claimed{auth, entry, `{"alg":"EdDSA"}`, anyPayload(t)}
			limits, wellFormed := authztest.Reader{Auth: auth, Entry: entry}.Limits(decoded(t, c.payload))
			scopes, ok := c.examine(t, i)
			if ok != wellFormed {
				t.Fatalf("%+v is accepted: %t; its limits are well-formed: %t", c, ok, wellFormed)
			}
			if !ok {
				seen["malformed limits"]++
				continue
			}
			count(seen, c, scopes)
			countLimits(seen, limits)
		}
	})
	t.Log(seen)
	for _, kind := range []string{
		"some scopes", "no scopes", "an administrator", "by a grant", "with a prefix", "an administrator by a grant",
		"no limits", "a limit of a role", "a limit of everyone", "a limit of the claim", "malformed limits",
	} {
		if seen[kind] < 5 {
			t.Errorf("%q occurred only %d times, too few to test the property", kind, seen[kind])
		}
	}
}

func count(seen map[string]int, c claimed, scopes map[string][]string) {
	seen[map[bool]string{true: "some scopes", false: "no scopes"}[len(scopes) > 0]]++
	if _, ok := c.entry["prefix"]; ok && len(scopes) > 0 {
		seen["with a prefix"]++
	}
	if len(scopes[admin]) > 0 {
		seen["an administrator"]++
	}
	for scope, origins := range scopes {
		if slices.ContainsFunc(origins, func(s string) bool { return strings.Contains(s, "=") }) {
			seen["by a grant"]++
			if scope == admin {
				seen["an administrator by a grant"]++
			}
		}
	}
}

func countLimits(seen map[string]int, limits map[string]authztest.Limit) {
	if len(limits) == 0 {
		seen["no limits"]++
	}
	for _, l := range limits {
		switch from := l.From[0]; {
		case from == "*":
			seen["a limit of everyone"]++
		case strings.Contains(from, "="):
			seen["a limit of a role"]++
		default:
			seen["a limit of the claim"]++
		}
	}
}

func decoded(t tester, text string) (out object) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// asJSON returns the value as encoding/json reads it.
func asJSON(t tester, in object) object {
	t.Helper()
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return decoded(t, string(data))
}
