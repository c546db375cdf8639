package token_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/token"
)

const (
	anotherKind = "Invalid token: The header's typ is that of another kind of token"
	logoutToken = "Invalid token: It is a logout token; send an access token"
	idToken     = "Invalid token: It is an ID token; send an access token"
	boundToken  = "Invalid token: It is bound to a key, and a bearer sent it without the proof"
	wrongClient = "Invalid token: Invalid client"
	noClient    = "Invalid token: Token names no client in azp, client_id or cid"
)

// signedText signs a header and a payload as they are.
func signedText(tb testing.TB, header, payload string) string {
	tb.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	raw := encode([]byte(header)) + "." + encode([]byte(payload))
	return raw + "." + encode(must(jwt.SigningMethodHS256.Sign(raw, []byte(testSecret))))
}

// tokenWith returns a token of alice with the members of these JSON objects in its header and its payload.
func tokenWith(tb testing.TB, header, claims string) string {
	tb.Helper()
	merge := func(into jwt.MapClaims, text string) string {
		var more map[string]any
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			tb.Fatalf("%s: %v", text, err)
		}
		maps.Copy(into, more)
		return string(must(json.Marshal(into)))
	}
	return signedText(tb, merge(jwt.MapClaims{"alg": "HS256"}, header), merge(alice(), claims))
}

// wantVerdict verifies a token under the rules. text is the expected refusal, or "".
func wantVerdict(t *testing.T, r token.Rules, header, claims, text string) {
	t.Helper()
	o := hmacOptions()
	o.Keys[0].Rules = r
	c, err := verify(t, o, tokenWith(t, header, claims))
	if text != "" {
		if err == nil {
			t.Fatalf("%s %s was accepted, want %q", header, claims, text)
		}
		wantRefusal(t, err, text)
		return
	}
	if err != nil {
		t.Errorf("%s %s: %v", header, claims, err)
		return
	}
	wantSubject(t, "alice", c, nil)
}

func TestHeaderNamesAnAccessToken(t *testing.T) {
	t.Parallel()
	for header, text := range map[string]string{
		`{}`:                                    "",
		`{"typ":null}`:                          "",
		`{"typ":""}`:                            "",
		`{"typ":"JWT"}`:                         "",
		`{"typ":"jwt"}`:                         "",
		`{"typ":"Jwt"}`:                         "",
		`{"typ":"at+jwt"}`:                      "",
		`{"typ":"AT+JWT"}`:                      "",
		`{"typ":"application/at+jwt"}`:          "",
		`{"typ":"Application/At+Jwt"}`:          "",
		`{"typ":"application/JWT"}`:             "",
		`{"typ":"logout+jwt"}`:                  anotherKind,
		`{"typ":"LOGOUT+JWT"}`:                  anotherKind,
		`{"typ":"application/logout+jwt"}`:      anotherKind,
		`{"typ":"dpop+jwt"}`:                    anotherKind,
		`{"typ":"secevent+jwt"}`:                anotherKind,
		`{"typ":"token-introspection+jwt"}`:     anotherKind,
		`{"typ":"oauth-authz-req+jwt"}`:         anotherKind,
		`{"typ":"JWS"}`:                         anotherKind,
		`{"typ":"application/"}`:                anotherKind,
		`{"typ":"application/application/jwt"}`: anotherKind,
		`{"typ":"applications/jwt"}`:            anotherKind,
		`{"typ":"text/jwt"}`:                    anotherKind,
		`{"typ":" jwt"}`:                        anotherKind,
		`{"typ":"at+jwt\u0000"}`:                anotherKind,
		`{"typ":"at jwt"}`:                      anotherKind,
		`{"typ":1}`:                             anotherKind,
		`{"typ":true}`:                          anotherKind,
		`{"typ":["at+jwt"]}`:                    anotherKind,
		`{"typ":{"at+jwt":"at+jwt"}}`:           anotherKind,
	} {
		wantVerdict(t, token.Rules{}, header, `{}`, text)
		// What an entry accepts does not change it.
		wantVerdict(t, token.Rules{IDTokens: true, Bound: true}, header, `{}`, text)
	}
}

