package edge_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/edge"
)

// evaluate reports whether the policy of an answer allows "METHOD /path".
func evaluate(answer events.APIGatewayCustomAuthorizerResponse, request string) bool {
	method, path, _ := strings.Cut(request, " ")
	return edge.Evaluate(answer.PolicyDocument, edge.MethodARN(api, method, path))
}

// policyOf makes a policy from lines such as "Allow GET/agents/*".
func policyOf(lines ...string) (p events.APIGatewayCustomAuthorizerPolicy) {
	for _, line := range lines {
		effect, resource, _ := strings.Cut(line, " ")
		p.Statement = append(p.Statement, events.IAMPolicyStatement{Effect: effect, Resource: []string{resource}})
	}
	return p
}

func TestEvaluateFollowsAPIGateway(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		lines []string
		arn   string
		want  bool
	}{
		"nothing listed is a denial":          {nil, "GET/agents", false},
		"an exact resource":                   {[]string{"Allow GET/agents"}, "GET/agents", true},
		"another one":                         {[]string{"Allow GET/agents"}, "GET/agents/a", false},
		"its beginning is not enough":         {[]string{"Allow GET/agents/abc"}, "GET/agents/ab", false},
		"case counts":                         {[]string{"Allow GET/agents"}, "GET/Agents", false},
		"a star spans segments":               {[]string{"Allow GET/agents/*"}, "GET/agents/a/runs/r", true},
		"a star may be nothing":               {[]string{"Allow GET/agents/*"}, "GET/agents/", true},
		"a star does not take back its slash": {[]string{"Allow GET/agents/*"}, "GET/agents", false},
		"a star in the middle":                {[]string{"Allow POST/agents/*/runs"}, "POST/agents/a/b/runs", true},
		"what follows a star counts":          {[]string{"Allow POST/agents/*/runs"}, "POST/agents/a/runs/r", false},
		"a question mark is one character":    {[]string{"Allow GET/agents/?"}, "GET/agents/a", true},
		"and not none":                        {[]string{"Allow GET/agents/?"}, "GET/agents/", false},
		"a star in the request is text":       {[]string{"Allow GET/agents/abc"}, "GET/agents/*", false},
		"a dot is a dot":                      {[]string{"Allow GET/agents/a.c"}, "GET/agents/abc", false},
		"a denial wins when it comes last":    {[]string{"Allow *", "Deny GET/agents/a"}, "GET/agents/a", false},
		"a denial wins when it comes first":   {[]string{"Deny GET/agents/a", "Allow *"}, "GET/agents/a", false},
		"a denial of another thing is none":   {[]string{"Deny GET/agents/a", "Allow *"}, "GET/agents/b", true},
		"one of several resources suffices": {[]string{"Allow GET/x", "Allow GET/y", "Allow GET/agents"}, "GET/agents",
			true},
		"an effect in another case allows nobody": {[]string{"allow *"}, "GET/agents", false},
	} {
		if got := edge.Evaluate(policyOf(row.lines...), row.arn); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The oracle converts a resource to a regular expression.
func TestWildcardsMatchLikeRegularExpressions(t *testing.T) {
	t.Parallel()
	pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab/.**?\n")), 0, 12, -1)
	text := rapid.StringOfN(rapid.SampledFrom([]rune("ab/.*?\n")), 0, 16, -1)
	matched := 0
	rapid.Check(t, func(t *rapid.T) {
		p, s := pattern.Draw(t, "pattern"), text.Draw(t, "text")
		if rapid.Bool().Draw(t, "likely") { // random texts rarely match
			s = strings.NewReplacer("*", rapid.SampledFrom([]string{"", "a", "ab/", "a\nb"}).Draw(t, "star"), "?",
				"b").Replace(p)
		}
		quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(p))
		want := regexp.MustCompile(`(?s)^` + quoted + `$`).MatchString(s)
		if want {
			matched++
		}
		if got := edge.Evaluate(policyOf("Allow "+p), s); got != want {
			t.Fatalf("%q matches %q: %t, want %t", p, s, got, want)
		}
	})
	if matched == 0 {
		t.Error("nothing ever matched")
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add("arn/GET/agents/*", "arn/GET/agents/a/runs")
	f.Add("**a*?b", "xaab")
	f.Add("\xff*", "\xffä")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !edge.Evaluate(policyOf("Allow *"), text) {
			t.Error("* does not match")
		}
		if edge.Evaluate(policyOf("Allow "+pattern, "Deny *"), text) {
			t.Error("a Deny of everything allows a request")
		}
		if !strings.ContainsAny(pattern, "*?") && edge.Evaluate(policyOf("Allow "+pattern), text) != (pattern == text) {
			t.Errorf("%q against %q", pattern, text)
		}
	})
}
