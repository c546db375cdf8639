package acceptance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// After a thousand runs of every kind, a stopped server has no goroutine, no file
// descriptor and no database connection open. withtools counts its own goroutines and file
// descriptors, before keyway starts and after it has stopped, and exits with 1 if there are
// more.
func TestThousandRunsLeakNothing(t *testing.T) {
	t.Parallel()
	g := &gates{}
	var r *server
	t.Run("runs", func(sub *testing.T) {
		r = startWith(t, process.WithTools.With("-leaks"), gatedConfig(t), commandModel(sub), "PAGE_ORIGIN",
			"http://localhost:3000", "GATE_URL", g.serve(t))
		thousandRuns(sub, r, g)
	})
	// The model server has ended, and with it the idle connections that keyway keeps to it.
	if err := r.Ended(); err != nil {
		t.Error(err)
	}
	r.AwaitLog(`withtools: looked for leaks, exit 0`)
}

func thousandRuns(t *testing.T, r *server, g *gates) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), r.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	c := caller{r: r, gates: g, web: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	kinds := []func(caller, int) error{
		caller.streams, caller.doesNotStream, caller.failsAtOnce, caller.failsInTheMiddle, caller.cancels,
		caller.disconnects, caller.runsInTheBackground, caller.usesTools, caller.confirms, caller.resumes,
	}

	const runs, atOnce = 1000, 16
	var next atomic.Int32
	var most int
	var counting sync.Mutex
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= runs; i = int(next.Add(1)) {
				if err := kinds[i%len(kinds)](c, i); err != nil {
					t.Errorf("run %d, of kind %d: %v", i, i%len(kinds), err)
				}
				if i%10 == 0 {
					counting.Lock()
					most = max(most, connections(t, conn))
					counting.Unlock()
				}
			}
		})
	}
	wg.Wait()
	c.web.CloseIdleConnections()
	r.signal(syscall.SIGTERM)
	r.AwaitLog(`withtools: keyway has stopped`) // it has waited for runs without a client
	const bound = 16 + 2                        // the store's default, and the connections for leases
	if most == 0 || most > bound {
		t.Errorf("%d connections to PostgreSQL at a time; the pool's bound is %d", most, bound)
	}
	// PostgreSQL ends a backend some time after its client has disconnected.
	for patience := time.Now().Add(time.Minute); connections(t, conn) > 0; {
		if time.Now().After(patience) {
			t.Fatal("connections to PostgreSQL are still open")
		}
	}
	rows, err := conn.Query(t.Context(), "SELECT status, count(*) FROM keyway.runs GROUP BY status")
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]int{}
	var status string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&status, &n}, func() error { ended[status] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"COMPLETED": runs * 7 / 10, "ERROR": runs * 2 / 10,
		"CANCELLED": runs / 10}, ended); diff != "" {
		t.Error(diff)
	}
}

// connections counts the connections to this database, except conn itself.
func connections(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&n)
	if err != nil {
		t.Error(err)
	}
	return n
}

