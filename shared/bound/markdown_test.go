package bound_test

import (
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
)

const preface = `# Limits

<!-- Made by "make generate" from shared/bound. Do not edit. -->

The most that a caller can send or hold. More is refused as a whole: nothing is cut without notice. Sizes are in bytes,
unless the row says otherwise. A setting is a member of ` + "`bounds`" + ` in ` + "`keyway.yaml`" + `; a fixed bound
can't be changed. In a text, {max} is the bound and {sent} what was sent. An answer with status 422 also
names the field, in FastAPI's form.

| Bound | What it bounds | Default | Setting | Status | Text | Reason for the number |
|---|---|---|---|---|---|---|
`

// markdown returns docs/limits.md.
func markdown() []byte {
	var b strings.Builder
	b.WriteString(preface)
	for _, x := range bound.All() {
		setting, text := "fixed", "`"+x.Text+"`"
		if x.Settable {
			setting = "`bounds." + x.Name + "`"
		}
		if x.Text == "" {
			text = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %s | %d | %s | %s |\n",
			x.Name, x.Of, x.Default, setting, x.Kind.Status(), text, x.Why)
	}
	return []byte(b.String())
}
