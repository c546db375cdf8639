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
	r := startWith(t, Own{Tools: clientTools()}, clientsOS, commanded(t), "PAGE_ORIGIN", "http://localhost:3000")
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
	lookUp := tool.Func("look_up", "Looks something up.", func(ctx context.Context, in struct {
		What string `json:"what"`
	}) (string, error) {
		return in.What + ", for " + tool.CallerFrom(ctx).UserID, nil
	})
	deleteAccount := tool.Func("delete_account", "Deletes an account.", func(_ context.Context, in struct {
		ID int `json:"id"`
	}) (string, error) {
		return fmt.Sprintf("account %d is gone", in.ID), nil
	})
	book := tool.Func("book", "Books seats.", func(_ context.Context, in struct {
		Film  string `json:"film"`
		Seats int    `json:"seats"`
	}) (string, error) {
		return fmt.Sprintf("%d seats for %s", in.Seats, in.Film), nil
	})
	sign := tool.Func("sign", "Signs a text.", func(context.Context, struct {
		Text string `json:"text"`
	}) (string, error) {
		return "", errors.New("a person does this")
	})
	deleteAccount.Confirm, book.UserInput, sign.External = true, []string{"seats"}, true
	return []tool.Tool{lookUp, deleteAccount, book, sign}
}

// commanded is a model that does what the user says, and never gets beyond the
// first chunk of "slow".
func commanded(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, modeltest.Commands{Pause: func(chunk int) <-chan struct{} {
		if chunk == 0 {
			return done
		}
		return nil
	}}.Obey)
}
