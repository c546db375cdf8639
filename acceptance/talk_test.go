package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/client"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// typed is what a command printed, and its exit code.
type typed struct {
	out, err string
	code     int
}

// keyway runs a command of the same program against the server, as ann.
func (r *server) keyway(in string, args ...string) typed {
	r.t.Helper()
	cmd := process.WithTools.Command(r.t, map[string]string{"KEYWAY_URL": r.URL, "KEYWAY_TOKEN": r.Tokens["ann"]}, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &err
	_ = cmd.Run() // The exit code says it.
	return typed{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

func TestAnAgentIsRunFromTheCommandLine(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch last := lastMessage(r); {
		case last == "pay":
			return modeltest.ToolCall("transfer", `{"account":"x"}`)
		case last == "escape":
			return modeltest.Text("a\x1b[31mb\nc")
		case strings.HasPrefix(last, "transfer 1"):
			return modeltest.Text("paid")
		case strings.Contains(last, "ejected"):
			return modeltest.Text("not paid")
		}
		return modeltest.Text("you said " + lastMessage(r))
	})
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true", "transfer"), model)
	for name, row := range map[string]struct {
		in   string
		args []string
		want typed
	}{
		"a message":   {"", []string{"run", "assistant", "hi"}, typed{"you said hi\n", "", 0}},
		"from a pipe": {"a pipe", []string{"run", "assistant", "-"}, typed{"you said a pipe\n", "", 0}},
		"no scope":    {"", []string{"run", "nope", "hi"}, typed{"", "403 Forbidden: Insufficient permissions", 1}},
		"control":     {"", []string{"run", "assistant", "escape"}, typed{"a\ufffd[31mb\nc\n", "", 0}},
		"rejected": {
			"n\n", []string{"run", "assistant", "pay"}, typed{"not paid\n", `transfer{"account":"x"}? [y/N]`, 0},
		},
		"without answer": {"", []string{"run", "assistant", "pay"}, typed{"", "waits for a person", 4}},
		"a chat": {
			"one\ntwo\n", []string{"chat", "assistant"}, typed{"you said one\nyou said two\n", "session ", 0},
		},
	} {
		got := r.keyway(row.in, row.args...)
		if got.out != row.want.out || got.code != row.want.code || !strings.Contains(got.err, row.want.err) {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
	if got := r.keyway("", "run", "assistant", "pay", "--yes", "--session", "paid"); got.out != "paid\n" || got.code != 0 {
		t.Errorf("a call that is confirmed: %+v", got)
	}
	events := r.keyway("", "run", "assistant", "hi", "--json")
	for line := range strings.Lines(events.out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
	if !strings.Contains(events.out, `"event":"RunCompleted"`) {
		t.Errorf("%+v", events)
	}
	if got := r.keyway("", "sessions", "--limit", "1"); !strings.Contains(got.out, "SESSION") || got.code != 0 ||
		!strings.Contains(got.err, "1 of 8 sessions") {
		t.Errorf("%+v", got)
	}
}

func TestTheClientResumesAStreamThatIsCut(t *testing.T) {
	t.Parallel()
	model, release := heldModel(t)
	r := start(t, "quickstart", model)
	var conns []net.Conn
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		conns = append(conns, conn)
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	c := client.Client{URL: r.URL, Token: r.Tokens["ann"], HTTP: &http.Client{Transport: transport}}
	var names []string
	cut := false
	for e, err := range c.Run(t.Context(), "assistant", client.Input{Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
		if !cut && e.Content == "first" {
			cut = true
			conns[0].Close()
			close(release)
		}
	}
	if got := strings.Join(names, " "); got != allEvents {
		t.Errorf("the client yields %s", got)
	}
	if n := len(model.Requests()); n != 1 || len(conns) < 2 {
		t.Errorf("the model was asked %d times, over %d connections", n, len(conns))
	}
}

func TestTheClientCancelsARun(t *testing.T) {
	t.Parallel()
	model, release := heldModel(t)
	defer close(release)
	r := start(t, "quickstart", model)
	c := client.Client{URL: r.URL, Token: r.Tokens["ann"]}
	last := client.Event{}
	for e, err := range c.Run(t.Context(), "assistant", client.Input{Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		if last = e; e.Content == "first" {
			if err := c.Cancel(t.Context(), e.AgentID, e.RunID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last.Name != "RunCancelled" {
		t.Errorf("the last event is %+v", last)
	}
	_, err := func() (client.Event, error) {
		for e, err := range (&client.Client{URL: r.URL}).Run(t.Context(), "assistant", client.Input{Message: "hi"}) {
			return e, err
		}
		return client.Event{}, nil
	}()
	if err == nil || !strings.HasPrefix(err.Error(), "401 Unauthorized: ") {
		t.Errorf("without a token: %v", err)
	}
}

// The server may be another one than the person thinks.
func TestTheCommandShowsWhatAServerSendsAsText(t *testing.T) {
	t.Parallel()
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	t.Cleanup(other.Close)
	index := 0
	event := func(name, members string) string {
		index++
		return "event: " + name + "\ndata: {\"event\":\"" + name + "\",\"event_index\":" + strconv.Itoa(index) +
			",\"run_id\":\"r\\u001b[2J\",\"agent_id\":\"a\"," + members + "}\n\n"
	}
	args := `{"pad":"` + strings.Repeat("x", 2000) + `","to":"LAST"}`
	for name, row := range map[string]struct {
		status int
		body   string
		want   string
		code   int
	}{
		"a call without its tool": {
			200, event("ToolCallStarted", `"x":1`) + event("RunError", `"content":"e"`), "error: e", 1,
		},
		"escapes in a refusal": {403, `{"detail":"a\u001b]0;x\u0007","hint":"\u202eb"}`, "a\ufffd]0;x\ufffd; \ufffdb", 1},
		"a redirect":           {307, "", "the address leads to " + other.URL, 1},
		"long arguments": {200, event("RunPaused", `"tools":[{"tool_call_id":"c","tool_name":"pay\nnothing",`+
			`"tool_args":`+args+`,"requires_confirmation":true}]`), `pay` + "\ufffd" + `nothing` + args + "? [y/N]", 4},
		"arguments without end": {200, event("RunPaused", `"tools":[{"tool_call_id":"c","tool_name":"pay","tool_args":{"a":"`+
			strings.Repeat("x", 20000)+`"},"requires_confirmation":true}]`), "too long to show here", 4},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(row.status)
			_, _ = io.WriteString(w, row.body)
		}))
		t.Cleanup(server.Close)
		vars := map[string]string{"KEYWAY_URL": server.URL, "KEYWAY_TOKEN": "t"}
		cmd := process.WithTools.Command(t, vars, "run", "a", "hi")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run() // The exit code says it.
		if got := out.String(); cmd.ProcessState.ExitCode() != row.code || !strings.Contains(got, row.want) ||
			strings.ContainsAny(got, "\x1b\x07\u202e") {
			t.Errorf("%s: %d %q, want %q", name, cmd.ProcessState.ExitCode(), got, row.want)
		}
	}
	if elsewhere > 0 {
		t.Errorf("%d requests reached a server that nobody named", elsewhere)
	}
}
