package openai_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/door/openai"
)

// The table of docs/doors.md is made of the rules themselves.
func TestTheTableOfParametersIsCurrent(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../../docs/doors.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| Parameter | Of | |\n|---|---|---|\n")
	for _, p := range openai.Parameters {
		of := "both"
		if p.API != "" {
			of = "`" + string(p.API) + "`"
		}
		rule := string(p.Rule)
		if p.Note != "" {
			rule += ": " + p.Note
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", p.Name, of, rule)
	}
	if !strings.Contains(string(data), want.String()) {
		t.Errorf("docs/doors.md lacks the table\n%s", want.String())
	}
}