// gatedConfig is clientsConfig with the tool gate for its assistant.
func gatedConfig(t *testing.T) string {
	t.Helper()
	yaml, err := os.ReadFile(clientsConfig)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(string(yaml), "tools: [", "tools: [gate, ",
		1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// gates keep a run inside the tool gate until open is called with the run's key.
type gates struct{ list sync.Map }

func (g *gates) at(key string) chan struct{} {
	ch, _ := g.list.LoadOrStore(key, make(chan struct{}))
	return ch.(chan struct{})
}

func (g *gates) open(key string) { close(g.at(key)) }

// serve starts the server that the tool gate asks. It answers when the key's gate is open.
func (g *gates) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-g.at(r.URL.Query().Get("key")):
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// caller starts runs of each kind. The number of a run chooses its session and its gate.
type caller struct {
	r     *server
	gates *gates
	web   *http.Client
}

func (c caller) streams(i int) error {
	return c.ends(i, "RunCompleted", "message", "echo: hello world")
}

func (c caller) doesNotStream(i int) error {
	return c.ends(i, `"status":"COMPLETED"`, "message", "echo: hello world", "stream", "false")
}

func (c caller) failsAtOnce(i int) error {
	return c.ends(i, "RunError", "message", "fail 500")
}

func (c caller) failsInTheMiddle(i int) error {
	return c.ends(i, "RunError", "message", "fail-mid 2")
}

func (c caller) usesTools(i int) error {
	return c.ends(i, "RunCompleted", "message", `call tools [["look_up", {"what": "tea"}], ["look_up", {"what": "milk"}]]`)
}

func (c caller) runsInTheBackground(i int) error {
	return c.ends(i, `"status":"PENDING"`, "message", "echo: hello world", "stream", "false", "background", "true")
}

func (c caller) cancels(i int) error {
	return c.reads(i, "slow 2", "chunk-0", func(id string, rest *bufio.Reader) error {
		if _, err := c.post("/agents/assistant/runs/"+id+"/cancel", nil); err != nil {
			return err
		}
		return has(rest, "RunCancelled")
	})
}

func (c caller) disconnects(i int) error {
	key := fmt.Sprint(i)
	err := c.reads(i, `call tool gate {"key": "`+key+`"}`, "ToolCallStarted",
		func(string, *bufio.Reader) error { return nil })
	c.gates.open(key)
	return err
}

func (c caller) resumes(i int) error {
	key, run := fmt.Sprint(i), ""
	err := c.reads(i, `call tool gate {"key": "`+key+`"}`, "ToolCallStarted",
		func(id string, _ *bufio.Reader) error { run = id; return nil })
	if err != nil {
		return err
	}
	body, err := c.send("/agents/assistant/runs/"+run+"/resume", url.Values{"last_event_index": {"0"}})
	if err != nil {
		return err
	}
	defer body.Close()
	rest := bufio.NewReader(body)
	_, err = rest.ReadString('\n') // the first line shows that the server follows the run
	c.gates.open(key)
	if err != nil {
		return err
	}
	return has(rest, "RunCompleted")
}

func (c caller) confirms(i int) error {
	answer, err := c.post("/agents/assistant/runs", inSession(i, "message",
		`call tool delete_account {"id": 1}`, "stream", "false"))
	if err != nil {
		return err
	}
	var paused struct {
		RunID string           `json:"run_id"`
		Tools []map[string]any `json:"tools"`
	}
	if err := json.Unmarshal([]byte(answer), &paused); err != nil || len(paused.Tools) != 1 {
		return fmt.Errorf("%s: %w", answer, err)
	}
	paused.Tools[0]["confirmed"] = true
	tools, err := json.Marshal(paused.Tools)
	if err != nil {
		return err
	}
	answer, err = c.post("/agents/assistant/runs/"+paused.RunID+"/continue", inSession(i, "tools", string(tools)))
	if err == nil && !strings.Contains(answer, "account 1 is gone") {
		err = fmt.Errorf("continued with %s", answer)
	}
	return err
}

// inSession is a form with the session for run number i.
func inSession(i int, fields ...string) url.Values {
	form := url.Values{"session_id": {fmt.Sprintf("s-%d", i%16)}}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return form
}

// ends starts a run and checks that its answer contains want.
func (c caller) ends(i int, want string, fields ...string) error {
	body, err := c.send("/agents/assistant/runs", inSession(i, fields...))
	if err != nil {
		return err
	}
	defer body.Close()
	return has(body, want)
}

// reads streams a run up to a line with a text and calls then with the rest. After that it
// closes the connection.
func (c caller) reads(i int, message, upTo string, then func(runID string, rest *bufio.Reader) error) error {
	body, err := c.send("/agents/assistant/runs", inSession(i, "message", message))
	if err != nil {
		return err
	}
	defer body.Close()
	rest := bufio.NewReader(body)
	for {
		line, err := rest.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the stream has no %s: %w", upTo, err)
		}
		if m := runIDText.FindStringSubmatch(line); m != nil && strings.Contains(line, upTo) {
			return then(m[1], rest)
		}
	}
}

var runIDText = regexp.MustCompile(`"run_id":"([^"]+)"`)

func (c caller) post(path string, form url.Values) (string, error) {
	body, err := c.send(path, form)
	if err != nil {
		return "", err
	}
	defer body.Close()
	all, err := io.ReadAll(body)
	return string(all), err
}

// send sends a POST request for ann. The caller closes the body.
func (c caller) send(path string, form url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(c.r.t.Context(), "POST", c.r.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.r.Tokens["ann"])
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.web.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

func has(r io.Reader, want string) error {
	all, err := io.ReadAll(r)
	if err == nil && !strings.Contains(string(all), want) {
		err = fmt.Errorf("the answer has no %s: %s", want, all)
	}
	return err
}
