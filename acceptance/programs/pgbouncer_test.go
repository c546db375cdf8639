package programs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

var _ = tried(entry{
	program: "PgBouncer, a pooler of PostgreSQL", name: "pgbouncer",
	pkgs: []string{"bookworm/pgbouncer", "trixie/pgbouncer"},
	tried: "`keyway serve` behind it in transaction mode with the plain URL, the older one without prepared statements " +
		"and the newer one with them: migrations, runs streamed, whole and in the background, resume, cancel, sessions, " +
		"memories, idempotency, 50 runs at the same time, a restart of PostgreSQL under load",
	not: "after a restart of PostgreSQL it refuses everybody for up to 15 seconds (server_login_retry): 503 with " +
		"`Retry-After`",
	date: "2026-11-29",
})

// poolers are the releases of PgBouncer with their settings.
var poolers = map[string]string{"bookworm": "", "trixie": "max_prepared_statements = 200"}

// counted is a model that counts how often it was asked each question.
type counted struct {
	*modeltest.Server
	mu    sync.Mutex
	asked map[string]int
	// holds are the questions whose answers wait for their channel after the first word.
	holds sync.Map
}

// question returns the last text of the user.
func question(r modeltest.Request) string {
	list, _ := r.Body["messages"].([]any)
	last, _ := list[len(list)-1].(map[string]any)
	text, _ := last["content"].(string)
	return text
}

func count(t *testing.T) *counted {
	t.Helper()
	c := &counted{asked: map[string]int{}}
	c.Server = modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		q := question(r)
		c.mu.Lock()
		c.asked[q]++
		c.mu.Unlock()
		if until, ok := c.holds.Load(q); ok {
			return modeltest.Text("first ").Wait(until.(chan struct{})).Text("answer to " + q)
		}
		return modeltest.Text("first ", "answer to "+q)
	})
	return c
}

// once checks that the model was asked each of these questions exactly once.
func (c *counted) once(t *testing.T, questions ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range questions {
		if c.asked[q] != 1 {
			t.Errorf("the model was asked %q %d times", q, c.asked[q])
		}
	}
}

const pooledAgent = "agents:\n  - {id: assistant, model: \"openai:gpt-4o\"}\n"

// onPgBouncer starts keyway behind a PgBouncer before the database.
func onPgBouncer(t *testing.T, release, database string, model *counted) *process.Server {
	t.Helper()
	pooler := storetest.StartPgBouncer(t, filepath.Join(program(t, "pgbouncer"), release, "pgbouncer"), database,
		poolers[release])
	r := serve(t, pooledAgent, model.Server, "DATABASE_URL", pooler.URL)
	r.AwaitLog(`"msg":"database",.*"pooler":true,"prepared_statements":false`)
	return r
}

// keyed starts a run with an Idempotency-Key and tries again as long as the answer is 503, as Retry-After asks. Any
// other answer of an error fails the test.
func keyed(t *testing.T, r *process.Server, key string, fields ...string) process.Reply {
	t.Helper()
	for {
		body, kind := process.Form(t, fields...)
		got := r.Call("admin", "POST", "/agents/assistant/runs", body, "Content-Type", kind, "Idempotency-Key", key)
		if got.Status != http.StatusServiceUnavailable {
			if got.Status >= http.StatusInternalServerError {
				t.Errorf("%s: %d %s", key, got.Status, got.Body)
			}
			return got
		}
		if got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After: %s", key, got.Body)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// ended polls a run until it has this status.
func ended(t *testing.T, r *process.Server, session, runID, status string) process.Reply {
	t.Helper()
	for end := time.Now().Add(process.Patience); ; time.Sleep(50 * time.Millisecond) {
		got := r.Get("admin", "/agents/assistant/runs/"+runID+"?session_id="+session)
		if strings.Contains(got.Body, `"status":"`+status+`"`) {
			return got
		}
		if got.Status != 200 && got.Status != http.StatusServiceUnavailable || time.Now().After(end) {
			t.Fatalf("run %s does not become %s: %d %s", runID, status, got.Status, got.Body)
		}
	}
}

// field returns a text member of a JSON object.
func field(t *testing.T, r process.Reply, name string) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(r.Body), &all); err != nil {
		t.Fatalf("%d %s: %v", r.Status, r.Body, err)
	}
	text, _ := all[name].(string)
	return text
}

func TestEverythingWorksBehindPgBouncer(t *testing.T) {
	t.Parallel()
	for release := range poolers {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			model := count(t)
			r := onPgBouncer(t, release, storetest.EmptyURL(t), model)
			runsWork(t, r, model)
			rowsWork(t, r)
			manyAtTheSameTime(t, r, model)
		})
	}
}

// runsWork starts, follows, repeats and cancels runs of session s.
func runsWork(t *testing.T, r *process.Server, model *counted) {
	t.Helper()
	streamed := ask(t, r, "assistant", "s", true, "streamed")
	streamed.want(t, "streamed", "COMPLETED", "", "first answer to streamed")
	r.Call("admin", "POST", "/agents/assistant/runs/"+streamed.RunID+"/resume", nil).
		Want(t, "resume", 200, "event: RunCompleted")
	ask(t, r, "assistant", "s", false, "whole").want(t, "whole", "COMPLETED", "", "first answer to whole")
	later := r.Run("admin", "assistant", "message", "later", "session_id", "s", "background", "true", "stream", "false")
	later.Want(t, "in the background", 202)
	id := field(t, later, "run_id")
	ended(t, r, "s", id, "COMPLETED").Want(t, "in the background", 200, "first answer to later")

	fields := []string{"message", "twice", "session_id", "s"}
	first, again := keyed(t, r, "k", fields...), keyed(t, r, "k", fields...)
	again.Want(t, "repeated", 200, "event: RunCompleted")
	if again.Header.Get("Idempotent-Replayed") != "true" || first.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("replayed: %v, %v", first.Header, again.Header)
	}
	model.once(t, "streamed", "whole", "later", "twice")

	until := make(chan struct{})
	defer close(until)
	model.holds.Store("cancelled", until)
	id = field(t, r.Run("admin", "assistant", "message", "cancelled", "session_id", "s", "background", "true", "stream",
		"false"), "run_id")
	ended(t, r, "s", id, "RUNNING")
	r.Call("admin", "POST", "/agents/assistant/runs/"+id+"/cancel", nil).Want(t, "cancel", 200)
	ended(t, r, "s", id, "CANCELLED")
}

