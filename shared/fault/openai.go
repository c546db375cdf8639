package fault

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// OpenAI returns the status, the headers and the body of an error in the shape of OpenAI's API:
// {"error": {"message", "type", "param", "code", …}}. The status, the text and the headers are those of Answer, but a
// wrong query or header is 400, as all wrong requests are in that API.
//
// The header X-Should-Retry is "false" unless the error says that nothing has run and that a later request may succeed.
// OpenAI's clients send a request up to three times after 409 and 5xx otherwise.
func OpenAI(err error) (status int, header http.Header, body []byte) {
	status, header, _ = Answer(err)
	e := chosen(err)
	if e.Kind == Unprocessable {
		status = Invalid.Status()
	}
	if e.Kind != LimitReached && e.Kind != Unavailable {
		header.Set("X-Should-Retry", "false")
	}
	members := Members{
		{"message", Short(e.message())}, {"type", openAITypes[e.Kind]}, {"param", nil}, {"code", openAICodes[e.Kind]},
	}
	if len(e.Fields) > 0 {
		members[2].Value = e.Fields[0].param()
	}
	if e.Kind == Unauthenticated {
		members = append(members, Member{"hint", Hint(e.message())})
	}
	for _, m := range e.extra() {
		switch m.Name {
		case "param":
			if m.Value != "" {
				members[2].Value = m.Value
			}
		case "code":
			members[3].Value = m.Value
		default:
			members = append(members, m)
		}
	}
	body, _ = Members{{"error", members}}.MarshalJSON() // never fails
	return status, header, body
}

// openAITypes and openAICodes are the members of an error that programs compare. Kinds without a type are errors of the
// request.
var (
	openAITypes = [...]string{
		Internal: "server_error", Invalid: invalidRequest, Unprocessable: invalidRequest,
		Unauthenticated: "authentication_error", Forbidden: "permission_error", NotFound: invalidRequest,
		MethodNotAllowed: invalidRequest, Conflict: "conflict_error", TooLarge: invalidRequest,
		LimitReached: "rate_limit_error", Upstream: "server_error", Unavailable: "server_error",
		RunFailed: FinalType,
	}
	openAICodes = [...]any{
		Internal: "internal_error", Invalid: "invalid_request", Unprocessable: "invalid_value",
		Unauthenticated: "invalid_api_key", Forbidden: "insufficient_permissions", NotFound: "not_found",
		MethodNotAllowed: "method_not_allowed", Conflict: "conflict", TooLarge: "request_too_large",
		LimitReached: "rate_limit_exceeded", Upstream: "upstream_error", Unavailable: "unavailable",
		RunFailed: "run_failed",
	}
)

const invalidRequest = "invalid_request_error"

// FinalType is the type of the error of a run that has failed. AI SDK sends a request again whose stream begins with an
// error, unless the type says that the request is wrong: the agent would run again.
const FinalType = invalidRequest

// param returns the parameter of OpenAI's API that a wrong field is: nil for a header, which is none.
func (f Field) param() any {
	where, name, named := strings.Cut(f.place(), ".")
	switch {
	case where == "header":
		return nil
	case named:
		return name
	}
	return where
}

// message returns the text of the error, and for wrong fields the first of them.
func (e *Error) message() string {
	if len(e.Fields) == 0 {
		return cmp.Or(e.Detail, e.Kind.Error())
	}
	f := e.Fields[0]
	text := f.Msg
	if where := f.place(); where != "" {
		_, name, _ := strings.Cut(where, ".")
		text = cmp.Or(name, where) + ": " + text
	}
	if n := len(e.Fields) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// WriteOpenAI sends err as the answer to an HTTP request of OpenAI's API.
func WriteOpenAI(w http.ResponseWriter, err error) {
	status, header, body := OpenAI(err)
	maps.Copy(w.Header(), header)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the connection may be closed; then nothing is left to do
}
