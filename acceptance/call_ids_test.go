package acceptance

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// idsOfModels holds the IDs of the calls in each answer of a model. The last answer of each calls transfer for the
// account GOOD and then for BAD; the others call echo.
var idsOfModels = map[string][][2]string{
	"no IDs":                  {{"", ""}},
	"one ID twice":            {{"x", "x"}},
	"the ID of a later case":  {{"call_0", "call_0"}},
	"IDs of an earlier step":  {{"call_0", "call_1"}, {"call_0", "call_1"}},
	"swapped IDs":             {{"call_0", "call_1"}, {"call_1", "call_0"}, {"call_0", "call_0"}},
	"IDs of 53 characters":    {{strings.Repeat("x", 53), strings.Repeat("x", 52) + "y"}},
	"IDs with odd characters": {{"a\x00b", "a\x00b"}, {"größe !", "\u2028"}},
}

// modelWithIDs answers the name of a case with its calls, one answer after the other, and then with "done".
func modelWithIDs(t *testing.T, cases map[string][][2]string) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		var answers [][2]string
		step := 0
		for _, m := range messagesOf(r) {
			switch {
			case m.Role == "user":
				answers, step = cases[m.Content], 0
			case len(m.Calls) > 0:
				step++
			}
		}
		if step >= len(answers) {
			return modeltest.Text("done")
		}
		name := map[bool]string{true: "transfer", false: "echo"}[step == len(answers)-1]
		return modeltest.Script{}.ToolCallWithID(answers[step][0], name, `{"account":"GOOD"}`).
			ToolCallWithID(answers[step][1], name, `{"account":"BAD"}`)
	})
}

// chatMessage is a message in a request to the Chat Completions API.
type chatMessage struct {
	Role, Content string
	CallID        string `json:"tool_call_id"`
	Calls         []struct {
		ID       string
		Function struct{ Arguments string }
	} `json:"tool_calls"`
}

func messagesOf(r modeltest.Request) (list []chatMessage) {
	raw, _ := json.Marshal(r.Body["messages"]) // it was decoded from JSON
	_ = json.Unmarshal(raw, &list)
	return list
}

// execution is a call of a tool as clients see it.
type execution struct {
	ID     string            `json:"tool_call_id"`
	Name   string            `json:"tool_name"`
	Args   map[string]string `json:"tool_args"`
	Result string
}

// transfers returns the calls of transfer in a run, by account.
func transfers(t *testing.T, r process.Reply) map[string]execution {
	t.Helper()
	var run struct{ Tools []execution }
	if err := json.Unmarshal([]byte(r.Body), &run); err != nil {
		t.Fatalf("%.300s: %v", r.Body, err)
	}
	byAccount := map[string]execution{}
	for _, e := range run.Tools {
		if e.Name == "transfer" {
			byAccount[e.Args["account"]] = e
		}
	}
	return byAccount
}

// A decision of a person is about the call that the person saw, whatever IDs the model's server sends: none, one twice,
// or those of an earlier answer.
func TestOnlyTheConfirmedCallIsMadeWhateverIDsTheModelSends(t *testing.T) {
	t.Parallel()
	model := modelWithIDs(t, idsOfModels)
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true", "transfer", "echo"), model)
	seen, made := map[string]bool{}, 0
	for name := range idsOfModels {
		paused := r.Run("ann", "assistant", "message", name, "session_id", "s", "stream", "false")
		paused.Want(t, name, 200, `"status":"PAUSED"`)
		calls := transfers(t, paused)
		good, bad := calls["GOOD"].ID, calls["BAD"].ID
		for _, id := range []string{good, bad} {
			if !regexp.MustCompile(`^call_[0-9a-f]{32}$`).MatchString(id) || seen[id] {
				t.Errorf("%s: the ID %q repeats or has another form", name, id)
			}
			seen[id] = true
		}
		body, kind := process.Form(t, "session_id", "s", "stream", "false", "tools", fmt.Sprintf(
			`[{"tool_call_id":%q,"confirmed":false},{"tool_call_id":%q,"confirmed":true}]`, bad, good))
		done := r.Call("ann", "POST", "/agents/assistant/runs/"+field(t, paused, "run_id")+"/continue", body,
			"Content-Type", kind)
		done.Want(t, name, 200, `"status":"COMPLETED"`)
		made++ // by this process; a call of BAD would count too
		want := fmt.Sprintf("transfer %d to GOOD as %s", made, good)
		if calls = transfers(t, done); calls["GOOD"].Result != want || strings.Contains(calls["BAD"].Result, "transfer") {
			t.Errorf("%s: results %q and %q, want %q and a rejection", name, calls["GOOD"].Result, calls["BAD"].Result, want)
		}
		requests := model.Requests()
		checkResults(t, name, messagesOf(requests[len(requests)-1]), want)
	}
}

// checkResults checks that each call in a request has an ID of its own and one result, and that only the last call for
// GOOD has the result want.
func checkResults(t *testing.T, name string, messages []chatMessage, want string) {
	t.Helper()
	account, last := map[string]string{}, ""
	for _, m := range messages {
		for _, c := range m.Calls {
			if _, repeated := account[c.ID]; repeated || c.ID == "" || len(c.ID) > 40 {
				t.Errorf("%s: the model's server gets a call with the ID %q again, or it doesn't fit", name, c.ID)
			}
			account[c.ID] = c.Function.Arguments
			if strings.Contains(c.Function.Arguments, "GOOD") {
				last = c.ID
			}
		}
	}
	answered := map[string]bool{}
	for _, m := range messages {
		if m.Role != "tool" {
			continue
		}
		if _, ok := account[m.CallID]; !ok || answered[m.CallID] {
			t.Errorf("%s: the model's server gets a result for %q, which is no call or has one", name, m.CallID)
		}
		answered[m.CallID] = true
		if (m.CallID == last) != (m.Content == want) {
			t.Errorf("%s: the result of the call %s is %q", name, account[m.CallID], m.Content)
		}
	}
	if len(answered) != len(account) {
		t.Errorf("%s: %d calls, %d results", name, len(account), len(answered))
	}
}

// The second call of a run was not made when its ID was that of the first.
func TestAConfirmedCallWithTheIDOfAnEarlierStepIsMadeOnce(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServer(t,
		modeltest.Script{}.ToolCallWithID("call_0", "echo", `{"for":"x"}`),
		modeltest.Script{}.ToolCallWithID("call_0", "transfer", `{"account":"GOOD"}`),
		modeltest.Text("done"))
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true", "transfer", "echo"), model)
	paused := r.Run("ann", "assistant", "message", "pay", "session_id", "s", "stream", "false")
	paused.Want(t, "the run", 200, `"status":"PAUSED"`)
	id := transfers(t, paused)["GOOD"].ID
	body, kind := process.Form(t, "session_id", "s", "stream", "false", "tools",
		fmt.Sprintf(`[{"tool_call_id":%q,"confirmed":true}]`, id))
	r.Call("ann", "POST", "/agents/assistant/runs/"+field(t, paused, "run_id")+"/continue", body, "Content-Type", kind).
		Want(t, "the continuation", 200, `"status":"COMPLETED"`)
	want := "transfer 1 to GOOD as " + id
	messages := messagesOf(model.Requests()[2])
	if last := messages[len(messages)-1]; last.Content != want {
		t.Errorf("the last message is %q, want %q", last.Content, want)
	}
	checkResults(t, "the request", messages, want)
}
