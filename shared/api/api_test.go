package api_test

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/route"
)

func TestEveryRouteHasAnEndpoint(t *testing.T) {
	t.Parallel()
	whole := api.New(api.Options{}, api.OS{}, &api.Readiness{}, api.Agents{}, api.Runs{}, api.Sessions{}, api.Memories{},
		api.Metrics{}, api.Revocations{}, api.UserData{}, api.Local{}, api.Dev{})
	part := api.New(api.Options{}, &api.Readiness{}, api.Sessions{}, api.Metrics{}, api.Revocations{})
	for r := range route.Table.All() {
		if !whole.Serves(r.Name) {
			t.Errorf("no endpoint answers %s", r)
		}
		if got := part.Serves(r.Name); got != (r.Function == route.Sessions) {
			t.Errorf("a server of the sessions answers %s: %t", r, got)
		}
	}
}

func TestTwoEndpointsForOneRoutePanic(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the second endpoint was accepted")
		}
	}()
	api.New(api.Options{}, api.Sessions{}, api.Sessions{})
}

// API Gateway caches the authorizer's answer, so a request can arrive with an expired
// token. The function checks the expiry and the scopes again.
func TestTheFunctionDecidesAgain(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_893_456_000, 0)
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	server := api.New(api.Options{
		Policy: policy, Leeway: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return now },
	}, api.Agents{})
	for name, row := range map[string]struct {
		caller *authz.Principal
		status int
	}{
		"in time": {&authz.Principal{Scopes: []string{"agents:read"}, ExpiresAt: now.Add(time.Second)}, 200},
		"within the leeway": {
			&authz.Principal{Scopes: []string{"agents:read"}, ExpiresAt: now.Add(-9 * time.Second)}, 200,
		},
		"expired": {
			&authz.Principal{Scopes: []string{"agents:read"}, ExpiresAt: now.Add(-10 * time.Second)}, 401,
		},
		"expired long ago":     {&authz.Principal{Scopes: []string{"agent_os:admin"}, ExpiresAt: time.Unix(1, 0)}, 401},
		"without expiry":       {&authz.Principal{Scopes: []string{"agents:read"}}, 200},
		"without scopes":       {&authz.Principal{ExpiresAt: now.Add(time.Second)}, 403},
		"without a caller":     {nil, 401},
		"with another's scope": {&authz.Principal{Scopes: []string{"sessions:read"}}, 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/agents", nil)
		if row.caller != nil {
			r = r.WithContext(authz.WithPrincipal(r.Context(), row.caller))
		}
		got := httptest.NewRecorder()
		if server.ServeHTTP(got, r); got.Code != row.status {
			t.Errorf("%s: %d %s, want %d", name, got.Code, got.Body, row.status)
		}
	}
}
