package api_test

import (
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
		"the form wins over the header":  {"last_event_index=0", "2", 1, "id: 1\n"},
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
