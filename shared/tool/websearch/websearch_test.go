package websearch_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/tooltest"
	"github.com/keyway-agents/keyway/shared/tool/websearch"
)

// duck answers in the shapes of testdata/README.md.
func duck(w http.ResponseWriter, r *http.Request) {
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

func TestTheRulesOfEveryTool(t *testing.T) {
	t.Parallel()
	tooltest.Run(t, open(t, duck), map[string]string{"web_search": `{"query":"go"}`, "search_news": `{"query":"go","max_results":1}`})
}

func TestResultsAreTitleAddressAndExcerpt(t *testing.T) {
	t.Parallel()
	s := open(t, duck)
	const first = `{"title":"The Go Programming Language","href":"https://go.dev/doc/?a=1&b=2","body":"Documentation & tutorials for Go."}`
	const second = `{"title":"Größe 日本","href":"https://example.org/plain","body":"Direct link."}`
	for arguments, want := range map[string]string{
		`{"query":"go"}`:                   "[" + first + "," + second + "]", // neither the advertisement nor the script
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

func TestNewsAreDated(t *testing.T) {
	t.Parallel()
	got, err := call(t, open(t, duck), "search_news", `{"query":"go"}`)
	const want = `[{"date":"2023-11-14T22:13:20Z","title":"Go is out","body":"A new Go release & more.","url":"https://news.example/1","image":"https://img.example/1.png","source":"Example News"},` +
		`{"date":"yesterday","title":"Two","body":"Second.","url":"https://news.example/2","image":"","source":"Other"}]`
	if err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestARefusalToSearchIsNotAnEmptyResult(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"a challenge":  {duck, "takes this server for a robot"},
		"202":          {status(202), "takes this server for a robot"},
		"403":          {status(403), "takes this server for a robot"},
		"500":          {status(500), "answered with status 500"},
		"another page": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<p>hello")) }, "has no results in it"},
		"a redirect inside": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:9/", http.StatusTemporaryRedirect)
		}, "is not a public address"},
	} {
		for _, f := range []string{"web_search", "search_news"} {
			if name == "a challenge" && f == "search_news" {
				continue // duck only challenges at /html/
			}
			if _, err := call(t, open(t, c.h), f, `{"query":"robot"}`); err == nil || !strings.Contains(fault.Detail(err), c.want) {
				t.Errorf("%s, %s: %v, want %q", name, f, err, c.want)
			}
		}
	}
	if _, err := call(t, open(t, duck), "web_search", `{"query":" "}`); err == nil {
		t.Error("an empty query is searched for")
	}
}
