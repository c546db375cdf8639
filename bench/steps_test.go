package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// modelForTest returns a running model.
func modelForTest(t *testing.T) *model {
	t.Helper()
	m, err := serveModel(t.Context(), 200)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.close() })
	return m
}

// ask sends a request with this message and these results of the tool.
func (m *model) ask(t *testing.T, message string, stream bool, results ...string) (status int, body io.ReadCloser) {
	t.Helper()
	var request strings.Builder
	fmt.Fprintf(&request, `{"stream":%t,"messages":[{"role":"user","content":%q}`, stream, message)
	for _, text := range results {
		fmt.Fprintf(&request, `,{"role":"tool","content":%q}`, text)
	}
	request.WriteString("]}")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.url+"/chat/completions",
		strings.NewReader(request.String()))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp.StatusCode, resp.Body
}

func TestTheModelCallsTheToolInEachStepAndThenAnswers(t *testing.T) {
	t.Parallel()
	m := modelForTest(t)
	one, two := result(0, 200), result(1, 200)
	all := make([]string, maxSteps)
	for n := range all {
		all[n] = result(n, 200)
	}
	for name, c := range map[string]struct {
		steps   int
		results []string
		status  int
		want    string // in the answer, streamed or not
	}{
		"the first step":    {2, nil, 200, `"arguments":"{\"step\":0}"`},
		"the second step":   {2, []string{one}, 200, `"arguments":"{\"step\":1}"`},
		"the answer":        {2, []string{one, two}, 200, `word199`},
		"the longest run":   {maxSteps, all, 200, `word199`},
		"a repeated result": {2, []string{one, one}, 400, "missing, cut or repeated"},
		"a cut result":      {2, []string{one, two[:100]}, 400, "missing, cut or repeated"},
	} {
		for _, stream := range []bool{false, true} {
			status, body := m.ask(t, takeSteps(c.steps), stream, c.results...)
			got, err := io.ReadAll(body)
			if err != nil || status != c.status || !strings.Contains(string(got), c.want) {
				t.Errorf("%s, stream %t: %d %.200s, %v", name, stream, status, got, err)
			}
			if streamed := strings.HasSuffix(string(got), "data: [DONE]\n\n"); streamed != (stream && status == 200) {
				t.Errorf("%s, stream %t: %.200s", name, stream, got)
			}
		}
	}
}

func TestAnAnswerWaitsUntilThePauseIsReleased(t *testing.T) {
	t.Parallel()
	m, p := modelForTest(t), newPause()
	m.pause.Store(p)
	_, body := m.ask(t, takeStepsAndWait(1), true, result(0, 200))
	<-p.reached
	seen, err := body.Read(make([]byte, 100))
	if err != nil || seen == 0 {
		t.Errorf("the first piece: %d bytes, %v", seen, err)
	}
	close(p.release)
	rest, err := io.ReadAll(body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the rest ends with %q, %v", rest[max(0, len(rest)-50):], err)
	}
}

func TestTheToolReturnsAResultOfTheGivenSizeForEachStep(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	server, err := serveTool(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.close() })
	client, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
		&mcp.StreamableClientTransport{Endpoint: server.url, DisableStandaloneSSE: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for _, step := range []int{0, 1, maxSteps - 1} {
		r, err := client.CallTool(t.Context(), &mcp.CallToolParams{Name: toolName, Arguments: map[string]any{"step": step}})
		if err != nil || len(r.Content) != 1 {
			t.Fatalf("step %d: %+v, %v", step, r, err)
		}
		text := r.Content[0].(*mcp.TextContent).Text
		if text != result(step, size) || len(text) != size ||
			!strings.HasPrefix(text, firstWord(step)) || !strings.HasSuffix(text, lastWord(step)) {
			t.Errorf("step %d: %d bytes, %.40q", step, len(text), text)
		}
	}
	if r, err := client.CallTool(t.Context(),
		&mcp.CallToolParams{Name: toolName, Arguments: map[string]any{"step": maxSteps}}); err != nil || !r.IsError {
		t.Errorf("a step too many: %+v, %v", r, err)
	}
}

func TestAResultCompressesLikeText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, result(0, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if share := float64(out.Len()) / (100 << 10); share < 0.2 || share > 0.6 {
		t.Errorf("it compresses to %.2f of its size", share)
	}
}

