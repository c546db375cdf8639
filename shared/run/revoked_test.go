package run_test

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
)

// leaked is the caller of the runs whose token is revoked.
var leaked = run.Caller{Subject: "ann", Issuer: "i", TokenID: "t-1", IssuedAt: 1_700_000_000, Path: "/agents/a/runs"}

// stopped is the reason that is stored and shown.
const stopped = "The run was stopped because its token was revoked"

// revocations imitate the list: a token is revoked when a test says so, and unknown is the error while the list can't
// be read.
type revocations struct {
	mu      sync.Mutex
	revoked map[string]bool
	unknown error
	checks  int
}

func (r *revocations) check(_ context.Context, c run.Caller) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks++
	switch {
	case r.unknown != nil:
		return r.unknown
	case r.revoked[c.TokenID]:
		return fault.Public(fault.Unauthenticated, "Token has been revoked", nil)
	}
	return nil
}

func (r *revocations) revoke(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked = map[string]bool{id: true}
}

func (r *revocations) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unknown = err
}

func (r *revocations) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checks
}

// checking gives the bench a runner that checks tokens.
func (b *bench) checking(r *revocations, tools ...tool.Set) *bench {
	o := options(b.db, config.Agent{}, b.model, io.Discard, tools...)
	o.Revoked = r.check
	b.runner = run.New(o)
	return b
}

// input is a request of the leaked token.
func input(streamed bool) run.Input {
	return run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Streamed: streamed, Caller: leaked}
}

// wantStopped checks that a run has ended because of the revocation, and that its last event says so.
func (b *bench) wantStopped(id string) {
	b.t.Helper()
	r := b.row(id)
	if r.Status != "ERROR" || r.Content == nil || *r.Content != stopped || r.Caller != nil {
		b.t.Errorf("%s %v, caller %s", r.Status, r.Content, r.Caller)
	}
	if !r.Streamed {
		return
	}
	frames := strings.Split(strings.TrimSpace(b.frames(id)), "\n\n")
	if last := frames[len(frames)-1]; !strings.Contains(last, "event: RunError") || !strings.Contains(last, stopped) ||
		!strings.Contains(last, `"error_type":"permission_error"`) {
		b.t.Errorf("the last event is %s", last)
	}
}

// The token is revoked while a tool is called: the call ends, and the model is not asked again.
func TestARunWhoseTokenIsRevokedEndsBeforeItsNextModelCall(t *testing.T) {
	t.Parallel()
	r := &revocations{}
	b := newBench(t, calls("", model.ToolCall{ID: "c", Name: "leak", Arguments: "{}"}), replies("never"))
	b.checking(r, named("leak", func(context.Context, json.RawMessage) (string, error) {
		r.revoke(leaked.TokenID)
		return "done", nil
	}))
	list := b.collect(b.runner.Run(t.Context(), input(true)))
	if got := names(list); !strings.HasSuffix(got, "ToolCallCompleted RunError") || len(b.model.requests()) != 1 {
		t.Errorf("%s; %d model calls", got, len(b.model.requests()))
	}
	b.wantStopped(last(list).Result.RunID)
}

// The token is revoked while the model answers: the tool that it requests is not called.
func TestARunWhoseTokenIsRevokedCallsNoTool(t *testing.T) {
	t.Parallel()
	r, called := &revocations{}, false
	b := newBench(t, func(ctx context.Context, send func(model.Part) bool) error {
		r.revoke(leaked.TokenID)
		return calls("wait", model.ToolCall{ID: "c", Name: "door", Arguments: "{}"})(ctx, send)
	})
	b.checking(r, named("door", func(context.Context, json.RawMessage) (string, error) {
		called = true
		return "", nil
	}))
	list := b.collect(b.runner.Run(t.Context(), input(false)))
	if got := names(list); !strings.HasSuffix(got, "RunError") || called {
		t.Errorf("%s; the tool was called: %t", got, called)
	}
	b.wantStopped(last(list).Result.RunID)
}

func TestABackgroundRunOfARevokedTokenIsNotExecuted(t *testing.T) {
	t.Parallel()
	r := &revocations{}
	b := newBench(t, replies("never")).checking(r)
	accepted, err := b.runner.Start(t.Context(), input(true))
	if err != nil {
		t.Fatal(err)
	}
	r.revoke(leaked.TokenID)
	b.claimAndExecute(b.runner, accepted.RunID)
	if n := len(b.model.requests()); n > 0 {
		t.Errorf("%d model calls", n)
	}
	b.wantStopped(accepted.RunID)
}

