package console_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/console"
)

// sources returns the files of the console by their paths in this folder.
func sources(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.html", "*.css", "*.svg", "*.js", "vendor/*.js"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(text)
		}
	}
	return out
}

func get(t *testing.T, name string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	f, ok := console.Lookup(filepath.Base(name))
	if !ok {
		t.Fatalf("the console does not have %s", name)
	}
	r := httptest.NewRequest("GET", "/console/"+name, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.Write(w, r)
	return w
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// largest is the size of the whole console as a browser loads it, in bytes.
const largest = 80 << 10

func TestTheCompressedConsoleIsSmall(t *testing.T) {
	t.Parallel()
	total := 0
	for name, text := range sources(t) {
		resp := get(t, name, "Accept-Encoding", "gzip, br")
		packed := body(t, resp.Body)
		total += len(packed)
		if resp.Header().Get("Content-Encoding") != "gzip" {
			t.Errorf("%s is not compressed", name)
		}
		plain, err := gzip.NewReader(strings.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if body(t, plain) != text {
			t.Errorf("%s: the compressed answer is not the file", name)
		}
		if got := body(t, get(t, name).Body); got != text {
			t.Errorf("%s: the plain answer is not the file", name)
		}
	}
	t.Logf("all files have %d bytes compressed", total)
	if total > largest {
		t.Errorf("all files have %d bytes compressed, at most %d are allowed", total, largest)
	}
}

func TestFilesAreProtectedByTheirHeaders(t *testing.T) {
	t.Parallel()
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; " +
		"trusted-types dompurify"
	kinds := map[string]string{".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".css": "text/css; charset=utf-8", ".svg": "image/svg+xml; charset=utf-8"}
	for name := range sources(t) {
		h := get(t, name).Header()
		for key, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Type": kinds[filepath.Ext(name)], "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
		} {
			if got := h.Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", name, key, got, want)
			}
		}
	}
}

func TestABrowserThatHasTheFileLoadsItNoMore(t *testing.T) {
	t.Parallel()
	first := get(t, "app.js")
	tag := first.Header().Get("ETag")
	again := get(t, "app.js", "If-None-Match", "W/"+tag)
	if tag == "" || again.Code != http.StatusNotModified || body(t, again.Body) != "" {
		t.Errorf("ETag %s: %d", tag, again.Code)
	}
	if other := get(t, "chat.js").Header().Get("ETag"); other == tag {
		t.Error("two files have one ETag")
	}
}

// The OpenAPI document also has the routes that only keyway serve, or only --dev, has.
func TestTheConsoleCallsOnlyDocumentedRoutes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../shared/api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\{\w+\}`)
	var documented []string
	for path, methods := range document.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+parameter.ReplaceAllString(path, "{}"))
		}
	}
	path := regexp.MustCompile("['\"`](/[a-z][^'\"`]*)['\"`]")
	request := regexp.MustCompile("'([A-Z]+)', ['`](/[a-z][^'`]*)['`]")
	// In a question to may(), a word is in the place of an id.
	value := regexp.MustCompile(`\$\{[^}]*\}|/(x|any)(/|$)`)
	called := 0
	for name, text := range sources(t) {
		if filepath.Dir(name) != "." || filepath.Ext(name) != ".js" {
			continue
		}
		found := request.FindAllStringSubmatch(text, -1)
		if all := path.FindAllString(text, -1); len(all) != len(found) {
			t.Errorf("%s has %d paths, of which %d stand behind a method", name, len(all), len(found))
		}
		for _, m := range found {
			called++
			asked := m[1] + " " + value.ReplaceAllStringFunc(m[2], func(s string) string {
				if strings.HasPrefix(s, "$") {
					return "{}"
				}
				return "/{}" + strings.TrimLeft(s[1:], "anyx")
			})
			if !slices.Contains(documented, asked) {
				t.Errorf("%s calls %s, which is not documented", name, asked)
			}
		}
		if n := strings.Count(text, "fetch("); n > 0 && name != "api.js" {
			t.Errorf("%s calls fetch by itself", name)
		}
	}
	if called < 20 {
		t.Errorf("the test found only %d calls", called)
	}
}

// Texts of models, tools and people become text nodes. Only markdown.js makes elements of a text, by DOMPurify.
func TestNoModuleTurnsATextIntoMarkup(t *testing.T) {
	t.Parallel()
	for name, text := range sources(t) {
		if filepath.Dir(name) != "." {
			continue
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
			"new Function", "localStorage", "createContextualFragment", "DOMParser", " style=", "onclick=",
			"http://", "https://"} {
			allowed := bad == "http://" && filepath.Ext(name) == ".svg" || // the namespace, which nobody loads
				bad == "http://" && strings.Count(text, bad) == strings.Count(text, "http://www.w3.org/2000/svg")
			if strings.Contains(text, bad) && !allowed {
				t.Errorf("%s contains %q", name, bad)
			}
		}
	}
}

// vendored are the SHA-256 sums of the libraries, as the npm packages of docs/dependencies.md have them.
var vendored = map[string]string{
	"vendor/marked.esm.js": "5371fea86fd0656b4fc7bea7c94c663109d82789b69433eeee78d42895aa44de",
	"vendor/purify.min.js": "f69a46022ab1f53e969c8ebbca98172c8995785a9b3be72ea4a12d25b1a1bf67",
}

func TestVendoredLibrariesAreUnchanged(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range sources(t) {
		if filepath.Dir(name) != "vendor" {
			continue
		}
		sum := sha256.Sum256([]byte(text))
		got := hex.EncodeToString(sum[:])
		if got != vendored[name] {
			t.Errorf("%s has the SHA-256 %s, want %s", name, got, vendored[name])
		}
		if !strings.Contains(string(page), got) {
			t.Errorf("docs/dependencies.md does not have the sum of %s", name)
		}
	}
}

func TestAFileIsCompressedOnlyForClientsThatAcceptIt(t *testing.T) {
	t.Parallel()
	plain := get(t, "app.js").Header().Get("ETag")
	for accepted, compressed := range map[string]bool{
		"gzip": true, "br, GZIP": true, "gzip;q=0.5": true, "gzip; q=0": false, "gzip;q=0.000": false, "br": false, "": false,
		"xgzip": false,
	} {
		h := get(t, "app.js", "Accept-Encoding", accepted).Header()
		if (h.Get("Content-Encoding") == "gzip") != compressed || (h.Get("ETag") != plain) != compressed {
			t.Errorf("%q: %v", accepted, h)
		}
	}
}
