package run

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// checkpoint is the state of a run between two steps. A step is one model call, or one round of tool calls. It is
// stored in the run's row after each step, and the next attempt continues from it. The step during which a process
// crashed is therefore executed again, with the same ids of tool calls, so that a tool can recognize the repetition.
//
// Nothing is saved before the first model answer, nor after an answer without tool calls: a run without tools starts
// again from its row and needs no further write. When a paused run is continued, the row gets a checkpoint that
// holds only the answers; then Messages is nil.
//
// The JSON names are stored and must not change: during an update, the new version continues runs that the previous
// one saved. Members that this version does not know, such as "events" of earlier versions, are ignored.
type checkpoint struct {
	Answers          Answers              `json:"answers"`            // the decisions about a pause; nil: there was none
	Messages         []wire.Message       `json:"messages,omitempty"` // nil: no step is saved since the start or the pause
	Calls            []wire.ToolExecution `json:"calls,omitempty"`
	PendingCalls     []model.ToolCall     `json:"asked,omitempty"` // requested by the model and not executed yet
	CallCount        int                  `json:"called,omitempty"`
	Requirements     []wire.Requirement   `json:"waiting,omitempty"`
	Content          string               `json:"content,omitempty"`
	ProviderData     json.RawMessage      `json:"data,omitempty"`
	Usage            model.Usage          `json:"usage"`
	EarlierUsage     model.Usage          `json:"earlier"` // up to the last pause, which added it to the session's totals
	Duration         time.Duration        `json:"spent"`
	TimeToFirstToken time.Duration        `json:"first"`
}

// save stores a checkpoint together with the events so far, in one statement. pending is what the model has requested
// and what the next step will execute. If this process may not have enough time for another step, save returns
// errHandedOver. If the database cannot be reached, save returns errLost: without a checkpoint this process cannot
// prove that it still holds the lease, so it stops, and the run is claimed again after the lease expires.
func (x *execution) save(ctx context.Context, pending []model.ToolCall) error {
	data, err := wire.Marshal(checkpoint{
		Messages: x.messages, Calls: x.calls, PendingCalls: pending, CallCount: x.callCount, Requirements: x.requirements,
		Content: x.content.String(), ProviderData: x.providerData, Usage: x.usage, EarlierUsage: x.earlierUsage,
		Duration: x.duration(), TimeToFirstToken: x.timeToFirstToken,
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	events, done := store.Events{}, func(bool) {}
	if x.events != nil {
		events, done = x.events.drain()
	}
	err = x.r.db.Checkpoint(ctx, x.attempt(), store.Checkpoint{Data: data, Events: events, Next: x.index})
	done(err == nil)
	switch kind := fault.KindOf(err); {
	case err == nil:
		if x.savedStep = true; x.tooLateForNextStep(ctx) {
			return errHandedOver
		}
	case ctx.Err() != nil: // The run was stopped meanwhile; the next step finds out why and ends the run.
		return nil
	case kind == fault.Unavailable || kind == fault.Conflict:
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// restore reads the state of the run from its row: first what the last pause stored, then the checkpoint on top of
// it. saved is false if no step was saved since the run started or was continued.
func (x *execution) restore() (c checkpoint, saved bool, err error) {
	var metrics wire.Metrics
	for _, column := range []struct {
		raw  json.RawMessage
		into any
	}{
		{x.row.Messages, &x.messages}, {x.row.Tools, &x.calls}, {x.row.Requirements, &x.requirements},
		{x.row.Metrics, &metrics}, {x.row.Files, &x.files}, {x.row.Checkpoint, &c},
	} {
		if len(column.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(column.raw, column.into); err != nil {
			return c, false, fmt.Errorf("run %s: %w", x.row.RunID, err)
		}
	}
	x.wasPaused = x.messages != nil // Only a pause stores messages before the end.
	x.callCount = len(x.calls)
	x.earlierUsage = model.Usage{Input: metrics.InputTokens, Output: metrics.OutputTokens, Total: metrics.TotalTokens}
	x.earlierDuration, x.timeToFirstToken = seconds(metrics.Duration), seconds(metrics.TimeToFirstToken)
	if c.Messages == nil {
		return c, false, nil
	}
	x.messages, x.calls, x.callCount, x.requirements = c.Messages, c.Calls, c.CallCount, c.Requirements
	x.providerData = c.ProviderData
	// The agent's time limit applies from the start or from the last continuation, over all attempts since. The time
	// before a pause does not count, because a person may take days to decide.
	x.limitUsed = c.Duration - x.earlierDuration
	x.usage, x.earlierUsage = c.Usage, c.EarlierUsage
	x.earlierDuration, x.timeToFirstToken = c.Duration, c.TimeToFirstToken
	x.content.WriteString(c.Content)
	return c, true, nil
}

// attempt identifies this execution in the database, by the run and by the fencing token. Every write names it, so
// that a process that lost its lease writes nothing.
func (x *execution) attempt() store.Attempt {
	return store.Attempt{RunID: x.row.RunID, Number: x.row.Attempt}
}

// seconds converts from the unit of stored metrics.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// errLost ends an execution whose run belongs to another attempt now, or soon will. This process then records
// nothing: the end of the run is for the other attempt to record.
var errLost = fault.Public(fault.Conflict, "The run was deleted, ended or claimed by another server, or this server "+
	"could not renew its lease; read the run again to see its state", nil)
