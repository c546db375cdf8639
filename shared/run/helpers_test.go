package run_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "6") // most tests wait rather than compute; -parallel still counts
	os.Exit(storetest.Main(m))
}

// scripted is a model that gives its answers in turn, the last one for ever.
type scripted struct {
	answers []answer
	mu      sync.Mutex
	heard   []model.Request
}

// answer plays one answer into say. Its error ends the sequence; say says no when
// nobody listens any more.
type answer func(ctx context.Context, say func(model.Part) bool) error

func (s *scripted) Describe() model.Description {
	return model.Description{ID: "m-1", Name: "Scripted", Provider: "Test", Family: "Test Chat"}
}

func (s *scripted) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		s.mu.Lock()
		play := s.answers[min(len(s.heard), len(s.answers)-1)]
		s.heard = append(s.heard, model.Request{Messages: append([]model.Message{}, r.Messages...), Tools: r.Tools, Whole: r.Whole})
		s.mu.Unlock()
		if err := play(ctx, func(p model.Part) bool { return yield(p, nil) }); err != nil {
			yield(model.Part{}, err)
		}
	}
}

// requests are what the model heard so far.
func (s *scripted) requests() []model.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]model.Request{}, s.heard...)
}

var usage = model.Usage{Input: 10, Output: 5, Total: 15, Reasoning: 2, CacheRead: 3, CacheWrite: 1}

// says is an answer in pieces.
func says(pieces ...string) answer {
	return func(_ context.Context, say func(model.Part) bool) error {
		for _, text := range pieces {
			if !say(model.Part{Text: text, ProviderData: json.RawMessage(`{"id": "answer"}`)}) {
				return nil
			}
		}
		say(model.Part{End: &model.End{Usage: usage, FinishReason: "stop"}})
		return nil
	}
}

// calls is an answer that asks for tools after saying text.
func calls(text string, wanted ...model.ToolCall) answer {
	return func(_ context.Context, say func(model.Part) bool) error {
		if text == "" || say(model.Part{Text: text}) {
			say(model.Part{End: &model.End{Usage: usage, ToolCalls: wanted, FinishReason: "tool_calls"}})
		}
		return nil
	}
}

// fails is an answer that breaks off.
func fails(err error, pieces ...string) answer {
	return func(_ context.Context, say func(model.Part) bool) error {
		for _, text := range pieces {
			say(model.Part{Text: text})
		}
		return err
	}
}

// hangs is an answer that begins and then waits until go-ahead is closed or the
// run is stopped.
func hangs(goAhead <-chan struct{}, begin string) answer {
	return func(ctx context.Context, say func(model.Part) bool) error {
		say(model.Part{Text: begin})
		select {
		case <-goAhead:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return says(" and the rest")(ctx, say)
	}
}

// bench is a runner with a database of its own.
type bench struct {
	t      testing.TB
	url    string
	db     *store.DB
	model  *scripted
	runner *run.Runner
}

// newBench makes a runner of one agent, "a", whose model gives these answers.
func newBench(t testing.TB, answers ...answer) *bench {
	t.Helper()
	return newBenchFor(t, config.Agent{}, answers...)
}

// newBenchFor is newBench for an agent with further settings.
func newBenchFor(t testing.TB, a config.Agent, answers ...answer) *bench {
	t.Helper()
	return newBenchWith(t, a, nil, answers...)
}

// newBenchWith is newBenchFor an agent with tools.
func newBenchWith(t testing.TB, a config.Agent, tools []tool.Set, answers ...answer) *bench {
	t.Helper()
	b := &bench{t: t, url: storetest.URL(t), model: &scripted{answers: answers}}
	b.db = open(t, b.url)
	b.runner = newRunner(b.db, a, b.model, tools...)
	return b
}

// again is another runner on the same database.
func (b *bench) again(t testing.TB, a config.Agent, answers ...answer) *bench {
	t.Helper()
	next := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: answers}}
	next.runner = newRunner(b.db, a, next.model)
	return next
}

func open(t testing.TB, url string) *store.DB {
	t.Helper()
	return storetest.Open(t, store.Options{URL: url})
}

