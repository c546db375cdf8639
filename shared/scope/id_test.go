package scope

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAgentIDsAreThoseThatMatchThePattern(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(AgentIDPattern)
	short := rapid.StringOfN(rapid.SampledFrom([]rune("azAZ09._-@[`{/:é\n ")), 0, 3, -1)
	rapid.Check(t, func(t *rapid.T) {
		end := strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 61, 62, 63, 64}).Draw(t, "more"))
		id := rapid.OneOf(short, rapid.String()).Draw(t, "text") + end
		if got := IsAgentID(id); got != pattern.MatchString(id) {
			t.Errorf("IsAgentID(%q) is %t", id, got)
		}
	})
}
