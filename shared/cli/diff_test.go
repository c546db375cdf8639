package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Callers choose some of the text in a decision log. No such text may change the structure
// of the report, which is Markdown: a sentence, a table and a list. It must not become a
// mention, a link or HTML either.
func TestDiffReportOfHostileLogIsValidMarkdown(t *testing.T) {
	t.Parallel()
	const evil = "|x|\n\n# @everyone <img src=x> [a](http://b) `"
	line, err := json.Marshal(map[string]any{
		"msg": "decision", "allow": false, "status": 403, "principal": evil,
		"scopes": []string{"agents:read", evil}, "route": "GET /agents",
		"mapping": evil, "missing": []string{evil}, "config": evil, "reason": evil,
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"new.yaml": "id: os\nagents: [{id: a, model: 'demo:x'}]\n",
		"log.jsonl": string(line) + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	e := testEnv(nil)
	e.out = &out
	if code := execute(t.Context(), []string{"diff", dir + "/new.yaml", "--log", dir + "/log.jsonl"},
		e); code != exitDenied {
		t.Fatalf("exit %d: %s", code, out.String())
	}
	report := strings.Split(out.String(), "\n")
	if len(report) < 6 || !strings.HasPrefix(report[4], "| newly allowed ") ||
		!strings.HasPrefix(report[6], "- Replayed 1 of 1") {
		t.Fatalf("the report is\n%s", out.String())
	}
	row := strings.ReplaceAll(report[4], `\|`, "")
	if strings.Count(row, "|") != 8 || strings.Count(row, "`")%2 != 0 {
		t.Errorf("the row has the wrong number of columns: %s", report[4])
	}
	for i, part := range strings.Split(row, "`") {
		if i%2 == 0 && strings.ContainsAny(part, "@<[#") {
			t.Errorf("text of the log is outside of a code span: %q", part)
		}
	}
}
