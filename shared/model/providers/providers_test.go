package providers_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/providers"
)

func env(vars map[string]string) providers.Lookup {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// heard is what a vendor's server heard of the one request that it got.
type heard struct {
	Authorization string
	Path          string
	Model         string   `json:"model"`
	Temperature   *float64 `json:"temperature"`
}

// listen starts a server that refuses every request and remembers the last one.
func listen(t *testing.T) (url string, last *heard) {
	t.Helper()
	last = &heard{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(last); err != nil {
			t.Error(err)
		}
		last.Authorization, last.Path = r.Header.Get("Authorization"), r.URL.Path
		w.Header().Set("X-Should-Retry", "false")
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	return s.URL, last
}

// ask opens a model and sends it one request.
func ask(t *testing.T, m config.Model, vars map[string]string) {
	t.Helper()
	opened, err := providers.Open(m, env(vars))
	if err != nil {
		t.Fatal(err)
	}
	if a := modeltest.Listen(t.Context(), t, opened, model.Request{Messages: []model.Message{{Role: model.User, Content: "hi"}}}); a.Err == nil {
		t.Error("the server's refusal is no error")
	}
}

func TestTheFileWinsOverTheEnvironment(t *testing.T) {
	t.Parallel()
	inFile, file := listen(t)
	inEnv, other := listen(t)
	ask(t, config.Model{Provider: "openai", ID: "m-1", BaseURL: config.URL(inFile + "/v1"), APIKey: "file-key", Temperature: new(0.0)},
		map[string]string{"OPENAI_BASE_URL": inEnv + "/v1", "OPENAI_API_KEY": "env-key"})
	if diff := cmp.Diff(heard{"Bearer file-key", "/v1/chat/completions", "m-1", new(0.0)}, *file); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(heard{}, *other); diff != "" {
		t.Errorf("the environment's server was asked: %s", diff)
	}
}

func TestTheEnvironmentFillsWhatTheFileLeavesOut(t *testing.T) {
	t.Parallel()
	inEnv, got := listen(t)
	ask(t, config.Model{Provider: "openai", ID: "m-1"}, map[string]string{"OPENAI_BASE_URL": inEnv + "/v1/", "OPENAI_API_KEY": "env-key"})
	if diff := cmp.Diff(heard{"Bearer env-key", "/v1/chat/completions", "m-1", nil}, *got); diff != "" {
		t.Error(diff)
	}
	ask(t, config.Model{Provider: "openai", ID: "m-2", APIKey: "file-key"}, map[string]string{"OPENAI_BASE_URL": inEnv, "OPENAI_API_KEY": "env-key"})
	if diff := cmp.Diff(heard{"Bearer file-key", "/chat/completions", "m-2", nil}, *got); diff != "" {
		t.Error(diff)
	}
}

// Whatever the process's own environment holds, only the lookup counts. Not
// parallel: Setenv changes it for all.
func TestTheProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "sk-process")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
	t.Setenv("OPENAI_ORG_ID", "org")
	if _, err := providers.Open(config.Model{Provider: "openai", ID: "m"}, env(nil)); !errors.As(err, new(providers.NoKey)) {
		t.Errorf("opened with the process's key: %v", err)
	}
	url, got := listen(t)
	ask(t, config.Model{Provider: "openai", ID: "m", BaseURL: config.URL(url)}, nil)
	if got.Authorization != "" {
		t.Errorf("sent %q", got.Authorization)
	}
}

func TestAServerOfOnesOwnNeedsNoKey(t *testing.T) {
	t.Parallel()
	url, got := listen(t)
	ask(t, config.Model{Provider: "openai", ID: "llama", BaseURL: config.URL(url + "/v1")}, nil)
	if got.Path != "/v1/chat/completions" || got.Authorization != "" {
		t.Errorf("%+v", *got)
	}
	*got = heard{}
	ask(t, config.Model{Provider: "openai", ID: "llama"}, map[string]string{"OPENAI_BASE_URL": url + "/v1"})
	if got.Path != "/v1/chat/completions" || got.Authorization != "" {
		t.Errorf("named by the environment: %+v", *got)
	}
}

