package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// docs/budgets.md has a file, and a table of claims with the limits that they give with it.
func TestTheLimitsInTheDocumentsAreThoseOfTheirClaims(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/budgets.md")
	if err != nil {
		t.Fatal(err)
	}
	file := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	rows := regexp.MustCompile("(?m)^\\| `(\\[.*?\\])` \\| (?:`(.*?)`)? ?\\| (.*) \\|$").FindAllSubmatch(text, -1)
	if file == nil || len(rows) < 8 {
		t.Fatalf("%d rows for the file %q", len(rows), file)
	}
	c, err := yamlfile.Parse("keyway.yaml", file[1], config.Options{Lookup: func(name string) (string, bool) {
		if name == "JWT_VERIFICATION_KEY" {
			return key, true
		}
		return "", false
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthorizer(t, c)
	for _, row := range rows {
		claims := jwt.MapClaims{"sub": "ann", "exp": now.Unix() + 60, "groups": json.RawMessage(row[1])}
		if len(row[2]) > 0 {
			claims["lim"] = json.RawMessage(row[2])
		}
		raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		read, err := a.Verifier.Verify(context.Background(), []string{"Bearer " + raw})
		for name, value := range read.Limits.All() {
			got = append(got, fmt.Sprintf("`%s` %v", name, value))
		}
		if err != nil {
			got = []string{"the token is refused"}
		}
		if list := strings.Join(got, ", "); list != string(row[3]) {
			t.Errorf("groups %s and lim %s: %s, want %s (%v)", row[1], row[2], list, row[3], err)
		}
	}
}
