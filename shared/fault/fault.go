// Package fault names the few kinds of errors that a caller can distinguish. It
// decides, in one table, which HTTP status and which AgentOS body each kind becomes.
// It doesn't know what caused an error.
package fault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind is a class of errors with one HTTP status. A Kind is an error itself, so that a
// package can wrap it to classify what happened:
//
//	fmt.Errorf("session %q: %w", id, fault.NotFound)
//
// The zero Kind is Internal. An error that wraps no Kind counts as Internal, and the
// HTTP client gets no detail of it.
type Kind int

// The kinds, with their HTTP status.
const (
	// Internal is an error of this program or of what it depends on: 500.
	Internal Kind = iota
	// Invalid is a request, a setting or a key that can't be used as it is: 400.
	Invalid
	// Unprocessable is a request with wrong or missing fields: 422, as in FastAPI.
	Unprocessable
	// Unauthenticated is a request without a valid token: 401.
	Unauthenticated
	// Forbidden is a request whose token does not grant what it needs: 403.
	Forbidden
	// NotFound is what doesn't exist, or what the caller is not allowed to know of: 404.
	NotFound
	// MethodNotAllowed is a path that is served for other methods: 405.
	MethodNotAllowed
	// Conflict is a request that the current state does not allow: 409.
	Conflict
	// TooLarge is a request body over the limit: 413.
	TooLarge
	// LimitReached is a request that a limit of its caller, its agent or the OS does not allow now: 429.
	LimitReached
	// Upstream is an error of a model's provider or of a tool's server: 502.
	Upstream
	// RunFailed is a run that failed after it had begun, for clients that repeat a request after any status that they
	// don't know as final: 400.
	RunFailed
	// Unavailable is an error that may be gone at the next try: 503.
	Unavailable
)

// kinds is the one table: kind → status, and the detail that the caller sees if no
// package chose a better one. The texts are AgentOS's or Starlette's where these have
// such an answer.
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
	LimitReached:     {http.StatusTooManyRequests, "A limit is reached, try again later"},
	Upstream:         {http.StatusBadGateway, "An upstream service failed"},
	RunFailed:        {http.StatusBadRequest, "The run failed"},
	Unavailable:      {http.StatusServiceUnavailable, "Service unavailable, try again"},
}

// Error returns the default detail of the kind.
func (k Kind) Error() string { return kinds[k].detail }

// Status returns the HTTP status of the kind.
func (k Kind) Status() int { return kinds[k].status }

// Error is an error with a text for the caller. Somebody chose that text on purpose,
// so that no internal detail reaches the caller by accident.
type Error struct {
	// Kind decides the status. Defaults to Internal.
	Kind Kind
	// Detail is the text for the caller. Defaults to the text of the Kind.
	Detail string
	// Fields replaces Detail in the body, as in FastAPI's 422. Defaults to none.
	Fields []Field
	// Extra are members of the body that follow "detail". Defaults to none.
	Extra Members
	// RetryAfter becomes the header Retry-After, in whole seconds, rounded up.
	// Defaults to 0: no header.
	RetryAfter time.Duration
	// Header are further response headers, such as Allow and WWW-Authenticate. They
	// replace headers of the same name. Defaults to none.
	Header http.Header
	// Cause is for the log only. Defaults to nil.
	Cause error
}

// Member is one member of a JSON object.
type Member struct {
	Name  string
	Value any
}

// Members is a JSON object that keeps the order of its members. AgentOS's answers have
// a fixed order, which a Go map would lose.
type Members []Member

// MarshalJSON writes the members in their order. A value that can't be encoded becomes
// null, so that an error always has a body.
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

// Field is one error in one input, in the shape and member order of FastAPI's 422.
type Field struct {
	// Type is pydantic's name of the error, such as "missing".
	Type string `json:"type"`
	// Loc is where the input is, such as "body", "message" or "query", "limit".
	Loc []any `json:"loc"`
	// Msg describes the error, in pydantic's words.
	Msg string `json:"msg"`
	// Input is what was sent, or nil.
	Input any `json:"input"`
	// Ctx are the values in Msg, such as a limit.
	Ctx Members `json:"ctx,omitempty"`
}

// Public returns an error whose detail is shown to the caller. The cause reaches only
// the log, and may be nil. An empty detail becomes the text of the kind.
func Public(k Kind, detail string, cause error) *Error {
	return &Error{Kind: k, Detail: detail, Cause: cause}
}

// Fields returns the 422 that names each wrong input.
func Fields(fields ...Field) *Error { return &Error{Kind: Unprocessable, Fields: fields} }

