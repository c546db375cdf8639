package providers_test

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/providers"
)

var nova = config.Model{Provider: "bedrock", ID: "eu.amazon.nova-lite-v1:0"}

// aws returns an environment with AWS credentials. more holds further variables: a
// name, its value, the next name and so on.
func aws(more ...string) map[string]string {
	vars := map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAPROVIDERS", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_SESSION_TOKEN": "token",
		"AWS_REGION": "eu-central-1",
	}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

func TestBedrocksSettingsComeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	var got []*http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r)
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	inFile := nova
	inFile.BaseURL = config.URL(s.URL + "/file")
	sendRequest(t, inFile, aws("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:1"))
	sendRequest(t, nova, aws("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", s.URL+"/one", "AWS_ENDPOINT_URL", "http://127.0.0.1:1"))
	sendRequest(t, nova, aws("AWS_ENDPOINT_URL", s.URL+"/all", "AWS_REGION", "", "AWS_DEFAULT_REGION", "eu-west-1"))
	for i, want := range []struct{ prefix, region string }{
		{"/file", "eu-central-1"}, {"/one", "eu-central-1"}, {"/all", "eu-west-1"},
	} {
		if i >= len(got) || got[i].RequestURI != want.prefix+"/model/eu.amazon.nova-lite-v1%3A0/converse-stream" {
			t.Fatalf("requests %d: %+v", i, got)
		}
		auth := got[i].Header.Get("Authorization")
		if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIAPROVIDERS/") ||
			!strings.Contains(auth, "/"+want.region+"/bedrock/aws4_request") ||
			got[i].Header.Get("X-Amz-Security-Token") != "token" {
			t.Errorf("request %d has %v", i, got[i].Header)
		}
	}
}

func TestAMissingSettingOfBedrockIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	const credentials = `needs AWS credentials: run: eval "$(aws configure export-credentials --format env)"` +
		", and set AWS_REGION"
	for variable, remedy := range map[string]string{
		"AWS_ACCESS_KEY_ID":     credentials,
		"AWS_SECRET_ACCESS_KEY": credentials,
		"AWS_REGION":            "needs a region: set AWS_REGION to one where the model is, such as eu-central-1",
	} {
		for _, vars := range []map[string]string{aws(variable, ""), without(aws(), variable)} {
			m, err := providers.Open(nova, env(vars))
			missing, ok := errors.AsType[providers.NoKey](err)
			want := "bedrock:eu.amazon.nova-lite-v1:0 " + remedy
			if m != nil || !ok || missing.Variable != variable || err.Error() != want {
				t.Errorf("without %s: %v %v", variable, m, err)
			}
		}
	}
}

// without returns vars without one of them.
func without(vars map[string]string, name string) map[string]string {
	vars = maps.Clone(vars)
	delete(vars, name)
	return vars
}

func TestASettingThatBedrockCannotUseIsAnError(t *testing.T) {
	t.Parallel()
	const host = "eu-central-1.evil.example#"
	keyed := nova
	keyed.APIKey = "sesame-key"
	headed := nova
	headed.Headers = map[string]config.Secret{"X-Key": "sesame-header"}
	for name, row := range map[string]struct {
		m      config.Model
		vars   map[string]string
		detail string
	}{
		"a key":   {keyed, aws(), "takes no api_key: leave it out"},
		"headers": {headed, aws(), "takes no headers: leave them out"},
		"a host as a region": {nova, aws("AWS_REGION", host),
			`AWS_REGION is "` + host + `", which is not a region; set it to one like eu-central-1`},
	} {
		m, err := providers.Open(row.m, env(row.vars))
		if m != nil || !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Detail(err), row.detail) {
			t.Errorf("%s: %v %v", name, m, err)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error contains the key: %v", name, err)
		}
	}
}
