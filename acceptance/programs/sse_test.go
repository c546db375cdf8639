package programs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var (
	_ = tried(entry{
		program: "fetch-event-source in Chromium, EventSource for Node, eventsource-parser", name: "sse-node",
		pkgs: []string{"@microsoft/fetch-event-source", "eventsource", "eventsource-parser"},
		tried: "a run whose model is silent for longer than the keep-alive interval: one POST, each event once, no error; " +
			"`resume` with its ids; EventSource reconnects after the last event and stops at the 204",
		not:  "see [clients.md](clients.md)",
		date: "2026-11-29",
	})
	_ = tried(entry{
		program: "httpx-sse, sseclient-py, and httpx by lines as AgentOS's client reads", name: "sse-python",
		pkgs:  []string{"httpx-sse", "sseclient-py", "httpx"},
		tried: "`resume` of the same silent run, with U+0085 and U+2028 in its text: each event once, with its id",
		date:  "2026-11-29",
	})
)

const assistant = `cors:
  origins: ["${PAGE_ORIGIN}"]
agents:
  - {id: assistant, model: "openai:gpt-4o"}
`

// silence is a proxy in front of keyway. Its model is silent until each of the readers has got a
// keep-alive comment.
type silence struct {
	*httptest.Server
	r     *process.Server
	model *modeltest.Server

	mu      sync.Mutex
	readers int            // how many of them have got none yet
	ends    chan struct{}  // closed when the model may continue
	posts   map[string]int // by path
}

func startSilence(t *testing.T, origin string, readers int) *silence {
	t.Helper()
	s := &silence{readers: readers, ends: make(chan struct{}), posts: map[string]int{}}
	s.model = modeltest.NewServer(t, modeltest.Text("one\u0085").Wait(s.ends).Text("two\u2028"))
	s.r = serve(t, assistant, s.model, "PAGE_ORIGIN", origin)
	target, err := url.Parse(s.r.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Request.Method == http.MethodPost {
			s.mu.Lock()
			s.posts[resp.Request.URL.Path]++
			s.mu.Unlock()
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(resp.Body, &listener{s: s}), resp.Body}
		}
		return nil
	}
	s.Server = httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s
}

// listener reports the first keep-alive comment of one answer.
type listener struct {
	s    *silence
	text bytes.Buffer
	done bool
}

func (l *listener) Write(p []byte) (int, error) {
	l.text.Write(p)
	if !l.done && strings.Contains(l.text.String(), ": keep-alive") {
		l.done = true
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		if l.s.readers--; l.s.readers == 0 {
			close(l.s.ends)
		}
	}
	return len(p), nil
}

func (s *silence) postsTo(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts[path]
}

const silentEvents = "RunStarted ModelRequestStarted RunContent RunContent RunContent " +
	"ModelRequestCompleted RunContentCompleted RunCompleted"

