package run

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// state is what survives the process. It is stored after each step, and the next leg continues from it. A step is one
// model call, or one round of tool calls. The step during which a process crashed is therefore executed again, with the
// same ids of tool calls, so that a tool can recognize the repetition.
//
// Nothing is stored before the first model answer, nor after an answer without tool calls: a run without tools starts
// again from its row and needs no further write. A paused run stores its state in the columns of its row, where clients
// read it. When it is continued, its checkpoint holds only the answers.
//
// The JSON of a state is the checkpoint. Its names are stored and must not change: during an update, the new version
// continues runs that the previous one stored, and the other way round. Unknown members, such as "events" of earlier
// versions, are ignored.
type state struct {
	growing
	Answers      Answers          `json:"answers"`         // the decisions about a pause; nil: there was none
	PendingCalls []model.ToolCall `json:"asked,omitempty"` // requested by the model and not executed yet
	// CallCount counts the tool calls that the model requested, for the agent's limit.
	CallCount    int             `json:"called,omitempty"`
	ProviderData json.RawMessage `json:"data,omitempty"` // belongs to the last answer
	// A pause adds the usage so far to the session's totals, and the end adds only what follows. So the usage of a run
	// that was paused is kept in two parts.
	Usage        model.Usage `json:"usage"`
	EarlierUsage model.Usage `json:"earlier"`
	// Duration is how long the run was executed before this leg. The time of pauses does not count.
	Duration         time.Duration `json:"spent"`
	TimeToFirstToken time.Duration `json:"first"` // 0: no token has come yet
	// pausedAfter is the part of Duration that was before the last pause.
	pausedAfter time.Duration
}

// growing is the part of a state that each step adds to. A checkpoint stores only what was added since the previous
// one. Otherwise a run of n steps would write n² messages.
type growing struct {
	Messages     []message            `json:"messages,omitempty"` // nil: no step is stored since the start or the pause
	Calls        []wire.ToolExecution `json:"calls,omitempty"`
	Requirements []wire.Requirement   `json:"waiting,omitempty"` // what a person must decide, or has decided
	Content      string               `json:"content,omitempty"`
}

// message is a message of the run with what clients do not see of it: model.End's Opaque of the answer. A checkpoint
// holds both together. The row of a paused run holds them in two columns, because clients read its messages.
type message struct {
	wire.Message
	Opaque json.RawMessage `json:"opaque,omitempty"`
	// OpaqueOf is the provider and the model that made Opaque, as opaqueOf names them. "" in checkpoints of earlier
	// versions.
	OpaqueOf string `json:"opaque_of,omitempty"`
}

// opaqueOf names the model that a row has now.
func opaqueOf(row store.Run) string { return row.ModelProvider + "/" + row.ModelID }

// since returns what was added to an earlier value of g.
func (g growing) since(earlier growing) growing {
	return growing{
		Messages: g.Messages[len(earlier.Messages):], Calls: g.Calls[len(earlier.Calls):],
		Requirements: g.Requirements[len(earlier.Requirements):], Content: g.Content[len(earlier.Content):],
	}
}

// Answers are the decisions of people about the tool calls of a paused run, by tool call id.
type Answers map[string]wire.ToolExecution

// position is where a leg begins.
type position int

const (
	atStart   position = iota // no step is stored
	atAnswers                 // no step is stored since people decided about a pause
	atStep                    // after a stored step
)

// restore returns the state in a run's row. What the last pause stored comes first, and a checkpoint replaces it. The
// row has the model of this leg, and what another model made is left out, because this one cannot read it.
func restore(row store.Run) (s state, at position, err error) {
	var metrics wire.Metrics
	var checkpoint state
	var opaque map[string]json.RawMessage // by message id
	for _, column := range []struct {
		raw  json.RawMessage
		into any
	}{
		{row.Messages, &s.Messages}, {row.Tools, &s.Calls}, {row.Requirements, &s.Requirements},
		{row.Opaque, &opaque}, {row.Metrics, &metrics}, {row.Checkpoint, &checkpoint},
	} {
		if len(column.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(column.raw, column.into); err != nil {
			return s, at, fmt.Errorf("run %s: %w", row.RunID, err)
		}
	}
	checkpoint.pausedAfter = seconds(metrics.Duration)
	if checkpoint.Messages != nil {
		for i, m := range checkpoint.Messages {
			if m.OpaqueOf != "" && m.OpaqueOf != opaqueOf(row) {
				checkpoint.Messages[i].Opaque = nil
			}
		}
		return checkpoint, atStep, nil
	}
	for i, m := range s.Messages {
		s.Messages[i].Opaque, s.Messages[i].OpaqueOf = opaque[m.ID], opaqueOf(row)
	}
	s.CallCount, s.Answers = len(s.Calls), checkpoint.Answers
	s.EarlierUsage = model.Usage{Input: metrics.InputTokens, Output: metrics.OutputTokens, Total: metrics.TotalTokens}
	s.pausedAfter, s.TimeToFirstToken = checkpoint.pausedAfter, seconds(metrics.TimeToFirstToken)
	s.Duration = s.pausedAfter
	if s.Answers != nil {
		at = atAnswers
	}
	return s, at, nil
}

// seconds converts from the unit of stored metrics.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// encode returns the JSON of what a run stores and sends. Models, tools, MCP servers and the errors of all of them may
// send any text. PostgreSQL rejects a NUL and invalid UTF-8, so all of it is made storable here, in one place.
func encode(v any) (json.RawMessage, error) {
	data, err := wire.Marshal(v)
	return storable(data), err
}

// storable returns JSON, or a frame with JSON, as it can be stored. Little of it has to be changed, so looking first
// saves the copy.
func storable(data []byte) []byte {
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\ufffd"))
	}
	if strictjson.HasNUL(data) {
		data = strictjson.MakeStorable(data)
	}
	return data
}
