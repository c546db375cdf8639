package process

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
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

// Server is a process that executes keyway serve, on a port and a database of its own, with
// a scripted model. Tests call it over sockets.
type Server struct {
	t      *testing.T
	URL    string
	DB     string
	Data   string // the directory of --data
	Model  *modeltest.Server
	Tokens map[string]string // by subject; minted by PyJWT, see testdata/mint.py
	Stderr *Output
	Cmd    *exec.Cmd
	Ended  func() error // waits for the process to end
	Judged atomic.Bool  // the test itself checks how the process ends
}

// Start starts a program with the keyway.yaml of an example, or with the file if example ends
// in .yaml. The model answers for the provider openai; nil sets no variables for it. env are
// Names and values of variables that are added to the usual ones.
func Start(t *testing.T, p Program, example string, model *modeltest.Server, env ...string) *Server {
	t.Helper()
	db, data := storetest.EmptyURL(t), t.TempDir()
	vars := map[string]string{
		"JWT_VERIFICATION_KEY": config.PublishedSecret, "DATABASE_URL": db,
	}
	if model != nil {
		vars["OPENAI_BASE_URL"], vars["OPENAI_API_KEY"] = model.URL, "sk-test"
	}
	for i := 0; i < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	file := Path("examples/" + example + "/keyway.yaml")
	if strings.HasSuffix(example, ".yaml") {
		file = example
	}
	r := Serve(t, p, vars, "--config", file, "--data", data)
	r.Model, r.DB, r.Data, r.Tokens = model, db, data, PyJWT(t, example)
	r.URL = r.AwaitLog(`serves \S+ at (http://\S+)`)[1]
	return r
}

// Serve starts keyway serve on a free port. At the end of the test the process gets SIGTERM
// and must then exit with 0.
func Serve(t *testing.T, p Program, vars map[string]string, args ...string) *Server {
	t.Helper()
	r := &Server{t: t, Stderr: &Output{}}
	r.Cmd = p.Command(t, vars, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	r.Cmd.Stderr = r.Stderr
	if err := r.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		// Wait also waits for the holder of the embedded PostgreSQL, which has the same stderr.
		ended <- r.Cmd.Wait()
		r.Stderr.Close()
	}()
	r.Ended = sync.OnceValue(func() error { return <-ended })
	t.Cleanup(r.end)
	return r
}

// AwaitLog waits until the server's output matches the pattern, and returns the match.
func (r *Server) AwaitLog(pattern string) []string {
	r.t.Helper()
	defer time.AfterFunc(Patience, r.Stderr.Close).Stop()
	m := r.Stderr.Await(regexp.MustCompile(pattern))
	if m == nil {
		r.t.Fatalf("keyway did not print %s but\n%s", pattern, r.Log())
	}
	return m
}

// Stop sends SIGTERM and waits until the process has ended.
func (r *Server) Stop() error {
	_ = r.Cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	defer time.AfterFunc(Patience, func() { _ = r.Cmd.Process.Kill() }).Stop()
	return r.Ended()
}

// end stops the process at the end of the test. It fails the test for an exit status other
// than 0 and for a data race, and shows the process's log if the test failed.
func (r *Server) end() {
	if err := r.Stop(); err != nil && !r.Judged.Load() {
		r.t.Errorf("keyway serve ended with %v", err)
	}
	if strings.Contains(r.Stderr.String(), "WARNING: DATA RACE") {
		r.t.Error("the race detector reports a data race in keyway serve")
	}
	if r.t.Failed() {
		r.t.Logf("the end of keyway's log:\n%s", r.Log())
	}
}

// Log returns the last part of the process's output, for a failure message.
func (r *Server) Log() string {
	all := r.Stderr.String()
	return all[max(0, len(all)-shownLog):]
}

// shownLog is how many bytes of a process's log a failed test shows.
const shownLog = 64 << 10

