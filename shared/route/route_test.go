package route

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPathsAreReadAsAgentOSReadsThem(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		method, path string
		want         Name
	}{
		{"GET", "/", Index},
		{"GET", "/agents", ListAgents},
		{"GET", "/agents/", ListAgents},
		{"GET", "/agents//", ListAgents},
		{"GET", "/agents/web-search-agent", GetAgent},
		{"GET", "/agents/web-search-agent/", GetAgent},
		{"GET", "/agents/a/runs/", ListRuns},
		{"POST", "/agents/a/runs", CreateRun},
		{"GET", "/agents/a/runs/r", GetRun},
		{"POST", "/agents/a/runs/r/cancel", CancelRun},
		{"GET", "/sessions/.", GetSession},
		{"GET", "/sessions/ä ö", GetSession},
		{"DELETE", "/sessions/s", DeleteSession},
		// No route.
		{"GET", "", ""},
		{"GET", "*", ""},
		{"GET", "agents", ""},
		{"GET", "//agents", ""},
		{"GET", "/AGENTS", ""},
		{"GET", "/./agents", ""},
		{"GET", "/agents/../sessions", ""},
		{"GET", "/health/../sessions", ""},
		{"GET", "/sessions;x", ""},
		{"GET", "/sessions ", ""},
		{"GET", "/sessions\x00", ""},
		{"GET", "/agents//runs", ""},
		{"GET", "/agents\\..\\sessions", ""},
		{"GET", "/agents/a/runs/r/checkpoints", ""},
	} {
		m := Table.Match(row.method, row.path)
		var got Name
		if m.Route != nil {
			got = m.Route.Name
		}
		if got != row.want || len(m.Allow) > 0 {
			t.Errorf("%s %q is %q (allow %q), want %q", row.method, row.path, got, m.Allow, row.want)
		}
	}
}

func TestParametersAreAsInThePath(t *testing.T) {
	t.Parallel()
	got := Table.Match("GET", "/agents/a.b/runs/*").Params
	if diff := cmp.Diff(map[string]string{"agent_id": "a.b", "run_id": "*"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnotherMethodGetsTheMethodsOfThePath(t *testing.T) {
	t.Parallel()
	m := Table.Match("PUT", "/agents/x/runs")
	if diff := cmp.Diff([]string{"POST", "GET"}, m.Allow); diff != "" || m.Route != nil || m.Public {
		t.Errorf("%+v %s", m, diff)
	}
	if m := Table.Match("PUT", "/health"); !m.Public || len(m.Allow) != 2 {
		t.Errorf("another method on a public path: %+v", m)
	}
	if m := Table.Match("GET", "/nope"); m.Public {
		t.Error("an unknown path counts as public")
	}
}

func TestATableWithAMistakePanics(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string][]row{
		"no need":      {{"a", "", "GET /a", guarded, ""}},
		"same name":    {{"a", "", "GET /a", public, ""}, {"a", "", "GET /b", public, ""}},
		"same request": {{"a", "", "GET /a", public, ""}, {"b", "", "GET /a", public, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("the table was accepted")
				}
			}()
			New(routes(rows))
		})
	}
}

func TestOverlapsFindsGlobsThatMatchARoute(t *testing.T) {
	t.Parallel()
	byName := map[Name]*Route{}
	for r := range Table.All() {
		byName[r.Name] = r
	}
	for _, row := range []struct {
		glob string
		name Name
		want bool
	}{
		{"/agents/*", GetAgent, true},
		{"/agents/*", ListRuns, true},
		{"/agents/*", ListAgents, false},
		{"/agents*", ListAgents, true},
		{"/agents/*/runs", CreateRun, true},
		{"/agents/*/runs", CancelRun, false},
		{"/agents/finance-agent/runs", CreateRun, true},
		{"/agents/f*/runs", CreateRun, true},
		{"/agents/*e/runs/*", GetRun, true},
		{"/sessions/*", GetAgent, false},
		{"/agents/a/b", GetAgent, false},
		{"/agents/", GetAgent, false},
		{"*", Index, true},
		{"/nope", GetSession, false},
	} {
		if got := byName[row.name].Overlaps(row.glob); got != row.want {
			t.Errorf("%s overlaps %s: %t, want %t", row.glob, row.name, got, row.want)
		}
	}
}

// Each path that a pattern describes and a glob matches is one of their common paths
// with its holes filled. Each common path with its holes filled is described by the
// pattern and matched by the glob.
func TestCommonPathsAreTheIntersectionOfPatternAndGlob(t *testing.T) {
	t.Parallel()
	form := func(text, hole string) *regexp.Regexp {
		text = strings.NewReplacer(`\*`, ".*", "\x00", hole).Replace(regexp.QuoteMeta(text))
		return regexp.MustCompile("(?s)^" + text + "$")
	}
	shared := 0
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab/\x00")), 1, 8, -1).Draw(t, "pattern")
		for strings.Contains(pattern, "\x00\x00") { // a parameter is a whole segment
			pattern = strings.ReplaceAll(pattern, "\x00\x00", "\x00")
		}
		glob := rapid.StringOfN(rapid.SampledFrom([]rune("ab/**")), 1, 8, -1).Draw(t, "glob")
		fill := rapid.SampledFrom([]string{"a", "b", "ab", "aab", "bb"}).Draw(t, "fill")
		paths := common(pattern, glob)
		concrete := strings.ReplaceAll(pattern, "\x00", fill)
		within := func(general string) bool { return form(general, "[^/]*").MatchString(concrete) }
		if form(glob, "").MatchString(concrete) {
			shared++
			if !slices.ContainsFunc(paths, within) {
				t.Fatalf("glob %q matches %q of %q, which none of %q describes", glob, concrete, pattern, paths)
			}
		}
		for _, general := range paths {
			path := strings.ReplaceAll(general, "\x00", "z")
			if !form(glob, "").MatchString(path) || !form(pattern, "[^/]+").MatchString(path) {
				t.Fatalf("%q is returned, and is not common to %q and %q", path, pattern, glob)
			}
		}
	})
	if shared == 0 {
		t.Error("no pattern and glob had a path in common, so that the property was never tested")
	}
}
