package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/api"
)

// Pages read only the headers that are exposed: a client must see how long to wait, and what is left of a limit.
func TestPagesOfListedOriginsReadTheHeadersOfAnswers(t *testing.T) {
	t.Parallel()
	h := api.CORS([]string{"https://app.example.com"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	for origin, listed := range map[string]bool{"https://app.example.com": true, "https://other.example.com": false} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/agents", nil)
		r.Header.Set("Origin", origin)
		h.ServeHTTP(w, r)
		exposed := strings.Join(w.Header()["Access-Control-Expose-Headers"], ", ")
		for _, name := range []string{
			"X-Request-Id", "Retry-After", "Ratelimit", "Ratelimit-Policy", "Www-Authenticate", "Idempotent-Replayed",
			"X-Run-Id", "X-Session-Id", "X-Should-Retry",
		} {
			if strings.Contains(strings.ToLower(exposed), strings.ToLower(name)) != listed {
				t.Errorf("%s: exposed are %q, and %s is one: %t", origin, exposed, name, !listed)
			}
		}
	}
}
