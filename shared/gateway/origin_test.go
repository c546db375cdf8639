package gateway_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/route"
)

func TestOnlyAPageOfThisServerReachesTheRoutesThatSignTokens(t *testing.T) {
	t.Parallel()
	answering := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
	}
	h := gateway.SameOrigin(route.Table, answering("own"), answering("others"))
	const here = "http://127.0.0.1:7777"
	fetched := func(site string) []string { return []string{"Origin", here, "Sec-Fetch-Site", site} }
	for name, row := range map[string]struct {
		request string
		headers []string
		want    string // the body, or a part of the refusal
	}{
		"another route":                 {"POST /agents/a/runs", []string{"Origin", "https://evil.example"}, "others"},
		"a page of this server":         {"POST /dev/token", []string{"Origin", here}, "own"},
		"and its browser says so":       {"POST /dev/sign-in", fetched("same-origin"), "own"},
		"a slash at the end":            {"POST /dev/token/", []string{"Origin", here}, "own"},
		"another method":                {"GET /dev/token", []string{"Origin", here}, "own"},
		"no origin":                     {"POST /dev/token", nil, "its Origin must be " + here},
		"another page":                  {"POST /dev/token", []string{"Origin", "https://evil.example"}, "must be"},
		"a listed origin":               {"POST /dev/token", []string{"Origin", "http://localhost:3000"}, "must be"},
		"another port":                  {"POST /dev/sign-in", []string{"Origin", "http://127.0.0.1:7778"}, "must be"},
		"another name of this host":     {"POST /dev/token", []string{"Origin", "http://localhost:7777"}, "must be"},
		"another scheme":                {"POST /dev/token", []string{"Origin", "https://127.0.0.1:7777"}, "must be"},
		"a sandboxed page":              {"POST /dev/token", []string{"Origin", "null"}, "must be"},
		"two origins":                   {"POST /dev/token", []string{"Origin", here, "Origin", here}, "must be"},
		"the browser disagrees":         {"POST /dev/token", fetched("cross-site"), "must be"},
		"another site's frame":          {"POST /dev/token", fetched("same-site"), "must be"},
		"a preflight of another origin": {"OPTIONS /dev/token", []string{"Origin", "http://localhost:3000"}, "must be"},
		"a form of another page":        {"GET /dev/sign-in", nil, "must be"},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Host = "127.0.0.1:7777"
		for i := 0; i < len(row.headers); i += 2 {
			r.Header.Add(row.headers[i], row.headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		refused := w.Code == http.StatusForbidden
		if !strings.Contains(w.Body.String(), row.want) || refused != strings.Contains(row.want, "must be") ||
			w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/dev/token", nil)
	r.Host, r.TLS = "127.0.0.1:7777", &tls.ConnectionState{}
	r.Header.Set("Origin", "https://127.0.0.1:7777")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Body.String() != "own" {
		t.Errorf("with TLS: %d %s", w.Code, w.Body)
	}
}
