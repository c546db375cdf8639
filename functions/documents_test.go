package functions_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/policycheck"
	"github.com/keyway-agents/keyway/shared/token"
)

// signer signs the tokens of one document's issuer.
type signer struct {
	method jwt.SigningMethod
	key    any
	public string // for JWT_VERIFICATION_KEY
}

func hmacSigner() signer {
	const secret = "TEST KEY ONLY: thirty-two bytes at the very least"
	return signer{jwt.SigningMethodHS256, []byte(secret), secret}
}

func rsaSigner(t *testing.T) signer {
	t.Helper()
	var made struct {
		PrivateKey string `json:"private_key"`
		PublicKey  string `json:"public_key"`
	}
	file, err := token.GenerateKeys("RS256", rand.Reader)
	if err == nil {
		err = json.Unmarshal(file, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(made.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return signer{jwt.SigningMethodRS256, key, made.PublicKey}
}

// authorization returns the Authorization header of a caller in a document's table, or "".
func (s signer) authorization(t *testing.T, name string, caller any) string {
	t.Helper()
	now := time.Now()
	claims := jwt.MapClaims{"sub": name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	switch c := caller.(type) {
	case string:
		return ""
	case []any:
		claims["scopes"] = c
	case map[string]any:
		for claim, value := range c {
			claims[claim] = value
			if text, ok := value.(string); ok && slices.Contains([]string{"exp", "nbf", "iat"}, claim) {
				after, err := time.ParseDuration(text)
				if err != nil {
					t.Fatal(err)
				}
				claims[claim] = now.Add(after).Unix()
			}
			if value == nil {
				delete(claims, claim)
			}
		}
	}
	raw, err := jwt.NewWithClaims(s.method, claims).SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + raw
}

// Each row of a document's table is a request. The test sends it through the authorizer to the
// function of its route, and compares the status.
func TestDocumentedPermissionsHoldForDeployedFunctions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"per-agent-permissions", "agent-permissions", "advanced-scopes",
		"custom-scope-mappings", "basic-rbac-asymmetric"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := hmacSigner()
			if name == "basic-rbac-asymmetric" {
				s = rsaSigner(t)
			}
			holds(t, "../examples/"+name+"/", "", s)
		})
	}
}

// With a base path, the authorizer's event and the function's event have different paths. Both
// must give the same verdict.
func TestDocumentedPermissionsHoldBelowABasePath(t *testing.T) {
	t.Parallel()
	holds(t, "../examples/per-agent-permissions/", "/agents/web-search-agent", hmacSigner())
}

func holds(t *testing.T, dir, base string, s signer) {
	t.Helper()
	table, err := policycheck.Read(dir + "policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := yamlfile.Open(dir + "policies.yaml")
	var file struct{ Callers map[string]any }
	if err == nil {
		err = json.Unmarshal(doc.JSON(), &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := document(t, dir+"keyway.yaml")
	d.base = base
	door := d.serve("JWT_VERIFICATION_KEY=" + s.public)
	for _, row := range table.Tests {
		status, body := send(t, door.URL, row, s.authorization(t, row.Caller, file.Callers[row.Caller]))
		switch refused := slices.Contains([]int{401, 403, 404, 405}, status); {
		// a missing resource may be requested
		case row.Allow && refused && (status != 404 || !strings.Contains(body, "not found")):
			t.Errorf("%s: %d %s", row.Text, status, body)
		case row.Allow && status >= 500:
			t.Errorf("%s: %d %s", row.Text, status, body)
		case !row.Allow && status != row.Status && (row.Status != 405 || status != 404): // API Gateway has no 405
			t.Errorf("%s: %d, want %d: %s", row.Text, status, row.Status, body)
		}
		if row.Allow && row.Lists != nil && row.Path == "/agents" {
			if got := ids(t, body); strings.Join(got, " ") != strings.Join(row.Lists, " ") {
				t.Errorf("%s: lists %q", row.Text, got)
			}
		}
	}
}

// document deploys one document's keyway.yaml, with a local model server.
func document(t *testing.T, file string) deployment {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		data, err = yamlfile.Canonical(file, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := deploy(t, strings.ReplaceAll(string(data), "https://docs.agno.com/mcp", "http://127.0.0.1:1/mcp"))
	d.model = modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script { return modeltest.Text("hello") })
	return d
}

// send sends the request of a row, with a message if it starts a run.
func send(t *testing.T, door string, row policycheck.Test, authorization string) (status int, body string) {
	t.Helper()
	content := url.Values{"message": {"hello"}, "stream": {"false"}}.Encode()
	r, err := http.NewRequestWithContext(t.Context(), row.Method, door, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Path = row.Path
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// ids returns the sorted ids of a list.
func ids(t *testing.T, list string) (out []string) {
	t.Helper()
	var all []struct{ ID string }
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", list, err))
	}
	for _, a := range all {
		out = append(out, a.ID)
	}
	slices.Sort(out)
	return out
}
