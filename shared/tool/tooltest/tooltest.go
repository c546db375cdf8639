// Package tooltest checks the rules that every tool.Set must follow. What a tool
// returns is checked by the tool's own tests.
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

// patience limits how long a test waits for a tool that doesn't return. It is far longer
// than any call takes.
const patience = time.Minute

// invalid holds arguments that every tool must refuse: they aren't JSON, or not an
// object.
var invalid = []string{"not JSON", `{"a":`, `[]`, `null`, `"text"`, `1e999`, "\xff\xfe", `{} {}`}

// Run checks a set. good holds, for each tool by name, arguments with which a call
// succeeds. Every tool of the set needs an entry.
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
		checkDescription(t, c)
		for _, arguments := range invalid {
			if text, err := c.Call(ctx, json.RawMessage(arguments)); err == nil {
				t.Errorf("%s accepts %q and returns %q", c.Name, arguments, text)
			}
		}
		arguments, ok := good[c.Name]
		if !ok {
			t.Errorf("no good arguments for %s", c.Name)
			continue
		}
		checkConcurrentCalls(ctx, t, c, arguments)
		checkCancellation(t, c, arguments)
	}
}

// checkDescription checks the name and that the parameters are a valid JSON Schema.
func checkDescription(t *testing.T, c tool.Tool) {
	t.Helper()
	if !tool.ValidName(c.Name) {
		t.Errorf("%q is not a valid name for a tool", c.Name)
	}
	if c.Parameters == nil {
		return
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(c.Parameters, &s); err != nil || s.Type != "object" {
		t.Errorf("%s: parameters %s are not the schema of an object: %v", c.Name, c.Parameters, err)
		return
	}
	if _, err := s.Resolve(nil); err != nil {
		t.Errorf("%s: parameters: %v", c.Name, err)
	}
}

// checkConcurrentCalls calls the tool several times at once.
func checkConcurrentCalls(ctx context.Context, t *testing.T, c tool.Tool, arguments string) {
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

// checkCancellation calls the tool with a cancelled context. A tool that ignores it
// could not be stopped during a call either.
func checkCancellation(t *testing.T, c tool.Tool, arguments string) {
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
			t.Errorf("%s succeeds although its context is cancelled", c.Name)
		}
	case <-time.After(patience):
		t.Fatalf("%s does not return although its context is cancelled", c.Name)
	}
}
