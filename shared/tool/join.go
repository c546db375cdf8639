package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/keyway-agents/keyway/shared/fault"
)

// maxTools is OpenAI's limit of tools in one request. Other vendors accept as many.
const maxTools = 128

// Joined is the Set of all tools of one agent. It decides which of them the model is offered, and it logs why a tool is
// left out and why a tool failed.
type Joined struct {
	sets []Set
	log  *slog.Logger

	mu     sync.Mutex
	logged map[string]bool            // what was logged about tools that are left out
	fitted map[string]json.RawMessage // schemas by the text that the tool declares
}

// maxRemembered bounds what a Joined remembers, since a server can list other tools every minute.
const maxRemembered = 2000

// Join returns the Set of the tools of sets. log is the logger of the agent.
func Join(log *slog.Logger, sets ...Set) *Joined {
	return &Joined{sets: sets, log: log, logged: map[string]bool{}, fitted: map[string]json.RawMessage{}}
}

// Tools implements Set. The Parameters are those of FitSchema. A tool is left out if its set reports it as Unfit, if
// its schema can't be fitted, or if an earlier tool has its name; that is logged once. More than 128 tools are a
// fault.Upstream error.
func (j *Joined) Tools(ctx context.Context) (tools []Tool, err error) {
	seen := map[string]bool{}
	for _, set := range j.sets {
		list, err := set.Tools(ctx)
		if err != nil {
			j.logCause("the tools of an agent can't be listed", err)
			return nil, err
		}
		for _, one := range list {
			one.Parameters, err = j.fit(one.Parameters)
			switch {
			case one.Unfit != "":
				j.logLeftOut(one.Name, one.Unfit)
			case err != nil:
				j.logLeftOut(one.Name, "has parameters that can't be used: "+err.Error())
			case seen[one.Name]:
				j.logLeftOut(one.Name, "has the name of an earlier tool of the agent")
			default:
				seen[one.Name] = true
				tools = append(tools, j.withLog(one))
			}
		}
	}
	if len(tools) > maxTools {
		text := fmt.Sprintf("The agent has %d tools, models accept %d; name those to use in mcp.allow", len(tools), maxTools)
		return nil, fault.Public(fault.Upstream, text, nil)
	}
	return tools, nil
}

// fit is FitSchema, with the results remembered. A tool without a schema keeps none.
func (j *Joined) fit(schema json.RawMessage) (json.RawMessage, error) {
	if schema == nil {
		return nil, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if known, ok := j.fitted[string(schema)]; ok {
		return known, nil
	}
	fit, err := FitSchema(schema)
	if err == nil {
		if len(j.fitted) == maxRemembered {
			clear(j.fitted)
		}
		j.fitted[string(schema)] = fit
	}
	return fit, err
}

// logLeftOut logs, once, why a tool is not offered.
func (j *Joined) logLeftOut(name, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if key := name + " " + why; !j.logged[key] && len(j.logged) < maxRemembered {
		j.logged[key] = true
		j.log.Warn("a tool is left out", "tool", shorten(name), "reason", shorten(why))
	}
}

// withLog returns the tool with a Call that logs the cause of a failure.
func (j *Joined) withLog(one Tool) Tool {
	if call := one.Call; call != nil {
		one.Call = func(ctx context.Context, arguments json.RawMessage) (string, error) {
			text, err := call(ctx, arguments)
			if err != nil && ctx.Err() == nil {
				j.logCause("a tool failed", err, "tool", one.Name, "run_id", CallerFrom(ctx).RunID)
			}
			return text, err
		}
	}
	return one
}

// logCause logs the cause of a fault. Another error has none: its text is for the model, and may contain what a user
// wrote.
func (j *Joined) logCause(what string, err error, about ...any) {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		about = append(about, "detail", shorten(e.Detail))
		if e.Cause != nil {
			about = append(about, "err", shorten(e.Cause.Error()))
		}
		j.log.Warn(what, about...)
	}
}

// shorten cuts a text for the log.
func shorten(text string) string {
	if r := []rune(text); len(r) > 500 {
		return string(r[:500]) + "…"
	}
	return text
}

// Close implements Set. It closes all sets.
func (j *Joined) Close() (err error) {
	for _, set := range j.sets {
		err = errors.Join(err, set.Close())
	}
	return err
}
