package api_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestTheOSDescribesItself(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, e := range []exchange{
		{"ann GET /", "", 200, `{"name":"Test","health":"/health","info":"/info","docs":"/docs"}`},
		{"ann GET /health", "", 200, `"status":"ok"`},
		{"ann GET /info", "", 200, `"agno_version":"3.1.10"`},
		{"ann GET /info", "", 200, `"agent_count":2`},
		{"ann GET /openapi.json", "", 200, `"openapi":"3.1.0"`},
		{"ann GET /config", "", 200, `"available_models":[{"id":"m-1","provider":"Test"}]`},
		{"ann GET /config", "", 200, `"config_digest":"d"`},
		{"ann GET /teams", "", 200, `[]`},
		{"ann GET /workflows", "", 200, `[]`},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}

func TestAgentsAreListedAsTheCallerMayReadThem(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("ann GET /agents", "").want(t, 200, `"id":"a"`, `"id":"b"`)
	s.do("ann GET /agents/b", "").
		want(t, 200, `"name":"Agent b"`, `"model":{"name":"Scripted","model":"m-1","provider":"Test"}`)
	s.do("ann GET /agents/nope", "").want(t, 404, "Agent not found")
	for _, path := range []string{"/agents", "/config"} {
		if got := s.do("one GET "+path, "").want(t, 200, `"id":"a"`); strings.Contains(got.Body.String(), `"id":"b"`) {
			t.Errorf("%s shows an agent that the caller may not read: %s", path, got.Body)
		}
	}
	s.do("one GET /agents/b", "").want(t, 403, `"missing":["agents:b:read"]`)
}

func TestTheDocsPageRunsOnlyItsOwnScript(t *testing.T) {
	t.Parallel()
	got := newService(t).do("ann GET /docs", "").want(t, http.StatusOK, "<!doctype html>")
	policy := got.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; script-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("Content-Security-Policy: %s", policy)
	}
}

// The digest of the configuration would let anybody check a guess of a secret that is written into it.
func TestInfoHasNoDigestOfTheConfiguration(t *testing.T) {
	t.Parallel()
	if got := newService(t).do("nobody GET /info", "").want(t, 200); strings.Contains(got.Body.String(), "digest") {
		t.Errorf("%s", got.Body)
	}
}

// Only what is the same for everybody may be stored by a cache.
func TestAnswersAreNotStoredByCaches(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, e := range []exchange{
		{"ann GET /agents", "", 200, "no-store"},
		{"ann GET /sessions", "", 200, "no-store"},
		{"ann GET /sessions/nope", "", 404, "no-store"},
		{"ann DELETE /sessions/nope", "", 204, "no-store"},
		{"nobody GET /agents", "", 401, "no-store"},
		{"one GET /sessions", "", 403, "no-store"},
		{"ann POST /agents/a/runs", "message=m&stream=false", 200, "no-store"},
		{"ann POST /agents/a/runs", "message=m", 200, "no-cache, no-store"},
		{"ann GET /docs", "", 200, ""},
		{"ann GET /openapi.json", "", 200, ""},
	} {
		got := s.do(e.request, e.body).want(t, e.status)
		if c := got.Header().Get("Cache-Control"); c != e.text {
			t.Errorf("%s: Cache-Control %q, want %q", e.request, c, e.text)
		}
		if n := got.Header().Get("X-Content-Type-Options"); n != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q", e.request, n)
		}
	}
}

// What a caller sends comes back in the text of an error, but not all of it.
func TestErrorsRepeatOnlyTheBeginningOfWhatWasSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	long := strings.Repeat("x", 60_000)
	for _, request := range []string{
		"one GET /agents/" + long, "one POST /agents/" + long + "/runs", "ann GET /agents/" + long,
		"ann GET /sessions/" + long, "ann GET /sessions/" + long + "/runs/" + long, "ann GET /memories/" + long,
		"ann GET /sessions?db_id=" + long, "ann POST /agents/a/runs/" + long + "/cancel",
		"admin POST /agents/a/runs/" + long + "/resume", "ann GET /" + long,
	} {
		got := s.do(request, "")
		size := got.Body.Len()
		for name, values := range got.Header() {
			size += len(name) + len(strings.Join(values, ""))
		}
		if size > 8<<10 {
			t.Errorf("%.60s: %d, %d bytes of headers and body", request, got.Code, size)
		}
	}
}
