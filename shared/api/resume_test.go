package api_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/authz"
)

// eventNames lists the event: lines of a stream.
func eventNames(body string) (names []string) {
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// streamed runs agent "a" with events and returns the run's id and its events.
func (s *service) streamed(session string) (id string, events []string) {
	s.t.Helper()
	body := s.do("ann POST /agents/a/runs", "message=m&session_id="+session).want(s.t, 200).Body.String()
	_, rest, _ := strings.Cut(body, `"run_id":"`)
	if rest == "" {
		_, rest, _ = strings.Cut(body, `"run_id": "`)
	}
	id, _, _ = strings.Cut(rest, `"`)
	return id, eventNames(body)
}

func TestAnEndedRunIsReplayedFromAnyEvent(t *testing.T) {
	t.Parallel()
	s := newService(t, text("fi", "ne"))
	id, all := s.streamed("s")
	for name, row := range map[string]struct {
		form, lastID string
		skipped      int
		text         string
	}{
		"everything":                     {"", "", 0, `"total_events"`},
		"after the first event":          {"last_event_index=0", "", 1, `"last_event_index_requested"`},
		"after the third event":          {"last_event_index=2", "", 3, "missed events"},
		"after the last event":           {"last_event_index=99", "", len(all), "Replaying 0 missed events"},
		"an index below zero":            {"last_event_index=-1", "", 0, "missed events"},
		"a browser's Last-Event-ID":      {"", "1", 2, "id: 2\n"},
		"a Last-Event-ID of no number":   {"", "x", 0, "id: 0\n"},
		"the larger of two, the header":  {"last_event_index=0", "2", 3, "id: 2\nevent: replay\n"},
		"the larger of two, the form":    {"last_event_index=2", "0", 3, "id: 2\nevent: replay\n"},
		"each event has its index as id": {"", "", 0, "id: -1\nevent: replay\n"},
		"with the session of the run":    {"session_id=s", "", 0, "missed events"},
		"without an index, and a header": {"", "", 0, "missed events"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if row.lastID != "" {
				headers = []string{"Last-Event-ID", row.lastID}
			}
			got := s.do("ann POST /agents/a/runs/"+id+"/resume", row.form, headers...).want(t, 200, row.text)
			want := append([]string{"replay"}, all[row.skipped:]...)
			if names := eventNames(got.Body.String()); strings.Join(names, " ") != strings.Join(want, " ") {
				t.Errorf("events %q, want %q", names, want)
			}
		})
	}
}

func TestInvalidResumeRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id, _ := s.streamed("s")
	whole := s.run("ann", "t", "m")
	s.expect(t, map[string]exchange{
		"an index that is no number": {
			"ann POST /agents/a/runs/" + id + "/resume", "last_event_index=x", 422, `"loc":["body","last_event_index"]`,
		},
		"an index beyond 32 bits": {
			"ann POST /agents/a/runs/" + id + "/resume", "last_event_index=2147483648", 422,
			`"loc":["body","last_event_index"]`,
		},
		"a run of another session": {"ann POST /agents/a/runs/" + id + "/resume", "session_id=x", 404, "Run not found"},
		"a run of another agent":   {"ann POST /agents/b/runs/" + id + "/resume", "", 404, "Run not found"},
		"an unknown run":           {"ann POST /agents/a/runs/" + missing + "/resume", "", 404, "Run not found"},
		"an unknown agent":         {"admin POST /agents/x/runs/" + id + "/resume", "", 404, "Agent not found"},
		"an administrator's unknown run": {
			"admin POST /agents/a/runs/" + missing + "/resume", "", 200, "not found in buffer or database",
		},
		"a run without events": {"ann POST /agents/a/runs/" + whole + "/resume", "", 200, "no stored events"},
	})
}

func TestARunningRunIsFollowedToItsEnd(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		form   string
		events string
	}{
		"from the beginning":    {"", "catch_up RunStarted"},
		"from an event to come": {"last_event_index=50", "subscribed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goAhead := make(chan struct{})
			s := newService(t, waitFor(goAhead))
			ended := make(chan reply, 1)
			go func() { ended <- s.do("ann POST /agents/a/runs", "message=m&session_id=s") }()
			id := s.running("s")
			first := make(chan struct{})
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/agents/a/runs/"+id+"/resume", strings.NewReader(row.form))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := &signalling{ResponseRecorder: httptest.NewRecorder(), written: first}
			followed := make(chan struct{})
			go func() {
				defer close(followed)
				s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"])))
			}()
			<-first
			close(goAhead)
			<-followed
			(<-ended).want(t, 200, "event: RunCompleted")
			names := strings.Join(eventNames(w.Body.String()), " ")
			if !strings.HasPrefix(names, row.events) || row.form == "" && !strings.HasSuffix(names, "RunCompleted") {
				t.Errorf("events %s, want %s … RunCompleted", names, row.events)
			}
		})
	}
}

