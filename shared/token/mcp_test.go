package token

import (
	"testing"
	"time"
)

// What a token is accepted for depends on its audience and on those that the OS and the entry of its key require. A key
// that is listed twice, with two audiences, counts by the entry that accepts more.
func TestTheAudienceDecidesWhetherATokenIsForTheDoorForMCP(t *testing.T) {
	t.Parallel()
	const door, secret = "https://os.example.com/mcp", "TEST KEY ONLY: the audiences of the tests"
	now := time.Unix(1_800_000_000, 0)
	signer, err := LoadSigner(SigningKey{HMAC: []byte(secret)})
	if err != nil {
		t.Fatal(err)
	}
	verifier := func(os []string, keys ...[]string) *Verifier {
		o := Options{
			Algorithms: []string{"HS256"}, Audience: os, MCP: []string{door, "https://old.example.com/mcp"},
			Now: func() time.Time { return now },
		}
		for _, audience := range keys {
			o.Keys = append(o.Keys, KeySource{HMAC: []byte(secret), Rules: Rules{Audience: audience}})
		}
		v, err := NewVerifier(o)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	anything, ofOS, ofKey := verifier(nil, nil), verifier([]string{"api"}, nil), verifier(nil, []string{"api"})
	twice := verifier(nil, []string{"other"}, []string{"api"})
	const refused For = -1
	for _, row := range []struct {
		aud                          []string
		anything, ofOS, ofKey, twice For
	}{
		{nil, ForAPI, refused, refused, refused},
		{[]string{"api"}, ForAPI, ForAPI, ForAPI, ForAPI},
		{[]string{"else"}, ForAPI, refused, refused, refused},
		{[]string{door}, ForBoth, ForMCP, ForMCP, ForMCP},
		{[]string{"https://old.example.com/mcp"}, ForBoth, ForMCP, ForMCP, ForMCP},
		{[]string{"else", door}, ForBoth, ForMCP, ForMCP, ForMCP},
		{[]string{door, "api"}, ForBoth, ForBoth, ForBoth, ForBoth},
		{[]string{"https://os.example.com"}, ForAPI, refused, refused, refused},
		{[]string{door + "/"}, ForAPI, refused, refused, refused},
		{[]string{"HTTPS://os.example.com/mcp"}, ForAPI, refused, refused, refused},
	} {
		raw, err := signer.Sign(Draft{
			Claims: Claims{Subject: "ann", ExpiresAt: now.Add(time.Hour)}, Audience: row.aud,
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, one := range map[string]struct {
			v    *Verifier
			want For
		}{"no audience": {anything, row.anything}, "the OS": {ofOS, row.ofOS}, "the key": {ofKey, row.ofKey},
			"a key twice": {twice, row.twice}} {
			c, err := one.v.Verify(t.Context(), []string{"Bearer " + raw})
			got := c.For
			if err != nil {
				got = refused
			}
			if got != one.want {
				t.Errorf("%q where %s requires one: %d, want %d (%v)", row.aud, name, got, one.want, err)
			}
		}
	}
	closed := verifier([]string{"api"}, nil)
	closed.SetMCP(nil)
	raw, err := signer.Sign(Draft{Claims: Claims{ExpiresAt: now.Add(time.Hour)}, Audience: []string{door}})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := closed.Verify(t.Context(), []string{raw}); err == nil {
		t.Errorf("a closed door accepts %+v", c)
	}
}
