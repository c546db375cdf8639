package authz

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Err returns nil if the request is allowed, and otherwise an error that becomes the
// HTTP response: 401, 403, 404 or 405, with the same text in "detail" as AgentOS. A 403
// also has the member "missing", the scopes that the token lacks. It has "hint" if a
// scope of the token looks like a mistaken attempt at one of them, such as "agents:*", or
// if the token has no scopes although it has claims that look like them.
// An id that is not empty becomes the member "decision_id", so that the caller can quote
// it and an operator finds the line in the log.
func (d Decision) Err(id string) error {
	switch {
	case d.Allow:
		return nil
	case d.anonymous:
		return fault.Public(fault.Unauthenticated, "Authorization header missing", nil)
	case d.foreign:
		return fault.Public(fault.Unauthenticated, "Invalid token audience - token not valid for this AgentOS instance", nil)
	case len(d.allow) > 0:
		e := fault.Public(fault.MethodNotAllowed, "", nil)
		e.Header = http.Header{"Allow": {strings.Join(d.allow, ", ")}}
		return e
	case d.Route == nil:
		return fault.NotFound
	}
	e := fault.Public(fault.Forbidden, "Insufficient permissions. Required scope(s): "+join(d.Need), nil)
	e.Extra = []fault.Member{{Name: "missing", Value: texts(d.Missing)}}
	if id != "" {
		e.Extra = append(e.Extra, fault.Member{Name: "decision_id", Value: id})
	}
	if hint := d.hint(); hint != "" {
		e.Extra = append(e.Extra, fault.Member{Name: "hint", Value: hint})
	}
	// RFC 6750 section 3.1: a 403 names the scopes that are necessary.
	challenge := `Bearer error="insufficient_scope"`
	if missing := texts(d.Missing); !slices.ContainsFunc(missing, isNoToken) {
		challenge += fmt.Sprintf(", scope=%q", strings.Join(missing, " "))
	}
	e.Header = http.Header{"Www-Authenticate": {challenge}}
	return e
}

