package programs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/html"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// issuer is a running issuer of other people. Its users are ann and bob, whose passwords are NAME-password. Its clients
// are svc, for services, and web, for people; their secrets are NAME-secret.
type issuer struct {
	name             string // one word, for the names of callers
	nonce            string // what the client web sends to find it in ID tokens
	recipe           string // its name in docs/identity.md
	url              string // its claim iss
	authorize, token string // its addresses, below url
	keys             string // where it publishes its keys
	resource         string // the API that tokens are for (RFC 8707), if the issuer wants to know it
}

// answered is an answer of the token endpoint.
type answered struct {
	Access string `json:"access_token"`
	ID     string `json:"id_token"`
	Type   string `json:"token_type"`
}

// callback is the redirect URI of the client web. Nothing listens there.
const callback = "http://127.0.0.1/callback"

// ask sends a client's request to the token endpoint. pairs are names and values.
func (i issuer) ask(t *testing.T, client string, header http.Header, pairs ...string) (out answered) {
	t.Helper()
	body := i.form(pairs...).Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url+i.token, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(client, client+"-secret")
	resp, err := process.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &out); err != nil || resp.StatusCode != http.StatusOK || out.Access == "" {
		t.Fatalf("%s has no token for %s: %d %s", i.name, client, resp.StatusCode, data)
	}
	return out
}

// form is a form with the issuer's resource. An empty value is left out.
func (i issuer) form(pairs ...string) url.Values {
	v := url.Values{}
	if i.resource != "" {
		v.Set("resource", i.resource)
	}
	for n := 0; n < len(pairs); n += 2 {
		v.Set(pairs[n], pairs[n+1])
		if pairs[n+1] == "" {
			v.Del(pairs[n])
		}
	}
	return v
}

// service returns a token of the client svc with the scopes, by the flow client_credentials.
func (i issuer) service(t *testing.T, scopes string) answered {
	t.Helper()
	return i.ask(t, "svc", nil, "grant_type", "client_credentials", "scope", scopes)
}

// user returns a user's tokens for the client web, by the authorization code flow with PKCE (RFC 7636).
func (i issuer) user(t *testing.T, name, scopes string) answered {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	code := i.logIn(t, name, i.url+i.authorize+"?"+i.form("response_type", "code", "client_id", "web",
		"redirect_uri", callback, "scope", scopes, "state", "s", "nonce", i.nonce, "code_challenge_method", "S256",
		"code_challenge", base64.RawURLEncoding.EncodeToString(sum[:])).Encode())
	return i.ask(t, "web", nil, "grant_type", "authorization_code", "code", code, "redirect_uri", callback,
		"code_verifier", verifier)
}

// logIn does what a browser and a user do: it opens the address, follows redirects, and fills in each form, until the
// issuer redirects to the client with a code.
func (i issuer) logIn(t *testing.T, name, address string) (code string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Transport: process.Client.Transport,
		CheckRedirect: func(to *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(to.URL.String(), callback+"?") {
				return http.ErrUseLastResponse
			}
			return nil
		}}
	method, body := http.MethodGet, ""
	for range 5 { // more pages than any issuer shows
		req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", "text/html") // without it, Spring answers 401 instead of its page
		resp, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil && to.Query().Get("code") != "" {
			return to.Query().Get("code")
		}
		page, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		action, fields := firstForm(t, string(page))
		if action == "" {
			t.Fatalf("%s shows a page without a form: %d %s %s", i.name, resp.StatusCode, resp.Header.Get("Location"), page)
		}
		for field, value := range map[string]string{"login": name, "username": name, "password": name + "-password"} {
			if fields.Has(field) {
				fields.Set(field, value)
			}
		}
		to, err := resp.Request.URL.Parse(action)
		if err != nil {
			t.Fatal(err)
		}
		method, address, body = http.MethodPost, to.String(), fields.Encode()
	}
	t.Fatalf("%s shows form after form to %s", i.name, name)
	return ""
}

// firstForm returns the address of a page's first form, and its fields.
func firstForm(t *testing.T, page string) (action string, fields url.Values) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	attribute := func(n *html.Node, name string) string {
		for _, a := range n.Attr {
			if a.Key == name {
				return a.Val
			}
		}
		return ""
	}
	for n := range root.Descendants() {
		switch {
		case n.Type != html.ElementNode:
		case n.Data == "form" && fields == nil:
			action, fields = attribute(n, "action"), url.Values{}
		case n.Data == "form":
			return action, fields
		case n.Data == "input" && fields != nil && attribute(n, "name") != "" && attribute(n, "type") != "checkbox":
			fields.Set(attribute(n, "name"), attribute(n, "value"))
		}
	}
	return action, fields
}

// dpop returns the header of a token request that proves a new key, so that the token is bound to it (RFC 9449).
func (i issuer) dpop(t *testing.T) http.Header {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	proof := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"jti": rand.Text(), "htm": "POST", "htu": i.url + i.token, "iat": time.Now().Unix()})
	proof.Header["typ"] = "dpop+jwt"
	proof.Header["jwk"] = map[string]string{"kty": "EC", "crv": "P-256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}
	text, err := proof.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return http.Header{"Dpop": {text}}
}

// claims returns the header and the payload of a token, for the tests of what an issuer sends.
func claims(t *testing.T, token string) (header, payload map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts is no JWT", len(parts))
	}
	for n, to := range []*map[string]any{&header, &payload} {
		data, err := base64.RawURLEncoding.DecodeString(parts[n])
		if err == nil {
			err = json.Unmarshal(data, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, payload
}

// post sends an empty POST, which must be answered with a status below 300.
func post(t *testing.T, address string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := process.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("POST %s: %d", address, resp.StatusCode)
	}
}