func TestOnlyAWholeStreamOfStepsIsRight(t *testing.T) {
	t.Parallel()
	const (
		begin = "event: RunStarted\ndata: {\"run_id\":\"r1\"}\n\n"
		meta  = "event: subscribed\ndata: {}\n\n"
		end   = "event: RunCompleted\ndata: {}\n\n"
	)
	// A line that is longer than the reader's buffer.
	tool := "event: ToolCallCompleted\ndata: {\"result\":\"" + strings.Repeat("x", 100<<10) + "\"}\n\n"
	for name, c := range map[string]struct{ body, want string }{
		"whole":                      {begin + tool + meta + tool + ": a comment\n\n" + end, ""},
		"without a result":           {begin + tool + end, `ended with "RunCompleted" and 1 results`},
		"with a result twice":        {begin + tool + tool + tool + end, "and 3 results"},
		"without its end":            {begin + tool + tool, `ended with "ToolCallCompleted"`},
		"cut within its last event":  {begin + tool + tool + strings.TrimSpace(end), "broke off: unexpected EOF"},
		"cut within a line too long": {begin + tool + tool[:90<<10], "broke off: unexpected EOF"},
		"empty":                      {"", `ended with ""`},
	} {
		var names []string
		err := readSteps(strings.NewReader(c.body), 2, func(e event) error {
			names = append(names, string(e.name))
			return nil
		})
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %q", name, got, c.want)
		}
		if name == "whole" {
			want := []string{"RunStarted", "ToolCallCompleted", "subscribed", "ToolCallCompleted", "RunCompleted"}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestAFollowerResumesTheRunThatTheStreamNames(t *testing.T) {
	t.Parallel()
	const tool = "event: ToolCallCompleted\ndata: {}\n\n"
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agents/bench-agent-steps/runs", func(w http.ResponseWriter, r *http.Request) {
		if got := r.FormValue("message"); got != "Take 1 steps." {
			t.Errorf("the message is %q", got)
		}
		_, _ = io.WriteString(w, "event: RunStarted\ndata: {\"run_id\":\"r1\"}\n\n"+tool+"event: RunCompleted\ndata: {}\n\n")
	})
	mux.HandleFunc("POST /agents/bench-agent-steps/runs/r1/resume", func(w http.ResponseWriter, r *http.Request) {
		if got := r.FormValue("last_event_index"); got != "-1" || r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("it resumes after %q", got)
		}
		_, _ = io.WriteString(w, "event: catch_up\ndata: {}\n\n"+tool+"event: subscribed\ndata: {}\n\n"+
			"event: RunCompleted\ndata: {}\n\n")
	})
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	s := &subject{url: web.URL, token: "t", client: web.Client()}
	joined := 0
	err := s.streamSteps(t.Context(), takeSteps(1), 1, func(id string) {
		if err := s.follow(t.Context(), id, 1, func() { joined++ }); err != nil {
			t.Error(err)
		}
	})
	if err != nil || joined != 1 {
		t.Errorf("joined %d times, %v", joined, err)
	}
}

func TestTheLengthsEndWithAllSteps(t *testing.T) {
	t.Parallel()
	for steps, want := range map[int][]int{80: {10, 20, 40, 80}, 9: {1, 2, 4, 9}, 3: {1, 3}, 1: {1}} {
		if diff := cmp.Diff(want, lengths(steps)); diff != "" {
			t.Errorf("%d: %s", steps, diff)
		}
	}
}

func TestTheServersAreTheColumnsThatTheFlagsAskFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags flags
		want  []string // each column and its program
	}{
		"none": {flags{}, []string{"keyway bin/keyway"}},
		"base": {flags{base: "/old"}, []string{"before /old", "after bin/keyway"}},
		"peer": {flags{peer: "exec p"}, []string{"keyway bin/keyway", "peer sh"}},
	} {
		var got []string
		for _, s := range c.flags.servers("c.yaml") {
			got = append(got, s.name+" "+s.command("1")[0])
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFlagsThatExcludeEachOtherAreRefused(t *testing.T) {
	t.Parallel()
	for _, f := range []flags{
		{authorizer: true, lambda: true}, {authorizer: true, steps: 1}, {lambda: true, steps: 1},
		{base: "b", peer: "p"}, {warm: true}, {peer: "p", steps: 1},
	} {
		if f.conflict() == "" {
			t.Errorf("%+v is accepted", f)
		}
	}
	for _, f := range []flags{{}, {lambda: true, peer: "p"}, {steps: 80, base: "b"}, {authorizer: true}, {base: "b"},
		{base: "b", lambda: true, warm: true}, {base: "b", authorizer: true}} {
		if text := f.conflict(); text != "" {
			t.Errorf("%+v is refused: %s", f, text)
		}
	}
}
