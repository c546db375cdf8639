package openai_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// bedrockShape passes requests for Bedrock's OpenAI-compatible endpoint to a stand-in, which has the
// same APIs at other paths. It notes what Bedrock would get. Bedrock itself was not tried.
type bedrockShape struct {
	standIn string // its host
	asked   []string
}

func (b *bedrockShape) RoundTrip(r *http.Request) (*http.Response, error) {
	b.asked = append(b.asked, strings.Join([]string{r.Method, r.URL.String(), r.Header.Get("Authorization")}, " "))
	passed := r.Clone(r.Context())
	passed.Host = ""
	passed.URL = &url.URL{Scheme: "http", Host: b.standIn, Path: strings.TrimPrefix(r.URL.Path, "/openai")}
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(passed)
}

// Bedrock serves Chat Completions and Responses below /openai/v1 of its usual host, with an API key
// of Bedrock as the bearer token
// (https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html).
func TestBedrocksOpenAIEndpointIsAskedAtItsPaths(t *testing.T) {
	t.Parallel()
	const base, id = "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1", "openai.gpt-oss-120b-1:0"
	for path, open := range map[string]func(openai.Options) model.Model{
		"/chat/completions": func(o openai.Options) model.Model { return openai.NewChat(o) },
		"/responses":        func(o openai.Options) model.Model { return openai.NewResponses(o) },
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			server := modeltest.NewServer(t, modeltest.Text("hello ", "world"))
			shape := &bedrockShape{standIn: strings.TrimSuffix(strings.TrimPrefix(server.URL, "http://"), "/v1")}
			m := open(openai.Options{ID: id, BaseURL: base, APIKey: "ABSKkey", HTTPClient: &http.Client{Transport: shape}})
			answer := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hi"))
			if answer.Err != nil || answer.Text != "hello world" {
				t.Errorf("%q, %v", answer.Text, answer.Err)
			}
			if diff := cmp.Diff([]string{"POST " + base + path + " Bearer ABSKkey"}, shape.asked); diff != "" {
				t.Error(diff)
			}
			if got := server.Requests()[0].Body["model"]; got != id {
				t.Errorf("the model is %v", got)
			}
		})
	}
}
