package tool_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

// several is a Set of tools.
type several []tool.Tool

func (s several) Tools(context.Context) ([]tool.Tool, error) { return s, nil }
func (s several) Close() error                               { return nil }

// broken is a Set that can't be listed.
type broken struct{ err error }

func (b broken) Tools(context.Context) ([]tool.Tool, error) { return nil, b.err }
func (b broken) Close() error                               { return b.err }

// joined joins sets. The log goes to the returned buffer.
func joined(sets ...tool.Set) (*tool.Joined, *bytes.Buffer) {
	var log bytes.Buffer
	return tool.Join(slog.New(slog.NewTextHandler(&log, nil)), sets...), &log
}

func named(name string) tool.Tool {
	return tool.Tool{Name: name, Call: func(context.Context, json.RawMessage) (string, error) { return name, nil }}
}

func TestAToolThatIsLeftOutIsLoggedOnceWithTheReason(t *testing.T) {
	t.Parallel()
	unfit := named("with.dot")
	unfit.Unfit = "has a name that models do not accept"
	list := named("list")
	list.Parameters = json.RawMessage(`{"type":"array"}`)
	j, log := joined(several{named("look"), unfit}, several{named("look"), list, named("search")})
	for range 3 {
		all, err := j.Tools(t.Context())
		if err != nil || len(all) != 2 || all[0].Name != "look" || all[1].Name != "search" {
			t.Errorf("%v, %v", all, err)
		}
	}
	for _, want := range []string{
		`tool=with.dot reason="has a name that models do not accept"`,
		`tool=look reason="has the name of an earlier tool of the agent"`,
		`tool=list reason="has parameters that can't be used: it is not the schema of an object"`,
	} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", want, n, log)
		}
	}
}

func TestTheSchemaOfEachToolIsFitted(t *testing.T) {
	t.Parallel()
	union := named("union")
	union.Parameters = json.RawMessage(`{"type":"object","anyOf":[{"properties":{"a":{"type":"string"}}}]}`)
	j, _ := joined(union, named("none"))
	all, err := j.Tools(t.Context())
	if err != nil || string(all[0].Parameters) != `{"type":"object","properties":{"a":{"type":"string"}}}` ||
		all[1].Parameters != nil {
		t.Errorf("%s, %s, %v", all[0].Parameters, all[1].Parameters, err)
	}
}

func TestTheLimitOfToolsCountsAllSetsOfAnAgent(t *testing.T) {
	t.Parallel()
	server := func(prefix string, n int) (s several) {
		for i := range n {
			s = append(s, named(fmt.Sprint(prefix, i)))
		}
		return s
	}
	j, _ := joined(server("a", 64), server("b", 64))
	if all, err := j.Tools(t.Context()); err != nil || len(all) != 128 {
		t.Errorf("%d tools, %v", len(all), err)
	}
	j, _ = joined(server("a", 72), server("b", 72))
	_, err := j.Tools(t.Context())
	if want := "The agent has 144 tools, models accept 128; name those to use in mcp.allow"; fault.Detail(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestTheCauseOfAFailureIsLoggedAndTextsForTheModelAreNot(t *testing.T) {
	t.Parallel()
	refused := fault.Public(fault.Upstream, "The tool server refused: 401 Unauthorized", errors.New("status 401, body x"))
	j, log := joined(broken{refused})
	if _, err := j.Tools(t.Context()); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	const cause = `detail="The tool server refused: 401 Unauthorized" err="status 401, body x"`
	if !strings.Contains(log.String(), cause) {
		t.Errorf("logged %s, want %s", log, cause)
	}
	failing := func(err error) tool.Tool {
		return tool.Tool{Name: "fails", Call: func(context.Context, json.RawMessage) (string, error) { return "", err }}
	}
	for err, want := range map[error]string{
		refused:                             `tool=fails run_id=r-1 ` + cause,
		errors.New("no customer named Ann"): "",
	} {
		j, log := joined(failing(err))
		all, _ := j.Tools(t.Context())
		ctx := tool.WithCaller(t.Context(), tool.Caller{RunID: "r-1"})
		if _, got := all[0].Call(ctx, nil); !errors.Is(got, err) {
			t.Errorf("%v", got)
		}
		if !strings.Contains(log.String(), want) || want == "" && log.Len() > 0 {
			t.Errorf("%v is logged as %q, want %q", err, log, want)
		}
	}
	if err := j.Close(); !errors.Is(err, refused) {
		t.Errorf("closed: %v", err)
	}
}
