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

// env returns a Lookup of these variables.
func env(vars map[string]string) providers.Lookup {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// received is the part of a request that the tests compare.
type received struct {
	Authorization string
	Path          string
	Model         string   `json:"model"`
	Temperature   *float64 `json:"temperature"`
}

// startServer starts a server that rejects every request and keeps the last one.
func startServer(t *testing.T) (url string, last *received) {
	t.Helper()
	last = &received{}
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

// sendRequest opens a model and sends it one request.
func sendRequest(t *testing.T, m config.Model, vars map[string]string) {
	t.Helper()
	opened, err := providers.Open(m, env(vars))
	if err != nil {
		t.Fatal(err)
	}
	if a := modeltest.Collect(t.Context(), t, opened, modeltest.Ask("hi")); a.Err == nil {
		t.Error("the server's HTTP error is not an error")
	}
}

func TestTheFileHasPrecedenceOverTheEnvironment(t *testing.T) {
	t.Parallel()
	inFile, file := startServer(t)
	inEnv, other := startServer(t)
	m := config.Model{
		Provider: "openai", ID: "m-1", BaseURL: config.URL(inFile + "/v1"), APIKey: "file-key", Temperature: new(0.0),
	}
	sendRequest(t, m, map[string]string{"OPENAI_BASE_URL": inEnv + "/v1", "OPENAI_API_KEY": "env-key"})
	if diff := cmp.Diff(received{"Bearer file-key", "/v1/chat/completions", "m-1", new(0.0)}, *file); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(received{}, *other); diff != "" {
		t.Errorf("the environment's server received a request: %s", diff)
	}
}

func TestTheEnvironmentSuppliesWhatTheFileOmits(t *testing.T) {
	t.Parallel()
	inEnv, got := startServer(t)
	vars := map[string]string{"OPENAI_BASE_URL": inEnv + "/v1/", "OPENAI_API_KEY": "env-key"}
	sendRequest(t, config.Model{Provider: "openai", ID: "m-1"}, vars)
	if diff := cmp.Diff(received{"Bearer env-key", "/v1/chat/completions", "m-1", nil}, *got); diff != "" {
		t.Error(diff)
	}
	vars["OPENAI_BASE_URL"] = inEnv
	sendRequest(t, config.Model{Provider: "openai", ID: "m-2", APIKey: "file-key"}, vars)
	if diff := cmp.Diff(received{"Bearer file-key", "/chat/completions", "m-2", nil}, *got); diff != "" {
		t.Error(diff)
	}
}

// Only the Lookup counts. Not parallel: Setenv changes the environment of all tests.
func TestTheProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "sk-process")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
	t.Setenv("OPENAI_ORG_ID", "org")
	_, err := providers.Open(config.Model{Provider: "openai", ID: "m"}, env(nil))
	if !errors.As(err, new(providers.NoKey)) {
		t.Errorf("error %v, want a missing key although the process has one", err)
	}
	url, got := startServer(t)
	sendRequest(t, config.Model{Provider: "openai", ID: "m", BaseURL: config.URL(url)}, nil)
	if got.Authorization != "" {
		t.Errorf("the request has the authorization %q", got.Authorization)
	}
}

func TestACompatibleServerNeedsNoKey(t *testing.T) {
	t.Parallel()
	url, got := startServer(t)
	sendRequest(t, config.Model{Provider: "openai", ID: "llama", BaseURL: config.URL(url + "/v1")}, nil)
	if got.Path != "/v1/chat/completions" || got.Authorization != "" {
		t.Errorf("%+v", *got)
	}
	*got = received{}
	sendRequest(t, config.Model{Provider: "openai", ID: "llama"}, map[string]string{"OPENAI_BASE_URL": url + "/v1"})
	if got.Path != "/v1/chat/completions" || got.Authorization != "" {
		t.Errorf("with the address from the environment: %+v", *got)
	}
}

func TestOpenAINeedsAKey(t *testing.T) {
	t.Parallel()
	for name, vars := range map[string]map[string]string{
		"unset": nil, "empty": {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""},
	} {
		m, err := providers.Open(config.Model{Provider: "openai", ID: "gpt-4o"}, env(vars))
		noKey, ok := errors.AsType[providers.NoKey](err)
		want := providers.NoKey{Variable: "OPENAI_API_KEY", Model: "openai:gpt-4o"}
		if diff := cmp.Diff(want, noKey); !ok || m != nil || diff != "" {
			t.Errorf("%s: %v %v %s", name, m, err, diff)
		}
		if want := "openai:gpt-4o needs an API key: set OPENAI_API_KEY, or api_key in keyway.yaml"; noKey.Error() != want {
			t.Errorf("%s: %q", name, noKey)
		}
	}
}

func TestTheResponsesAPIUsesTheSameVariables(t *testing.T) {
	t.Parallel()
	inEnv, got := startServer(t)
	vars := map[string]string{"OPENAI_BASE_URL": inEnv + "/v1", "OPENAI_API_KEY": "env-key"}
	sendRequest(t, config.Model{Provider: "openai-responses", ID: "m-1"}, vars)
	if diff := cmp.Diff(received{"Bearer env-key", "/v1/responses", "m-1", nil}, *got); diff != "" {
		t.Error(diff)
	}
	_, err := providers.Open(config.Model{Provider: "openai-responses", ID: "gpt-5.2"}, env(nil))
	want := providers.NoKey{Variable: "OPENAI_API_KEY", Model: "openai-responses:gpt-5.2"}
	if noKey, _ := errors.AsType[providers.NoKey](err); noKey != want {
		t.Errorf("without a key: %v", err)
	}
}

func TestTheDemoNeedsNoSettings(t *testing.T) {
	t.Parallel()
	m, err := providers.Open(config.Model{Provider: "demo", ID: "small"}, env(nil))
	if err != nil || m.Describe().ID != "small" || m.Describe().Provider != "Demo" {
		t.Errorf("%v %v", m, err)
	}
}

func TestAnUnknownProviderIsAnError(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"google", "Anthropic", "Bedrock", "openai-response", "OpenAI", ""} {
		m, err := providers.Open(config.Model{Provider: provider, ID: "m", APIKey: "sesame"}, env(nil))
		const remedy = "use openai, openai-responses, anthropic, bedrock or demo"
		if m != nil || !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Detail(err), remedy) {
			t.Errorf("%q: %v %v", provider, m, err)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: the error contains the key: %v", provider, err)
		}
	}
}

// everything is an environment with the variables of all providers.
var everything = env(map[string]string{
	"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k",
	"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "k", "AWS_REGION": "eu-central-1",
})

// declarable returns the providers that keyway.yaml accepts.
func declarable(t *testing.T) []string {
	t.Helper()
	field, _ := reflect.TypeFor[config.Model]().FieldByName("Provider")
	names := strings.Split(field.Tag.Get("enum"), ",")
	if len(names) < 5 {
		t.Fatalf("keyway.yaml accepts only the providers %q", names)
	}
	return names
}

func TestEveryProviderOfKeywayYAMLCanBeOpened(t *testing.T) {
	t.Parallel()
	for _, provider := range declarable(t) {
		if m, err := providers.Open(config.Model{Provider: provider, ID: "m"}, everything); m == nil || err != nil {
			t.Errorf("%s: %v %v", provider, m, err)
		}
	}
}

// Lambda functions that link no provider show the same names as those that run models.
func TestDescribeNeedsNoProviderPackage(t *testing.T) {
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
