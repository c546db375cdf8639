package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// beginBounded starts a run in ann's session s with a state, of which the session may have most bytes.
func beginBounded(t *testing.T, db *store.DB, state string, most int) (store.Run, store.BeginResult, error) {
	t.Helper()
	r := store.Run{
		Status: "RUNNING", Attempt: 1, RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Input: "m",
		CreatedAt: day, SessionState: json.RawMessage(state), Streamed: true,
	}
	if state == "" {
		r.SessionState = nil
	}
	out, err := db.BeginRun(t.Context(), r, store.BeginOptions{Leg: &r.RunID, MaxState: most})
	return r, out, err
}

func TestMergesAtTheSameTimeDoNotExceedTheBoundOfAState(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	const most = 1000
	var refused atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			state := fmt.Sprintf(`{"k%d":%q}`, i, strings.Repeat("x", 200))
			switch _, _, err := beginBounded(t, db, state, most); {
			case err == nil:
			case fault.KindOf(err) == fault.Unprocessable && strings.Contains(err.Error(), "at most 1000 bytes, not 1"):
				refused.Add(1)
			default:
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	session, err := db.Session(t.Context(), admin, "s", "ann")
	if err != nil || len(session.State) > most {
		t.Errorf("the state has %d bytes: %v", len(session.State), err)
	}
	runs, err := db.Runs(t.Context(), admin, store.RunQuery{SessionID: "s"})
	if err != nil || len(runs)+int(refused.Load()) != 16 || refused.Load() != 12 {
		t.Errorf("%d runs are stored and %d were refused: %v", len(runs), refused.Load(), err)
	}
}

func TestAStateAboveTheBoundMayOnlyShrink(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	large := fmt.Sprintf(`{"a":%q,"b":1}`, strings.Repeat("x", 500))
	if _, _, err := beginBounded(t, db, large, 0); err != nil {
		t.Fatal(err)
	}
	if _, out, err := beginBounded(t, db, "", 100); err != nil || len(out.State) < 500 {
		t.Errorf("a run without a state: %d bytes, %v", len(out.State), err)
	}
	if _, _, err := beginBounded(t, db, `{"b":2}`, 100); err != nil {
		t.Errorf("a merge of the same size: %v", err)
	}
	if _, _, err := beginBounded(t, db, `{"c":3}`, 100); fault.KindOf(err) != fault.Unprocessable {
		t.Errorf("a merge that adds a member: %v", err)
	}
	session, err := db.Session(t.Context(), admin, "s", "ann")
	if err != nil {
		t.Fatal(err)
	}
	change := func(n int) error {
		state := json.RawMessage(fmt.Sprintf(`{"a": %q}`, strings.Repeat("y", n)))
		_, err := db.ChangeSession(t.Context(), session, store.SessionChange{State: state, MaxState: 100}, day)
		return err
	}
	err = change(600)
	if fault.KindOf(err) != fault.Unprocessable || !strings.Contains(err.Error(), "at most 100 bytes, not 609") {
		t.Errorf("a larger state: %v", err)
	}
	for _, n := range []int{400, 50} {
		if err := change(n); err != nil {
			t.Errorf("a state of %d bytes: %v", n, err)
		}
	}
}

func TestALargeStateIsStoredOnceAndShownWithTheRun(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	large := fmt.Sprintf(`{"a":%q}`, strings.Repeat("x", 5000))
	for name, row := range map[string]struct {
		state  string
		copied bool
	}{"small": {`{"a":1}`, true}, "large": {large, false}} {
		r, begun, err := beginBounded(t, db, row.state, 0)
		if err != nil || begun.StateInSession == row.copied || strings.ReplaceAll(string(begun.State), " ", "") != row.state {
			t.Fatalf("%s: %.100s %t %v", name, begun.State, begun.StateInSession, err)
		}
		frames := "event: RunStarted\ndata: {}\n\n" +
			`event: RunCompleted` + "\n" + `data: {"content":"\"session_state\":{}","session_state":{},"event_index":1}` + "\n\n"
		if err := end(t, db, r, "COMPLETED", store.Events{RunID: r.RunID, Attempt: 1, Count: 2, Frames: frames}); err != nil {
			t.Fatal(err)
		}
		if got := status(t, db, r).SessionState; strings.ReplaceAll(string(got), " ", "") != row.state {
			t.Errorf("%s: the run shows %.100s", name, got)
		}
		runs, err := db.Runs(t.Context(), admin, store.RunQuery{SessionID: "s"})
		if last := runs[len(runs)-1]; err != nil || (last.SessionState == nil) == row.copied {
			t.Errorf("%s: a list of runs shows %.100s: %v", name, last.SessionState, err)
		}
		want := frames
		if !row.copied {
			want = strings.Replace(frames, `","session_state":{}`, `","session_state":`+row.state, 1)
		}
		news, err := db.Follow(t.Context(), r.RunID, 1, -1)
		if err != nil || len(news.Frames) != 1 || string(news.Frames[0].Data) != want {
			t.Errorf("%s: the events are %.200v: %v", name, news, err)
		}
		if _, err := db.DeleteSessions(t.Context(), admin, []string{"s"}, "ann"); err != nil {
			t.Fatal(err)
		}
	}
}
