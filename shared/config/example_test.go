package config_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
)

// Parse checks the JSON form of a keyway.yaml and fills in the defaults. It takes variables from Lookup,
// which is os.LookupEnv in a program.
func ExampleParse() {
	const file = `{
		"id": "my-agent-os",
		"auth": {"keys": ["${JWT_VERIFICATION_KEY}"]},
		"agents": [{"id": "assistant", "model": "openai:gpt-4o"}]
	}`
	variables := map[string]string{"JWT_VERIFICATION_KEY": "an HMAC secret of at least 32 bytes"}
	lookup := func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
	c, faults := config.Parse([]byte(file), config.Options{Lookup: lookup})
	if faults != nil {
		fmt.Println(config.Faults(faults))
		return
	}
	a := c.Agents[0]
	fmt.Println(a.ID, a.Model.Provider, a.Model.ID, a.Timeout)
	fmt.Println("key:", c.Auth.Keys[0].Literal)
	// Output:
	// assistant openai gpt-4o 10m0s
	// key: ***
}

// All errors are returned at once, each with a path and a remedy.
func ExampleParse_errors() {
	const file = `{"id": "my-agent-os", "agents": [{"id": "assistant", "model": "gpt-4o", "timeout": "10"}]}`
	_, faults := config.Parse([]byte(file), config.Options{Dev: true})
	for _, f := range faults {
		fmt.Println(f)
	}
	// Output:
	// agents[0].model: is "gpt-4o"; write provider:id, such as openai:gpt-4o
	// agents[0].timeout: is "10"; write a duration with its unit, such as 10s or 5m
}

// A program can declare agents in Go. They get the same defaults as those of the file.
func ExampleAgent_WithDefaults() {
	a := config.Agent{ID: "counter", Timeout: time.Minute}.WithDefaults()
	fmt.Println(a.Name, a.Timeout, a.NumHistoryRuns)
	// Output: counter 1m0s 3
}

// A Config prints the settings that are in force under their names in keyway.yaml, with every secret
// masked.
func ExampleConfig_String() {
	var c config.Config
	c.ID = "my-agent-os"
	c.Database = config.Database{URL: "postgresql://ai:hunter2@db:5432/ai", Schema: "keyway"}
	c.Agents = []config.Agent{{ID: "assistant", Model: config.Model{Provider: "openai", ID: "gpt-4o", APIKey: "sk-1"}}}
	text := c.String()
	for _, secret := range []string{"hunter2", "sk-1"} {
		fmt.Println(strings.Contains(text, secret))
	}
	fmt.Println(c.Database.URL, c.Agents[0].Model.APIKey)
	// Output:
	// false
	// false
	// postgresql://ai:***@db:5432/ai ***
}

// Two files that differ only in their notation have the same digest.
func ExampleCanonical() {
	one, _ := config.Canonical([]byte(`{"id": "os", "agents": []}`))
	two, _ := config.Canonical([]byte(`{"agents":[],"id":"os"}`))
	fmt.Println(string(one))
	fmt.Println(config.Digest(one) == config.Digest(two))
	// Output:
	// {"agents":[],"id":"os"}
	// true
}