// An ID token is refused by what it says of itself, or because it has what only ID tokens need and nothing that marks
// an
// access token.
func TestIDTokensAreRefusedUnlessAccepted(t *testing.T) {
	t.Parallel()
	refused := []string{
		`{"typ":"ID"}`, `{"typ":"id"}`, `{"token_use":"id"}`, `{"token_use":"ID"}`,
		`{"typ":"ID","scope":"openid","client_id":"c"}`, `{"token_use":"id","scope":"openid","typ":"Bearer"}`,
		`{"at_hash":"x"}`, `{"nonce":"x"}`, `{"at_hash":"x","nonce":"y"}`, `{"at_hash":1}`, `{"nonce":[]}`, `{"nonce":""}`,
		`{"nonce":"x","scope":null,"scp":null,"client_id":null}`, `{"nonce":"x","azp":"c","aud":"c"}`,
		`{"nonce":"x","typ":"JWT","token_use":"refresh"}`, `{"nonce":"x","typ":["Bearer"],"token_use":["access"]}`,
		`{"nonce":"x","Scope":"openid","cid":"c"}`, `{"nonce":"x","scopes":["agents:read"]}`,
		`{"nonce":"x","token_use":"acceſſ"}`,
	}
	for _, claims := range refused {
		wantVerdict(t, token.Rules{}, `{"typ":"JWT"}`, claims, idToken)
		wantVerdict(t, token.Rules{}, `{}`, claims, idToken)
		wantVerdict(t, token.Rules{Bound: true}, `{}`, claims, idToken)
		wantVerdict(t, token.Rules{IDTokens: true}, `{}`, claims, "")
	}
	for _, claims := range []string{`{"typ":"ID"}`, `{"token_use":"id"}`, `{"typ":"ID","scope":"openid"}`} {
		wantVerdict(t, token.Rules{}, `{"typ":"at+jwt"}`, claims, idToken)
	}
	for _, mark := range []string{
		`"typ":"Bearer"`, `"typ":"bearer"`, `"token_use":"access"`, `"scope":"openid"`, `"scope":""`, `"scope":["openid"]`,
		`"scp":"openid"`, `"scp":["openid"]`, `"client_id":"c"`,
	} {
		for _, claims := range []string{`{`, `{"nonce":"x",`, `{"at_hash":"x",`, `{"at_hash":"x","nonce":"y",`} {
			wantVerdict(t, token.Rules{}, `{}`, claims+mark+`}`, "")
		}
	}
	for _, claims := range []string{`{"nonce":"x"}`, `{"at_hash":"x"}`} {
		wantVerdict(t, token.Rules{}, `{"typ":"at+jwt"}`, claims, "")
		wantVerdict(t, token.Rules{}, `{"typ":"application/AT+jwt"}`, claims, "")
	}
	for _, claims := range []string{
		`{"nonce":null,"at_hash":null}`, `{"typ":"DPoP"}`, `{"typ":1}`, `{"typ":null,"token_use":null}`, `{"token_use":{}}`,
		`{"c_hash":"x","acr":"1","auth_time":1,"amr":["pwd"]}`,
	} {
		wantVerdict(t, token.Rules{}, `{}`, claims, "")
	}
}

func TestLogoutTokensAreNeverAccepted(t *testing.T) {
	t.Parallel()
	const event = `"http://schemas.openid.net/event/backchannel-logout"`
	for _, claims := range []string{
		`{"typ":"Logout"}`, `{"typ":"logout"}`, `{"typ":"logout+jwt"}`, `{"typ":"Logout","scope":"agents:read"}`,
		`{"events":{` + event + `:{}}}`, `{"events":{"x":{},` + event + `:{}},"scope":"agents:read"}`,
	} {
		for _, header := range []string{`{}`, `{"typ":"JWT"}`, `{"typ":"at+jwt"}`} {
			wantVerdict(t, token.Rules{}, header, claims, logoutToken)
			wantVerdict(t, token.Rules{IDTokens: true, Bound: true}, header, claims, logoutToken)
		}
	}
	for _, claims := range []string{`{"events":{}}`, `{"events":[` + event + `]}`, `{"events":` + event + `}`,
		`{"events":null}`} {
		wantVerdict(t, token.Rules{}, `{}`, claims, "")
	}
}

