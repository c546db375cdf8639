package authz

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Log writes decisions, one line each, wherever they are made. A nil *Log writes
// nothing.
type Log struct {
	out    *slog.Logger
	config string
}

// configDigits is how much of a configuration's digest a line holds.
const configDigits = 12

// NewLog makes the log of what one configuration decides; digest is its own, in hex.
func NewLog(out *slog.Logger, digest string) *Log {
	return &Log{out: out, config: digest[:min(len(digest), configDigits)]}
}

// Entry is a decision about one request, and what became of it.
type Entry struct {
	RequestID string // "": it is about a run that is taken up again
	Method    string
	Principal *Principal // nil: no valid token
	Token     string     // the hash of a refused token; a Principal knows its own
	Decision  Decision
	Err       error     // what the caller is told; nil: the request goes on
	Began     time.Time // when deciding began
}

// maxScopeText is how many bytes of scopes a line holds; of more, it tells their size.
const maxScopeText = 8 << 10

// Write logs a decision. A request that asks for no token is none. The line never
// holds a token, a subject, a path, or an id in it other than a plain agent's.
func (l *Log) Write(ctx context.Context, e Entry) {
	if l == nil || e.Decision.Open || !l.out.Enabled(ctx, slog.LevelInfo) {
		return
	}
	var room [20]slog.Attr // on the stack
	a := appendText(room[:0], "request_id", e.RequestID)
	a = append(a, slog.Bool("allow", e.Err == nil))
	a = e.outcome(a)
	a = e.caller(a)
	a = e.Decision.attrs(a, e.Method)
	a = append(a, slog.String("config", l.config), slog.Int64("us", time.Since(e.Began).Microseconds()))
	l.out.LogAttrs(ctx, slog.LevelInfo, "decision", a...)
}

// outcome is how the caller was refused. The text of a 403 follows from need and
// missing.
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
	return a
}

func (e Entry) caller(a []slog.Attr) []slog.Attr {
	p := e.Principal
	if p == nil {
		return appendText(a, "token", e.Token)
	}
	a = append(a, slog.String("principal", p.SubjectHash()))
	a = appendText(a, "token", p.TokenHash)
	size := 0
	for _, s := range p.Scopes {
		size += len(s)
	}
	switch {
	case size > maxScopeText:
		return append(a, slog.Int("scopes_bytes", size))
	case len(p.Scopes) > 0:
		return append(a, slog.Any("scopes", p.Scopes))
	}
	return a
}

// attrs is what was asked for and what it needs.
func (d Decision) attrs(a []slog.Attr, method string) []slog.Attr {
	if isMethod(method) {
		a = append(a, slog.String("method", method))
	}
	if d.Route == nil {
		return a
	}
	a = append(a, slog.String("route", d.Route.String()))
	_, param := d.Route.Resource()
	id := d.Params[param]
	plain := isPlain(id)
	if plain {
		a = append(a, slog.String("agent", id))
	}
	if len(d.Need) > 0 {
		a = append(a, slog.Any("need", texts(d.Need)))
	}
	if len(d.Missing) > 0 {
		a = append(a, slog.Any("missing", texts(withoutID(d.Missing, id, plain))))
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

// withoutID takes an id that is not to be logged out of the needs that it narrows.
func withoutID(needs []scope.Need, id string, plain bool) []scope.Need {
	if plain || id == "" {
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

// isMethod: a client may put any text where the method belongs.
func isMethod(s string) bool {
	return len(s) <= len(http.MethodOptions) && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// isPlain reports whether an id from a path is fit for a log: [A-Za-z0-9._-]{1,64}.
func isPlain(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
