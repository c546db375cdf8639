package modeltest_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestCommandsAreObeyed(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServerFunc(t, modeltest.Commands{}.Obey)
	user := func(text string) string { return `{"role":"user","content":"` + text + `"}` }
	for _, c := range []struct {
		name, messages string
		want           []string // each somewhere in the stream
	}{
		{"each word is a chunk and a token", user("echo: a  b"),
			[]string{`{"content":"a  "}`, `{"content":"b"}`, `"prompt_tokens":3`, `"completion_tokens":2`}},
		{"only the user's last message counts",
			user("echo: a") + `,{"role":"assistant","content":"a"},` + user("hm"), []string{`"stub: "`, `"hm"`}},
		{"a tool is called", user(`call tool f {\"a\":1,\"b\":[2,3]}`), []string{
			`"name":"f"`, `"arguments":"{\"a"`, `"arguments":"\": "`, `"tool_calls"`, `"completion_tokens":3`}},
		{"the tool's result is reported", user("call tool f") +
			`,{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f"}}]},` +
			`{"role":"tool","tool_call_id":"1","content":"x y"}`,
			[]string{`"tool "`, `"f "`, `"returned: "`, `"x "`, `"y"`, `"prompt_tokens":5`}},
		{"several are called", user(`call tools [[\"f\",{}],[\"g\",{}]]`), []string{`"name":"f"`, `"name":"g"`}},
		{"slow is not slow without a pause", user("slow 2 100"), []string{`"chunk-0 "`, `"chunk-1 "`, "[DONE]"}},
		{"it fails", user("fail 429"), []string{"stub failure 429"}},
		{"it breaks", user("fail-mid 1"), []string{`"chunk-0 "`}},
		{"history", user("one") + "," + user("two") + "," + user("history?"), []string{`"2 "`, `"one "`, `"two"`}},
		{"system", `{"role":"system","content":"be kind"},` + user("system?"), []string{`"be "`, `"kind"`}},
		{"remember without a tool", user("remember tea"), []string{`"remembered: "`, `"tea"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, got, _ := post(t, srv, strings.TrimSuffix(ask, "}")+`,"messages":[`+c.messages+`]}`)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s is not in\n%s", want, got)
				}
			}
		})
	}
}

func TestAMemoryManagerGetsACallOfAddMemory(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServerFunc(t, modeltest.Commands{}.Obey)
	ask := func(text string) string {
		_, got, _ := post(t, srv, `{"stream":true,"tools":[{"type":"function","function":{"name":"add_memory"}}],`+
			`"messages":[{"role":"user","content":"`+text+`"}]}`)
		return got
	}
	if got := ask("he said: remember tea"); !strings.Contains(got, `"name":"add_memory"`) {
		t.Error(got)
	}
	if got := ask("he said nothing"); !strings.Contains(got, `"No "`) {
		t.Error(got)
	}
}

func TestPauseDelaysAChunkOfSlow(t *testing.T) {
	t.Parallel()
	open, hold := make(chan struct{}), make(chan struct{})
	close(open)
	srv := modeltest.NewServerFunc(t, modeltest.Commands{Pause: func(chunk int) <-chan struct{} {
		if chunk == 1 {
			return hold
		}
		return open
	}}.Obey)
	body := strings.NewReader(`{"stream":true,"messages":[{"role":"user","content":"slow 2"}]}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/chat/completions", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "chunk-0 ") {
	}
	close(hold) // a chunk that isn't delayed, or delayed for ever, would be missing below
	for lines.Scan() && !strings.Contains(lines.Text(), "chunk-1 ") {
	}
	if lines.Text() == "" {
		t.Error("chunk-1 is missing")
	}
}
