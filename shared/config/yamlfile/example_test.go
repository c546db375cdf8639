package yamlfile_test

import (
	"fmt"
	"path/filepath"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// Load reads a keyway.yaml. A program usually sets Lookup to os.LookupEnv. With Dev, values with an unset
// variable count as absent.
func ExampleLoad() {
	path := filepath.Join("..", "..", "..", "examples", "quickstart", "keyway.yaml")
	c, err := yamlfile.Load(path, config.Options{Dev: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range c.Agents {
		fmt.Printf("%s: %s by %s\n", a.ID, a.Model.ID, a.Model.Provider)
	}
	// Output:
	// assistant: gpt-4o by openai
	// finance-agent: gpt-4o by openai
}

// An error has the line and column of its place in the file.
func ExampleParse() {
	const file = `id: my-agent-os
agents:
  - id: assistant
    modle: openai:gpt-4o
`
	_, err := yamlfile.Parse("keyway.yaml", []byte(file), config.Options{Dev: true})
	fmt.Println(err)
	// Output: keyway.yaml:4:5: agents[0].modle: unknown field; did you mean model?
}
