// Package tooltest is what every set of tools is tested with. It decides nothing
// about what a tool answers; that is for the tool's own tests.
package tooltest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/keyway-agents/keyway/shared/tool"
)

// patience bounds what would otherwise hang.
const patience = time.Minute

// junk is refused by every tool: it is no JSON, or no object.
var junk = []string{"not JSON", `{"a":`, `[]`, `null`, `"text"`, `1e999`, "\xff\xfe", `{} {}`}

// Run checks a set whose tools answer good arguments, by the tool's name. Every
// tool that the set lists needs an entry.
func Run(t *testing.T, set tool.Set, good map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tools, err := set.Tools(ctx)
	if err != nil || len(tools) == 0 {
		t.Fatalf("tools %v, %v", tools, err)
	}
	seen := map[string]bool{}
	for _, c := range tools {
		if seen[c.Name] {
			t.Errorf("%s is listed twice", c.Name)
		}
		seen[c.Name] = true
		described(t, c)
		for _, arguments := range junk {
			if text, err := c.Call(ctx, json.RawMessage(arguments)); err == nil {
				t.Errorf("%s takes %q and answers %q", c.Name, arguments, text)
			}
		}
		arguments, ok := good[c.Name]
		if !ok {
			t.Errorf("no good arguments for %s", c.Name)
			continue
		}
		manyAtOnce(ctx, t, c, arguments)
		endsWithContext(t, c, arguments)
	}
}

func described(t *testing.T, c tool.Tool) {
	t.Helper()
	if !tool.ValidName(c.Name) {
		t.Errorf("%q is no name for a tool", c.Name)
	}
	if c.Parameters == nil {
		return
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(c.Parameters, &s); err != nil || s.Type != "object" {
		t.Errorf("%s: parameters %s are no schema of an object: %v", c.Name, c.Parameters, err)
		return
	}
	if _, err := s.Resolve(nil); err != nil {
		t.Errorf("%s: parameters: %v", c.Name, err)
	}
}

func manyAtOnce(ctx context.Context, t *testing.T, c tool.Tool, arguments string) {
	t.Helper()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Call(ctx, json.RawMessage(arguments)); err != nil {
				t.Errorf("%s(%s): %v", c.Name, arguments, err)
			}
		})
	}
	wg.Wait()
}

// endsWithContext calls with a context that is over: a tool that would not look at
// it could not be stopped either.
func endsWithContext(t *testing.T, c tool.Tool, arguments string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, json.RawMessage(arguments))
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Errorf("%s answers after its context ended", c.Name)
		}
	case <-time.After(patience):
		t.Fatalf("%s does not return after its context ended", c.Name)
	}
}