func TestTokensBoundToAKeyAreRefusedUnlessAccepted(t *testing.T) {
	t.Parallel()
	for claims, text := range map[string]string{
		`{"cnf":{"jkt":"x"}}`: boundToken, `{"cnf":{"x5t#S256":"x"}}`: boundToken, `{"cnf":{}}`: boundToken,
		`{"cnf":"x"}`: boundToken, `{"cnf":[]}`: boundToken, `{"cnf":0}`: boundToken, `{"cnf":false}`: boundToken,
		`{"cnf":{"jkt":"x"},"typ":"DPoP","scope":"agents:read"}`: boundToken,
		`{"cnf":null}`: "", `{"CNF":{"jkt":"x"}}`: "",
	} {
		wantVerdict(t, token.Rules{}, `{}`, claims, text)
		wantVerdict(t, token.Rules{}, `{"typ":"at+jwt"}`, claims, text)
		wantVerdict(t, token.Rules{IDTokens: true}, `{}`, claims, text)
		wantVerdict(t, token.Rules{Bound: true}, `{}`, claims, "")
	}
}

func TestEachClientOfATokenIsAccepted(t *testing.T) {
	t.Parallel()
	for claims, text := range map[string]string{
		`{"azp":"ours"}`: "", `{"client_id":"ours"}`: "", `{"cid":"ours"}`: "", `{"azp":"ours too"}`: "",
		`{"azp":"ours","client_id":"ours too","cid":"ours"}`: "", `{"azp":null,"client_id":"ours"}`: "",

		`{}`: noClient, `{"azp":null}`: noClient, `{"AZP":"ours"}`: noClient, `{"aud":"ours"}`: noClient,
		`{"azp":null,"client_id":null,"cid":null}`: noClient,

		`{"azp":"theirs"}`: wrongClient, `{"azp":"theirs","client_id":"ours"}`: wrongClient,
		`{"azp":"ours","cid":"theirs"}`: wrongClient, `{"client_id":"theirs","cid":"ours"}`: wrongClient,
		`{"azp":""}`: wrongClient, `{"azp":"OURS"}`: wrongClient, `{"azp":"ours "}`: wrongClient,
		`{"azp":["ours"]}`: wrongClient, `{"azp":{"ours":"ours"}}`: wrongClient, `{"azp":1}`: wrongClient,
		`{"azp":false,"client_id":"ours"}`: wrongClient,
	} {
		wantVerdict(t, token.Rules{Clients: []string{"ours", "ours too"}}, `{}`, claims, text)
		wantVerdict(t, token.Rules{}, `{}`, claims, "")
	}
	wantVerdict(t, token.Rules{Clients: []string{}}, `{}`, `{"azp":"ours"}`, wrongClient)
}

// The log of the operator says which client it was. The caller's answer doesn't.
func TestForeignClientIsNamedToTheOperatorOnly(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys[0].Clients = []string{"ours"}
	_, err := verify(t, o, tokenWith(t, `{}`, `{"azp":"theirs"}`))
	wantRefusal(t, err, wrongClient)
	wantFault(t, err, `azp is "theirs"`, `"ours"`)
}

// An issuer signs the tokens of users and of services with the same key, and each has an entry.
func TestRefusalIsThatOfTheEntryWhoseTokensTheseAre(t *testing.T) {
	t.Parallel()
	people := token.Rules{Audience: []string{"web"}}
	services := token.Rules{Audience: []string{"svc"}, Clients: []string{"c"}}
	const bound = "It is bound to a key, and a bearer sent it without the proof"
	for payload, row := range map[string]struct{ text, entry string }{
		`{"aud":"web","typ":"ID"}`:                       {"It is an ID token; send an access token", "people"},
		`{"aud":"web","cnf":{}}`:                         {bound, "people"},
		`{"aud":"svc","azp":"c","cnf":{}}`:               {bound, "services"},
		`{"aud":"web","sub":"ann"}`:                      {"", "people"},
		`{"aud":"svc","azp":"c","sub":"s","scopes":"x"}`: {"", "services"},
	} {
		for first, order := range map[string][]token.Rules{"people": {people, services}, "services": {services, people}} {
			o := hmacOptions()
			o.Keys = []token.KeySource{{HMAC: []byte(testSecret), Rules: order[0]},
				{HMAC: []byte(testSecret), Rules: order[1]}}
			x, err := newVerifier(t, o).Explain(t.Context(), []string{signedText(t, `{"alg":"HS256"}`, payload)})
			if row.text != "" {
				wantRefusal(t, err, "Invalid token: "+row.text)
			} else if err != nil {
				t.Errorf("%s: %v", payload, err)
			}
			want := "keys[1]"
			if first == row.entry {
				want = "keys[0]"
			}
			if x.Signer != want {
				t.Errorf("%s, %s first: explained by %s, want %s", payload, first, x.Signer, want)
			}
		}
	}
}
