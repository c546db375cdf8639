// Package replay decides which requests of a decision log another configuration would treat differently.
// It reads the log, asks the new policy the same questions, and groups the differences into a report for
// people. The log contains no ids but those of agents, so some questions cannot be asked exactly; the
// report counts them. The package opens no file and prints nothing; see keyway diff.
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

// routes are the routes by their name in the log. Public routes are left out, since there is no decision
// about them.
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

// The verdicts, in the order of a report. New access comes first within each pair, because it is the
// greater risk.
const (
	// Allowed is a request that was denied and is now allowed.
	Allowed Verdict = "newly allowed"
	// Refused is a request that was allowed and is now denied.
	Refused Verdict = "newly refused"
	// Unfiltered is a list that showed some resources and now shows all.
	Unfiltered Verdict = "list no longer filtered"
	// Filtered is a list that showed all resources and now shows some.
	Filtered Verdict = "list now filtered"
	// Undeclared is an allowed request for an agent that the new configuration does not declare: it now
	// gets a 404.
	Undeclared Verdict = "agent not declared"
)

// verdicts is the order of a report.
var verdicts = []Verdict{Allowed, Refused, Unfiltered, Filtered, Undeclared}

// Change is a row of the report: all requests with the same verdict for the same reason.
type Change struct {
	Verdict Verdict `json:"verdict"`
	// Route is the route's name in the log, such as "GET /agents/{agent_id}".
	Route string `json:"route"`
	// Agent is the id of the agent in the path. Empty for routes without one.
	Agent string `json:"agent,omitempty"`
	// Callers is the number of distinct principals.
	Callers  int `json:"callers"`
	Requests int `json:"requests"`
	// First and Last are the times of the first and last request.
	First time.Time `json:"first_seen,omitzero"`
	Last  time.Time `json:"last_seen,omitzero"`
	// Need are the scopes that the new configuration asks for.
	Need []string `json:"need"`
	// Missing are the scopes that the callers now lack. Empty if the request is allowed.
	Missing []string `json:"missing,omitempty"`
	// Was are the scopes that the callers lacked before. Only set for Allowed.
	Was []string `json:"was_missing,omitempty"`
	// Mapping is the scope mapping of the new configuration that decides, as written. Empty if none does.
	Mapping string `json:"mapping,omitempty"`

	who seen
}

// Count is the number of callers and requests with a verdict.
type Count struct {
	Callers  int `json:"callers"`
	Requests int `json:"requests"`
}

// Report is the result of a replay.
type Report struct {
	// Replayed is the number of decisions that were asked again.
	Replayed int `json:"replayed"`
	// Counts has a count for each verdict that occurs.
	Counts map[Verdict]Count `json:"counts"`
	// Changes are the differences, in the order of the verdicts and then by the number of requests.
	Changes []Change `json:"changes"`
	// Unsure is the number of requests with an uncertain answer: a mapping applies to some ids of the
	// route only (such as GET /sessions/s-1), and the log does not contain the id of the request.
	Unsure int `json:"unsure"`
	// Mappings are those scope mappings, sorted.
	Mappings []string `json:"unsure_mappings"`
	// Granted is the number of replayed requests whose scopes were computed from the grants of their roles.
	Granted int `json:"from_grants,omitempty"`
	// NoGrants is the number of requests that were not replayed because Rules.Grants does not know what their roles grant.
	NoGrants int `json:"unknown_grants,omitempty"`
}

// Rules is the configuration that a log is replayed against.
type Rules struct {
	// Policy decides. Required.
	Policy *authz.Policy
	// Mappings are the scope mappings of Policy, in their order. Defaults to none.
	Mappings []authz.Mapping
	// Agents are the ids of the declared agents. Defaults to none.
	Agents []string
	// Grants returns what the roles of an issuer grant. It returns false if the configuration doesn't say that: it has no
	// entry for the issuer, or several that differ. Defaults to nil: scopes of roles stay as they were logged.
	Grants func(issuer string) (grants map[string][]string, ok bool)
	// Digest is the digest of the configuration, to recognize decisions that it made itself. Defaults to
	// unknown.
	Digest string
}

