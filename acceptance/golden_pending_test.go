package acceptance

import (
	"regexp"
)

// servedToday takes out of the fixture what this version refuses.
func withoutUnsupported(yaml string) string {
	return regexp.MustCompile(`(?m)^ +update_memory_on_run:.*\n`).ReplaceAllString(yaml, "")
}
