package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

// limited is streamed by a caller with limits.
func limited(l limit.Limits) run.Input {
	in := streamed
	in.Spender, in.Caller.Limits = "ann", l
	return in
}

// The first answer uses 15 tokens and asks for a tool, which is not called any more.
func TestARunThatHasUsedItsTokensEndsBeforeItsNextStep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		agent  config.Agent
		caller limit.Limits
	}{
		"caller": {agentOnly, limit.Limits{TokensPerRun: 15}},
		"agent":  {config.Agent{Limits: config.Limits{TokensPerRun: 15}}, limit.Limits{TokensPerRun: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			called := false
			one := named("t", func(context.Context, json.RawMessage) (string, error) { called = true; return "", nil })
			b := newBenchWith(t, c.agent, tools(one), calls("so far", model.ToolCall{Name: "t"}), replies("never"))
			list := b.collect(b.runner.Run(t.Context(), limited(c.caller)))
			failed, ok := last(list).Event.(wire.Failed)
			if !ok || failed.ErrorType != "limit_error" || !strings.Contains(failed.Content, "tokens_per_run allows 15") {
				t.Fatalf("%s %+v", names(list), last(list).Event)
			}
			if row := b.row(last(list).Result.RunID); row.Status != "ERROR" || !strings.Contains(string(row.Metrics),
				`15`) || called {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestTheTokensOfADeletedRunAreCounted(t *testing.T) {
	t.Parallel()
	waits := make(chan struct{})
	b := newBenchWith(t, agentOnly, tools(named("t", func(ctx context.Context, _ json.RawMessage) (string, error) {
		close(waits)
		<-ctx.Done()
		return "", context.Cause(ctx)
	})), calls("so far", model.ToolCall{Name: "t"}), replies("never"))
	in := limited(limit.Limits{TokensPerDay: usage.Total})
	done := b.background(b.runner.Run(context.Background(), in))
	<-waits
	if _, err := b.db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	<-done
	for _, err := range b.runner.Run(t.Context(), in) {
		if !errors.Is(err, fault.LimitReached) {
			t.Error(err)
		}
	}
	if n := b.count("unsettled"); n != 0 {
		t.Errorf("%d runs are not settled", n)
	}
}

// The agent can have one run in progress. The other one waits in the queue until it has ended, and has not crashed.
func TestAWaitingRunExecutesWhenThereIsAPlace(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBenchFor(t, config.Agent{Limits: config.Limits{ConcurrentRuns: 1}}, hangs(proceed, "begun"), replies("done"))
	done := b.background(b.runner.Run(context.Background(), streamed))
	await(t, func() bool { return len(b.model.requests()) == 1 })
	accepted, err := b.runner.Start(t.Context(), streamed)
	if err != nil {
		t.Fatal(err)
	}
	if _, claimed, err := b.runner.Claim(t.Context(), uuid.MustParse(accepted.RunID)); claimed || err != nil {
		t.Fatal(claimed, err)
	}
	b.startWorker(2)
	if row := b.row(accepted.RunID); row.Status != "PENDING" {
		t.Errorf("%+v", row)
	}
	close(proceed)
	<-done
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	await(t, func() bool { return ctx.Err() != nil || b.row(accepted.RunID).Status == "COMPLETED" })
	if row := b.row(accepted.RunID); row.Status != "COMPLETED" || row.Attempt != 1 || row.Losses != 0 {
		t.Errorf("%+v", row)
	}
}

// The cost is that of all tokens of the run, by the price at its end.
func TestARunHasTheCostOfItsTokensIfItsModelHasAPrice(t *testing.T) {
	t.Parallel()
	for prices, want := range map[string]float64{"m": 0.00008, "another": 0} {
		b := newBench(t, replies("hello"))
		o := options(b.db, config.Agent{Model: config.Model{Provider: "p", ID: "m"}}, b.model, io.Discard)
		o.Prices = config.Prices{prices: {Input: 3, Output: 10}}
		b.runner = run.New(o)
		var got wire.Metrics
		if err := json.Unmarshal(last(b.run("hi")).Result.Metrics, &got); err != nil {
			t.Fatal(err)
		}
		if got.InputTokens != 10 || got.OutputTokens != 5 || got.Cost != want {
			t.Errorf("%+v, want the cost %v", got, want)
		}
	}
}
