// Package fault names the few kinds of failure and decides, in one table, which
// HTTP status and which AgentOS body each kind becomes.
// It knows nothing of where a failure came from.
package fault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Kind is a failure that a caller can tell from the others. It is an error, so
// that a package says what happened with fmt.Errorf("session %q: %w", id, fault.NotFound).
type Kind int

// The zero Kind is Internal: an error that nobody classified shows no detail.
const (
	Internal Kind = iota
	Invalid
	Unprocessable
	Unauthenticated
	Forbidden
	NotFound
	MethodNotAllowed
	Conflict
	TooLarge
	Upstream
	Unavailable
)

// kinds is the one table: kind → status, and the text shown when nobody chose one.
var kinds = [...]struct {
	status int
	detail string
}{
	Internal:         {http.StatusInternalServerError, "Internal server error"},
	Invalid:          {http.StatusBadRequest, "Bad request"},
	Unprocessable:    {http.StatusUnprocessableEntity, "Unprocessable request"},
	Unauthenticated:  {http.StatusUnauthorized, "Missing, invalid or expired token"},
	Forbidden:        {http.StatusForbidden, "Insufficient permissions"},
	NotFound:         {http.StatusNotFound, "Not Found"},
	MethodNotAllowed: {http.StatusMethodNotAllowed, "Method Not Allowed"},
	Conflict:         {http.StatusConflict, "Conflict"},
	TooLarge:         {http.StatusRequestEntityTooLarge, "Request body is too large"},
	Upstream:         {http.StatusBadGateway, "An upstream service failed"},
	Unavailable:      {http.StatusServiceUnavailable, "Service unavailable, try again"},
}

// Error returns the kind's own text, the one a caller sees when no better was chosen.
func (k Kind) Error() string { return kinds[k].detail }

// Status returns the HTTP status of the kind.
func (k Kind) Status() int { return kinds[k].status }

// Error is a failure whose public side was chosen on purpose: Detail (or Fields)
// reaches the caller, Cause only the log.
type Error struct {
	Kind       Kind
	Detail     string
	Fields     []Field       // when set, the body's detail is this list (FastAPI's 422)
	Extra      Members       // further members of the body, after detail
	RetryAfter time.Duration // > 0 becomes Retry-After
	Header     http.Header   // further response headers (Allow, WWW-Authenticate)
	Cause      error
}

// Member is one member of a JSON object that keeps its order.
type Member struct {
	Name  string
	Value any
}

// Members is a JSON object that keeps its order.
type Members []Member

// MarshalJSON writes the members in their order.
func (ms Members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encode(m.Name))
		b.WriteByte(':')
		b.Write(encode(m.Value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Field is one complaint about one input, in FastAPI's shape and field order.
type Field struct {
	Type  string  `json:"type"`
	Loc   []any   `json:"loc"`
	Msg   string  `json:"msg"`
	Input any     `json:"input"`
	Ctx   Members `json:"ctx,omitempty"`
}

// Public makes an error whose detail the caller may read. cause may be nil.
func Public(k Kind, detail string, cause error) *Error {
	return &Error{Kind: k, Detail: detail, Cause: cause}
}

// Fields makes the 422 that names each offending input.
func Fields(fields ...Field) *Error { return &Error{Kind: Unprocessable, Fields: fields} }

// Missing is the complaint FastAPI makes of an absent required input.
func Missing(loc ...any) Field { return Field{Type: "missing", Loc: loc, Msg: "Field required"} }

func (e *Error) Error() string {
	text := cmp.Or(e.Detail, e.Kind.Error())
	if len(e.Fields) > 0 {
		text = e.Fields[0].Msg
	}
	if e.Cause != nil {
		return text + ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives both the kind and the cause, so errors.Is works with either.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// KindOf finds the kind of err; an error without one is Internal. A chosen
// public face wins over kinds deeper in its cause.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return Internal
}

// Detail is the text of err that a caller may read.
func Detail(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return cmp.Or(e.Detail, e.Kind.Error())
	}
	return KindOf(err).Error()
}

// Answer turns err into status, headers and the AgentOS body
// {"detail": text | [{type, loc, msg, input}], …}. A 401 says in its member hint
// and in WWW-Authenticate what is wrong with the token and what to do.
func Answer(err error) (status int, header http.Header, body []byte) {
	k := KindOf(err)
	e := &Error{Kind: k, Detail: Detail(err)}
	if chosen, ok := errors.AsType[*Error](err); ok {
		e = chosen
	}
	header = http.Header{"Content-Type": {"application/json"}}
	if k == Unauthenticated {
		header.Set("WWW-Authenticate", challenge(cmp.Or(e.Detail, k.Error())))
	}
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	maps.Copy(header, e.Header)
	return k.Status(), header, e.body()
}

func (e *Error) body() []byte {
	members := Members{{"detail", cmp.Or(e.Detail, e.Kind.Error())}}
	if len(e.Fields) > 0 {
		members[0].Value = e.Fields
	}
	if e.Kind == Unauthenticated {
		members = append(members, Member{"hint", Hint(cmp.Or(e.Detail, e.Kind.Error()))})
	}
	body, _ := append(members, e.Extra...).MarshalJSON() // what can't be encoded is null in it
	return body
}

// Write answers an HTTP request with err.
func Write(w http.ResponseWriter, err error) {
	status, header, body := Answer(err)
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; there is nobody to tell
}

// encode is json.Marshal without the escaping of <, > and &.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
