package openai_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/wire"
)

var update = flag.Bool("update", false, "write testdata again")

const (
	runID  = "0190b0a4-7c8e-7b1a-8c55-00a1b2c3d4e5"
	bareID = "0190b0a47c8e7b1a8c5500a1b2c3d4e5"
)

// head is what all events of the run begin with.
func head(name string) wire.Head {
	return wire.Head{
		CreatedAt: 1_700_000_000, Event: name, AgentID: "helper", AgentName: "Helper", RunID: runID, SessionID: "s-1",
	}
}

func said(text string) wire.Event {
	return wire.Content{Head: head(wire.EventRunContent), Content: text}
}

func thought(text string) wire.Event {
	return wire.Content{Head: head(wire.EventRunContent), ReasoningContent: text}
}

func opened(text string) wire.Event {
	return wire.ContentOpened{Head: head(wire.EventRunContent), ReasoningContent: text}
}

// thoughtful is the end of a run that was not streamed.
func thoughtful() wire.Event {
	end := ends
	end.ReasoningContent = new("I think")
	return end
}

// The beginning of every run, with a call of a tool, which no client of OpenAI sees.
var (
	started = []wire.Event{
		wire.Started{Head: head(wire.EventRunStarted)}, wire.Started{Head: head(wire.EventModelRequestStarted)},
	}
	called = []wire.Event{
		wire.ModelCompleted{Head: head(wire.EventModelRequestCompleted)},
		wire.ToolStarted{Head: head(wire.EventToolCallStarted), Tool: wire.ToolExecution{ToolName: "secret_tool"}},
		wire.ToolCompleted{Head: head(wire.EventToolCallCompleted), Tool: wire.ToolExecution{ToolName: "secret_tool"}},
	}
	ends = wire.Completed{
		Head: head(wire.EventRunCompleted), Content: "Let me look. It \"works\"\u2028.",
		Metrics: wire.Metrics{InputTokens: 10, OutputTokens: 5, TotalTokens: 15},
	}
	pauses = wire.Paused{Head: head(wire.EventRunPaused), Content: "I have a tool"}
)

// streams are the events of runs, and "handed over" at the end of one that another process continues.
var streams = map[string][]wire.Event{
	"completed": join(started, said("Let me look. "), called, said("It \"works\"\u2028."), ends),
	"whole":     join(started, ends),
	"paused":    join(started, said("Let me look."), called, pauses),
	"continued": join(started, pauses, wire.ContentCompleted{Head: head(wire.EventRunContinued)}, said("Done."), ends),
	"failed":    join(started, said("Let me"), wire.Failed{Head: head(wire.EventRunError), Content: "The model is down"}),
	"cancelled": join(started, wire.Cancelled{Head: head(wire.EventRunCancelled), Content: "Let me"}),
	"lost":      join(started, wire.Meta{Event: "error", Error: "Token has been revoked"}),
	"continues": join(started, said("Let me")),
	"thoughts": join(started, thought("I "), thought("think."), said("Let me look."), called, opened("Hm"), called,
		thought("so"), said("Done."), ends),
	"thoughts_whole":  join(started, thoughtful()),
	"thoughts_paused": join(started, thought("I think"), called, pauses),
}

// join makes one list of events and lists of events.
func join(parts ...any) (out []wire.Event) {
	for _, p := range parts {
		switch p := p.(type) {
		case []wire.Event:
			out = append(out, p...)
		case wire.Event:
			out = append(out, p)
		}
	}
	return out
}

// encoder is what both streams have.
type encoder interface {
	Event(wire.Event) []byte
	HandedOver(wire.Accepted) []byte
}

// encode returns the whole stream.
func encode(e encoder, name string) string {
	var out strings.Builder
	for _, event := range streams[name] {
		out.Write(e.Event(event))
	}
	if name == "continues" {
		out.Write(e.HandedOver(wire.Accepted{RunID: runID, SessionID: "s-1", Status: wire.StatusRunning}))
	}
	return out.String()
}

func TestStreamsAreAsRecorded(t *testing.T) {
	t.Parallel()
	for name := range streams {
		chat := encode(openai.NewChatStream(true), name)
		response := encode(openai.NewResponseStream(openai.Of{Metadata: []byte(`{"k":"v"}`)}), name)
		for api, got := range map[string]string{"chat": chat, "response": response} {
			if strings.Contains(got, "secret_tool") || strings.Contains(got, "\u2028") {
				t.Errorf("%s of %s shows a tool, or has a line end inside of an event: %s", api, name, got)
			}
			file := filepath.Join("testdata", api+"_"+name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(file); err != nil || string(want) != got {
				t.Errorf("%s: %v; the stream is\n%s", file, err, got)
			}
		}
	}
}

// A client that was disconnected gets exactly what it lacks, whatever it has.
func TestSkippedStreamIsTheEndOfTheWholeOne(t *testing.T) {
	t.Parallel()
	numbered := regexp.MustCompile(`"sequence_number":\d+`)
	for name := range streams {
		whole := encode(openai.NewResponseStream(openai.Of{}), name)
		count := len(numbered.FindAllString(whole, -1))
		for have := range count {
			rest := encode(openai.NewResponseStream(openai.Of{}).Skip(have), name)
			if got := len(numbered.FindAllString(rest, -1)); got != count-have-1 || !strings.HasSuffix(whole, rest) {
				t.Errorf("%s behind %d has %d events of %d", name, have, got, count)
			}
		}
	}
}
