package lambdaruntime_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// The test binary is also the tested function, so that the tests use a real process as Lambda does.
func TestMain(m *testing.M) {
	if os.Getenv("LAMBDARUNTIME_TEST") != "" {
		lambdaruntime.Start(logging.NewLogger(os.Stderr, false), handle)
	}
	os.Exit(m.Run())
}

// handle has one behaviour for each event.
func handle(in *lambdaruntime.Invocation) error {
	switch event := string(in.Event); event {
	case `"fail"`:
		return errors.New("Unauthorized")
	case `"panic"`:
		panic("a secret")
	case `"nothing"`:
		return nil
	case `"trace"`:
		return in.Answer([]byte(`"` + os.Getenv("_X_AMZN_TRACE_ID") + `"`))
	case `"procs"`:
		return in.Answer(fmt.Append(nil, runtime.GOMAXPROCS(0)))
	case `"stream"`:
		_ = in.Stream("text/x", []byte("prelude"), nil, []byte("one"))
		_ = in.Send(nil) // would end the answer
		_ = in.Send([]byte("two"))
		return in.Close([]byte("three"), nil)
	case `"large"`:
		_ = in.Stream("text/x", bytes.Repeat([]byte("a"), 100<<10))
		_ = in.Send(bytes.Repeat([]byte("b"), 100<<10))
		return in.Close(nil, nil)
	case `"abort"`:
		_ = in.Stream("text/x", []byte("half"))
		return in.Close(nil, errors.New("stopped <here>"))
	case `"forgets"`:
		return in.Stream("text/x", []byte("half"))
	default:
		return in.Answer(in.Event)
	}
}

func start(t *testing.T, env ...string) *lambdatest.Function {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return lambdatest.Start(t, program, append(env, "LAMBDARUNTIME_TEST=1")...)
}

func TestAnEventIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	f := start(t)
	for name, event := range map[string]string{
		"a small one": `{"a":1}`, "one that fills the buffer": `"` + strings.Repeat("x", 64<<10-2) + `"`,
		"a large one": `"` + strings.Repeat("y", 5<<20) + `"`,
	} {
		for range 2 {
			a := f.Invoke([]byte(event), time.Minute)
			if body := string(a.Body()); a.Kind != "response" || body != event ||
				a.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %s of %d bytes, %v", name, a.Kind, len(body), a.Header)
			}
		}
	}
}

func TestAnErrorIsThatOfTheInvocation(t *testing.T) {
	t.Parallel()
	f := start(t)
	for event, want := range map[string]string{
		`"fail"`:    `{"errorMessage":"Unauthorized","errorType":"errorString"}`,
		`"nothing"`: `{"errorMessage":"the function has no answer","errorType":"errorString"}`,
	} {
		if a := f.Invoke([]byte(event), time.Minute); a.Kind != "error" || string(a.Body()) != want {
			t.Errorf("%s: %s", event, a.Kind)
		}
	}
	if a := f.Invoke([]byte(`1`), time.Minute); string(a.Body()) != "1" {
		t.Error("the function does not continue")
	}
}

// The state of a process that panicked is not known, so it ends. What it panicked with may be a secret.
func TestAPanicEndsTheProcess(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.Invoke([]byte(`"panic"`), time.Minute)
	if body := string(a.Body()); a.Kind != "error" || body != `{"errorMessage":"panic","errorType":"errorString"}` {
		t.Errorf("%s %s", a.Kind, body)
	}
	<-f.Ended
	if log := f.Stderr.String(); strings.Contains(log, "a secret") || !strings.Contains(log, "lambdaruntime_test.handle") {
		t.Error(log)
	}
}

