package edge

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// event is what the authorizer reads of a Request. Everything else is skipped, above all the other headers, which are
// most of an event.
type event struct {
	methodARN, method, path string
	// sent is what authorization returns.
	sent              []string
	requestID, source string
}

// decode reads an event: in one pass if it is as API Gateway sends it (quick), and with encoding/json otherwise. Both
// give the same event for the same text.
func decode(data []byte) (event, error) {
	if e, ok := quick(data); ok {
		return e, nil
	}
	return slow(data)
}

// The members that are read, then those of requestContext, then that of identity in it.
const (
	methodARN = iota
	httpMethod
	path
	headers
	multiValueHeaders
	requestContext
	requestID
	identity
	sourceIP
	members
)

// names are the names of these members.
var names = [members]string{
	"methodArn", "httpMethod", "path", "headers", "multiValueHeaders", "requestContext", "requestId", "identity",
	"sourceIp",
}

// eventJSON accepts what encoding/json accepts of numbers and depth. The event's size is bounded by Lambda.
var eventJSON = strictjson.Options{MaxDepth: 9_999, AnyNumber: true}

// quick reads an event in which no name stands twice or in another case than API Gateway's; the header may have any
// case. It is false for any other text, which slow can read.
func quick(data []byte) (e event, ok bool) {
	if strictjson.Check(data, eventJSON) != nil {
		return e, false
	}
	const inContext, inIdentity = requestID, sourceIP // where these members begin
	root := strictjson.Root(string(data))             // the next event overwrites data
	var m [members]strictjson.Value
	if !root.Find(names[:inContext], m[:inContext]) {
		return e, false
	}
	if c := m[requestContext]; !c.IsNone() && !c.Find(names[inContext:inIdentity], m[inContext:inIdentity]) {
		return e, false
	}
	if i := m[identity]; !i.IsNone() && !i.Find(names[inIdentity:], m[inIdentity:]) {
		return e, false
	}
	ok = m[methodARN].ReadText(&e.methodARN) && m[httpMethod].ReadText(&e.method) && m[path].ReadText(&e.path) &&
		m[requestID].ReadText(&e.requestID) && m[sourceIP].ReadText(&e.source)
	if !ok {
		return e, false
	}
	e.sent, ok = authorizationIn(m[multiValueHeaders], true)
	single, okSingle := authorizationIn(m[headers], false)
	if len(e.sent) == 0 {
		e.sent = single
	}
	return e, ok && okSingle
}

// authorizationIn returns the values of the header in an object of lists of strings, or of strings. It is false for
// any other value.
func authorizationIn(v strictjson.Value, lists bool) (values []string, ok bool) {
	if v.IsNone() {
		return nil, true
	}
	for name, value := range v.Members() {
		switch {
		case !strings.EqualFold(name, "authorization"):
		case !lists:
			text, ok := value.Text()
			if !ok {
				return nil, false
			}
			values = append(values, text)
		case value.Raw[0] != '[':
			return nil, false
		default:
			for element := range value.Elements() {
				text, ok := element.Text()
				if !ok {
					return nil, false
				}
				values = append(values, text)
			}
		}
	}
	return values, v.Raw[0] == '{'
}

// slow reads an event with encoding/json.
func slow(data []byte) (event, error) {
	var all struct {
		MethodARN         string       `json:"methodArn"`
		Method            string       `json:"httpMethod"`
		Path              string       `json:"path"`
		Headers           eventHeaders `json:"headers"`
		MultiValueHeaders eventHeaders `json:"multiValueHeaders"`
		RequestContext    struct {
			RequestID string `json:"requestId"`
			Identity  struct {
				SourceIP string `json:"sourceIp"`
			} `json:"identity"`
		} `json:"requestContext"`
	}
	err := json.Unmarshal(data, &all)
	return event{
		methodARN: all.MethodARN, method: all.Method, path: all.Path,
		sent:      sentIn(all.MultiValueHeaders.Authorization, all.Headers.Authorization),
		requestID: all.RequestContext.RequestID, source: all.RequestContext.Identity.SourceIP,
	}, err
}

// eventHeaders has the Authorization header, in any case: encoding/json ignores the case of names.
type eventHeaders struct {
	Authorization rawValues `json:"authorization"`
}

// rawValues has the JSON of each member of one name. Without it, a second member would replace the first one.
type rawValues []json.RawMessage

// UnmarshalJSON implements json.Unmarshaler.
func (v *rawValues) UnmarshalJSON(data []byte) error {
	*v = append(*v, bytes.Clone(data))
	return nil
}

// sentIn is authorization for the members of both objects. A value that is no text counts as a wrong token.
func sentIn(lists, single rawValues) (values []string) {
	for _, raw := range lists {
		var list []string
		if json.Unmarshal(raw, &list) != nil {
			list = []string{""}
		}
		values = append(values, list...)
	}
	if len(values) > 0 {
		return values
	}
	for _, raw := range single {
		var value string
		_ = json.Unmarshal(raw, &value)
		values = append(values, value)
	}
	return values
}
