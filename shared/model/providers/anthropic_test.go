package providers_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/providers"
)

var claude = config.Model{Provider: "anthropic", ID: "claude-sonnet-4-5"}

// claudeServer starts a server that rejects every request. got receives the path and
// the key of each.
func claudeServer(t *testing.T) (url string, got *[]string) {
	t.Helper()
	got = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*got = append(*got, r.URL.Path+" "+r.Header.Get("X-Api-Key")+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func TestAnthropicsSettingsComeFromTheFileOrElseTheEnvironment(t *testing.T) {
	t.Parallel()
	url, got := claudeServer(t)
	inFile := claude
	inFile.BaseURL, inFile.APIKey = config.URL(url+"/file"), "file-key"
	sendRequest(t, inFile, map[string]string{"ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "ANTHROPIC_API_KEY": "env-key"})
	sendRequest(t, claude, map[string]string{"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "env-key"})
	sendRequest(t, claude, map[string]string{"ANTHROPIC_BASE_URL": url + "/v1/"})
	want := []string{"/file/v1/messages file-key", "/v1/messages env-key", "/v1/messages "}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
}

// Not parallel: Setenv changes the environment of all tests.
func TestTheProcessEnvironmentIsNotReadForAnthropic(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "sk-ant-process")
	t.Setenv("ANTHROPIC_AUTH_TOKEN", "token")
	t.Setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
	t.Setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: sk-ant-header")
	for name, vars := range map[string]map[string]string{
		"unset": nil, "empty": {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": ""},
	} {
		m, err := providers.Open(claude, env(vars))
		noKey, ok := errors.AsType[providers.NoKey](err)
		missing := providers.NoKey{Variable: "ANTHROPIC_API_KEY", Model: "anthropic:claude-sonnet-4-5"}
		if diff := cmp.Diff(missing, noKey); !ok || m != nil || diff != "" {
			t.Errorf("%s: %v %v %s", name, m, err, diff)
		}
		want := "anthropic:claude-sonnet-4-5 needs an API key: set ANTHROPIC_API_KEY, or api_key in keyway.yaml"
		if noKey.Error() != want {
			t.Errorf("%s: %q", name, noKey)
		}
	}
	url, got := claudeServer(t)
	sendRequest(t, claude, map[string]string{"ANTHROPIC_BASE_URL": url})
	if diff := cmp.Diff([]string{"/v1/messages "}, *got); diff != "" {
		t.Error(diff)
	}
}