// signalling closes written at the first byte of the body.
type signalling struct {
	*httptest.ResponseRecorder
	written chan struct{}
}

func (s *signalling) Write(data []byte) (int, error) {
	if s.written != nil {
		close(s.written)
		s.written = nil
	}
	return s.ResponseRecorder.Write(data)
}

// idsOf lists the names of a stream's events, each with the id that came before it.
func idsOf(body string) (ids []string) {
	id := ""
	for line := range strings.Lines(body) {
		if n, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSpace(n)
		}
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			ids = append(ids, id+" "+strings.TrimSpace(name))
		}
	}
	return ids
}

// A client like EventSource reconnects with the last id that it has got, until it gets a 204.
func TestAClientThatReconnectsByItselfGetsEachEventOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, text("fi", "ne"), callTool("door"), text("done"))
	id, all := s.streamed("s")
	path := "ann POST /agents/a/runs/" + id + "/resume"
	first := idsOf(s.do(path, "").want(t, 200).Body.String())
	if len(first) != len(all)+1 || first[0] != "-1 replay" {
		t.Fatalf("%q", first)
	}
	for i, name := range all {
		if want := fmt.Sprint(i, " ", name); first[i+1] != want {
			t.Errorf("event %d is %q, want %q", i, first[i+1], want)
		}
		// The connection is lost after event i.
		again := s.do(path, "", "Last-Event-ID", fmt.Sprint(i))
		if i == len(all)-1 {
			if again.want(t, 204); again.Body.Len() > 0 {
				t.Errorf("%s", again.Body)
			}
			continue
		}
		want := append([]string{fmt.Sprint(i, " replay")}, first[i+2:]...)
		if diff := cmp.Diff(want, idsOf(again.want(t, 200).Body.String())); diff != "" {
			t.Error(diff)
		}
	}
	last := fmt.Sprint(len(all) - 1)
	s.do(path, "last_event_index="+last).want(t, 200, "Replaying 0 missed events") // as in AgentOS
	s.do(path, "last_event_index="+last, "Last-Event-ID", "").want(t, 204)
	s.do(path, "last_event_index=-9").want(t, 200, "id: -1\nevent: replay\n")
	for _, caller := range []string{"ann", "admin"} {
		s.do(caller+" POST /agents/a/runs/"+missing+"/resume", "", "Last-Event-ID", "1").want(t, 404)
	}

	// A paused run has nothing left either, until it continues.
	paused, events := s.streamed("t")
	path = "ann POST /agents/a/runs/" + paused + "/resume"
	last = fmt.Sprint(len(events) - 1)
	s.do(path, "", "Last-Event-ID", last).want(t, 204)
	s.do("ann POST /agents/a/runs/"+paused+"/continue", "session_id=t&tools=[]").want(t, 200)
	s.do(path, "", "Last-Event-ID", last).want(t, 200, "event: RunContinued", "event: RunCompleted")

	// A run without events has none left.
	whole := s.run("ann", "u", "m")
	path = "ann POST /agents/a/runs/" + whole + "/resume"
	s.do(path, "").want(t, 200, "id: -1\nevent: replay\n", "no stored events")
	s.do(path, "", "Last-Event-ID", "-1").want(t, 204)
}

// A client that reads lines with Python's str.splitlines would lose an event with one of these characters.
func TestLineEndsInStoredEventsAreEscaped(t *testing.T) {
	t.Parallel()
	s := newService(t, text("a\u0085b\u2028c\u2029d"))
	id, _ := s.streamed("s")
	escaped := s.do("ann POST /agents/a/runs/"+id+"/resume", "").want(t, 200, `"content":"a\u0085b\u2028c\u2029d"`)
	// An earlier release stored them as they are.
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	const restore = `UPDATE keyway.run_events
		SET frames = replace(replace(frames, '\u0085', E'\u0085'), '\u2028', E'\u2028')`
	if tag, err := conn.Exec(t.Context(), restore); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%v %v", tag, err)
	}
	again := s.do("ann POST /agents/a/runs/"+id+"/resume", "")
	if diff := cmp.Diff(escaped.Body.String(), again.Body.String()); diff != "" {
		t.Error(diff)
	}
}
