package model_test

import (
	"encoding/json"
	"testing"

	"github.com/keyway-agents/keyway/shared/model"
)

func TestArgumentsThatAreNotOneObjectBecomeAnEmptyObject(t *testing.T) {
	t.Parallel()
	for arguments, want := range map[string]string{
		"": "{}", "{bad": "{}", "[1]": "{}", `"x"`: "{}", "null": "{}", `{"a":1} {"b":2}`: "{}", ` {"a": 1e2} `: `{"a": 1e2}`,
	} {
		if got := string(model.ToolCall{Arguments: arguments}.Object()); got != want {
			t.Errorf("Object of the arguments %q is %q, want %q", arguments, got, want)
		}
	}
}

func FuzzObject(f *testing.F) {
	f.Add(`{"a":1}`)
	f.Add("{")
	f.Fuzz(func(t *testing.T, arguments string) {
		got := model.ToolCall{Arguments: arguments}.Object()
		var m map[string]json.RawMessage
		if err := json.Unmarshal(got, &m); err != nil || m == nil {
			t.Errorf("Object of the arguments %q is %s: %v", arguments, got, err)
		}
	})
}
