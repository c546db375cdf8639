package websearch_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/tooltest"
	"github.com/keyway-agents/keyway/shared/tool/websearch"
)

// duckDuckGo replaces DuckDuckGo, with pages in the form that testdata/README.md
// describes.
func duckDuckGo(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/html/":
		page := map[string]string{"none": "none", "robot": "anomaly"}[r.FormValue("q")]
		if page == "" {
			page = "results"
		}
		http.ServeFile(w, r, "testdata/"+page+".html")
	case r.URL.Path == "/" && r.FormValue("q") != "":
		_, _ = w.Write([]byte(`<script>DDG.deep.initialize('/d.js?q=go&vqd="4-123"&p=1')</script>`))
	case r.URL.Path == "/news.js" && r.FormValue("vqd") == "4-123" && r.FormValue("o") == "json":
		http.ServeFile(w, r, "testdata/news.json")
	default:
		http.NotFound(w, r)
	}
}

// open returns the tools on a server with this handler.
func open(t *testing.T, h http.HandlerFunc) *websearch.Search {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	s, err := websearch.New(srv.URL, tool.Egress{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// call calls a tool by name.
func call(t *testing.T, s *websearch.Search, name, arguments string) (string, error) {
	t.Helper()
	tools, err := s.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range tools {
		if c.Name == name {
			return c.Call(t.Context(), json.RawMessage(arguments))
		}
	}
	t.Fatalf("there is no %s", name)
	return "", nil
}

func TestTheToolsFollowTheRulesOfEveryTool(t *testing.T) {
	t.Parallel()
	tooltest.Run(t, open(t, duckDuckGo), map[string]string{
		"web_search": `{"query":"go"}`, "search_news": `{"query":"go","max_results":1}`,
	})
}

func TestAResultHasTitleAddressAndExcerpt(t *testing.T) {
	t.Parallel()
	s := open(t, duckDuckGo)
	const first = `{"title":"The Go Programming Language","href":"https://go.dev/doc/?a=1&b=2",` +
		`"body":"Documentation & tutorials for Go."}`
	const second = `{"title":"Größe 日本","href":"https://example.org/plain","body":"Direct link."}`
	for arguments, want := range map[string]string{
		`{"query":"go"}`:                   "[" + first + "," + second + "]", // without the advertisement and the script
		`{"query":"go","max_results":1}`:   "[" + first + "]",
		`{"query":"go","max_results":-1}`:  "[]",
		`{"query":"none"}`:                 "[]",
		`{"query":"go","max_results":500}`: "[" + first + "," + second + "]",
	} {
		if got, err := call(t, s, "web_search", arguments); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", arguments, got, err, want)
		}
	}
}

func TestAnArticleHasDateAndSource(t *testing.T) {
	t.Parallel()
	got, err := call(t, open(t, duckDuckGo), "search_news", `{"query":"go"}`)
	const want = `[{"date":"2023-11-14T22:13:20Z","title":"Go is out","body":"A new Go release & more.",` +
		`"url":"https://news.example/1","image":"https://img.example/1.png","source":"Example News"},` +
		`{"date":"yesterday","title":"Two","body":"Second.",` +
		`"url":"https://news.example/2","image":"","source":"Other"}]`
	if err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestABlockedSearchIsAnErrorAndNotAnEmptyResult(t *testing.T) {
	t.Parallel()
	const blocked = "blocks this server as a robot"
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"a challenge": {duckDuckGo, blocked},
		"202":         {status(202), blocked},
		"403":         {status(403), blocked},
		"500":         {status(500), "answered with status 500"},
		"another page": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<p>hello"))
		}, "has no results in it"},
		"a redirect to a private address": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:9/", http.StatusTemporaryRedirect)
		}, "is not a public address"},
	} {
		for _, f := range []string{"web_search", "search_news"} {
			if name == "a challenge" && f == "search_news" {
				continue // duckDuckGo sends the challenge at /html/ only
			}
			_, err := call(t, open(t, c.h), f, `{"query":"robot"}`)
			if err == nil || !strings.Contains(fault.Detail(err), c.want) {
				t.Errorf("%s, %s: %v, want %q", name, f, err, c.want)
			}
		}
	}
	if _, err := call(t, open(t, duckDuckGo), "web_search", `{"query":" "}`); err == nil {
		t.Error("an empty query is not an error")
	}
}

// The test lasts as long as a call may take: 10 seconds.
func TestACallEndsIfTheServiceHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := open(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	began := time.Now()
	_, err := call(t, s, "web_search", `{"query":"go"}`)
	took := time.Since(began)
	if fault.KindOf(err) != fault.Unavailable || took < 9*time.Second || took > 14*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}

func TestTheNumberOfResultsIsBounded(t *testing.T) {
	t.Parallel()
	const one = `<div class="result results_links web-result"><div class="links_main result__body">` +
		`<h2 class="result__title"><a rel="nofollow" class="result__a" href="https://x.example/">T</a></h2>` +
		`<a class="result__snippet" href="https://x.example/">x</a></div></div>`
	s := open(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`<!DOCTYPE html><html><body><div class="serp__results"><div id="links" class="results">` +
			strings.Repeat(one, 80) + `</div></div></body></html>`))
	})
	text, err := call(t, s, "web_search", `{"query":"go","max_results":51}`)
	if got := strings.Count(text, `"href"`); err != nil || got != 50 {
		t.Errorf("%d results, %v", got, err)
	}
}
