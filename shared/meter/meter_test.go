package meter_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/prometheus"
	"github.com/keyway-agents/keyway/shared/trace"
)

// header keeps the header of the request that would be sent.
type header struct{ got http.Header }

func (h *header) RoundTrip(r *http.Request) (*http.Response, error) {
	h.got = r.Header
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// A trace that nobody exports is not passed on, although its spans are counted.
func TestCountingSendsNoTraceToOtherPrograms(t *testing.T) {
	t.Parallel()
	tracer := meter.Tracer(trace.None().Tracer, prometheus.New())
	sent := &header{}
	web := trace.Requests(tracer, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://model.example", nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := trace.Outgoing(sent).RoundTrip(out)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	web.ServeHTTP(httptest.NewRecorder(), r)
	if sent.got == nil || sent.got.Get("Traceparent") != "" {
		t.Errorf("%v", sent.got)
	}
}
