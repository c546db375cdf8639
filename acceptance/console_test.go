package acceptance

import (
	"net/http"
	"strings"
	"testing"
)

func TestConsoleIsServedBelowItsOwnPath(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	page := r.Call("-", "GET", "/console/", nil)
	page.Want(t, "the page", 200, "<title>Keyway console</title>", `src="app.js"`)
	policy := page.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
		t.Errorf("Content-Security-Policy: %s", policy)
	}
	r.Call("-", "GET", "/console/marked.esm.js", nil).Want(t, "a library", 200, "marked")
	r.Call("-", "GET", "/console/nothing.js", nil).
		Want(t, "an unknown file", 404, `"detail":"The console has no such file"`)
	r.Call("-", "GET", "/console/..%2Fapi.go", nil).Want(t, "a path, which is no route", 401)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Get(r.URL + "/console") //nolint:noctx // the server is on this machine
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != "console/index.html" {
		t.Errorf("without the slash: %d to %s", resp.StatusCode, resp.Header.Get("Location"))
	}
}