// isNoToken reports whether a scope can't be in a header (RFC 6750 section 3), because the id of an agent is part of it
// and has other characters. In the id "x agent_os:admin y", a client would read the scope of an administrator, and ask
// for it.
func isNoToken(scope string) bool {
	return strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// hint returns what the caller of a refused request should know of the token, or "". It quotes and names only what the
// caller's own token contains, so that it reveals nothing about other callers or the configuration.
func (d Decision) hint() string {
	asHeld := func(text string) string { return text }
	if hints := d.lookalikes(asHeld); len(hints) > 0 {
		return "In the token, " + strings.Join(hints, "; ")
	}
	if d.caller == nil || d.caller.Unread == "" {
		return ""
	}
	return "This server found no scopes in the token: " + d.caller.Unread +
		". Ask the operator of this server which claims it reads, or the issuer for a token with scopes"
}

// Reasons returns the steps that led to the decision, one sentence each, for a person.
// `keyway can` prints them. written returns a text of the configuration as its file has
// it, with variables in place of their values: config.Config.AsWritten.
func (d Decision) Reasons(written func(string) string) []string {
	if d.Route == nil {
		switch {
		case d.anonymous:
			return []string{"no route is public at this path", "the request carries no valid token"}
		case len(d.allow) > 0:
			return []string{"the path is served for " + strings.Join(d.allow, ", ") + " only"}
		}
		return []string{"no route serves this path; what is not mapped is denied"}
	}
	out := []string{"the route is " + d.Route.String()}
	switch {
	case d.Route.Public:
		return append(out, "it is public")
	case d.anonymous:
		return append(out, "the request carries no valid token")
	case d.foreign && d.Route.Addressed:
		return append(out, "the token's audience (aud) does not name the door")
	case d.foreign:
		return append(out, "the token's audience (aud) names the door for MCP alone")
	case d.Route.Addressed:
		return append(out, "it needs a token whose audience (aud) names the door, and no scope")
	case d.Route.AnyToken:
		return append(out, "it needs a valid token and no scope")
	case d.Mapping != "":
		out = append(out, fmt.Sprintf("the mapping %q replaces its need: %s", d.Mapping, list(texts(d.Need), written)))
	default:
		out = append(out, "it needs "+list(texts(d.Need), written))
	}
	switch {
	case !d.Allow:
		out = append(out, "the token does not grant "+list(texts(d.Missing), written))
		out = append(out, d.lookalikes(written)...)
		if none := d.caller.NoScopes(); none != "" {
			out = append(out, "the token has no scopes: "+none)
		}
	case d.Admin:
		out = append(out, "the token holds the administrator's scope")
	case d.anyAgent():
		out = append(out, "the token opens some agent",
			"each agent that the request names or lists is decided about as "+d.Route.Decides().String())
	case !d.AllIDs:
		ids, more := d.IDs, ""
		if n := len(ids) - maxListed; n > 0 {
			ids, more = ids[:maxListed], fmt.Sprintf(" and %d more", n)
		}
		out = append(out, "the list is filtered to "+list(ids, written)+more)
	default:
		out = append(out, "the token grants all of it")
	}
	if from := d.origins(written); from != "" {
		out = append(out, from)
	}
	return out
}

const (
	// maxOrigins is how many scopes of a token the reasons of a decision give the origin of.
	maxOrigins = 5
	// maxListed is how many ids of a list, and how many scopes that count, the explanation of a decision names. A token
	// can have thousands.
	maxListed = 20
)

// origins says from which claim or role the scopes are: of an allowed request those that count for it, and of a
// refused one all. It is "" if all scopes are from the only claim that is read.
func (d Decision) origins(written func(string) string) string {
	if len(d.caller.Origins) != len(d.caller.Scopes) {
		return ""
	}
	var all []string
	for i, held := range d.caller.Scopes {
		if !d.Allow || d.counts(held) {
			all = append(all, plain(written(held))+" from "+plain(written(d.caller.Origins[i])))
		}
	}
	if len(all) == 0 {
		return ""
	}
	more := ""
	if n := len(all) - maxOrigins; n > 0 {
		all, more = all[:maxOrigins], fmt.Sprintf(" and %d more", n)
	}
	return "its scopes: " + strings.Join(all, ", ") + more
}

// counts reports whether a scope of the caller contributes to this decision, which allows the request.
func (d Decision) counts(held string) bool {
	if d.Admin {
		return held == d.admin
	}
	return slices.ContainsFunc(d.narrowed(), func(need scope.Need) bool { return d.covers(held, need) })
}

// covers reports whether one scope of the caller covers a narrowed need of the request, or a part of a list.
func (d Decision) covers(held string, need scope.Need) bool {
	if d.Admin && held == d.admin {
		return true
	}
	n, ok := scope.Parse(held)
	return ok && n.Resource == need.Resource && n.Action == need.Action && (n.ID == "" || n.ID == need.ID || d.lists())
}

// lists reports whether a scope for one resource opens the route: it is a list that is filtered by scopes, or a
// route for callers that are allowed to run any agent.
func (d Decision) lists() bool {
	return (d.Route.Lists != "" || d.anyAgent()) && d.Mapping == ""
}

// anyAgent reports whether the route is for callers that are allowed to run any agent: the agents are not in its path.
func (d Decision) anyAgent() bool {
	_, param := d.Route.Resource()
	return d.Route.As != "" && param == ""
}

// narrowed returns the needs of the request, about the id in its path.
func (d Decision) narrowed() []scope.Need {
	if d.Route == nil {
		return nil
	}
	family, param := d.Route.Resource()
	out := make([]scope.Need, len(d.Need))
	for i, n := range d.Need {
		out[i] = n.On(family, d.Params[param])
	}
	return out
}

// Needs returns the scopes that the request needs, about the id in its path.
func (d Decision) Needs() []string { return texts(d.narrowed()) }

// Lacks returns Missing as texts.
func (d Decision) Lacks() []string { return texts(d.Missing) }

// Grant is a scope of the caller that covers a need of the request.
type Grant struct {
	// Scope is as the token has it, and From the claim or the role that it is from.
	Scope, From string
	// Covers is the need, one of Needs.
	Covers string
}

// Granted returns the scopes of the caller that cover a need, also of a request that is refused because of another
// need. It returns the first 20 of them.
func (d Decision) Granted() (all []Grant) {
	for _, need := range d.narrowed() {
		for i, held := range d.caller.Scopes {
			if len(all) == maxListed {
				return all
			}
			if d.covers(held, need) {
				all = append(all, Grant{held, d.caller.Origin(i), need.String()})
			}
		}
	}
	return all
}

// plain returns a text as it is, or the beginning of it in quotes if it is long or not plain.
func plain(text string) string {
	if q := quote(text); q != `"`+text+`"` {
		return q
	}
	return text
}

// maxLookalikes is how many scopes of a token an answer comments on.
const maxLookalikes = 3

// lookalikes returns a comment on each scope of the token that looks meant for a
// missing need but grants nothing, with the scope to write instead. It quotes only
// scopes of the caller's own token, so that it reveals nothing about other callers.
func (d Decision) lookalikes(written func(string) string) (out []string) {
	if d.caller == nil {
		return nil
	}
	for _, held := range d.caller.Scopes {
		for _, n := range d.Missing {
			if remedy := scope.Remedy(held, n); remedy != "" {
				out = append(out, fmt.Sprintf("%s grants nothing here: %s", quote(written(held)), written(remedy)))
				break
			}
		}
		if len(out) == maxLookalikes {
			break
		}
	}
	return out
}

// quote returns the beginning of a scope in quotes.
func quote(text string) string {
	const limit = 100
	if len(text) > limit {
		return fmt.Sprintf("%q", strings.ToValidUTF8(text[:limit], "")+"…")
	}
	return fmt.Sprintf("%q", text)
}

// list returns the texts as the configuration has them, with commas between them.
func list(texts []string, written func(string) string) string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = written(text)
	}
	return strings.Join(out, ", ")
}

func join(needs []scope.Need) string { return strings.Join(texts(needs), ", ") }

func texts(needs []scope.Need) []string {
	out := make([]string, len(needs))
	for i, n := range needs {
		out[i] = n.String()
	}
	return out
}