// The process crashed in the middle of the run, and the token was revoked before another one claims it.
func TestARunOfARevokedTokenDoesNotContinueAfterACrash(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "never"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi", Streamed: true, Caller: leaked}, 1)
	b.expireLeases(1)
	r := &revocations{}
	r.revoke(leaked.TokenID)
	second := b.withModel(t, agentOnly, replies("never")).checking(r)
	second.claimAndExecute(second.runner, id)
	if n := len(second.model.requests()); n > 0 {
		t.Errorf("%d model calls", n)
	}
	second.wantStopped(id)
}

// The token that continues a paused run counts, and not the one that started it. If it is revoked, what a person has
// confirmed is not called.
func TestAContinuedRunIsCheckedWithTheTokenThatContinuedIt(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		revoked, status string
		calls           int
	}{
		"the token of the start":        {"t-1", "COMPLETED", 1},
		"the token of the continuation": {"t-2", "ERROR", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, d := &revocations{}, &guardedTool{}
			b := newBench(t, calls("wait. ", knock), replies("done")).checking(r, d.tool(confirm))
			paused := last(b.collect(b.runner.Run(t.Context(), input(false)))).Result
			r.revoke(row.revoked)
			c := approve(t, paused)
			c.Caller = leaked
			c.Caller.TokenID = "t-2"
			list := b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: paused.RunID}, c))
			if got := last(list).Result.Status; got != row.status || len(d.calls) != row.calls {
				t.Errorf("%s, %d calls", got, len(d.calls))
			}
			if row.status == "ERROR" {
				b.wantStopped(paused.RunID)
			}
		})
	}
}

// A run neither ends nor continues while nobody can say whether its token was revoked.
func TestARunWaitsWhileTheRevocationsCannotBeRead(t *testing.T) {
	t.Parallel()
	r := &revocations{}
	r.fail(fault.Public(fault.Unavailable, "The list can't be read", nil))
	b := newBench(t, replies("done")).checking(r)
	ended := make(chan string, 1)
	go func() { ended <- last(b.collect(b.runner.Run(context.Background(), input(false)))).Result.Status }()
	await(t, func() bool { return r.count() > 2 })
	if n := len(b.model.requests()); n > 0 {
		t.Errorf("%d model calls", n)
	}
	r.fail(nil)
	if status := <-ended; status != "COMPLETED" {
		t.Error(status)
	}
}

func TestARunThatWaitsForTheRevocationsCanBeCancelled(t *testing.T) {
	t.Parallel()
	r := &revocations{}
	r.fail(fault.Public(fault.Unavailable, "The list can't be read", nil))
	b := newBench(t, replies("never")).checking(r)
	ended := make(chan string, 1)
	go func() { ended <- last(b.collect(b.runner.Run(context.Background(), input(false)))).Result.Status }()
	await(t, func() bool { return r.count() > 0 && b.count("runs") == 1 })
	runs, err := b.db.Runs(t.Context(), ann, storeQuery{SessionID: "s"})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	if _, err := b.runner.Cancel(t.Context(), ann, runs[0].RunID); err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status != "CANCELLED" {
		t.Error(status)
	}
}

// During an update, the previous release continues runs that this one stored, and the other way round.
func TestTheStoredCallerFitsThePreviousRelease(t *testing.T) {
	t.Parallel()
	type previous struct {
		Subject   string   `json:"sub,omitempty"`
		Issuer    string   `json:"iss,omitempty"`
		SessionID string   `json:"session,omitempty"`
		Scopes    []string `json:"scopes,omitempty"`
		Path      string   `json:"path"`
	}
	b := newBench(t, replies("done"))
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Caller: leaked})
	if err != nil {
		t.Fatal(err)
	}
	row := b.row(accepted.RunID)
	var old previous
	decode(t, row.Caller, &old)
	if diff := cmp.Diff(previous{Subject: "ann", Issuer: "i", Path: "/agents/a/runs"}, old); diff != "" {
		t.Error(diff)
	}
	var now run.Caller
	decode(t, row.Caller, &now)
	if diff := cmp.Diff(leaked, now); diff != "" {
		t.Error(diff)
	}
	// The previous release stores no jti and no iat: the token counts as old.
	b.sql(`UPDATE keyway.runs SET caller = '{"sub":"ann","iss":"i","path":"/agents/a/runs"}'`)
	o := options(b.db, config.Agent{}, b.model, io.Discard)
	var claimed run.Caller
	o.Revoked = func(_ context.Context, c run.Caller) error {
		claimed = c
		return nil
	}
	if execute, ok, err := run.New(o).Claim(t.Context(), uuid.MustParse(accepted.RunID)); err != nil || !ok {
		t.Fatal(ok, err)
	} else {
		execute()
	}
	if diff := cmp.Diff(run.Caller{Subject: "ann", Issuer: "i", Path: "/agents/a/runs"}, claimed); diff != "" {
		t.Error(diff)
	}
}
