package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

const bedrockFile = `id: quickstart
auth:
  keys: ["${JWT_VERIFICATION_KEY}"]
agents:
  - {id: assistant, model: "bedrock:eu.anthropic.claude-3-5-sonnet-20240620-v1:0", add_history_to_context: true}
`

func onBedrock(t *testing.T, model *modeltest.Server) *server {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(name, []byte(bedrockFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, name, model, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model.URL, "AWS_DEFAULT_REGION", "eu-central-1",
		"AWS_ACCESS_KEY_ID", "AKIAMODELTEST0123456", "AWS_SECRET_ACCESS_KEY", modeltest.APIKey,
		"AWS_SESSION_TOKEN", "IQoJsession")
}

func TestBedrockAgentAnswersLikeAgentOS(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServer(t, modeltest.Text("hello ", "world"), modeltest.Text("again"))
	r := onBedrock(t, model)
	r.Get("ann", "/agents").Want(t, "the agent is listed", 200,
		`"model":{"name":"AwsBedrock","model":"eu.anthropic.claude-3-5-sonnet-20240620-v1:0","provider":"AwsBedrock"}`)
	r.Run("ann", "assistant", "message", "hi", "session_id", "s-1").Want(t, "a streamed run", 200,
		`"content":"hello "`, `"content":"world"`, `"model_provider":"AwsBedrock"`, `"total_tokens":15`,
		"event: RunCompleted")
	r.Run("ann", "assistant", "message", "and?", "session_id", "s-1", "stream", "false").
		Want(t, "a whole one", 200, `"content":"again"`, `"status":"COMPLETED"`)
	asked := model.Requests()
	if !strings.HasSuffix(asked[0].Path, "v1:0/converse-stream") || !strings.HasSuffix(asked[1].Path, "v1:0/converse") {
		t.Errorf("the model was asked at %s and %s", asked[0].Path, asked[1].Path)
	}
	if turns, _ := asked[1].Body["messages"].([]any); len(turns) != 3 {
		t.Errorf("the second run sends %v", asked[1].Body["messages"])
	}
}

func TestBedrockRejectionNamesRemedyWithoutSecret(t *testing.T) {
	t.Parallel()
	denied := modeltest.Fail(403, "User: arn:aws:sts::123456789012:assumed-role/x is not authorized")
	r := onBedrock(t, modeltest.NewServer(t, denied, denied))
	const remedy = "send it one request as a user with permission to subscribe"
	r.Run("ann", "assistant", "message", "hi").Want(t, "a streamed run", 200, "event: RunError", remedy)
	r.Run("ann", "assistant", "message", "hi", "stream", "false").Want(t, "a whole one", 200, remedy, `"status":"ERROR"`)
	log := r.Stderr.String()
	for _, secret := range []string{modeltest.APIKey, "AKIAMODELTEST0123456", "IQoJsession", "123456789012"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log contains %s: %s", secret, log)
		}
	}
}

func TestDevUsesDemoModelWithoutAWSCredentials(t *testing.T) {
	t.Parallel()
	for missing, vars := range map[string][2]string{
		"AWS_ACCESS_KEY_ID": {}, "AWS_REGION": {"AKIAMODELTEST0123456", modeltest.APIKey},
	} {
		d := newDevDir(t, "quickstart")
		d.write(t, "id: os\nagents: [{id: a, model: 'bedrock:amazon.nova-lite-v1:0'}, {id: b, model: 'openai:gpt-4o'}]\n")
		r := d.serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t), "AWS_ACCESS_KEY_ID": vars[0],
			"AWS_SECRET_ACCESS_KEY": vars[1]})
		if said := r.Stderr.String(); !strings.Contains(said,
			"no "+missing+": the offline demo model answers for a\nno OPENAI_API_KEY: the offline demo model answers for b\n") {
			t.Errorf("without %s: %s", missing, said)
		}
		r.Run("ann", "a", "message", "hi").Want(t, "the demo answers", 200,
			"This is Keyway's demo model", "event: RunCompleted")
	}
}
