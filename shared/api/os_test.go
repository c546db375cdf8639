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
