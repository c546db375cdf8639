package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// busyDatabase makes a database in which ann has a run in progress, and two that have ended now. They end on the next
// day too, so that a test at midnight finds them.
func busyDatabase(t *testing.T) (url string) {
	t.Helper()
	url = storetest.URL(t)
	execSQL(t, url, `
		INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at) VALUES ('ann', 's', now(), now());
		INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
			lease_until, input, created_at) VALUES ('6b0dcb0e-3f1c-4a0e-9f0e-0a4d0c1f7a14', 'ann', 's', 'a', 'A', 'm', 'P',
			'RUNNING', now() + interval '1 hour', 'hi', now() - interval '1 hour');
		INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
			input, created_at, finished_at, metrics)
		SELECT gen_random_uuid(), 'ann', 's', 'a', 'A', 'm', 'P', 'COMPLETED', 'hi', now(), now() + make_interval(days => d),
			'{"input_tokens": 150, "output_tokens": 20, "total_tokens": 170, "cost": 0.375}'
		FROM generate_series(0, 1) AS d, generate_series(1, 2)`)
	return url
}

func TestANarrowTerminalTruncatesLines(t *testing.T) {
	t.Parallel()
	l := looked{Time: time.Unix(0, 0), Live: 1, Runs: []topRun{{AgentID: "an-agent", Status: "RUNNING", Owner: "a\x1bb"}}}
	var out strings.Builder
	if err := l.draw(&out, 24); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 24 || strings.Contains(line, "\x1b") {
			t.Errorf("%d characters: %q", n, line)
		}
	}
	if !strings.Contains(out.String(), "an-agent  RUNNING  0s  …") {
		t.Error(out.String())
	}
}

// In a terminal the picture is drawn again and again, until q and Enter.
func TestTopLooksAgainEveryTwoSeconds(t *testing.T) {
	t.Parallel()
	var c topCmd
	parser, err := kong.New(&c)
	if err == nil {
		_, err = parser.Parse(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, store.Options{URL: busyDatabase(t)})
	keyboard, person := io.Pipe()
	var out bytes.Buffer
	e := testEnv(nil)
	e.in, e.out = keyboard, &out
	time.AfterFunc(5*time.Second, func() { _, _ = io.WriteString(person, "q\n") })
	if err := c.watch(t.Context(), e, db, nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "1 run in progress"); n != 3 { // at 0, 2 and 4 seconds
		t.Errorf("%d pictures in 5 seconds:\n%s", n, &out)
	}
}
