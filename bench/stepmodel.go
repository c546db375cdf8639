package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// maxSteps is the largest number of steps: Keyway ends a run after 100 model calls, and
	// the last one gives the answer.
	maxSteps = 99
	// maxResultKB is the largest result in KiB: Keyway cuts a longer one.
	maxResultKB = 100
)

// takeSteps is the message of a run of n steps. The model recognizes it: it calls the tool
// n times, one call in each answer, and then gives the usual text.
func takeSteps(n int) string { return fmt.Sprintf("Take %d steps.", n) }

// takeStepsAndWait is the message of a run whose last answer stops in the middle until
// the pause of the model is released.
func takeStepsAndWait(n int) string { return fmt.Sprintf("Take %d steps and wait.", n) }

var stepsPattern = regexp.MustCompile(`Take (\d+) steps( and wait)?\.`)

// pause stops the last answer of a run with the message takeStepsAndWait.
type pause struct {
	// reached receives a value when that answer has begun.
	reached chan struct{}
	// release continues the answer when it is closed.
	release chan struct{}
}

func newPause() *pause { return &pause{reached: make(chan struct{}, 1), release: make(chan struct{})} }

// step answers a request of a run of steps. The number of results in the request says
// which step it is. The request is searched and not decoded: it has up to 10 MB, and the
// benchmark shares the machine's cores with the servers.
func (m *model) step(w http.ResponseWriter, r *http.Request, body []byte, steps int, waits bool) {
	done := bytes.Count(body, []byte(`"role":"tool"`))
	stream := bytes.Contains(body, []byte(`"stream":true`))
	if done < steps {
		call := newCall(done)
		if stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write(bytes.Join(call.pieces, nil))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(call.whole)
		return
	}
	// A server that lost a result or gave it twice has not done the work that is measured.
	for n := range steps {
		if bytes.Count(body, []byte(firstWord(n))) != 1 || bytes.Count(body, []byte(lastWord(n))) != 1 {
			http.Error(w, `{"error":{"message":"a result is missing, cut or repeated"}}`, http.StatusBadRequest)
			return
		}
	}
	m.reply(w, r, stream, waits)
}

// newCall returns the model's call of the tool for this step.
func newCall(step int) *answer {
	call := fmt.Sprintf(`"id":"call_bench%d","type":"function","function":{"name":%q,"arguments":"{\"step\":%d}"}`,
		step, toolName, step)
	const usage = `"usage":{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20}}`
	return &answer{
		whole: []byte(fmt.Sprintf(answerHead, "chat.completion") +
			`"choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{` + call +
			`}]},"logprobs":null,"finish_reason":"tool_calls"}],` + usage),
		pieces: [][]byte{
			chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,` + call +
				`}]},"logprobs":null,"finish_reason":null}],"usage":null}`),
			chunk(`"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}`),
			chunk(`"choices":[],` + usage),
			[]byte("data: [DONE]\n\n"),
		},
	}
}

// steps returns the number of steps that a request's message asks for, and whether the
// last answer waits. ok is false for all other requests.
func steps(body []byte) (n int, waits, ok bool) {
	found := stepsPattern.FindSubmatch(body)
	if found == nil {
		return 0, false, false
	}
	n, err := strconv.Atoi(string(found[1]))
	return n, len(found[2]) > 0, err == nil
}

// toolName is the name of the tool that the model calls.
const toolName = "report"

// toolServer is an MCP server with one tool, in the process of the benchmark. The tool
// returns a text of a fixed size for each step.
type toolServer struct {
	// url is the server's endpoint.
	url string
	web *http.Server
}

// serveTool starts the tool's server on a free port. size is the length of a result in
// bytes.
func serveTool(ctx context.Context, size int) (*toolServer, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// The results are made in advance, so that a call costs the benchmark little.
	results := make([]string, maxSteps)
	for n := range results {
		results[n] = result(n, size)
	}
	type arguments struct {
		Step int `json:"step" jsonschema:"the step to report on"`
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "bench", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: toolName, Description: "Returns the report of a step."},
		func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (*mcp.CallToolResult, any, error) {
			if in.Step < 0 || in.Step >= len(results) {
				return nil, nil, errors.New("there is no such step")
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: results[in.Step]}}}, nil, nil
		})
	t := &toolServer{url: "http://" + l.Addr().String() + "/mcp", web: &http.Server{
		Handler:           mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil),
		ReadHeaderTimeout: 10 * time.Second,
	}}
	go func() { _ = t.web.Serve(l) }()
	return t, nil
}

func (t *toolServer) close() error { return t.web.Close() }

// firstWord and lastWord enclose the result of a step and occur nowhere else. A period
// ends the number: the last word of step 1 must not occur in that of step 10.
func firstWord(step int) string { return fmt.Sprintf("begin-of-step-%d:", step) }
func lastWord(step int) string  { return fmt.Sprintf(":end-of-step-%d.", step) }

// result returns the text of a step, of size bytes. It is the same in each execution. Its
// words repeat within 4 KB, as those of a real text do, because PostgreSQL's compression
// looks that far back: random letters would not be compressed at all.
func result(step, size int) string {
	// Two numbers seed the generator: one for the vocabulary of all steps, one for the step.
	letters := rand.New(rand.NewPCG(1, 0)) // #nosec G404 -- the text must be repeatable
	vocabulary := make([]string, 300)
	for i := range vocabulary {
		word := make([]byte, 2+letters.IntN(9))
		for j := range word {
			word[j] = byte('a' + letters.IntN(26))
		}
		vocabulary[i] = string(word)
	}
	words := rand.New(rand.NewPCG(2, uint64(step))) // #nosec G404,G115 -- repeatable; a step is small
	var text strings.Builder
	text.WriteString(firstWord(step))
	for text.Len() < size {
		text.WriteString(" " + vocabulary[words.IntN(len(vocabulary))])
	}
	end := lastWord(step)
	return text.String()[:max(0, size-len(end))] + end
}