// rowsWork reads, changes and deletes sessions and memories.
func rowsWork(t *testing.T, r *process.Server) {
	t.Helper()
	const kind, text = "Content-Type", "application/json"
	r.Get("admin", "/sessions?type=agent").Want(t, "sessions", 200, `"session_id":"s"`)
	r.Get("admin", "/sessions/s?type=agent").Want(t, "a session", 200, "first answer to whole")
	r.Get("admin", "/sessions/s/runs?type=agent").Want(t, "its runs", 200, "CANCELLED")
	r.Call("admin", "POST", "/sessions/s/rename?type=agent", strings.NewReader(`{"session_name":"renamed"}`), kind, text).
		Want(t, "rename", 200, "renamed")
	tea := strings.NewReader(`{"memory":"Likes tea","topics":["tea"]}`)
	memory := r.Call("admin", "POST", "/memories", tea, kind, text)
	memory.Want(t, "a memory", 200, "Likes tea")
	id := field(t, memory, "memory_id")
	r.Call("admin", "PATCH", "/memories/"+id, strings.NewReader(`{"memory":"Likes coffee"}`), kind, text).
		Want(t, "change it", 200, "Likes coffee")
	r.Get("admin", "/memories").Want(t, "memories", 200, "Likes coffee")
	r.Get("admin", "/memory_topics").Want(t, "topics", 200)
	r.Call("admin", "DELETE", "/memories/"+id, nil).Want(t, "delete it", 204)
	r.Call("admin", "DELETE", "/sessions/s?type=agent", nil).Want(t, "delete the session", 204)
	r.Get("admin", "/sessions/s?type=agent").Want(t, "the deleted session", 404)
}

// manyAtTheSameTime starts 50 runs at the same time, of three kinds and in five sessions.
func manyAtTheSameTime(t *testing.T, r *process.Server, model *counted) {
	t.Helper()
	var wg sync.WaitGroup
	var questions []string
	for i := range 50 {
		q, session := fmt.Sprint("many ", i), fmt.Sprint("many-", i%5)
		questions = append(questions, q)
		wg.Go(func() {
			switch i % 3 {
			case 0:
				r.Run("admin", "assistant", "message", q, "session_id", session).Want(t, q, 200, "event: RunCompleted")
			case 1:
				r.Run("admin", "assistant", "message", q, "session_id", session, "stream", "false").
					Want(t, q, 200, `"status":"COMPLETED"`)
			default:
				later := r.Run("admin", "assistant", "message", q, "session_id", session, "background", "true", "stream", "false")
				later.Want(t, q, 202)
				ended(t, r, session, field(t, later, "run_id"), "COMPLETED")
			}
		})
	}
	wg.Wait()
	model.once(t, questions...)
}

// PostgreSQL is restarted while 30 runs are in progress and others begin. PgBouncer then refuses connections for longer
// than PostgreSQL is away. No run is done twice, and no answer is 500.
func TestPostgreSQLRestartsBehindPgBouncer(t *testing.T) {
	t.Parallel()
	for release := range poolers {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			restartUnderLoad(t, release)
		})
	}
}

func restartUnderLoad(t *testing.T, release string) {
	t.Helper()
	program(t, "pgbouncer")
	dir, err := os.MkdirTemp("", "keyway-restart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- PostgreSQL may run as another user
		t.Fatal(err)
	}
	runs := make(chan string, 10)
	pg, err := devpg.Start(t.Context(), devpg.Options{Dir: dir, Progress: func(line string) {
		if strings.Contains(line, "runs again") {
			runs <- line
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	model := count(t)
	until := make(chan struct{})
	r := onPgBouncer(t, release, pg.URL, model)
	var wg sync.WaitGroup
	var questions []string
	begin := func(q string) {
		questions = append(questions, q)
		session := "of " + q
		wg.Go(func() {
			fields := []string{"message", q, "session_id", session}
			first := keyed(t, r, q, fields...)
			if first.Status != http.StatusOK {
				t.Errorf("%s: %d %s", q, first.Status, first.Body)
			}
			// A stream that lost its run says that the run continues. The same request finds it.
			for !strings.Contains(first.Body, "event: RunCompleted") {
				if strings.Contains(first.Body, "event: RunError") {
					t.Errorf("%s: %s", q, first.Body)
					return
				}
				time.Sleep(500 * time.Millisecond)
				first = keyed(t, r, q, fields...)
			}
		})
	}
	for i := range 30 {
		q := fmt.Sprint("before ", i)
		model.holds.Store(q, until)
		begin(q)
	}
	for len(model.Requests()) < 30 {
		time.Sleep(10 * time.Millisecond)
	}
	restart(t, pg)
	for i := range 20 {
		begin(fmt.Sprint("meanwhile ", i))
	}
	close(until) // The answers end while there is no database.
	<-runs
	wg.Wait()
	model.once(t, questions...)
}

// restart makes PostgreSQL end as for pg_ctl restart -m fast. devpg starts it again.
func restart(t *testing.T, pg *devpg.Server) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(pg.Dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}
