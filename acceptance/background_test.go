package acceptance

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// startInBackground starts a background run for ann and returns its ID.
func (r *server) startInBackground(session string) (runID string) {
	r.t.Helper()
	got := r.Run("ann", "assistant", "message", "hi", "session_id", session, "background", "true", "stream", "false")
	got.Want(r.t, "in the background", 202, `"status":"PENDING"`)
	var accepted struct {
		ID string `json:"run_id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &accepted); err != nil {
		r.t.Fatal(err)
	}
	return accepted.ID
}

// awaitStatus polls a run of session s until it has this status.
func (r *server) awaitStatus(sub, runID, status string) process.Reply {
	r.t.Helper()
	var got process.Reply
	for end := time.Now().Add(process.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = r.Get(sub, "/agents/assistant/runs/"+runID+"?session_id=s"); strings.Contains(got.Body,
			`"status":"`+status+`"`) {
			return got
		}
	}
	r.t.Fatalf("run %s does not become %s: %d %s", runID, status, got.Status, got.Body)
	return got
}

// Both servers accept background runs, and both claim pending ones.
func TestBackgroundRunIsExecutedByOneOfTwoServers(t *testing.T) {
	t.Parallel()
	url, model := storetest.EmptyURL(t), echoModel(t)
	first := start(t, "quickstart", model, "DATABASE_URL", url)
	second := start(t, "quickstart", model, "DATABASE_URL", url)
	const n = 10
	var ids []string
	for i := range n {
		ids = append(ids, []*server{first, second}[i%2].startInBackground("s"))
	}
	for _, id := range ids {
		second.awaitStatus("ann", id, "COMPLETED").Want(t, "either asked", 200, `"content":"you said hi"`)
		first.awaitStatus("ann", id, "COMPLETED")
	}
	if got := len(model.Requests()); got != n {
		t.Errorf("the model was asked %d times for %d runs", got, n)
	}
}

// A reader follows a run while its process loses the lease. The reader receives all
// events again from the next attempt, and only that attempt's end.
func TestReaderReceivesAllEventsOfTheNextAttempt(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	model, release := heldModel(t)
	r := start(t, "quickstart", model, "DATABASE_URL", url)
	lost := r.startStream("s", "first")
	body, kind := process.Form(t, "last_event_index", "0")
	resp := r.Open("ann", "POST", "/agents/assistant/runs/"+lost.runID+"/resume", body, "Content-Type", kind)
	t.Cleanup(func() { resp.Body.Close() })
	follower := &stream{t: t, lines: bufio.NewScanner(resp.Body), body: resp.Body}
	for follower.lines.Scan() && !strings.Contains(follower.lines.Text(), `"content":"first"`) {
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "UPDATE keyway.runs SET status = 'PENDING', lease_until = now()"); err != nil {
		t.Fatal(err)
	}
	for follower.lines.Scan() && follower.lines.Text() != "event: catch_up" {
	}
	close(release) // for both attempts
	if got := follower.readToEnd(); got != allEvents {
		t.Errorf("the reader receives %s", got)
	}
	if got := lost.readToEnd(); strings.Contains(got, "RunCompleted") || strings.Contains(got, "RunError") {
		t.Errorf("the client of the attempt that lost the run receives %s", got)
	}
	r.awaitStatus("ann", lost.runID, "COMPLETED").Want(t, "the run", 200, `"content":"first second"`)
}

// The run was admitted under the old keyway.yaml. When a process claims it again, the
// current keyway.yaml decides.
func TestClaimedRunIsAuthorizedByTheCurrentConfiguration(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	model, release := heldModel(t)
	url := storetest.EmptyURL(t)
	r := d.serve(t, map[string]string{"DATABASE_URL": url, "OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test"})
	id := r.startInBackground("s")
	r.awaitStatus("ann", id, "RUNNING")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	waits := func(until string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(),
			"UPDATE keyway.runs SET status = 'PENDING', lease_until = now() + "+until+"::interval"); err != nil {
			t.Fatal(err)
		}
	}
	waits(`'1 hour'`)
	d.replace(t, strings.Replace(d.read(t, "keyway.yaml"), "auth:\n",
		"auth:\n  scope_mappings: {'POST /agents/*/runs': ['app:run']}\n", 1))
	r.AwaitLog("keyway.yaml changed and is in force")
	waits(`'0'`)
	r.awaitStatus("ann", id, "ERROR").Want(t, "no longer allowed", 200,
		`"content":"The run is no longer allowed: Insufficient permissions. Required scope(s): app:run"`)
	r.AwaitLog(`(?s)"?msg"?[=:]"?decision"?.*app:run`)
	close(release) // the first attempt continues, but it has lost the lease and changes nothing
	r.awaitStatus("ann", id, "ERROR")
}
