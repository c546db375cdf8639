package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// suite is the tests with their database, for testscript.
type suite struct{ *testing.M }

func (s suite) Run() int { return storetest.Main(s.M) }

// TestMain is also the keyway command, for the scripts in testdata/script.
func TestMain(m *testing.M) {
	devpg.HoldIfAsked()
	testscript.Main(suite{m}, map[string]func(){"keyway": func() { Main(Own{}) }})
}

// running is a keyway serve on a port of its own, with a database of its own and
// a scripted model, called over real sockets.
type running struct {
	t      *testing.T
	url    string
	db     string
	data   string // --data
	model  *modeltest.Server
	tokens map[string]string // by subject; minted by PyJWT, see testdata/mint.py
	stderr *syncBuffer
	stop   func() error
}

// start serves an example. env adds to and replaces the usual environment.
func start(t *testing.T, example string, model *modeltest.Server, env ...string) *running {
	t.Helper()
	return startWith(t, Own{}, example, model, env...)
}

// startWith is start in an operator's own program.
func startWith(t *testing.T, own Own, example string, model *modeltest.Server, env ...string) *running {
	t.Helper()
	r := &running{t: t, model: model, db: storetest.EmptyURL(t), data: t.TempDir(), tokens: pyjwt(t, example), stderr: &syncBuffer{}}
	vars := map[string]string{
		"JWT_VERIFICATION_KEY": config.PublishedSecret, "DATABASE_URL": r.db,
		"OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test",
	}
	for i := 0; i < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	e := testEnv(vars)
	e.own, e.err = own, r.stderr
	e.cli = &cli{Config: filepath.Join("..", "..", "examples", example, "keyway.yaml"), Data: r.data}
	if strings.HasSuffix(example, ".yaml") {
		e.cli.Config = example
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveCmd{Addr: "127.0.0.1:0"}.serve(ctx, e); r.stderr.close() }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	m := r.stderr.await(regexp.MustCompile(`serves \S+ at (http://\S+)`))
	if m == nil {
		t.Fatalf("keyway serve did not start: %v\n%s", r.stop(), r.stderr)
	}
	r.url = m[1]
	return r
}

func testEnv(vars map[string]string) env {
	return env{out: io.Discard, err: io.Discard, in: strings.NewReader(""), now: time.Now, lookup: func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}}
}

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
func (r *running) call(sub, method, path string, body io.Reader, header ...string) reply {
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
func (r *running) open(sub, method, path string, body io.Reader, header ...string) *http.Response {
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

func (r *running) get(sub, path string) reply { r.t.Helper(); return r.call(sub, "GET", path, nil) }

// run starts a run with a multipart form, as curl -F does.
func (r *running) run(sub, agent string, fields ...string) reply {
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
func echo(t *testing.T) *modeltest.Server {
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
