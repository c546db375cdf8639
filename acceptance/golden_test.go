package acceptance

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// TestGolden replays what AgentOS 3.1.10 was recorded answering (see
// testdata/agentos/README.md) against this server: the same status and content
// type, the same members in the same order at every depth, the same values where
// they are no clock's and no generator's, the same events in the same order. What
// differs is a line of docs/differences.md, and every line there is needed.
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
	if int(played.Load()) < len(groups) { // -run chose some
		return
	}
	for _, pattern := range list.stale() {
		t.Errorf("%s covers no difference any more: take it out", pattern)
	}
}

// parts cuts a group where it was recorded on two servers, without and with
// isolation.
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
	return &replayer{t: t, group: group, server: startWith(t, withTools.with("-recorded"), file, model), ids: newBindings(), gate: g, list: list}
}

// results are what a group's exchanges came to.
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

// tell reports the commonest difference first, and with -v all of its exchanges.
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
