package functions_test

import (
	"strings"
	"testing"
	"time"
)

// The file names two issuers, and the migrate function has not seen it. A function that took the bare subject, or
// issuer and subject, would guess.
func TestAFunctionWithAnUnknownFileGuessesNoOwner(t *testing.T) {
	t.Parallel()
	d := deploy(t, strings.Replace(keyway, `[{"secret":"${JWT_KEY_SECRET}"}]`,
		`[{"secret":"${JWT_KEY_SECRET}","issuer":"https://a"},{"secret":"${JWT_KEY_SECRET}","issuer":"https://b"}]`, 1))
	list := request{method: "GET", path: "/sessions", scopes: everything}
	f := d.start("sessions")
	refused := f.ask(list)
	refused.want(t, "before the migration", 503, "The owner of the data is not known")
	if strings.Contains(refused.Body, "issuer") {
		t.Errorf("the answer has the operator's reason: %s", refused.Body)
	}
	f.WaitForLog("run keyway migrate with this keyway.yaml")
	if a := d.start("migrate").Invoke([]byte("{}"), time.Minute); a.Kind != "response" {
		t.Fatalf("%s %s", a.Kind, a.Body())
	}
	d.start("sessions").ask(list).want(t, "after the migration", 200, `"total_count":0`)
}
