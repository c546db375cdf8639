package authz

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Log writes the decisions, one line each. The gateway, the authorizer and the
// functions write the same lines, so that one query finds them all. A nil *Log writes
// nothing.
type Log struct {
	out     *slog.Logger
	refused *slog.Logger
	config  string
	agents  []string
	sampled samples
}

// configDigits is how many hex digits of the configuration's digest a line contains.
const configDigits = 12

// NewLog returns a log for the decisions of one configuration. digest is the SHA-256 of
// the configuration in hex. Each line contains its beginning, so that a line can be
// explained after the configuration has changed. agents are the ids of the declared
// agents; a line contains no other id.
func NewLog(out *slog.Logger, digest string, agents []string) *Log {
	return &Log{out: out, refused: out, config: digest[:min(len(digest), configDigits)], agents: agents}
}

// RefusalsTo makes l write refusals to another logger, so that they can't displace what was allowed. It must be called
// before the first Write.
func (l *Log) RefusalsTo(refused *slog.Logger) *Log {
	l.refused = refused
	return l
}

// Entry is one line of the log: a request and the decision about it.
type Entry struct {
	// RequestID identifies the request. Defaults to "": the decision was made again
	// when a run was resumed.
	RequestID string
	// Method is the method as it was sent.
	Method string
	// Source is the address that the request came from. Defaults to "": it is not known.
	Source string
	// Principal is nil without a valid token.
	Principal *Principal
	// Token is the hash of a token that was refused. A Principal has its own.
	Token string
	// Decision is what Decide returned.
	Decision Decision
	// Err is the answer to the caller, or nil if the request is allowed.
	Err error
	// Cause is what the operator should know besides about a token that was refused: the issuer, audience or client that
	// it has, and the expected ones. Defaults to "".
	Cause string
	// Began is when the verification of the token and the decision began.
	Began time.Time
}

// maxScopeText is how many bytes of scopes a line contains. If a token has more, the
// line contains their size instead, so that a caller can't fill the log with long
// tokens.
const maxScopeText = 8 << 10

// maxCause is how many bytes of the cause of a refusal a line contains.
const maxCause = 1 << 10

// Write logs a decision. It writes nothing about a request that needs no token. The
// line never contains a token, a subject or a path. Of equal refusals it writes the first ones of a minute and the
// number of the others: a caller that sends many requests without permission must not fill the log. Of the ids in a
// path it contains only that of a declared agent: the client chooses the path, and the log must not store text of the
// client's choice.
func (l *Log) Write(ctx context.Context, e Entry) {
	if l == nil || e.Decision.Open || !l.out.Enabled(ctx, slog.LevelInfo) {
		return
	}
	var room [22]slog.Attr // on the stack
	a := appendText(room[:0], "request_id", e.RequestID)
	a = appendText(a, "source", e.Source)
	a = append(a, slog.Bool("allow", e.Err == nil))
	a = e.outcome(a)
	a = e.caller(a)
	id, declared := l.agent(e.Decision)
	a = e.Decision.attrs(a, e.Method, id, declared)
	a = append(a, slog.String("config", l.config), slog.Int64("us", time.Since(e.Began).Microseconds()))
	if !declared {
		id = ""
	}
	write, left := l.sampled.take(e, id, a)
	l.count(ctx, left)
	switch {
	case e.Err == nil:
		logging.Write(ctx, l.out, slog.LevelInfo, "decision", a...)
	case write:
		logging.Write(ctx, l.refused, slog.LevelInfo, "decision", a...)
	}
}

// Flush writes how many refusals of the current minute were not written. Call it when no more decisions follow.
func (l *Log) Flush() {
	if l != nil {
		l.count(context.Background(), l.sampled.rest())
	}
}

// count writes how many refusals were not written.
func (l *Log) count(ctx context.Context, left []tally) {
	for _, t := range left {
		logging.Write(ctx, l.refused, slog.LevelInfo, "decision", append(t.attrs, slog.Int("times", t.left))...)
	}
}

// outcome appends the status of a refusal, and its reason unless that follows from
// other members: a 403's follows from need and missing.
func (e Entry) outcome(a []slog.Attr) []slog.Attr {
	if e.Err == nil {
		return a
	}
	kind := fault.KindOf(e.Err)
	a = append(a, slog.Int("status", kind.Status()))
	switch kind {
	case fault.Unauthenticated, fault.NotFound, fault.MethodNotAllowed:
		a = append(a, slog.String("reason", fault.Detail(e.Err)))
	}
	return appendText(a, "cause", strings.ToValidUTF8(e.Cause[:min(len(e.Cause), maxCause)], ""))
}

// caller appends who sent the request: hashes instead of subject and token, and the
// scopes, which explain the decision.
func (e Entry) caller(a []slog.Attr) []slog.Attr {
	p := e.Principal
	if p == nil {
		return appendText(a, "token", e.Token)
	}
	a = appendText(a, "principal", p.Hash)
	a = appendText(a, "token", p.TokenHash)
	size := bytesOf(p.Scopes)
	switch {
	case size > maxScopeText:
		return append(a, slog.Int("scopes_bytes", size))
	case len(p.Scopes) == 0:
		return appendText(a, "no_scopes", p.NoScopes())
	}
	a = append(a, slog.Any("scopes", p.Scopes))
	switch size := bytesOf(p.Origins); {
	case len(p.Origins) == 0:
		return a
	case size > maxScopeText:
		a = append(a, slog.Int("origins_bytes", size))
	default:
		a = append(a, slog.Any("origins", p.Origins))
	}
	return appendText(a, "issuer", p.Realm) // the grants of which entry counted
}

func bytesOf(list []string) (size int) {
	for _, s := range list {
		size += len(s)
	}
	return size
}

// agent returns the id in the path of a route about one agent, and whether it is that of a declared agent.
func (l *Log) agent(d Decision) (id string, declared bool) {
	if d.Route != nil {
		_, param := d.Route.Resource()
		id = d.Params[param]
	}
	return id, slices.Contains(l.agents, id)
}

// attrs appends the route and what it needs. id is that of the agent in the path.
func (d Decision) attrs(a []slog.Attr, method, id string, declared bool) []slog.Attr {
	a = append(a, slog.String("method", logging.Method(method)))
	if d.Route == nil {
		return a
	}
	a = append(a, slog.String("route", d.Route.String()))
	if declared {
		a = append(a, slog.String("agent", id))
	}
	if len(d.Need) > 0 {
		a = append(a, slog.Any("need", texts(d.Need)))
	}
	if len(d.Missing) > 0 {
		a = append(a, slog.Any("missing", texts(withoutID(d.Missing, id, declared))))
	}
	a = appendText(a, "mapping", d.Mapping)
	if d.Admin {
		a = append(a, slog.Bool("admin", true))
	}
	if d.Allow && !d.AllIDs {
		a = append(a, slog.Bool("filtered", true))
	}
	return a
}

// withoutID removes an id that must not be logged from the needs that it narrows.
func withoutID(needs []scope.Need, id string, logged bool) []scope.Need {
	if logged || id == "" {
		return needs
	}
	out := make([]scope.Need, len(needs))
	for i, n := range needs {
		if out[i] = n; n.ID == id {
			out[i].ID = ""
		}
	}
	return out
}

func appendText(a []slog.Attr, name, text string) []slog.Attr {
	if text == "" {
		return a
	}
	return append(a, slog.String(name, text))
}
