package strictjson_test

import (
	"fmt"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// A reader that must not overlook a second member of the same name.
func ExampleValue_Members() {
	const text = `{"sub": "alice", "scopes": ["agents:read"], "s\u0075b": "bob"}`
	if err := strictjson.Check([]byte(text), strictjson.Options{}); err != nil {
		fmt.Printf("at byte %d: %s", err.Offset, err.Text)
		return
	}
	seen := map[string]bool{}
	for name, value := range strictjson.Root(text).Members() {
		if seen[name] {
			fmt.Printf("%s again at byte %d: %s\n", name, value.Offset, value.Raw)
		}
		seen[name] = true
	}
	// Output: sub again at byte 56: "bob"
}