// Missing returns FastAPI's error for a required input that is absent.
func Missing(loc ...any) Field { return Field{Type: "missing", Loc: loc, Msg: "Field required"} }

// Error returns the text for the log: the detail, or the first field's message, and
// the cause.
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

// Unwrap returns both the kind and the cause, so that errors.Is works with either.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// KindOf returns the kind of err, and Internal for an error without one. The outermost
// *Error counts: a package that translates an error of another package decides what
// the caller sees, whatever kinds are in the cause.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return Internal
}

// Detail returns the text of err that may be shown to the caller.
func Detail(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return cmp.Or(e.Detail, e.Kind.Error())
	}
	return KindOf(err).Error()
}

// Cause returns what caused err, for the log of an error whose Detail must not be there: the
// text of a model's server may repeat the conversation. It is err itself if err has no
// Detail, and nil if only the Detail is known.
func Cause(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Cause
	}
	return err
}

// MaxText is how many bytes of a text the answer to an error has. The text may name what the caller sent, such as an id
// in the path. The rest becomes "...", and a header with a longer text is left out.
const MaxText = 2 << 10

// Short returns the text with at most MaxText bytes, and "..." if it was longer.
func Short(text string) string {
	if len(text) <= MaxText {
		return text
	}
	return strings.ToValidUTF8(text[:MaxText], "") + "..." // the cut may have split a character
}

// Reason returns what a log may say about err. For an error of the server it is the cause, and for an error of the
// caller only the kind and the names of wrong fields: the other texts may repeat what the caller sent.
func Reason(err error) string {
	k := KindOf(err)
	if k.Status() >= http.StatusInternalServerError {
		if cause := Cause(err); cause != nil {
			return cause.Error()
		}
		return k.Error()
	}
	text := k.Error()
	if e, ok := errors.AsType[*Error](err); ok {
		for i, f := range e.Fields[:min(len(e.Fields), maxReasons)] {
			text += [...]string{": ", ", "}[min(i, 1)] + f.place() + " " + f.Type
		}
	}
	return text
}

// maxReasons is how many wrong fields a log names.
const maxReasons = 3

// place returns where the field is declared, such as body.message. Deeper members may be names of the caller's choice.
func (f Field) place() string {
	var names []string
	for _, part := range f.Loc[:min(len(f.Loc), 2)] {
		if name, ok := part.(string); ok && len(name) <= 64 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ".")
}

// Answer returns the status, the headers and the AgentOS body of an error:
// {"detail": text | [{type, loc, msg, input}], …}. A 401 has the member "hint" and the
// header WWW-Authenticate, which say what is wrong with the token and what to do. No answer is stored
// by a cache or read as another media type.
func Answer(err error) (status int, header http.Header, body []byte) {
	e := chosen(err)
	k := e.Kind
	header = http.Header{
		"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
	}
	if k == Unauthenticated {
		header.Set("WWW-Authenticate", challenge(cmp.Or(e.Detail, k.Error())))
	}
	if k == Internal { // nobody knows what the request has caused; see OpenAI
		header.Set("X-Should-Retry", "false")
	}
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	maps.Copy(header, e.Header)
	maps.DeleteFunc(header, func(_ string, values []string) bool { return len(strings.Join(values, "")) > MaxText })
	return k.Status(), header, e.body()
}

// chosen returns the outermost *Error, or one of the kind of err without a text.
func chosen(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: KindOf(err)}
}

func (e *Error) body() []byte {
	members := Members{{"detail", Short(cmp.Or(e.Detail, e.Kind.Error()))}}
	if len(e.Fields) > 0 {
		members[0].Value = e.Fields
	}
	if e.Kind == Unauthenticated {
		members = append(members, Member{"hint", Hint(cmp.Or(e.Detail, e.Kind.Error()))})
	}
	body, _ := append(members, e.extra()...).MarshalJSON() // never fails
	return body
}

// extra returns the members of Extra with short texts.
func (e *Error) extra() (out Members) {
	for _, m := range e.Extra {
		switch v := m.Value.(type) {
		case string:
			m.Value = Short(v)
		case []string:
			short := make([]string, len(v))
			for i := range v {
				short[i] = Short(v[i])
			}
			m.Value = short
		}
		out = append(out, m)
	}
	return out
}

// Write sends err as the answer to an HTTP request.
func Write(w http.ResponseWriter, err error) {
	status, header, body := Answer(err)
	maps.Copy(w.Header(), header)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the connection may be closed; then nothing is left to do
}

// encode is json.Marshal without the escaping of <, > and &, which AgentOS doesn't do
// either. It returns null for a value that can't be encoded.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
