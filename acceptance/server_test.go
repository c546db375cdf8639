package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// running is a keyway serve: a process on a port of its own, with a database of its own
// and a scripted model, called over real sockets.
type server struct {
	t      *testing.T
	url    string
	db     string
	data   string // --data
	model  *modeltest.Server
	tokens map[string]string // by subject; minted by PyJWT, see testdata/mint.py
	stderr *syncBuffer
	cmd    *exec.Cmd
	ended  func() error // waits for the process to end
	judged atomic.Bool  // the test itself looks at how it ends
}

// start serves an example. env adds to and replaces the usual environment.
func start(t *testing.T, example string, model *modeltest.Server, env ...string) *server {
	t.Helper()
	return startWith(t, keyway, example, model, env...)
}

// startWith is start with another program.
func startWith(t *testing.T, p program, example string, model *modeltest.Server, env ...string) *server {
	t.Helper()
	db, data := storetest.EmptyURL(t), t.TempDir()
	vars := map[string]string{
		"JWT_VERIFICATION_KEY": config.PublishedSecret, "DATABASE_URL": db,
		"OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test",
	}
	for i := 0; i < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	file := filepath.Join("..", "examples", example, "keyway.yaml")
	if strings.HasSuffix(example, ".yaml") {
		file = example
	}
	r := serve(t, p, vars, "--config", file, "--data", data)
	r.model, r.db, r.data, r.tokens = model, db, data, pyjwt(t, example)
	r.url = r.awaitLog(`serves \S+ at (http://\S+)`)[1]
	return r
}

// serve starts keyway serve on a free port. The process ends with the test: by SIGTERM,
// after which its exit status must be 0.
func serve(t *testing.T, p program, vars map[string]string, args ...string) *server {
	t.Helper()
	r := &server{t: t, stderr: &syncBuffer{}}
	r.cmd = p.command(t, vars, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	r.cmd.Stderr = r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- r.cmd.Wait() // for whoever else holds stderr, too: the process that holds PostgreSQL
		r.stderr.close()
	}()
	r.ended = sync.OnceValue(func() error { return <-ended })
	t.Cleanup(r.end)
	return r
}

// stop asks the process to stop and waits for its end.
func (r *server) stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	defer time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() }).Stop()
	return r.ended()
}

// end stops the process at the end of the test and shows its log if the test failed.
func (r *server) end() {
	if err := r.stop(); err != nil && !r.judged.Load() {
		r.t.Errorf("keyway serve ended with %v", err)
	}
	if strings.Contains(r.stderr.String(), "WARNING: DATA RACE") {
		r.t.Error("keyway serve has a data race")
	}
	if r.t.Failed() {
		r.t.Logf("the end of keyway's log:\n%s", r.log())
	}
}

// log is the end of what the process has printed, for a message.
func (r *server) log() string {
	all := r.stderr.String()
	return all[max(0, len(all)-shownLog):]
}

// shownLog is how many bytes of a process's log a failed test shows.
const shownLog = 64 << 10

func pyjwt(t *testing.T, example string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("testdata/pyjwt.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if all[example] == nil {
		return all["quickstart"]
	}
	return all[example]
}

// client is the tests' own: closing an httptest.Server closes the idle connections
// of http.DefaultClient under everybody's hands.
var client = &http.Client{Transport: &http.Transport{}}

// reply is an answer as it came over the socket.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request; sub picks the token, "-" sends none.
func (r *server) call(sub, method, path string, body io.Reader, header ...string) reply {
	r.t.Helper()
	resp := r.open(sub, method, path, body, header...)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(data)}
}

// open is call whose body is still to be read.
func (r *server) open(sub, method, path string, body io.Reader, header ...string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if sub != "-" {
		token, ok := r.tokens[sub]
		if !ok {
			r.t.Fatalf("no token for %q", sub)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

func (r *server) get(sub, path string) reply { r.t.Helper(); return r.call(sub, "GET", path, nil) }

// run starts a run with a multipart form, as curl -F does.
func (r *server) run(sub, agent string, fields ...string) reply {
	r.t.Helper()
	body, kind := form(r.t, fields...)
	return r.call(sub, "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind)
}

func form(t *testing.T, fields ...string) (io.Reader, string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, w.FormDataContentType()
}

func (r reply) want(t *testing.T, what string, status int, contains ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("%s: %d %.300s, want %d", what, r.status, r.body, status)
	}
	for _, text := range contains {
		if !strings.Contains(r.body, text) {
			t.Errorf("%s: %.300s does not contain %q", what, r.body, text)
		}
	}
}

// ids are the ids of a list of agents.
func (r reply) ids(t *testing.T) string {
	t.Helper()
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(r.body), &list); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return strings.Join(ids, " ")
}

// event is one server-sent event.
type event struct {
	name string
	data map[string]any
}

// frames reads a stream's frames strictly: "event: NAME", "data: JSON", empty.
func frames(t *testing.T, stream string) (list []event) {
	t.Helper()
	for frame := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		if strings.HasPrefix(frame, ":") {
			continue
		}
		first, second, ok := strings.Cut(frame, "\n")
		name, isEvent := strings.CutPrefix(first, "event: ")
		data, isData := strings.CutPrefix(second, "data: ")
		if !ok || !isEvent || !isData || strings.Contains(data, "\n") {
			t.Fatalf("not a frame: %q", frame)
		}
		e := event{name: name}
		if err := json.Unmarshal([]byte(data), &e.data); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		list = append(list, e)
	}
	return list
}

func names(list []event) string {
	var out []string
	for _, e := range list {
		out = append(out, e.name)
	}
	return strings.Join(out, " ")
}

// syncBuffer collects what a server says while a test waits for a line of it.
type syncBuffer struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	closed bool
	grown  sync.Cond
}

func (b *syncBuffer) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	b.cond().Broadcast()
}

// cond must be called with mu held.
func (b *syncBuffer) cond() *sync.Cond {
	if b.grown.L == nil {
		b.grown.L = &b.mu
	}
	return &b.grown
}

func (b *syncBuffer) Write(p []byte) (n int, err error) {
	b.change(func() { n, err = b.buf.Write(p) })
	return n, err
}

func (b *syncBuffer) close() { b.change(func() { b.closed = true }) }

// await returns the first match, or nil when the writer ended without one.
func (b *syncBuffer) await(re *regexp.Regexp) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if m := re.FindStringSubmatch(b.buf.String()); m != nil || b.closed {
			return m
		}
		b.cond().Wait()
	}
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// echo is a model that answers every request with what the user said last.
func echoModel(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, ok := r.Body["messages"].([]any)
		if !ok { // the Responses API's name for them
			messages, _ = r.Body["input"].([]any)
		}
		last, _ := messages[len(messages)-1].(map[string]any)
		return modeltest.Text("you said ", fmt.Sprint(last["content"]))
	})
}
