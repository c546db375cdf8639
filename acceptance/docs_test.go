package acceptance

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestOpenAPIDocumentIsServedAsCommitted(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	committed, err := os.ReadFile("../shared/api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	got := r.Call("-", "GET", "/openapi.json", nil)
	got.Want(t, "the document", 200)
	if got.Body != string(committed) || got.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%s of %d bytes, want %d", got.Header.Get("Content-Type"), len(got.Body), len(committed))
	}
	r.Call("-", "GET", "/", nil).Want(t, "the index names the page", 200, `"docs":"/docs"`)
}

// The page runs only its own script and sends requests only to its own server.
func TestDocsPageLoadsNothingFromOtherHosts(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	page := r.Call("-", "GET", "/docs", nil)
	page.Want(t, "the page", 200, "<title>Keyway API</title>")
	hash := func(element string) string {
		found := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(page.Body, -1)
		if len(found) != 1 {
			t.Fatalf("the page has %d elements %s, want 1", len(found), element)
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := "default-src 'none'; script-src " + hash("script") + "; style-src " + hash("style") +
		"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	for name, value := range map[string]string{
		"Content-Security-Policy": want, "X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := page.Header.Get(name); got != value {
			t.Errorf("%s: %s\nwant %s", name, got, value)
		}
	}
	for _, bad := range []string{"http://", "https://", "//cdn", "innerHTML", "insertAdjacentHTML", "localStorage",
		"sessionStorage", "onclick", "eval("} {
		if strings.Contains(page.Body, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
}
