package token_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// recording is testdata/pyjwt.json: tokens signed by PyJWT and the answers of AgentOS
// 3.1.10 to them. See testdata/make_tokens.py.
type recording struct {
	Now  int64
	Keys map[string]string
	Rows []struct {
		Name, Alg     string
		Authorization []string
		Audience      []string
		Issuer        string
		RequireExp    bool `json:"require_exp"`
		Peer, Keyway  *string
		Claims        struct {
			Sub, Iss, Jti string
			SessionID     string `json:"session_id"`
			Scopes        []string
			Exp           int64
		}
	}
}

func readRecording(tb testing.TB) (r recording) {
	tb.Helper()
	data, err := os.ReadFile("testdata/pyjwt.json")
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// source returns the recorded key for alg.
func (r recording) source(alg string) token.KeySource {
	if strings.HasPrefix(alg, "HS") {
		return token.KeySource{HMAC: []byte(r.Keys[alg])}
	}
	return token.KeySource{PEM: []byte(r.Keys[alg])}
}

func TestTokensOfPyJWTGetTheRecordedAnswers(t *testing.T) {
	t.Parallel()
	r := readRecording(t)
	accepted := 0
	for _, row := range r.Rows {
		if row.Keyway == nil {
			accepted++
		}
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, token.Options{
				Algorithms: []string{row.Alg}, Keys: []token.KeySource{r.source(row.Alg)},
				Audience: row.Audience, Issuer: row.Issuer, RequireExp: row.RequireExp,
				Leeway: 10 * time.Second, Now: at(r.Now),
			})
			got, err := v.Verify(t.Context(), row.Authorization)
			if row.Keyway != nil {
				wantRefusal(t, err, *row.Keyway)
				return
			}
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			want := token.Claims{
				Subject: row.Claims.Sub, SessionID: row.Claims.SessionID, Issuer: row.Claims.Iss,
				ID: row.Claims.Jti, Scopes: row.Claims.Scopes,
			}
			if row.Claims.Exp != 0 {
				want.ExpiresAt = time.Unix(row.Claims.Exp, 0).UTC()
			}
			ours := cmpopts.IgnoreFields(token.Claims{}, "IssuedAt", "Source", "Realm",
				"SubjectClaim", "Absent", "Unread") // not in the recording
			if diff := cmp.Diff(want, got, sameWhenEmpty, ours); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
	if accepted < 40 || len(r.Rows)-accepted < 100 {
		t.Errorf("%d accepted and %d refused rows: the recording is incomplete", accepted, len(r.Rows)-accepted)
	}
}

// sameWhenEmpty treats nil and an empty list as equal.
var sameWhenEmpty = cmp.FilterValues(func(a, b []string) bool { return len(a)+len(b) == 0 }, cmp.Ignore())

func newVerifier(tb testing.TB, o token.Options) *token.Verifier {
	tb.Helper()
	v, err := token.NewVerifier(o)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func at(unix int64) func() time.Time { return func() time.Time { return time.Unix(unix, 0) } }

func wantRefusal(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want %q", text)
	}
	if got := fault.KindOf(err); got != fault.Unauthenticated {
		t.Errorf("kind is %v, want Unauthenticated", got)
	}
	if got := fault.Detail(err); got != text {
		t.Errorf("refused with %q, want %q", got, text)
	}
	wantHint(t, err)
}

// wantHint fails for a 401 without a hint for its detail, and for a challenge with
// characters that RFC 6750 section 3 doesn't allow.
func wantHint(t *testing.T, err error) {
	t.Helper()
	_, header, body := fault.Answer(err)
	_, _, anyOther := fault.Answer(fault.Unauthenticated)
	_, general, _ := strings.Cut(string(anyOther), `"hint":`)
	if _, hint, ok := strings.Cut(string(body), `"hint":`); !ok || hint == general {
		t.Errorf("%s has no hint of its own", body)
	}
	challenge := header.Get("WWW-Authenticate")
	const form = `^Bearer realm="agentos"(, error="invalid_token", error_description="[ !#-\[\]-~]+")?$`
	if !regexp.MustCompile(form).MatchString(challenge) {
		t.Errorf("challenge %s", challenge)
	}
}