// The library dispatched the comment as an event without data. The page's JSON.parse failed, and
// the library sent the POST again: the agent ran a second time.
func TestFetchEventSourceStartsARunOnce(t *testing.T) {
	t.Parallel()
	dir := program(t, "sse-node")
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: install chromium", err)
	}
	seen := make(chan []byte, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "testdata/sse-node/page.html")
	})
	// The modules of the library import each other without a suffix.
	mux.HandleFunc("GET /fetch-event-source/{module}", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(filepath.Base(r.PathValue("module")), ".js") + ".js"
		http.ServeFile(w, r, filepath.Join(dir, "node_modules/@microsoft/fetch-event-source/lib/esm", name))
	})
	mux.HandleFunc("POST /seen", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- body
	})
	page := httptest.NewServer(mux)
	t.Cleanup(page.Close)
	s := startSilence(t, page.URL, 1)
	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) }) // processes of a killed Chromium may still write to it
	query := url.Values{"os": {s.URL}, "token": {s.r.Tokens["ann"]}}
	browser := launch(t, nil, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir="+profile,
		page.URL+"/?"+query.Encode())
	select {
	case got := <-seen:
		names, err := json.Marshal(strings.Fields(silentEvents))
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"events":` + string(names) + `,"errors":[]}`; string(got) != want {
			t.Errorf("the page has %s, want %s", got, want)
		}
	case <-browser.ended:
		t.Fatal("Chromium has ended")
	case <-t.Context().Done():
	}
	if posts := s.postsTo("/agents/assistant/runs"); posts != 1 {
		t.Errorf("the page sent %d POSTs", posts)
	}
	if asked := len(s.model.Requests()); asked != 1 {
		t.Errorf("the model was asked %d times", asked)
	}
}

// readers are programs that read a stream: the directory, the script, its library, and whether the
// library reports ids.
var readers = []struct {
	program, command, library string
	ids                       bool
}{
	{"sse-node", "node", "eventsource-parser", true},
	{"sse-node", "node", "eventsource", true},
	{"sse-python", "bin/python", "httpx-sse", true},
	{"sse-python", "bin/python", "sseclient-py", true},
	{"sse-python", "bin/python", "httpx", false},
}

func TestLibrariesReadASilentStream(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sse-node", "sse-python"} {
		program(t, name)
	}
	s := startSilence(t, "http://nobody.example", len(readers))
	body, kind := process.Form(t, "message", "hi")
	first := s.r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	defer first.Body.Close()
	var start struct {
		RunID string `json:"run_id"`
	}
	head := make([]byte, 1024)
	n, err := first.Body.Read(head)
	_, data, _ := strings.Cut(string(head[:n]), "data: ")
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&start); err != nil {
		t.Fatalf("%q: %v", head[:n], err)
	}
	if err != nil {
		t.Fatal(err)
	}
	resume := "/agents/assistant/runs/" + start.RunID + "/resume"
	outputs := make([]string, len(readers))
	var wg sync.WaitGroup
	for i, reader := range readers {
		wg.Go(func() {
			out, err := s.read(t, i, resume)
			if outputs[i] = out; err != nil {
				t.Errorf("%s: %v: %s", reader.library, err, out)
			}
		})
	}
	wg.Wait()
	for i, reader := range readers {
		checkRead(t, reader.library, reader.ids, outputs[i])
	}
	if posts := s.postsTo(resume); posts != len(readers)+1 {
		t.Errorf("%d POSTs by %d readers, of which one reconnects once", posts, len(readers))
	}
}

// read runs a reader to its end and returns its output.
func (s *silence) read(t *testing.T, i int, resume string) (string, error) {
	reader := readers[i]
	dir := program(t, reader.program)
	command, script := reader.command, filepath.Join("testdata", reader.program, "read.py")
	if command == "node" { // finds its packages beside the script
		work := t.TempDir()
		text, err := os.ReadFile(filepath.Join("testdata", reader.program, "read.mjs"))
		script = filepath.Join(work, "read.mjs")
		if err == nil {
			err = os.WriteFile(script, text, 0o600)
		}
		if err == nil {
			err = os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(work, "node_modules"))
		}
		if err != nil {
			return "", err
		}
	} else {
		command = filepath.Join(dir, command)
	}
	args := []string{script, reader.library, s.URL + resume, s.r.Tokens["ann"]}
	if reader.library == "eventsource" { // it dispatches only the names that it knows
		args = append(args, "replay", "catch_up", "subscribed")
		args = append(args, "RunStarted", "ModelRequestStarted", "RunContent", "RunContentCompleted",
			"ModelRequestCompleted", "RunCompleted")
	}
	cmd := exec.CommandContext(t.Context(), command, args...)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errors.String())
	}
	return string(out), err
}

// checkRead checks that a reader has got each event of the run once, with its index as its id.
func checkRead(t *testing.T, library string, ids bool, output string) {
	t.Helper()
	var names []string
	text := ""
	for line := range strings.Lines(output) {
		var got [3]string
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Errorf("%s: %v: %s", library, err, line)
			continue
		}
		id, name, data := got[0], got[1], got[2]
		if name == "closed" {
			if data != "204" {
				t.Errorf("%s ended with %s", library, data)
			}
			continue
		}
		var event struct {
			Event   string
			Content string
			Index   *int `json:"event_index"`
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Event != name {
			t.Errorf("%s: %v: %s", library, err, line)
		}
		if event.Index == nil { // it describes the stream
			continue
		}
		names = append(names, name)
		if ids && id != fmt.Sprint(*event.Index) {
			t.Errorf("%s: event %d has the id %q", library, *event.Index, id)
		}
		if name == "RunCompleted" {
			text = event.Content
		}
	}
	if got := strings.Join(names, " "); got != silentEvents || text != "one\u0085two\u2028" {
		t.Errorf("%s read %s with the text %q, want %s:\n%s", library, got, text, silentEvents, output)
	}
}
