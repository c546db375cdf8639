package providers_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/providers"
)

// gateways are the providers whose server can be a gateway.
var gateways = []string{"openai", "openai-responses", "anthropic"}

// withHeaders returns a model behind a gateway at url.
func withHeaders(provider, url string, headers map[string]config.Secret) config.Model {
	return config.Model{
		Provider: provider, ID: "m", BaseURL: config.URL(url + "/v1"), APIKey: "sk-of-the-provider", Headers: headers,
	}
}

// ask opens a model and returns the error of one request.
func ask(t *testing.T, m config.Model, whole bool) error {
	t.Helper()
	opened, err := providers.Open(m, env(nil))
	if err != nil {
		t.Fatal(err)
	}
	r := modeltest.Ask("hi")
	r.Whole = whole
	return modeltest.Collect(t.Context(), t, opened, r).Err
}

func TestHeadersOfAModelAreSentWithEachRequest(t *testing.T) {
	t.Parallel()
	for _, provider := range gateways {
		for _, whole := range []bool{false, true} {
			var mu sync.Mutex
			var got []http.Header
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, r.Header)
				w.Header().Set("Retry-After-Ms", "1") // the first answer asks for one more try
				w.Header().Set("X-Should-Retry", map[bool]string{true: "true", false: "false"}[len(got) == 1])
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			t.Cleanup(s.Close)
			_ = ask(t, withHeaders(provider, s.URL, map[string]config.Secret{
				"x-portkey-provider": "openai", "Authorization": "Bearer of-the-gateway", "user-agent": "gateway-client",
				"X-Text": "München, tab\tand: colon",
			}), whole)
			mu.Lock()
			if len(got) != 2 {
				t.Fatalf("%s: %d requests, want 2", provider, len(got))
			}
			for i, h := range got {
				want := map[string][]string{
					"X-Portkey-Provider": {"openai"}, "Authorization": {"Bearer of-the-gateway"}, "User-Agent": {"gateway-client"},
					"X-Text": {"München, tab\tand: colon"}, "Content-Type": {"application/json"},
				}
				for name, values := range want {
					if diff := cmp.Diff(values, h.Values(name)); diff != "" {
						t.Errorf("%s, request %d: %s: %s", provider, i+1, name, diff)
					}
				}
				if key := h.Get("X-Api-Key"); provider == "anthropic" && key != "sk-of-the-provider" {
					t.Errorf("the key is %q", key)
				}
			}
			mu.Unlock()
		}
	}
}

// A redirect can lead anywhere, and net/http removes only Authorization on the way to
// another host.
func TestHeadersOfAModelAreNotSentToAnotherHost(t *testing.T) {
	t.Parallel()
	for _, provider := range gateways {
		var reached atomic.Int32
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
		t.Cleanup(other.Close)
		for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
			s := httptest.NewServer(http.RedirectHandler(other.URL, status))
			t.Cleanup(s.Close)
			for _, whole := range []bool{false, true} {
				if err := ask(t, withHeaders(provider, s.URL, map[string]config.Secret{"X-Key": "hunter2"}), whole); err == nil {
					t.Errorf("%s: a redirect is an answer", provider)
				}
			}
		}
		if n := reached.Load(); n != 0 {
			t.Errorf("%s: another host was reached %d times", provider, n)
		}
	}
}

// Gateways repeat what they reject: the whole value, or only the token in it.
func TestValuesOfHeadersAreMaskedInErrorTexts(t *testing.T) {
	t.Parallel()
	const said = `{"error":{"message":"no provider openai: Bearer hunter2-token, hunter2-token, hunter2-token-2, x"}}`
	for _, provider := range gateways {
		for name, answer := range map[string]func(http.ResponseWriter){
			"status": func(w http.ResponseWriter) {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte(said))
			},
			"stream": func(w http.ResponseWriter) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte("event: error\ndata: " + strings.Replace(said, "{", `{"type":"error",`, 1) + "\n\n"))
			},
		} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			t.Cleanup(s.Close)
			err := ask(t, withHeaders(provider, s.URL, map[string]config.Secret{
				"X-Provider": "openai", "X-Key": "Bearer hunter2-token", "X-Other": "hunter2-token-2", "X-Short": "x",
			}), false)
			const want = "no provider openai: ***, ***, ***, x"
			if err == nil || fault.Detail(err) != want || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %s: %v", provider, name, err)
			}
		}
	}
}

// Local servers get keys such as "x".
func TestAShortKeyDoesNotGarbleErrorTexts(t *testing.T) {
	t.Parallel()
	for _, provider := range gateways {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":{"message":"max_tokens exceeds the context"}}`))
		}))
		t.Cleanup(s.Close)
		m := withHeaders(provider, s.URL, nil)
		m.APIKey = "x"
		if err := ask(t, m, false); fault.Detail(err) != "max_tokens exceeds the context" {
			t.Errorf("%s: %v", provider, err)
		}
	}
}

func TestARejectedKeyNamesTheHeadersToo(t *testing.T) {
	t.Parallel()
	for provider, variable := range map[string]string{
		"openai": "OPENAI_API_KEY", "openai-responses": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(s.Close)
		err := ask(t, withHeaders(provider, s.URL, map[string]config.Secret{"X-Key": "v"}), false)
		want := "The model's server rejected the API key: check " + variable + " or the model's api_key and headers"
		if fault.Detail(err) != want {
			t.Errorf("%s: %v", provider, err)
		}
	}
}

// Models share the process; the headers of one are not those of another.
func TestModelsDoNotShareHeaders(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("X-Tenant"))
		w.Header().Set("X-Should-Retry", "false")
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	var models []model.Model
	for _, tenant := range []config.Secret{"one", "two", ""} {
		m := withHeaders("openai", s.URL, nil)
		if tenant != "" {
			m.Headers = map[string]config.Secret{"X-Tenant": tenant}
		}
		opened, err := providers.Open(m, env(nil))
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, opened)
	}
	for _, m := range models {
		modeltest.Collect(t.Context(), t, m, modeltest.Ask("hi"))
	}
	if diff := cmp.Diff([]string{"one", "two", ""}, got); diff != "" {
		t.Error(diff)
	}
}