func newRunner(db *store.DB, a config.Agent, m model.Model, tools ...tool.Set) *run.Runner {
	return newRunnerLogging(db, a, m, io.Discard, tools...)
}

// syncLog is a log that a test reads while it is written.
type syncLog struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newRunnerLogging(db *store.DB, a config.Agent, m model.Model, log io.Writer, tools ...tool.Set) *run.Runner {
	return run.New(options(db, a, m, log, tools...))
}

// options are those of a runner whose queue is the database's, and who is admitted
// stays so.
func options(db *store.DB, a config.Agent, m model.Model, log io.Writer, tools ...tool.Set) run.Options {
	a.ID, a.Name = "a", "Agent A"
	if a.Timeout == 0 {
		a.Timeout = time.Minute
	}
	return run.Options{
		DB: db, Agents: []run.Agent{{Agent: a, Model: m, Tools: tools}}, Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, NewID: uuid.New,
		Queue: local.New(db, time.Now), Admit: func(run.Caller) error { return nil },
	}
}

// works has the bench's runner carry what waits, most at once, until the test ends.
func (b *bench) works(most int) {
	b.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		queue.Work(ctx, local.New(b.db, time.Now), slog.New(slog.NewTextHandler(io.Discard, nil)), most, b.runner.Claim)
	}()
	b.t.Cleanup(func() { stop(); <-ended })
}

// run runs agent "a" for ann in session s to its end.
func (b *bench) run(message string) []run.Event {
	b.t.Helper()
	return b.hear(b.runner.Run(b.t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: message}))
}

// hear listens to the end and holds the sequence to its rules: no error, indices
// without a gap, one head, the result on the last event and no other.
func (b *bench) hear(seq iter.Seq2[run.Event, error]) (list []run.Event) {
	b.t.Helper()
	for e, err := range seq {
		if err != nil {
			b.t.Fatalf("after %s: %v", names(list), err)
		}
		list = append(list, e)
	}
	for i, e := range list {
		data := members(b.t, e)
		if data["event_index"] != float64(i) || data["event"] != e.Name() || data["agent_id"] != "a" || data["agent_name"] != "Agent A" || data["run_id"] != members(b.t, list[0])["run_id"] {
			b.t.Errorf("event %d of %s: %v", i, names(list), data)
		}
		if (e.Result != nil) != (i == len(list)-1) {
			b.t.Errorf("event %d of %s: a result %t", i, names(list), e.Result != nil)
		}
	}
	if len(list) == 0 {
		b.t.Fatal("no events")
	}
	return list
}

// members are an event's, as they go over the wire.
func members(t testing.TB, e run.Event) (out map[string]any) {
	t.Helper()
	data, err := wire.Marshal(e.Event)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
}

func names(list []run.Event) string {
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func last(list []run.Event) run.Event { return list[len(list)-1] }

// row is the run's row.
func (b *bench) row(runID string) store.Run {
	b.t.Helper()
	r, err := b.db.Run(context.Background(), store.Viewer{All: true}, store.RunQuery{RunID: runID})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// said are a row's messages, as "role: content".
func said(t testing.TB, r store.Run) (lines []string) {
	t.Helper()
	var list []wire.Message
	if err := json.Unmarshal(r.Messages, &list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		lines = append(lines, m.Role+": "+m.Content)
	}
	return lines
}

// sql changes the database behind everybody's back.
func (b *bench) sql(text string, args ...any) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), text, args...); err != nil {
		b.t.Fatal(err)
	}
}

// count counts rows.
func (b *bench) count(table string) (n int) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), fmt.Sprintf("SELECT count(*) FROM keyway.%s", table)).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// tokens are all that a run cost.
func tokens(t testing.TB, r *wire.Run) int {
	t.Helper()
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	return m.TotalTokens
}

func lastMessage(t testing.TB, r *wire.Run) wire.Message {
	t.Helper()
	var list []wire.Message
	decode(t, r.Messages, &list)
	return list[len(list)-1]
}

var agentOnly config.Agent

func tools(list ...tool.Tool) (sets []tool.Set) {
	for _, t := range list {
		sets = append(sets, t)
	}
	return sets
}