func TestOpenAIItselfNeedsAKey(t *testing.T) {
	t.Parallel()
	for name, vars := range map[string]map[string]string{"unset": nil, "empty": {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}} {
		m, err := providers.Open(config.Model{Provider: "openai", ID: "gpt-4o"}, env(vars))
		noKey, ok := errors.AsType[providers.NoKey](err)
		if diff := cmp.Diff(providers.NoKey{Variable: "OPENAI_API_KEY", Model: "openai:gpt-4o"}, noKey); !ok || m != nil || diff != "" {
			t.Errorf("%s: %v %v %s", name, m, err, diff)
		}
		if want := "openai:gpt-4o needs an API key: set OPENAI_API_KEY, or api_key in keyway.yaml"; noKey.Error() != want {
			t.Errorf("%s: %q", name, noKey)
		}
	}
}

func TestTheResponsesAPIHasTheSameVariables(t *testing.T) {
	t.Parallel()
	inEnv, got := listen(t)
	ask(t, config.Model{Provider: "openai-responses", ID: "m-1"}, map[string]string{"OPENAI_BASE_URL": inEnv + "/v1", "OPENAI_API_KEY": "env-key"})
	if diff := cmp.Diff(heard{"Bearer env-key", "/v1/responses", "m-1", nil}, *got); diff != "" {
		t.Error(diff)
	}
	_, err := providers.Open(config.Model{Provider: "openai-responses", ID: "gpt-5.2"}, env(nil))
	if noKey, _ := errors.AsType[providers.NoKey](err); noKey != (providers.NoKey{Variable: "OPENAI_API_KEY", Model: "openai-responses:gpt-5.2"}) {
		t.Errorf("without a key: %v", err)
	}
}

func TestTheDemoNeedsNothing(t *testing.T) {
	t.Parallel()
	m, err := providers.Open(config.Model{Provider: "demo", ID: "small"}, env(nil))
	if err != nil || m.Describe().ID != "small" || m.Describe().Provider != "Demo" {
		t.Errorf("%v %v", m, err)
	}
}

func TestAnUnknownProviderIsRefused(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"google", "Anthropic", "Bedrock", "openai-response", "OpenAI", ""} {
		m, err := providers.Open(config.Model{Provider: provider, ID: "m", APIKey: "sesame"}, env(nil))
		if m != nil || !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Detail(err), "use openai, openai-responses, anthropic, bedrock or demo") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v %v", provider, m, err)
		}
	}
}

// everything is an environment in which every provider finds what it needs.
var everything = env(map[string]string{
	"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "k", "AWS_REGION": "eu-central-1",
})

// declarable returns the providers that keyway.yaml may name.
func declarable(t *testing.T) []string {
	t.Helper()
	field, _ := reflect.TypeFor[config.Model]().FieldByName("Provider")
	names := strings.Split(field.Tag.Get("enum"), ",")
	if len(names) < 5 {
		t.Fatalf("keyway.yaml may name %q", names)
	}
	return names
}

func TestWhatTheFileMayNameIsOpened(t *testing.T) {
	t.Parallel()
	for _, provider := range declarable(t) {
		if m, err := providers.Open(config.Model{Provider: provider, ID: "m"}, everything); m == nil || err != nil {
			t.Errorf("%s: %v %v", provider, m, err)
		}
	}
}

// Functions that link no vendor show the same of a model as those that run it.
func TestModelsAreDescribedAlikeWithoutTheirVendor(t *testing.T) {
	t.Parallel()
	for _, provider := range declarable(t) {
		m, err := providers.Open(config.Model{Provider: provider, ID: "x"}, everything)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.Describe(), model.Describe(provider, "x")); diff != "" || m.Describe().Provider == "" {
			t.Errorf("%s: %s", provider, diff)
		}
	}
}