// Replay asks the policy of n the questions of the log, and reports the decisions that differ. Replaying
// the log of a policy against the same policy reports no change.
func (l *Log) Replay(n Rules) Report {
	out := Report{Counts: map[Verdict]Count{}, Changes: []Change{}, Mappings: []string{}}
	rows, totals := map[string]*Change{}, map[Verdict]*seen{}
	a := asker{n, map[string]*authz.Policy{}}
	for _, k := range slices.SortedFunc(maps.Keys(l.groups), order) {
		g, r := l.groups[k], routes[k.route]
		scopes, granted, ok := n.scopes(g, k.issuer)
		if !ok {
			out.NoGrants += g.requests
			continue
		}
		if granted {
			out.Granted += g.requests
		}
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
		// Only the scopes and the audience matter for the decision, so the principal has no subject. The log doesn't have the
		// audience, but what was decided shows whether it fitted. No policy changes that.
		p := &authz.Principal{Scopes: scopes}
		if r.Addressed && k.allow {
			p.Audience = authz.ForBoth
		}
		d := n.Policy.Decide(p, r.Method, path)
		c := change(k, d, n)
		if c.Verdict == "" {
			continue
		}
		// Groups that differ only in their scopes or configuration become one row if the reason is the same.
		id := strings.Join([]string{
			string(c.Verdict), c.Route, c.Agent, strings.Join(c.Missing, " "), k.missing, c.Mapping, strings.Join(c.Need, " "),
		}, "\x00")
		if rows[id] == nil {
			rows[id] = &c
		}
		if totals[c.Verdict] == nil {
			totals[c.Verdict] = &seen{}
		}
		rows[id].who.add(g.seen)
		totals[c.Verdict].add(g.seen)
	}
	// A caller with several rows counts once in the total of a verdict.
	for v, s := range totals {
		out.Counts[v] = Count{len(s.callers), s.requests}
	}
	out.Changes = append(out.Changes, inOrder(rows)...)
	slices.Sort(out.Mappings)
	out.Mappings = slices.Compact(out.Mappings)
	return out
}

// scopes returns the scopes that the callers of a group have with the new configuration: those of claims as they were
// logged, and what the logged roles grant now. granted is whether there are roles. ok is false if it is not known what
// they grant.
func (n Rules) scopes(g *group, issuer string) (scopes []string, granted, ok bool) {
	roles := map[string]bool{}
	for i, origin := range g.origins {
		if _, role, isRole := strings.Cut(origin, "="); isRole {
			roles[role] = true
		} else {
			scopes = append(scopes, g.scopes[i])
		}
	}
	if len(roles) == 0 || n.Grants == nil {
		return g.scopes, false, true
	}
	grants, ok := n.Grants(issuer)
	for role := range roles {
		scopes = append(scopes, grants[role]...)
	}
	return scopes, true, ok
}

// inOrder returns the rows in the order of verdicts, and within a verdict by the number of requests.
func inOrder(rows map[string]*Change) (out []Change) {
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		c := *rows[id]
		c.Callers, c.Requests, c.First, c.Last = len(c.who.callers), c.who.requests, c.who.first, c.who.last
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b Change) int {
		return cmp.Or(
			cmp.Compare(slices.Index(verdicts, a.Verdict), slices.Index(verdicts, b.Verdict)),
			cmp.Compare(b.Requests, a.Requests),
		)
	})
	return out
}

// change compares a logged decision with the new one. The verdict is empty if they are equal. Decisions
// that n made itself are not checked for undeclared agents: the request got its 404 then already.
func change(k key, d authz.Decision, n Rules) Change {
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

// texts returns the texts of a list, and never nil, so that JSON has an empty list.
func texts[T interface{ String() string }](list []T) []string {
	out := []string{}
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// asker reconstructs the questions of the log for the new policy. The log does not contain paths, because
// they contain ids of sessions, runs and memories. So a question is asked with a path
// that stands for all paths with the same logged members.
type asker struct {
	n     Rules
	alone map[string]*authz.Policy // a policy for each mapping alone; nil for an invalid mapping
}

// applies reports whether the mapping matches the path of the route, regardless of other mappings.
func (a asker) applies(mapping string, r *route.Route, path string) bool {
	p, known := a.alone[mapping]
	if !known {
		method, glob, _ := strings.Cut(mapping, " ")
		one := []authz.Mapping{{Method: method, Path: glob, Scopes: []string{"any:need"}}}
		p, _ = authz.New(route.Table, "", one) // nil if the log has an invalid mapping
		a.alone[mapping] = p
	}
	return p != nil && p.Decide(&authz.Principal{}, r.Method, path).Mapping != ""
}

// path reconstructs a path of the logged request. The log has the id of the agent. Parts of other ids
// are known from the mapping that decided, such as s-1 from GET /sessions/s-1. An unknown part becomes
// route.Hole, a text that only a star matches.
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
	return fill(nil) // a star of the mapping matches a slash, so its segments say nothing about the ids
}

// lost reports whether the mapping that decided still exists but does not match the reconstructed path:
// it depends on an id that the log does not contain. Such a decision cannot be replayed.
func (a asker) lost(r *route.Route, k key, path string) bool {
	exists := slices.ContainsFunc(a.n.Mappings, func(m authz.Mapping) bool { return m.String() == k.mapping })
	return exists && !a.applies(k.mapping, r, path)
}

// unsure returns the mappings that could match the real path, depending on an id that the log does not
// contain. A mapping for another route is left out: it could match only through an unusual id, such as a
// session named "runs".
func (a asker) unsure(r *route.Route, k key, path string) (out []string) {
	// What decides about a route that is decided as another one is no mapping of its own path.
	if !strings.Contains(path, route.Hole) || r.Decides() != r {
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