// PyJWT returns the tokens for an example by subject, or those for quickstart. PyJWT made
// them, so that the tests don't verify Keyway's tokens by Keyway's own code.
func PyJWT(t *testing.T, example string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(Path("acceptance/testdata/pyjwt.json"))
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

// Client is used instead of http.DefaultClient, because closing an httptest.Server closes
// the idle connections of http.DefaultClient, also those of parallel tests.
var Client = &http.Client{Transport: &http.Transport{}}

// Reply is an answer as it was received.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// Call sends a request with the token of sub. "-" sends no token. header are names and
// values.
func (r *Server) Call(sub, method, path string, body io.Reader, header ...string) Reply {
	r.t.Helper()
	resp := r.Open(sub, method, path, body, header...)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return Reply{resp.StatusCode, resp.Header, string(data)}
}

// Open is call without reading the body. The caller closes it.
func (r *Server) Open(sub, method, path string, body io.Reader, header ...string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if sub != "-" {
		token, ok := r.Tokens[sub]
		if !ok {
			r.t.Fatalf("no token for %q", sub)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = req.Header.Get("Host") // where net/http takes it from; empty is that of the URL
	resp, err := Client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// Get sends a GET request with the token of sub, as Call does.
func (r *Server) Get(sub, path string) Reply { r.t.Helper(); return r.Call(sub, "GET", path, nil) }

// Run starts a run with a multipart form, as curl -F does. fields are names and values.
func (r *Server) Run(sub, agent string, fields ...string) Reply {
	r.t.Helper()
	body, kind := Form(r.t, fields...)
	return r.Call(sub, "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind)
}

// Form returns a multipart form, as curl -F sends it, and its Content-Type. fields are names and values.
func Form(t *testing.T, fields ...string) (io.Reader, string) {
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

// Want checks the status and that the body contains the texts.
func (r Reply) Want(t *testing.T, what string, status int, contains ...string) {
	t.Helper()
	if r.Status != status {
		t.Errorf("%s: %d %.300s, want %d", what, r.Status, r.Body, status)
	}
	for _, text := range contains {
		if !strings.Contains(r.Body, text) {
			t.Errorf("%s: %.300s does not contain %q", what, r.Body, text)
		}
	}
}

// Content returns the content of a run that isn't streamed.
func (r Reply) Content(t *testing.T) string {
	t.Helper()
	var run struct{ Content string }
	if err := json.Unmarshal([]byte(r.Body), &run); err != nil || r.Status != 200 {
		t.Fatalf("%d %.300s: %v", r.Status, r.Body, err)
	}
	return run.Content
}

// IDs returns the ids in a list of agents.
func (r Reply) IDs(t *testing.T) string {
	t.Helper()
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(r.Body), &list); err != nil {
		t.Fatalf("%s: %v", r.Body, err)
	}
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return strings.Join(ids, " ")
}

// Event is one server-sent event.
type Event struct {
	Name string
	Data map[string]any
}

// Frames parses a stream strictly: each frame is "event: NAME", "data: JSON", empty line.
func Frames(t *testing.T, stream string) (list []Event) {
	t.Helper()
	for frame := range strings.SplitSeq(stream, "\n\n") {
		for strings.HasPrefix(frame, ":") || strings.HasPrefix(frame, "id: ") {
			_, frame, _ = strings.Cut(frame, "\n")
		}
		if frame == "" { // the end of the stream, perhaps after comments
			continue
		}
		first, second, ok := strings.Cut(frame, "\n")
		name, isEvent := strings.CutPrefix(first, "event: ")
		data, isData := strings.CutPrefix(second, "data: ")
		if !ok || !isEvent || !isData || strings.Contains(data, "\n") {
			t.Fatalf("not a frame: %q", frame)
		}
		e := Event{Name: name}
		if err := json.Unmarshal([]byte(data), &e.Data); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		list = append(list, e)
	}
	return list
}

// Names returns the names of events, separated by spaces.
func Names(list []Event) string {
	var out []string
	for _, e := range list {
		out = append(out, e.Name)
	}
	return strings.Join(out, " ")
}

// Output collects the output of a process while a test waits for a text in it.
type Output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	closed bool
	grown  sync.Cond
}

func (b *Output) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	b.cond().Broadcast()
}

// cond must be called with mu held.
func (b *Output) cond() *sync.Cond {
	if b.grown.L == nil {
		b.grown.L = &b.mu
	}
	return &b.grown
}

func (b *Output) Write(p []byte) (n int, err error) {
	b.change(func() { n, err = b.buf.Write(p) })
	return n, err
}

// Close marks the end of the output, so that Await waits no longer.
func (b *Output) Close() { b.change(func() { b.closed = true }) }

// Await waits for the first match. It returns nil if the output ends without one.
func (b *Output) Await(re *regexp.Regexp) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if m := re.FindStringSubmatch(b.buf.String()); m != nil || b.closed {
			return m
		}
		b.cond().Wait()
	}
}

func (b *Output) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
