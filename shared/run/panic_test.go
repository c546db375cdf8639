package run_test

import (
	"context"
	"testing"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
)

func TestAPanicOfTheModelEndsTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(context.Context, func(model.Part) bool) error { panic("a vendor's bug") })
	func() {
		defer func() {
			if p := recover(); p != "a vendor's bug" {
				t.Errorf("recovered %v: the panic is not the model's", p)
			}
		}()
		for range b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		}
	}()
	runs, err := b.db.Runs(t.Context(), store.Viewer{Owner: "ann"}, store.RunQuery{SessionID: "s"})
	if err != nil || len(runs) != 1 || runs[0].Status != "ERROR" || *runs[0].Content != "Internal server error" {
		t.Errorf("%+v %v", runs, err)
	}
	if err := b.runner.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
