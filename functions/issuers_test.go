package functions_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/policycheck"
)

// identityProvider is an issuer with metadata, whose newest key signs.
type identityProvider struct {
	url string

	mu   sync.Mutex
	keys []*rsa.PrivateKey // the newest is the last
}

func newIdentityProvider(t *testing.T) *identityProvider {
	t.Helper()
	p := &identityProvider{}
	p.rotate(t)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

func (p *identityProvider) rotate(t *testing.T) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, key)
}

// retire removes the oldest key.
func (p *identityProvider) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = p.keys[1:]
}

func (p *identityProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/.well-known/openid-configuration" {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.url, "jwks_uri": p.url + "/jwks"})
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	set := jose.JSONWebKeySet{}
	for _, key := range p.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.PublicKey, KeyID: kidOf(key), Use: "sig", Algorithm: "RS256"})
	}
	_ = json.NewEncoder(w).Encode(set)
}

func kidOf(key *rsa.PrivateKey) string { return key.N.Text(36)[:8] }

// authorization returns the header of a user with these roles, signed with the newest key.
func (p *identityProvider) authorization(t *testing.T, sub string, roles ...string) string {
	t.Helper()
	p.mu.Lock()
	key := p.keys[len(p.keys)-1]
	p.mu.Unlock()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"iss": p.url, "sub": sub, "aud": "my-agent-os",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "realm_access": map[string]any{"roles": roles}})
	token.Header["kid"] = kidOf(key)
	raw, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + raw
}

// withIssuers is the configuration of an OS whose users are those of these issuers.
func withIssuers(list ...*identityProvider) string {
	var keys []string
	for _, p := range list {
		keys = append(keys, `{"discovery":"`+p.url+`","http":true,"audience":["my-agent-os"],`+
			`"claims":{"roles":{"path":["realm_access","roles"]}},"grants":{"b-users":["agents:b:read","agents:b:run",`+
			`"sessions:read"]}}`)
	}
	return `{"agents":[{"id":"a","model":"demo:x"},{"id":"b","model":"demo:x"}],"auth":{"algorithms":["RS256"],"keys":[` +
		strings.Join(keys, ",") + `]},"database":{"url":"${DATABASE_URL}"},"id":"test-os"}`
}

// asks sends a request through the deployed authorizer and function, and checks the answer.
func asks(t *testing.T, door *httptest.Server, authorization, request string, status int, contains string) {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	got, body := send(t, door.URL, policycheck.Test{Method: method, Path: path}, authorization)
	if got != status || !strings.Contains(body, contains) {
		t.Errorf("%s: %d %.300s, want %d and %q", request, got, body, status, contains)
	}
}

// The authorizer finds a new issuer's keys by discovery, and a rotated key without a deployment. A deployment adds an
// issuer with a user of the same name, and changes no owner.
func TestDeployedFunctionsFollowRotationsAndNewIssuers(t *testing.T) {
	t.Parallel()
	ours, theirs := newIdentityProvider(t), newIdentityProvider(t)
	d := deploy(t, withIssuers(ours))
	d.migrate()
	door := d.serve()
	ann := ours.authorization(t, "ann", "b-users", "offline_access")
	asks(t, door, ann, "POST /agents/b/runs", 200, `"COMPLETED"`)
	asks(t, door, ann, "POST /agents/a/runs", 403, "")
	asks(t, door, ann, "GET /agents", 200, `[{"id":"b"`)
	asks(t, door, ann, "GET /sessions", 200, `"total_count":1`)

	ours.rotate(t)
	rotated := ours.authorization(t, "ann", "b-users")
	d.awaitKey(t, door, rotated)
	asks(t, door, ann, "GET /sessions", 200, `"total_count":1`)
	asks(t, door, rotated, "GET /sessions", 200, `"total_count":1`)
	ours.retire()
	asks(t, d.serve(), ann, "GET /sessions", 401, "")

	if err := os.WriteFile(filepath.Join(d.dir, "keyway.json"), []byte(withIssuers(theirs, ours)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.migrate()
	door = d.serve()
	asks(t, door, rotated, "GET /sessions", 200, `"total_count":1`)
	other := theirs.authorization(t, "ann", "b-users")
	asks(t, door, other, "GET /sessions", 200, `"total_count":0`)
	asks(t, door, other, "POST /agents/b/runs", 200, `"COMPLETED"`)
	asks(t, door, rotated, "GET /sessions", 200, `"total_count":1`)
}

// migrate runs the migrate function, as each deployment does.
func (d deployment) migrate() {
	d.t.Helper()
	if a := d.start("migrate").Invoke([]byte("{}"), time.Minute); a.Kind != "response" {
		d.t.Fatalf("%s %s", a.Kind, a.Body())
	}
}

// awaitKey waits until a token of a new key is accepted. It is never refused: until the keys can be fetched again, API
// Gateway answers that the authorizer has failed.
func (d deployment) awaitKey(t *testing.T, door *httptest.Server, authorization string) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		status, body := send(t, door.URL, policycheck.Test{Method: "GET", Path: "/agents"}, authorization)
		if status == http.StatusOK {
			return
		}
		if status != http.StatusInternalServerError || time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("%d %s", status, body))
		}
	}
}
