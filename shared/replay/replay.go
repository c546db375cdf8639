package replay

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/route"
)

// routes are the routes by the name that the log gives them; nobody decides about a
// public one.
var routes = func() map[string]*route.Route {
	out := map[string]*route.Route{}
	for r := range route.Table.All() {
		if !r.Public {
			out[r.String()] = r
		}
	}
	return out
}()

// Verdict is how the new decision differs from the logged one.
type Verdict string

// The verdicts, in the order of a report: what opens comes first.
const (
	Allowed    Verdict = "newly allowed"
	Refused    Verdict = "newly refused"
	Unfiltered Verdict = "list no longer filtered"
	Filtered   Verdict = "list now filtered"
	Undeclared Verdict = "agent not declared" // it was allowed, and now answers 404
)

var verdicts = []Verdict{Allowed, Refused, Unfiltered, Filtered, Undeclared}

// Change is a row of the report: equal requests with one verdict for one reason.
type Change struct {
	Verdict  Verdict   `json:"verdict"`
	Route    string    `json:"route"`
	Agent    string    `json:"agent,omitempty"`
	Callers  int       `json:"callers"`
	Requests int       `json:"requests"`
	First    time.Time `json:"first_seen,omitzero"`
	Last     time.Time `json:"last_seen,omitzero"`
	Need     []string  `json:"need"`              // as the new policy has it
	Missing  []string  `json:"missing,omitempty"` // now; of a newly allowed request, nothing
	Was      string    `json:"was_missing,omitempty"`
	Mapping  string    `json:"mapping,omitempty"` // the new policy's, as written

	who seen
}

// Count is how many callers and requests a verdict is about.
type Count struct {
	Callers  int `json:"callers"`
	Requests int `json:"requests"`
}

// Report is what another policy changes.
type Report struct {
	Replayed int               `json:"replayed"`
	Counts   map[Verdict]Count `json:"counts"`
	Changes  []Change          `json:"changes"`
	// Unsure are requests of routes where a mapping applies to some ids only, and
	// the log holds no ids: they were asked with none of these.
	Unsure   int      `json:"unsure"`
	Mappings []string `json:"unsure_mappings"`
}

// New is the configuration that a log is replayed against.
type New struct {
	Policy   *authz.Policy
	Admin    string          // its admin_scope
	Mappings []authz.Mapping // its scope mappings
	Agents   []string        // ids of its agents
	Digest   string
}

// Replay asks the new policy what the log's callers asked. The log of a policy,
// replayed against the same one, reports nothing.
func (l *Log) Replay(n New) Report {
	out := Report{Counts: map[Verdict]Count{}, Changes: []Change{}, Mappings: []string{}}
	rows, totals := map[string]*Change{}, map[Verdict]*seen{}
	p := newPartial(n)
	for _, k := range slices.SortedFunc(maps.Keys(l.groups), order) {
		g := l.groups[k]
		out.Replayed += g.requests
		r := routes[k.route]
		d := n.Policy.Decide(&authz.Principal{Scopes: g.scopes}, r.Method, path(r, k.agent, k.mapping))
		if unsure := p.of(r, k, d); len(unsure) > 0 {
			out.Unsure += g.requests
			out.Mappings = append(out.Mappings, unsure...)
			if slices.Contains(unsure, k.mapping) { // the mapping that decided is still there; the id it was about is not
				continue
			}
		}
		c := change(k, d, n)
		if c.Verdict == "" {
			continue
		}
		id := strings.Join([]string{string(c.Verdict), c.Route, c.Agent, strings.Join(c.Missing, " "), c.Was, c.Mapping, strings.Join(c.Need, " ")}, "\x00")
		if rows[id] == nil {
			rows[id] = &c
		}
		if totals[c.Verdict] == nil {
			totals[c.Verdict] = &seen{}
		}
		rows[id].who.add(g.seen)
		totals[c.Verdict].add(g.seen)
	}
	for v, s := range totals {
		out.Counts[v] = Count{len(s.callers), s.requests}
	}
	out.Changes = append(out.Changes, inOrder(rows)...)
	slices.Sort(out.Mappings)
	out.Mappings = slices.Compact(out.Mappings)
	return out
}

// inOrder puts what opens first, and of one verdict what was asked most.
func inOrder(rows map[string]*Change) (out []Change) {
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		c := *rows[id]
		c.Callers, c.Requests, c.First, c.Last = len(c.who.callers), c.who.requests, c.who.first, c.who.last
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(verdicts, a.Verdict), slices.Index(verdicts, b.Verdict)), cmp.Compare(b.Requests, a.Requests))
	})
	return out
}

// change compares a logged decision with the new one.
func change(k key, d authz.Decision, n New) Change {
	c := Change{Route: k.route, Agent: k.agent, Need: texts(d.Need), Missing: texts(d.Missing), Mapping: d.Mapping}
	filtered := d.Allow && d.Route.Lists != "" && !d.AllIDs
	switch {
	case d.Allow && !k.allow:
		c.Verdict, c.Was = Allowed, k.missing
	case !d.Allow && k.allow:
		c.Verdict = Refused
	case d.Allow && k.filtered && !filtered:
		c.Verdict = Unfiltered
	case d.Allow && filtered && !k.filtered:
		c.Verdict = Filtered
	case d.Allow && k.agent != "" && !slices.Contains(n.Agents, k.agent) && k.config != short(n.Digest):
		c.Verdict = Undeclared
	}
	return c
}

func texts[T interface{ String() string }](list []T) []string {
	out := []string{}
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// path is a path of the route, with the ids that are known: the agent, and what the
// mapping that decided says of the others. What is not known is a text that only a
// star matches.
func path(r *route.Route, agent, mapping string) string {
	_, glob, _ := strings.Cut(mapping, " ")
	pattern, known := strings.Split(r.Pattern, "/"), strings.Split(glob, "/")
	for i, s := range pattern {
		switch {
		case s == "{agent_id}":
			pattern[i] = agent
		case strings.HasPrefix(s, "{") && len(known) == len(pattern) && known[i] != "":
			pattern[i] = strings.ReplaceAll(known[i], "*", route.Hole)
		case strings.HasPrefix(s, "{"):
			pattern[i] = route.Hole
		}
	}
	return strings.Join(pattern, "/")
}

// partial are the mappings by themselves, to find those that hold for some ids only.
type partial struct {
	mappings []authz.Mapping
	alone    []*authz.Policy
}

func newPartial(n New) (p partial) {
	for _, m := range n.Mappings {
		if alone, err := authz.New(route.Table, n.Admin, []authz.Mapping{m}); err == nil {
			p.mappings, p.alone = append(p.mappings, m), append(p.alone, alone)
		}
	}
	return p
}

// of lists the mappings that could apply to a request like this one, depending on an
// id that the log doesn't have.
func (p partial) of(r *route.Route, k key, d authz.Decision) (out []string) {
	asked := path(r, k.agent, k.mapping)
	for i, m := range p.mappings {
		if m.Method != r.Method || !r.OverlapsWith("agent_id", k.agent, m.Path) || d.Mapping == m.String() {
			continue
		}
		if p.alone[i].Decide(&authz.Principal{}, r.Method, asked).Mapping == "" && strings.Contains(asked, route.Hole) {
			out = append(out, m.String())
		}
	}
	return out
}
