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
	Was      []string  `json:"was_missing,omitempty"`
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
	Mappings []authz.Mapping // its scope mappings
	Agents   []string        // ids of its agents
	Digest   string
}

// Replay asks the new policy what the log's callers asked. The log of a policy,
// replayed against the same one, reports nothing.
func (l *Log) Replay(n New) Report {
	out := Report{Counts: map[Verdict]Count{}, Changes: []Change{}, Mappings: []string{}}
	rows, totals := map[string]*Change{}, map[Verdict]*seen{}
	a := asker{n, map[string]*authz.Policy{}}
	for _, k := range slices.SortedFunc(maps.Keys(l.groups), order) {
		g, r := l.groups[k], routes[k.route]
		out.Replayed += g.requests
		path := a.path(r, k)
		unsure, lost := a.unsure(r, k, path), a.lost(r, k, path)
		if lost {
			unsure = append(unsure, k.mapping)
		}
		if len(unsure) > 0 {
			out.Unsure += g.requests
			out.Mappings = append(out.Mappings, unsure...)
		}
		if lost {
			continue
		}
		d := n.Policy.Decide(&authz.Principal{Scopes: g.scopes}, r.Method, path)
		c := change(k, d, n)
		if c.Verdict == "" {
			continue
		}
		id := strings.Join([]string{string(c.Verdict), c.Route, c.Agent, strings.Join(c.Missing, " "), k.missing, c.Mapping, strings.Join(c.Need, " ")}, "\x00")
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
		c.Verdict = Allowed
		if k.missing != "" {
			c.Was = strings.Split(k.missing, ", ")
		}
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

// asker puts a logged question to the new policy.
type asker struct {
	n     New
	alone map[string]*authz.Policy // each mapping by itself; nil: it reaches nothing
}

// applies reports whether the mapping would be the one to decide about this path, if
// there were no other.
func (a asker) applies(mapping string, r *route.Route, path string) bool {
	p, known := a.alone[mapping]
	if !known {
		method, glob, _ := strings.Cut(mapping, " ")
		p, _ = authz.New(route.Table, "", []authz.Mapping{{Method: method, Path: glob, Scopes: []string{"any:need"}}}) // nil for what is no mapping
		a.alone[mapping] = p
	}
	return p != nil && p.Decide(&authz.Principal{}, r.Method, path).Mapping != ""
}

// path is a path of the route, with the ids that are known: the agent, and what the
// mapping that decided says of the others. What is not known is a text that only a
// star matches.
func (a asker) path(r *route.Route, k key) string {
	_, glob, _ := strings.Cut(k.mapping, " ")
	known := strings.Split(glob, "/")
	segments := strings.Split(r.Pattern, "/")
	fill := func(known []string) string {
		out := slices.Clone(segments)
		for i, s := range segments {
			switch {
			case s == "{agent_id}":
				out[i] = k.agent
			case strings.HasPrefix(s, "{") && i < len(known) && known[i] != "":
				out[i] = strings.ReplaceAll(known[i], "*", route.Hole)
			case strings.HasPrefix(s, "{"):
				out[i] = route.Hole
			}
		}
		return strings.Join(out, "/")
	}
	if path := fill(known); a.applies(k.mapping, r, path) {
		return path
	}
	return fill(nil) // a star of it spans slashes
}

// lost reports whether the mapping that decided is still there, but was about an id
// that the log doesn't have.
func (a asker) lost(r *route.Route, k key, path string) bool {
	return slices.ContainsFunc(a.n.Mappings, func(m authz.Mapping) bool { return m.String() == k.mapping }) && !a.applies(k.mapping, r, path)
}

// unsure lists the mappings that could apply to a request like this one, depending on
// an id that the log doesn't have. One that is written for another route reaches this
// one only through an id such as "runs", and isn't listed.
func (a asker) unsure(r *route.Route, k key, path string) (out []string) {
	if !strings.Contains(path, route.Hole) {
		return nil
	}
	for _, m := range a.n.Mappings {
		if m.Method != r.Method || !r.OverlapsWith("agent_id", k.agent, m.Path) || a.applies(m.String(), r, path) {
			continue
		}
		meant := route.Table.Match(m.Method, strings.ReplaceAll(m.Path, "*", route.Hole)).Route
		if meant == nil || meant == r {
			out = append(out, m.String())
		}
	}
	return out
}
