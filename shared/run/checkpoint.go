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

// checkpoint is where a run stands between two steps: a step is one answer of the
// model, or the calls of tools that it asked for. What the process was in the middle
// of when it died is done again, with the same ids of calls.
type checkpoint struct {
	Events   int                  `json:"events"`             // the index after the last that counts
	Answers  Answers              `json:"answers"`            // what a paused run was continued with; nil: it wasn't
	Messages []wire.Message       `json:"messages,omitempty"` // nil: those of the pause
	Calls    []wire.ToolExecution `json:"calls,omitempty"`
	Asked    []model.ToolCall     `json:"asked,omitempty"` // and not done yet
	Called   int                  `json:"called,omitempty"`
	Waiting  []wire.Requirement   `json:"waiting,omitempty"`
	Content  string               `json:"content,omitempty"`
	Data     json.RawMessage      `json:"data,omitempty"`
	Usage    model.Usage          `json:"usage"`
	Earlier  model.Usage          `json:"earlier"` // counted in the session by the pause
	Spent    time.Duration        `json:"spent"`
	First    time.Duration        `json:"first"`
}

// save records where the run stands, and ends it here when the next step might not fit.
// asked is what the model wants done next. A database that can't be reached leaves the
// run to whoever takes it up.
func (t *turn) save(ctx context.Context, asked []model.ToolCall) error {
	data, err := wire.Marshal(checkpoint{
		Messages: t.messages, Calls: t.calls, Asked: asked, Called: t.called, Waiting: t.waiting,
		Content: t.content.String(), Data: t.data, Usage: t.usage, Earlier: t.before, Spent: t.spent + t.r.now().Sub(t.start), First: t.first,
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	events, done := store.Events{}, func(bool) {}
	if t.events != nil {
		events, done = t.events.take()
	}
	err = t.r.db.Checkpoint(ctx, t.held(), store.Checkpoint{Data: data, Events: events, Next: t.index})
	done(err == nil)
	switch kind := fault.KindOf(err); {
	case err == nil:
		if t.stepped = true; t.late(ctx) {
			return errHandedOver
		}
	case ctx.Err() != nil: // the next step ends the run
		return nil
	case kind == fault.Unavailable || kind == fault.Conflict:
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// restore takes a turn to where its row says that the run stands. began is false
// when nothing was recorded since the run or its continuation began.
func (t *turn) restore() (c checkpoint, began bool, err error) {
	var past wire.Metrics
	for _, part := range []struct {
		raw  json.RawMessage
		into any
	}{
		{t.row.Messages, &t.messages}, {t.row.Tools, &t.calls}, {t.row.Requirements, &t.waiting}, {t.row.Metrics, &past}, {t.row.Files, &t.files},
		{t.row.Checkpoint, &c},
	} {
		if len(part.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(part.raw, part.into); err != nil {
			return c, false, fmt.Errorf("run %s: %w", t.row.RunID, err)
		}
	}
	t.continued = t.messages != nil
	t.called = len(t.calls)
	t.before = model.Usage{Input: past.InputTokens, Output: past.OutputTokens, Total: past.TotalTokens}
	t.spent, t.first = seconds(past.Duration), seconds(past.TimeToFirstToken)
	if c.Messages == nil {
		return c, false, nil
	}
	t.messages, t.calls, t.called, t.waiting, t.data = c.Messages, c.Calls, c.Called, c.Waiting, c.Data
	t.used = c.Spent - t.spent // what came before a pause doesn't count
	t.usage, t.before, t.spent, t.first = c.Usage, c.Earlier, c.Spent, c.First
	t.content.WriteString(c.Content)
	return c, true, nil
}

func (t *turn) held() store.Held { return store.Held{RunID: t.row.RunID, Attempt: t.row.Attempt} }

// errLost ends a turn whose run is somebody else's, or will be: its end is not this
// one's to record.
var errLost = fault.Public(fault.Conflict, "The run was deleted, ended or taken over elsewhere, or will be: this server could not keep it", nil)
