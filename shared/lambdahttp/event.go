package lambdahttp

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// event is what is used of API Gateway's event of a REST API. Of its other members nothing is read: most of an
// event is headers, which it has twice, and facts about the caller that the authorizer has seen.
type event struct {
	method, resource, path string
	// headers are those of multiValueHeaders, or of headers if the event doesn't have these.
	headers http.Header
	// query is the query in its encoded form.
	query string
	// parameters are the names and values of the parameters in the path.
	parameters [][2]string
	body       string
	base64     bool
	// domain is the name by which the client called the API, and source its address.
	domain, source string
	// authorizer is the context that the authorizer has answered with.
	authorizer edge.Context
}

// parameter returns a parameter of the path, and "" if there is none of that name.
func (e event) parameter(name string) string {
	for _, p := range e.parameters {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

// decode reads an event. It reads the events that API Gateway sends in one pass (quick), and any other text with
// encoding/json. Both give the same event for the same text.
func decode(data []byte) (event, error) {
	if e, ok := quick(data); ok {
		return e, nil
	}
	return slow(data)
}

// slow reads an event with encoding/json and AWS's own adapter: one with two members of one name, with names in another
// case, or with text that is not UTF-8. It is also what the fuzz test compares quick with.
func slow(data []byte) (e event, err error) {
	var all struct {
		HTTPMethod                      string              `json:"httpMethod"`
		Resource                        string              `json:"resource"`
		Path                            string              `json:"path"`
		Headers                         map[string]string   `json:"headers"`
		MultiValueHeaders               map[string][]string `json:"multiValueHeaders"`
		QueryStringParameters           map[string]string   `json:"queryStringParameters"`
		MultiValueQueryStringParameters map[string][]string `json:"multiValueQueryStringParameters"`
		PathParameters                  map[string]string   `json:"pathParameters"`
		Body                            string              `json:"body"`
		IsBase64Encoded                 bool                `json:"isBase64Encoded"`
		RequestContext                  struct {
			DomainName string `json:"domainName"`
			Identity   struct {
				SourceIP string `json:"sourceIp"`
			} `json:"identity"`
			Authorizer map[string]any `json:"authorizer"`
		} `json:"requestContext"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return e, err
	}
	e = event{
		method: all.HTTPMethod, resource: all.Resource, path: all.Path, body: all.Body,
		base64: all.IsBase64Encoded, domain: all.RequestContext.DomainName, source: all.RequestContext.Identity.SourceIP,
	}
	for name, value := range all.RequestContext.Authorizer {
		switch v := value.(type) {
		case string:
			e.authorizer.Set(name, v)
		case nil:
			e.authorizer.SetNull()
		default:
			e.authorizer.SetOther(name)
		}
	}
	r, err := new(core.RequestAccessor).EventToRequest(events.APIGatewayProxyRequest{
		HTTPMethod: http.MethodGet, Path: "/", Headers: all.Headers, MultiValueHeaders: all.MultiValueHeaders,
		QueryStringParameters:           all.QueryStringParameters,
		MultiValueQueryStringParameters: all.MultiValueQueryStringParameters,
	})
	if err != nil {
		return e, err
	}
	e.headers, e.query = r.Header, r.URL.Query().Encode() // AWS's adapter writes the query in any order
	for _, name := range slices.Sorted(maps.Keys(all.PathParameters)) {
		e.parameters = append(e.parameters, [2]string{name, all.PathParameters[name]})
	}
	return e, nil
}

// eventJSON accepts what encoding/json accepts of numbers and depth. The event's size is bounded by Lambda.
var eventJSON = strictjson.Options{MaxDepth: 9_999, AnyNumber: true}

// quick reads an event in which no name stands twice or in another case than API Gateway's. It is false for any other
// text, which slow can read.
func quick(data []byte) (e event, ok bool) {
	if strictjson.Check(data, eventJSON) != nil {
		return e, false
	}
	// One copy, of which all texts of the request are parts: the next event overwrites data.
	m, ok := membersOf(strictjson.Root(string(data)))
	if !ok {
		return e, false
	}
	e.base64 = m[isBase64Encoded].Raw == "true"
	ok = (e.base64 || m[isBase64Encoded].IsNone() || m[isBase64Encoded].Raw == "false") &&
		m[httpMethod].ReadText(&e.method) && m[resource].ReadText(&e.resource) && m[path].ReadText(&e.path) &&
		m[body].ReadText(&e.body) && m[domainName].ReadText(&e.domain) && m[sourceIP].ReadText(&e.source) &&
		e.readParameters(m[pathParameters]) && e.readAuthorizer(m[authorizer])
	if !ok {
		return e, false
	}
	headers, lists := m[multiValueHeaders], true
	if headers.IsNone() {
		headers, lists = m[singleHeaders], false
	}
	if e.headers, ok = values(headers, lists, http.CanonicalHeaderKey); !ok {
		return e, false
	}
	same := func(name string) string { return name }
	query, ok := values(m[multiValueQuery], true, same)
	if ok && len(query) == 0 {
		query, ok = values(m[singleQuery], false, same)
	}
	if len(query) > 0 {
		e.query = url.Values(query).Encode()
	}
	return e, ok
}

// isObject reports whether a value is an object, absent or null.
func isObject(v strictjson.Value) bool { return v.IsNone() || v.Raw[0] == '{' }

// values reads an object of lists of strings, or one of strings. It is false if key makes one name of two, and for an
// empty list, which API Gateway doesn't send.
func values(v strictjson.Value, lists bool, key func(string) string) (all map[string][]string, ok bool) {
	all = map[string][]string{}
	if v.IsNone() {
		return all, true
	}
	texts := make([]string, 0, expectedHeaders) // of all names, so that most objects need one allocation
	add := func(v strictjson.Value) bool {
		s, ok := v.Text()
		texts = append(texts, s)
		return ok
	}
	for name, value := range v.Members() {
		name = key(name)
		start := len(texts)
		if lists {
			for element := range value.Elements() {
				if !add(element) {
					return nil, false
				}
			}
		} else if !add(value) {
			return nil, false
		}
		if _, twice := all[name]; twice || len(texts) == start {
			return nil, false
		}
		all[name] = texts[start:len(texts):len(texts)]
	}
	return all, isObject(v)
}

// readParameters reads the parameters of the path.
func (e *event) readParameters(v strictjson.Value) bool {
	if v.IsNone() {
		return true
	}
	for name, value := range v.Members() {
		parameter := [2]string{name}
		// A route has few parameters, so a search is fast. More of them are slow's matter.
		twice := slices.ContainsFunc(e.parameters, func(p [2]string) bool { return p[0] == name })
		if twice || len(e.parameters) == maxParameters || !value.ReadText(&parameter[1]) {
			return false
		}
		e.parameters = append(e.parameters, parameter)
	}
	slices.SortFunc(e.parameters, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return isObject(v)
}

// readAuthorizer reads the context of the authorizer. It is false if a name stands twice.
func (e *event) readAuthorizer(v strictjson.Value) bool {
	if v.IsNone() {
		return true
	}
	var room [2 * expectedContext]string // on the stack
	seen := room[:0]
	for name, value := range v.Members() {
		// The authorizer writes some 12 members, and API Gateway adds two.
		if slices.Contains(seen, name) || len(seen) == cap(seen) {
			return false
		}
		seen = append(seen, name)
		switch value.Raw[0] {
		case '"':
			said, ok := value.Text()
			if !ok {
				return false
			}
			e.authorizer.Set(name, said)
		case 'n':
			e.authorizer.SetNull()
		case 't', 'f':
			e.authorizer.SetOther(name)
		case '{', '[': // API Gateway sends none; slow checks what is in it
			return false
		default:
			if _, err := strconv.ParseFloat(value.Raw, 64); err != nil {
				return false
			}
			e.authorizer.SetOther(name)
		}
	}
	return isObject(v)
}

const (
	// expectedHeaders and expectedContext are the numbers for which memory is reserved at once.
	expectedHeaders = 24
	expectedContext = 16
	// maxParameters is the number of parameters in a path that quick reads.
	maxParameters = 8
)

// The members of an event that are read, then those of its object requestContext, then those of identity in that.
const (
	httpMethod = iota
	resource
	path
	singleHeaders
	multiValueHeaders
	singleQuery
	multiValueQuery
	pathParameters
	body
	isBase64Encoded
	requestContext
	domainName
	identity
	authorizer
	sourceIP
	members
)

// names are the names of these members.
var names = [members]string{
	"httpMethod", "resource", "path", "headers", "multiValueHeaders", "queryStringParameters",
	"multiValueQueryStringParameters", "pathParameters", "body", "isBase64Encoded", "requestContext",
	"domainName", "identity", "authorizer", "sourceIp",
}

// membersOf finds the members. It is false if one stands twice, or a name has another case: encoding/json ignores the
// case.
func membersOf(root strictjson.Value) (found [members]strictjson.Value, ok bool) {
	const inContext, inIdentity = domainName, sourceIP // where these members begin
	if !root.Find(names[:inContext], found[:inContext]) {
		return found, false
	}
	if c := found[requestContext]; !c.IsNone() && !c.Find(names[inContext:inIdentity], found[inContext:inIdentity]) {
		return found, false
	}
	i := found[identity]
	return found, i.IsNone() || i.Find(names[inIdentity:], found[inIdentity:])
}
