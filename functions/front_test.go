package functions_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/route"
)

// front replaces API Gateway in front of a deployment. It calls the authorizer, enforces its
// policy, and invokes the function of the route. Its own answers have API Gateway's status, and
// not its body.
type front struct {
	t          *testing.T
	base       string // the base path of a custom domain, which API Gateway leaves in the path
	authorizer *serial
	functions  map[route.Function]*serial
}

// serial is a function that receives one event at a time, as on Lambda.
type serial struct {
	mu sync.Mutex
	function
}

func (s *serial) invoke(event any) (kind string, body []byte) {
	data, err := json.Marshal(event)
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.Invoke(data, time.Minute)
	return a.Kind, a.Body()
}

// serve starts the deployment's functions behind a front.
func (d deployment) serve(env ...string) *httptest.Server {
	d.t.Helper()
	return d.front(env...).serve()
}

// front starts the deployment's functions.
func (d deployment) front(env ...string) *front {
	d.t.Helper()
	f := &front{t: d.t, base: d.base, authorizer: &serial{function: d.start("authorizer", env...)},
		functions: map[route.Function]*serial{}}
	for _, name := range []route.Function{route.Agents, route.Settings, route.Runs, route.Sessions, route.Memories} {
		f.functions[name] = &serial{function: d.start(string(name), env...)}
	}
	return f
}

// serve serves the functions over HTTP.
func (f *front) serve() *httptest.Server {
	s := httptest.NewServer(f)
	f.t.Cleanup(s.Close)
	return s
}

const stage = "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234/prod"

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	match := route.Table.Match(r.Method, r.URL.Path)
	if match.Route == nil || !match.Route.Function.OnAWS() {
		w.WriteHeader(http.StatusNotFound) // as the template's response for an unknown route
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	e := events.APIGatewayProxyRequest{
		Resource: match.Route.Pattern, HTTPMethod: r.Method, Path: f.base + r.URL.Path, PathParameters: match.Params,
		MultiValueHeaders:               r.Header,
		MultiValueQueryStringParameters: r.URL.Query(), Body: base64.StdEncoding.EncodeToString(body), IsBase64Encoded: true,
	}
	if !match.Route.Public {
		status, context := f.authorize(r, match.Route)
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		e.RequestContext.Authorizer = context
	}
	f.answer(w, match.Route.Function, e)
}

// authorize returns 200 and the authorizer's context, or the status that API Gateway answers.
func (f *front) authorize(r *http.Request, to *route.Route) (status int, context map[string]any) {
	if r.Header.Get("Authorization") == "" { // the identity source is missing
		return http.StatusUnauthorized, nil
	}
	arn := edge.MethodARN(stage, r.Method, r.URL.Path)
	kind, body := f.authorizer.invoke(events.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type: "REQUEST", MethodArn: arn, Resource: to.Pattern, Path: r.URL.Path, HTTPMethod: r.Method,
		MultiValueHeaders: r.Header,
		Headers:           map[string]string{"Authorization": r.Header.Get("Authorization")},
	})
	var answer events.APIGatewayCustomAuthorizerResponse
	switch {
	case kind == "error" && strings.Contains(string(body), `"errorMessage":"Unauthorized"`):
		return http.StatusUnauthorized, nil
	case kind == "error" || json.Unmarshal(body, &answer) != nil:
		return http.StatusInternalServerError, nil
	case !edge.Evaluate(answer.PolicyDocument, arn):
		return http.StatusForbidden, nil
	}
	return http.StatusOK, answer.Context
}

func (f *front) answer(w http.ResponseWriter, to route.Function, e events.APIGatewayProxyRequest) {
	kind, body := f.functions[to].invoke(e)
	head, rest, isStream := strings.Cut(string(body), strings.Repeat("\x00", 8))
	var answer reply
	if err := json.Unmarshal([]byte(head), &answer); err != nil || kind != "response" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if isStream {
		answer.Body = rest
	}
	for name, values := range answer.MultiValueHeaders {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.WriteString(w, answer.Body)
}
