package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/tool"
)

const clientsOS = "testdata/clients/keyway.yaml"

// AgentOS's own Python client makes every call that it has for what is served here.
// The assertions are the script's.
func TestAgnosClientIsServed(t *testing.T) {
	t.Parallel()
	python := os.Getenv("KEYWAY_AGNO_PYTHON")
	if python == "" {
		missing(t, "KEYWAY_AGNO_PYTHON names no Python with AgentOS's client; run make agno, which says what to set")
	}
	r := startOwn(t, Own{Tools: clientTools()}, clientsOS, obedient(t), "PAGE_ORIGIN", "http://localhost:3000")
	tokens, err := json.Marshal(r.tokens)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/clients/agent_os_client.py")
	cmd.Env = append(os.Environ(), "KEYWAY_URL="+r.url, "KEYWAY_TOKENS="+string(tokens), "AGNO_TELEMETRY=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "ok every_call_was_made") {
		t.Errorf("not every call was made:\n%s", out)
	}
}

// missing skips a test for want of a foreign program; in CI none may be missing.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// clientTools are a tool of each kind.
func clientTools() []tool.Tool {
	schema := func(properties string) json.RawMessage {
		return json.RawMessage(`{"type": "object", "properties": {` + properties + `}}`)
	}
	return []tool.Tool{
		{Name: "look_up", Parameters: schema(`"what": {"type": "string"}`), Call: func(ctx context.Context, arguments json.RawMessage) (string, error) {
			var in struct{ What string }
			err := json.Unmarshal(arguments, &in)
			return in.What + ", for " + tool.CallerFrom(ctx).UserID, err
		}},
		{Name: "delete_account", Confirm: true, Parameters: schema(`"id": {"type": "integer"}`), Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			var in struct{ ID int }
			err := json.Unmarshal(arguments, &in)
			return fmt.Sprintf("account %d is gone", in.ID), err
		}},
		{Name: "book", UserInput: []string{"seats"}, Parameters: schema(`"film": {"type": "string"}, "seats": {"type": "integer"}`), Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			var in struct {
				Film  string
				Seats int
			}
			err := json.Unmarshal(arguments, &in)
			return fmt.Sprintf("%d seats for %s", in.Seats, in.Film), err
		}},
		{Name: "sign", External: true, Parameters: schema(`"text": {"type": "string"}`), Call: func(context.Context, json.RawMessage) (string, error) {
			return "", errors.New("a person does this")
		}},
	}
}

// obedient is a model that does what the user's last message says, and tells what
// its tools told it.
func obedient(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		var roles []string
		content, messages := "", r.Body["messages"].([]any)
		for _, m := range messages {
			m := m.(map[string]any)
			roles, content = append(roles, fmt.Sprint(m["role"])), fmt.Sprint(m["content"])
		}
		verb, rest, _ := strings.Cut(content, " ")
		switch {
		case roles[len(roles)-1] == "tool":
			return modeltest.Text("told: ", content)
		case verb == "call":
			name, arguments, _ := strings.Cut(rest, " ")
			return modeltest.ToolCall(name, arguments)
		case verb == "hold":
			return modeltest.Text("so far").Wait(nil)
		case verb == "break":
			return modeltest.Fail(500, "the model is down")
		case verb == "count":
			return modeltest.Text("heard ", strings.Join(roles, " "))
		}
		return modeltest.Text("you said ", content)
	})
}