func TestAStreamHasTheChunksThatWereSent(t *testing.T) {
	t.Parallel()
	f := start(t)
	read := func(event string) (all string, a *lambdatest.Answer) {
		a = f.Invoke([]byte(event), time.Minute)
		for {
			chunk, ok := a.Next()
			if !ok {
				return all, a
			}
			all += string(chunk) + "|"
		}
	}
	if got, a := read(`"stream"`); got != "prelude|one|two|three|" || a.Header.Get("Content-Type") != "text/x" ||
		len(a.Trailer) > 0 {
		t.Errorf("%s %v %v", got, a.Header, a.Trailer)
	}
	if got, _ := read(`"large"`); got != strings.Repeat("a", 100<<10)+"|"+strings.Repeat("b", 100<<10)+"|" {
		t.Errorf("%d bytes", len(got))
	}
	for event, want := range map[string]string{
		`"abort"`:   `{"errorMessage":"stopped \u003chere\u003e","errorType":"errorString"}`,
		`"forgets"`: `{"errorMessage":"the answer was not completed","errorType":"errorString"}`,
	} {
		got, a := read(event)
		said, err := base64.StdEncoding.DecodeString(a.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
		if got != "half|" || string(said) != want || err != nil ||
			a.Trailer.Get("Lambda-Runtime-Function-Error-Type") != "errorString" {
			t.Errorf("%s: %q %s %v", event, got, said, a.Trailer)
		}
	}
}

// A function with less memory than AWS gives a whole processor for uses one thread. An operator can decide otherwise.
func TestAFunctionUsesAsManyThreadsAsItHasProcessors(t *testing.T) {
	t.Parallel()
	for want, env := range map[string][]string{
		"1": {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512"},
		"3": {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512", "GOMAXPROCS=3"},
		"2": {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1770", "GOMAXPROCS=2"},
	} {
		if got := string(start(t, env...).Invoke([]byte(`"procs"`), time.Minute).Body()); got != want {
			t.Errorf("%v: %s", env, got)
		}
	}
}

func TestTuneLeavesWhatTheOperatorHasSet(t *testing.T) { //nolint:paralleltest // it changes the process
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	limit := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(limit)
	set := map[string]string{
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1000", "GOGC": "100", "GOMEMLIMIT": "1GiB", "GOMAXPROCS": "2",
	}
	lookup := func(name string) (string, bool) { v, ok := set[name]; return v, ok }
	lambdaruntime.Tune(lookup)
	if got := debug.SetMemoryLimit(-1); got != limit {
		t.Errorf("the limit is %d, was %d", got, limit)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC is %d", got)
	}
	delete(set, "GOGC")
	delete(set, "GOMEMLIMIT")
	lambdaruntime.Tune(lookup)
	if got := debug.SetMemoryLimit(-1); got != 1000<<20/100*80 {
		t.Errorf("the limit is %d", got)
	}
	if got := debug.SetGCPercent(100); got != 400 {
		t.Errorf("GOGC is %d", got)
	}
}

// api plays the Runtime API on a connection: it sends what it is given for each request, and returns the requests.
func api(t *testing.T, responses ...string) (requests []string, served error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := lambdaruntime.Serve(theirs, "runtime", func(in *lambdaruntime.Invocation) error {
			return in.Answer(fmt.Appendf(nil, "%s %s %d", in.ID, in.Event, in.Deadline.Unix()))
		}, false)
		done <- err
		_ = theirs.Close()
	}()
	r := bufio.NewReader(ours)
	for _, response := range responses {
		request, err := http.ReadRequest(r)
		if err != nil {
			break // the function has refused the previous response
		}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, request.Method+" "+request.URL.Path+" "+string(body))
		_, _ = io.WriteString(ours, response)
	}
	_ = ours.Close()
	return requests, <-done
}

func TestEveryFormOfAResponseIsRead(t *testing.T) {
	t.Parallel()
	const next, ok = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: x\r\nlambda-runtime-deadline-ms:7000\r\n",
		"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
	for name, row := range map[string]struct{ response, accepted, want string }{
		"a length": {next + "Content-Length: 2\r\n\r\n{}", ok, "x {} 7"},
		"chunks":   {next + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nA: b\r\n\r\n", ok, "x {} 7"},
		"bare line ends": {"HTTP/1.1 200 OK\nLambda-Runtime-Aws-Request-Id: x\nContent-Length:2\n\n{}", ok,
			"x {} -62135596800"},
		"a long response": {next + "Content-Length: 2\r\n\r\n{}",
			"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nyes", "x {} 7"},
	} {
		got, err := api(t, row.response, row.accepted, row.response, row.accepted)
		post := "POST /2018-06-01/runtime/invocation/x/response " + row.want
		const get = "GET /2018-06-01/runtime/invocation/next "
		if want := []string{get, post, get, post}; fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAResponseThatIsNoneEndsTheFunction(t *testing.T) {
	t.Parallel()
	const next = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: x\r\n"
	for name, responses := range map[string][]string{
		"another status":    {"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"},
		"no id":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"},
		"no HTTP":           {"SSH-2.0-OpenSSH_9.6\r\n\r\n"},
		"no status":         {"HTTP/1.1 xyz OK\r\n\r\n"},
		"a wrong length":    {next + "Content-Length: -1\r\n\r\n{}"},
		"a huge length":     {next + "Content-Length: 99999999999\r\n\r\n{}"},
		"a wrong deadline":  {next + "Lambda-Runtime-Deadline-Ms: soon\r\nContent-Length: 2\r\n\r\n{}"},
		"another coding":    {next + "Transfer-Encoding: gzip\r\n\r\n{}"},
		"no header":         {next + "what\r\n\r\n{}"},
		"an endless header": {next + strings.Repeat("a", 70<<10)},
		"half an event":     {next + "Content-Length: 2\r\n\r\n{"},
		"a refused answer": {next + "Content-Length: 2\r\n\r\n{}",
			"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n"},
	} {
		if _, err := api(t, responses...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The Runtime API may close a connection between two events.
func TestAClosedConnectionIsNoError(t *testing.T) {
	t.Parallel()
	if got, err := api(t); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
}
