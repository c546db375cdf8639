package fault

import (
	"regexp"
	"strings"
	"testing"
)

func TestA401HasAChallengeAndAHint(t *testing.T) {
	t.Parallel()
	for detail, want := range map[string]struct{ challenge, hint string }{
		"Authorization header missing": {`Bearer realm="agentos"`, "Send the header Authorization: Bearer TOKEN."},
		"Token has expired": {
			`Bearer realm="agentos", error="invalid_token", error_description="Token has expired"`, "Get a new token."},
		`Invalid token: Token is missing the "exp" claim`: {
			`Bearer realm="agentos", error="invalid_token", ` +
				`error_description="Invalid token: Token is missing the 'exp' claim"`, "with an expiry time (exp)"},
		"Invalid token: sitzung\\ü\n must be a string": {
			`Bearer realm="agentos", error="invalid_token", ` +
				`error_description="Invalid token: sitzung??? must be a string"`, "without the problem that the detail names"},
		"Invalid token: Not enough segments": {
			`Bearer realm="agentos", error="invalid_token", error_description="Invalid token: Not enough segments"`,
			"it is an opaque one: ask the issuer for a signed JWT as access token"},
		"Invalid token: Invalid payload padding": {
			`Bearer realm="agentos", error="invalid_token", error_description="Invalid token: Invalid payload padding"`,
			"encrypted (JWE): ask the issuer for a signed JWT as access token"},
		"Invalid token: Invalid payload string: must be a json object": {
			`Bearer realm="agentos", error="invalid_token", ` +
				`error_description="Invalid token: Invalid payload string: must be a json object"`,
			`"hint":"The claims of the token are not one JSON object in which each name occurs once.`},
		"Invalid token: Invalid header padding": {
			`Bearer realm="agentos", error="invalid_token", error_description="Invalid token: Invalid header padding"`,
			"With Authorization: DPoP, ask the issuer for a bearer token"},
		"": {`Bearer realm="agentos"`, "where to get a new token"},
	} {
		status, header, body := Answer(Public(Unauthenticated, detail, nil))
		if got := header.Get("WWW-Authenticate"); status != 401 || got != want.challenge {
			t.Errorf("%q: %d %s, want %s", detail, status, got, want.challenge)
		}
		if !strings.Contains(string(body), `,"hint":"`) || !strings.Contains(string(body), want.hint) {
			t.Errorf("%q: %s, want the hint %q", detail, body, want.hint)
		}
	}
}

func TestEachHintIsReachableAndAsciiSentences(t *testing.T) {
	t.Parallel()
	sentence := regexp.MustCompile(`^[A-Z][ -~]+\.$`)
	for _, h := range hints {
		if Hint(h.detail) != h.hint {
			t.Errorf("an earlier entry hides %q", h.detail)
		}
		if !sentence.MatchString(h.hint) {
			t.Errorf("%q is not made of ASCII sentences", h.hint)
		}
	}
}

func TestOnlyA401HasAHint(t *testing.T) {
	t.Parallel()
	for k := Internal; k <= Unavailable; k++ {
		if _, _, body := Answer(k); strings.Contains(string(body), "hint") != (k == Unauthenticated) {
			t.Errorf("%s", body)
		}
	}
}
