package token_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// FuzzVerify signs any header and payload, so that the claims are parsed. A token that
// Verify accepts must be accepted by the library's own parser too, with the same claims.
// A refusal must be a 401.
func FuzzVerify(f *testing.F) {
	for _, seed := range [][3]string{
		{`{"alg":"HS256"}`, `{"sub":"alice","scopes":["a:b"],"exp":1893456060}`, ""},
		{`{"alg":"HS256","kid":"x"}`, `{"sub":null,"scopes":"a:b"}`, ""},
		{`{"alg":"none"}`, `{"sub":"alice"}`, ""},
		{`{"alg":"HS256","crit":["x"]}`, `{"sub":"alice"}`, ""},
		{`{"alg":"HS256"}`, `{"sub":"alice","s\u0075b":"bob"}`, ""},
		{`{"alg":"HS256"}`, `{"SUB":"bob","sub":"al\ud83d\ude42ice","iat":1.9e9,"nbf":-0}`, ""},
		{`{"alg":"HS256"}`, `{"exp":1e400,"aud":[],"iss":"","jti":""}`, ""},
		{`{"alg":"HS256"}`, `{}`, ".x"},
		{`{"alg":"HS256"}`, `{}`, " \t"},
		{`{"alg":"HS256"}`, `{}`, "\f"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	o := hmacOptions()
	o.Leeway = 10 * time.Second
	v := newVerifier(f, o)
	library := jwt.NewParser(jwt.WithValidMethods(o.Algorithms), jwt.WithTimeFunc(o.Now), jwt.WithLeeway(o.Leeway),
		jwt.WithIssuedAt(), jwt.WithJSONNumber(), jwt.WithStrictDecoding())

	f.Fuzz(func(t *testing.T, header, payload, tail string) {
		encode := base64.RawURLEncoding.EncodeToString
		raw := encode([]byte(header)) + "." + encode([]byte(payload))
		sum, err := jwt.SigningMethodHS256.Sign(raw, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		raw += "." + encode(sum) + tail
		got, err := v.Verify(t.Context(), []string{raw})
		if err != nil {
			if fault.KindOf(err) != fault.Unauthenticated || fault.Detail(err) == "" {
				t.Fatalf("refused with %#v", err)
			}
			return
		}
		wantSameClaims(t, library, strings.Trim(raw, " \t"), got)
	})
}

func wantSameClaims(t *testing.T, library *jwt.Parser, raw string, got token.Claims) {
	t.Helper()
	claims := jwt.MapClaims{}
	key := func(*jwt.Token) (any, error) { return []byte(testSecret), nil }
	if _, err := library.ParseWithClaims(raw, claims, key); err != nil {
		t.Fatalf("accepted what the library refuses: %v", err)
	}
	if subject, _ := claims["sub"].(string); subject != got.Subject {
		t.Fatalf("subject %q, the library says %q", got.Subject, subject)
	}
	exp, err := claims.GetExpirationTime()
	if err != nil || (exp == nil) != got.ExpiresAt.IsZero() || exp != nil && !exp.Equal(got.ExpiresAt) {
		t.Fatalf("expires at %v, the library says %v, %v", got.ExpiresAt, exp, err)
	}
	if scopes, isList := claims["scopes"].([]any); len(got.Scopes) > 1 && (!isList || len(scopes) != len(got.Scopes)) {
		t.Fatalf("scopes %q, the library says %q", got.Scopes, scopes)
	}
}
