package acceptance

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// TestGolden replays requests that were recorded with the answers of AgentOS 3.1.10 (see
// testdata/agentos/README.md). Keyway must answer with the same status, content type and
// events, with the same members in the same order at every depth, and with the same values
// unless a clock or a generator made them. Each difference must be a row of
// docs/differences.md, and each row there must be needed.
func TestGolden(t *testing.T) {
	t.Parallel()
	list := readDifferences(t)
	var played atomic.Int32
	groups := []string{"sessions", "memories", "runs", "paths", "users", "lifecycle"}
	t.Run("group", func(t *testing.T) {
		for _, group := range groups {
			t.Run(group, func(t *testing.T) {
				t.Parallel()
				result := &results{unlisted: map[string][]string{}}
				for _, part := range parts(readExchanges(t, group)) {
					p := newReplay(t, group, part, list)
					p.result = result
					p.play(part)
				}
				result.report(t, group)
				played.Add(1)
			})
		}
	})
	if int(played.Load()) < len(groups) { // -run selected some groups
		return
	}
	for _, pattern := range list.stale() {
		t.Errorf("%s covers no difference any more: remove it", pattern)
	}
}

// parts splits a group that was recorded on two servers: without and with user isolation.
func parts(list []exchange) [][]exchange {
	cut := slices.IndexFunc(list, func(e exchange) bool { return strings.HasPrefix(e.Name, isolated) })
	if cut <= 0 {
		return [][]exchange{list}
	}
	return [][]exchange{list[:cut], list[cut:]}
}

const isolated = "[iso on]"

func newReplay(t *testing.T, group string, part []exchange, list *differences) *replayer {
	t.Helper()
	data, err := os.ReadFile("testdata/agentos/keyway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yaml := string(data)
	if strings.HasPrefix(part[0].Name, isolated) {
		yaml = strings.Replace(yaml, "user_isolation: false", "user_isolation: true", 1)
	}
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(file, []byte(withoutUnsupported(yaml)), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGate()
	model := modeltest.NewServerFunc(t, modeltest.Commands{Pause: g.pause}.Obey)
	return &replayer{t: t, group: group, server: startWith(t, process.WithTools.With("-recorded"), file, model),
		ids: newBindings(), gate: g, list: list}
}

// withoutUnsupported removes the settings of the recorded agents that this version rejects.
func withoutUnsupported(yaml string) string {
	return regexp.MustCompile(`(?m)^ +update_memory_on_run:.*\n`).ReplaceAllString(yaml, "")
}

// results counts the outcomes of a group's exchanges.
type results struct {
	same, asListed, differing int
	unlisted                  map[string][]string // exchanges by difference
}

func (r *results) note(exchange string, found []string, list *differences) {
	unlisted := slices.DeleteFunc(slices.Clone(found), func(d string) bool { return list.covers(exchange, d) })
	switch {
	case len(found) == 0:
		r.same++
	case len(unlisted) == 0:
		r.asListed++
	default:
		r.differing++
	}
	for _, d := range unlisted {
		r.unlisted[d] = append(r.unlisted[d], exchange)
	}
}

// report prints the most common difference first, and with -v all exchanges that have it.
func (r *results) report(t *testing.T, group string) {
	t.Helper()
	t.Logf("%s: %d the same, %d differ as listed, %d differ unlisted", group, r.same, r.asListed, r.differing)
	found := slices.SortedFunc(maps.Keys(r.unlisted), func(a, b string) int {
		if n := len(r.unlisted[b]) - len(r.unlisted[a]); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	for _, d := range found {
		where := r.unlisted[d]
		more := ""
		if len(where) > 6 && !testing.Verbose() {
			more = fmt.Sprintf(" and %d more", len(where)-6)
			where = where[:6]
		}
		t.Errorf("%s\n\t%s%s", d, strings.Join(where, "\n\t"), more)
	}
}
