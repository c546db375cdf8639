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

// server is a process that executes keyway serve, on a port and a database of its own, with
// a scripted model. Tests call it over sockets.
type server struct {
	t      *testing.T
	url    string
	db     string
	data   string // the directory of --data
	model  *modeltest.Server
	tokens map[string]string // by subject; minted by PyJWT, see testdata/mint.py
	stderr *syncBuffer
	cmd    *exec.Cmd
	ended  func() error // waits for the process to end
	judged atomic.Bool  // the test itself checks how the process ends
}

// start starts keyway with the keyway.yaml of an example, or with the file if example ends
// in .yaml. env are names and values of variables that are added to the usual ones.
func start(t *testing.T, example string, model *modeltest.Server, env ...string) *server {
	t.Helper()
	return startWith(t, keyway, example, model, env...)
}

// startWith is start for another program than keyway.
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

// serve starts keyway serve on a free port. At the end of the test the process gets SIGTERM
// and must then exit with 0.
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
		// Wait also waits for the holder of the embedded PostgreSQL, which has the same stderr.
		ended <- r.cmd.Wait()
		r.stderr.close()
	}()
	r.ended = sync.OnceValue(func() error { return <-ended })
	t.Cleanup(r.end)
	return r
}

// stop sends SIGTERM and waits until the process has ended.
func (r *server) stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	defer time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() }).Stop()
	return r.ended()
}

// end stops the process at the end of the test. It fails the test for an exit status other
// than 0 and for a data race, and shows the process's log if the test failed.
func (r *server) end() {
	if err := r.stop(); err != nil && !r.judged.Load() {
		r.t.Errorf("keyway serve ended with %v", err)
	}
	if strings.Contains(r.stderr.String(), "WARNING: DATA RACE") {
		r.t.Error("the race detector reports a data race in keyway serve")
	}
	if r.t.Failed() {
		r.t.Logf("the end of keyway's log:\n%s", r.log())
	}
}

// log returns the last part of the process's output, for a failure message.
func (r *server) log() string {
	all := r.stderr.String()
	return all[max(0, len(all)-shownLog):]
}

// shownLog is how many bytes of a process's log a failed test shows.
const shownLog = 64 << 10

// pyjwt returns the tokens for an example by subject, or those for quickstart. PyJWT made
// them, so that the tests don't verify Keyway's tokens by Keyway's own code.
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

// client is used instead of http.DefaultClient, because closing an httptest.Server closes
// the idle connections of http.DefaultClient, also those of parallel tests.
var client = &http.Client{Transport: &http.Transport{}}

// reply is an answer as it was received.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request with the token of sub. "-" sends no token. header are names and
// values.
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

// open is call without reading the body. The caller closes it.
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

// run starts a run with a multipart form, as curl -F does. fields are names and values.
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

// want checks the status and that the body contains the texts.
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

// ids returns the ids in a list of agents.
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

// frames parses a stream strictly: each frame is "event: NAME", "data: JSON", empty line.
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

// syncBuffer collects the output of a process while a test waits for a text in it.
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

// await waits for the first match. It returns nil if the output ends without one.
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

// echoModel is a model that answers every request with the user's last message.
func echoModel(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, ok := r.Body["messages"].([]any)
		if !ok { // the Responses API calls them input
			messages, _ = r.Body["input"].([]any)
		}
		last, _ := messages[len(messages)-1].(map[string]any)
		return modeltest.Text("you said ", fmt.Sprint(last["content"]))
	})
}
