// Package functions_test runs the built functions, as they are deployed, on a Lambda
// Runtime API and a real database.
package functions_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// names are the programs. Each is built once for all tests.
var names = []string{"agents", "config", "runs", "sessions", "memories", "migrate", "worker", "authorizer"}

var programs string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	devpg.HoldIfAsked() // this binary then only keeps PostgreSQL running, and is not a test
	var err error
	if programs, err = os.MkdirTemp("", "functions"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(programs)
	for _, name := range names {
		if err := lambdatest.Build(context.Background(), source(name), filepath.Join(programs, name)); err != nil {
			panic(err)
		}
	}
	return storetest.Main(m)
}

func source(name string) string {
	if name == "authorizer" {
		return "../authorizer"
	}
	return "./" + name
}

const keyway = `{"agents":[{"id":"a","model":"openai:gpt-4o","tools":["hackernews"]},{"id":"b","model":"demo:x",` +
	`"name":"Bee"}],` +
	`"auth":{"keys":[{"secret":"${JWT_KEY_SECRET}"}]},"database":{"url":"${DATABASE_URL}"},"id":"test-os",` +
	`"public_url":"https://agents.example.com/prod","doors":{"mcp":{"enabled":true},"openai":{"enabled":true}}}`

// deployment is one OS: a configuration, a database and a model.
type deployment struct {
	t     *testing.T
	dir   string
	db    string // the URL with which the functions log in
	owner string // the same database, for its owner, with which migrate logs in
	base  string
	model *modeltest.Server
}

func deploy(t *testing.T, configuration string, scripts ...modeltest.Script) deployment {
	t.Helper()
	d := deployment{t: t, dir: t.TempDir(), owner: storetest.URL(t), model: modeltest.NewServer(t, scripts...)}
	d.db = asRole(t, d.owner)
	if err := os.WriteFile(filepath.Join(d.dir, "keyway.json"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// function is one running function of a deployment.
type function struct {
	*lambdatest.Function
	t *testing.T
}

// start starts a function with the environment that the template gives it.
func (d deployment) start(name string, env ...string) function {
	d.t.Helper()
	env = append(env, "LAMBDA_TASK_ROOT="+d.dir, "AWS_LAMBDA_FUNCTION_NAME="+name)
	switch name {
	case "migrate":
		env = append(env, "DATABASE_URL="+d.owner, "DATABASE_ROLE="+role)
	case "sessions", "memories":
		env = append(env, "DATABASE_URL="+d.db)
	case "runs", "worker":
		env = append(env, "DATABASE_URL="+d.db, "OPENAI_BASE_URL="+d.model.URL, "OPENAI_API_KEY=sk-test")
	}
	return function{lambdatest.Start(d.t, filepath.Join(programs, name), env...), d.t}
}

// request is an event of API Gateway. Without scopes it has no principal.
type request struct {
	method, path string
	scopes       string // separated by spaces
	sub          string // defaults to ann
	jti          string
	limits       limit.Limits // of the caller; defaults to none
	headers      map[string]string
	body         string
	limit        time.Duration // defaults to a minute
}

func (r request) event(t *testing.T) []byte {
	t.Helper()
	path, query, _ := strings.Cut(r.path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	e := events.APIGatewayProxyRequest{HTTPMethod: r.method, Path: path, MultiValueQueryStringParameters: values,
		Body: r.body, MultiValueHeaders: map[string][]string{}}
	for name, value := range r.headers {
		e.MultiValueHeaders[name] = []string{value}
	}
	e.RequestContext.RequestID = "always-the-same" // as with sam local
	if r.scopes != "" {
		scopes, _ := json.Marshal(strings.Fields(r.scopes))
		e.RequestContext.Authorizer = map[string]any{"principalId": "x", "sub": cmp.Or(r.sub, "ann"),
			"audience": "both", "jti": r.jti, "scopes": string(scopes), "exp": fmt.Sprint(time.Now().Add(time.Hour).Unix())}
		if text := r.limits.Text(); text != "" {
			e.RequestContext.Authorizer["limits"] = text
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// reply is a whole answer.
type reply struct {
	StatusCode        int
	MultiValueHeaders http.Header
	Body              string
}

func (r reply) want(t *testing.T, what string, status int, texts ...string) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("%s: %d, want %d: %.500s", what, r.StatusCode, status, r.Body)
	}
	for _, text := range texts {
		if !strings.Contains(r.Body, text) {
			t.Errorf("%s: no %s in %.1000s", what, text, r.Body)
		}
	}
}

// ask sends a request and reads all of the answer, streamed or not.
func (f function) ask(r request) (out reply) {
	f.t.Helper()
	if r.limit == 0 {
		r.limit = time.Minute
	}
	a := f.Invoke(r.event(f.t), r.limit)
	body := string(a.Body())
	head, rest, isStream := strings.Cut(body, strings.Repeat("\x00", 8))
	if err := json.Unmarshal([]byte(head), &out); err != nil || a.Kind != "response" {
		f.t.Fatalf("%s %.500s: %v\n%s", a.Kind, body, err, f.Stderr)
	}
	if isStream {
		out.Body = rest
	}
	return out
}

// form returns a body in the default encoding of an HTML form.
func form(members ...string) (body string, headers map[string]string) {
	values := url.Values{}
	for i := 0; i < len(members); i += 2 {
		values.Set(members[i], members[i+1])
	}
	return values.Encode(), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
}

const everything = "agents:read agents:run sessions:read sessions:write memories:read memories:write config:read"

// The function that serves these has no database and no keys.
func TestEveryValidTokenAsksTheFunctionAboutItself(t *testing.T) {
	t.Parallel()
	config := deploy(t, keyway).start("config")
	config.ask(request{method: "GET", path: "/whoami", scopes: "agents:b:read"}).want(t, "who the caller is", 200,
		`{"os_id":"test-os","sub":"ann","user_id":"ann","issuer":"","admin":false,`+
			`"scopes":[{"scope":"agents:b:read","from":"scopes"}],"expires_at":`, `"user_isolation":true,"local":false`)
	json := map[string]string{"Content-Type": "application/json"}
	asked := `{"requests":[{"method":"GET","path":"/agents/b"},{"method":"POST","path":"/agents/b/runs"}]}`
	config.ask(request{method: "POST", path: "/can", scopes: "agents:b:read", headers: json, body: asked}).want(t,
		"what the token opens", 200, `"status":200,"allowed":true,"route":"get_agent","needs":["agents:b:read"]`,
		`"status":403,"allowed":false,"route":"create_run","needs":["agents:b:run"],"granted":[],"missing":["agents:b:run"]`)
	config.ask(request{method: "GET", path: "/whoami"}).want(t, "nobody", 401)
	config.ask(request{method: "POST", path: "/can", headers: json, body: asked}).want(t, "nobody asks", 401)
}

func TestEachFunctionAnswersOnlyItsRoutes(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	agents, config, sessions, memories := d.start("agents"), d.start("config"), d.start("sessions"), d.start("memories")
	agents.ask(request{method: "GET", path: "/agents", scopes: "agents:b:read"}).want(t, "the agents that may be read",
		200,
		`[{"id":"b","name":"Bee"`, `"model":{"name":"Demo","model":"x","provider":"Demo"}`)
	agents.ask(request{method: "GET", path: "/agents/a", scopes: everything}).want(t, "one agent", 200,
		`"provider":"OpenAI"`)
	agents.ask(request{method: "GET", path: "/agents/a", scopes: "agents:b:read"}).want(t, "another's agent", 403,
		"agents:a:read")
	agents.WaitForLog(`"msg":"decision"`)
	agents.WaitForLog(`"aws_request_id":"the-id"`)
	config.ask(request{method: "GET", path: "/health"}).want(t, "health, for everybody", 200, `"status":"ok"`)
	config.ask(request{method: "GET", path: "/info"}).want(t, "info", 200, `"os_id":"test-os"`)
	settings := config.ask(request{method: "GET", path: "/config", scopes: everything})
	settings.want(t, "config", 200, `"os_id":"test-os"`, `"config_digest":"`)
	if stored := settings.MultiValueHeaders["Cache-Control"]; len(stored) != 1 || stored[0] != "no-store" {
		t.Errorf("a cache may store the settings: %v", stored)
	}
	sessions.ask(request{method: "GET", path: "/readyz"}).want(t, "readiness, for everybody", 200, `{"status":"ok"}`)
	if head := sessions.ask(request{method: "HEAD", path: "/readyz"}); head.StatusCode != 200 || head.Body != "" {
		t.Errorf("HEAD /readyz: %d %q", head.StatusCode, head.Body)
	}
	json := map[string]string{"Content-Type": "application/json"}
	sessions.ask(request{method: "POST", path: "/sessions?type=agent", scopes: everything, headers: json,
		body: `{"agent_id":"a","session_name":"mine"}`}).want(t, "a new session", 201)
	sessions.ask(request{method: "GET", path: "/sessions?type=agent", scopes: everything}).want(t, "the sessions", 200,
		`"mine"`)
	sessions.ask(request{method: "GET", path: "/metrics", scopes: "metrics:read"}).want(t, "the metrics", 200,
		`{"metrics":[],"updated_at":null}`)
	sessions.ask(request{method: "GET", path: "/usage", scopes: "agent_os:admin"}).want(t, "the usage", 200, `{"data":[],`)
	for path, method := range map[string]string{"/decisions": "GET", "/diff": "POST", "/dev/token": "POST",
		"/dev/sign-in": "POST"} {
		sessions.ask(request{method: method, path: path, scopes: "agent_os:admin"}).want(t, path+" of keyway serve", 404)
	}
	memories.ask(request{method: "POST", path: "/memories", scopes: everything, headers: json,
		body: `{"memory":"likes tea"}`}).want(t, "a new memory", 200, "likes tea")
	memories.ask(request{method: "GET", path: "/memories", scopes: everything}).want(t, "the memories", 200, "likes tea")
	for path, f := range map[string]function{"/sessions": agents, "/agents": config, "/memories": sessions,
		"/info": memories, "/agents/a/runs/x": agents} {
		f.ask(request{method: "GET", path: path, scopes: "agent_os:admin"}).want(t, path+" of another function", 404)
	}
}

func TestWithoutAuthorizerThereIsNoPrincipal(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	for name, path := range map[string]string{"agents": "/agents", "config": "/config", "sessions": "/sessions",
		"memories": "/memories", "runs": "/agents/a/runs"} {
		f := d.start(name)
		forged := map[string]string{
			"X-GoLambdaProxy-ApiGw-Context": `{"authorizer":{"sub":"root","scopes":"[\"agent_os:admin\"]"}}`,
			"Authorization":                 "Bearer x", "X-Amzn-Request-Context": `{}`,
		}
		f.ask(request{method: "GET", path: path, headers: forged}).want(t, name, 401, `"detail"`)
	}
}

// A chunk has one or more whole events, and the first ones are sent before the model has finished.
func TestRunIsStreamedEventByEvent(t *testing.T) {
	t.Parallel()
	received := make(chan struct{})
	d := deploy(t, keyway, modeltest.Text("one").Wait(received).Text("two"))
	f := d.start("runs")
	body, headers := form("message", "hello", "session_id", "s1")
	a := f.Invoke(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers,
		body: body}.event(t), time.Minute)
	prelude, _ := a.Next()
	if !strings.Contains(string(prelude), `"statusCode":200`) ||
		!strings.Contains(string(prelude), "text/event-stream") ||
		a.Header.Get("Content-Type") != "application/vnd.awslambda.http-integration-response" {
		t.Fatalf("%s %v", prelude, a.Header)
	}
	var seen []string
	for {
		chunk, ok := a.Next()
		if !ok {
			break
		}
		sent, whole := strings.CutSuffix(string(chunk), "\n\n")
		if !whole {
			t.Errorf("a chunk is not whole events: %q", chunk)
		}
		for event := range strings.SplitSeq(sent, "\n\n") {
			name, _, _ := strings.Cut(strings.TrimPrefix(event, "event: "), "\n")
			if seen = append(seen, name); strings.Contains(event, `"content":"one"`) && name == "RunContent" {
				close(received)
			}
		}
	}
	if got := strings.Join(seen, " "); !strings.HasPrefix(got, "RunStarted ") || !strings.HasSuffix(got, " RunCompleted") {
		t.Errorf("the events are %s", got)
	}
	f.ask(request{method: "GET", path: "/agents/a/runs?session_id=s1", scopes: everything}).want(t, "it is stored", 200,
		`"content":"onetwo"`, `"COMPLETED"`)
}

// sam local can't pass on a stream, so there the events are sent when the run has ended.
func TestOnSamLocalRunIsBuffered(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("one", "two"), modeltest.Text("three"))
	f := d.start("runs", "AWS_SAM_LOCAL=true")
	body, headers := form("message", "hello")
	a := f.Invoke(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers,
		body: body}.event(t), time.Minute)
	if answer := string(a.Body()); !strings.HasPrefix(answer, `{"statusCode":200`) ||
		!strings.Contains(answer, "event: RunCompleted") || len(a.Header["Transfer-Encoding"]) > 0 {
		t.Errorf("%.500s", answer)
	}
	const multipart = "--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nread it\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\nfalse\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"n.txt\"\r\nContent-Type: " +
		"text/plain\r\n\r\nthe note\r\n--x--\r\n"
	f.ask(request{
		method: "POST", path: "/agents/a/runs", scopes: everything, body: multipart,
		headers: map[string]string{"Content-Type": "multipart/form-data; boundary=x"},
	}).want(t, "multipart", 200, `"content":"three"`)
	if asked := d.model.Requests(); len(asked) != 2 || !strings.Contains(fmt.Sprint(asked[1].Body), "the note") {
		t.Errorf("the model received %v", asked)
	}
}

// A run that takes too long ends before Lambda ends the process. The reason is stored, and the
// caller receives it.
func TestRunOverFunctionTimeEndsWithReason(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("half").Wait(nil))
	f := d.start("runs")
	f.ask(request{method: "GET", path: "/agents/a/runs?session_id=none", scopes: everything}).want(t,
		"before, so that it is up", 404)
	body, headers := form("message", "hello", "session_id", "s1")
	const limit = 8 * time.Second
	began := time.Now()
	got := f.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body,
		limit: limit})
	if took := time.Since(began); took > limit {
		t.Errorf("it took %s", took)
	}
	got.want(t, "the run", 200, `"content":"half"`, "event: RunError",
		"The run exceeded this server's time limit for a request, and no queue is configured to continue it",
		"run_timeout_error")
	f.ask(request{method: "GET", path: "/agents/a/runs?session_id=s1", scopes: everything}).want(t, "what is stored", 200,
		`"ERROR"`)
}

// Lambda freezes the process between requests. In the meantime the database server can close its
// connections.
func TestThawedFunctionReplacesClosedConnection(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	f := d.start("sessions")
	list := request{method: "GET", path: "/sessions?type=agent", scopes: everything}
	f.ask(list).want(t, "before", 200)
	f.freeze(t, d.db)
	f.ask(list).want(t, "after the thaw", 200)
}

// The model's server can close its connections too, and no lease is renewed while the process is
// frozen.
func TestThawedRunsFunctionExecutesNextRun(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("one"), modeltest.Text("two"))
	f := d.start("runs")
	body, headers := form("message", "hello", "session_id", "s1")
	run := request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}
	f.ask(run).want(t, "before", 200, "event: RunCompleted", `"content":"one"`)
	f.freeze(t, d.db)
	f.ask(run).want(t, "after the thaw", 200, "event: RunCompleted", `"content":"two"`)
}

func TestBackgroundRunWithoutQueueEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("done"))
	f := d.start("runs")
	body, headers := form("message", "hello", "session_id", "s1", "background", "true", "stream", "false")
	f.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).want(t,
		"the run", 202, `"PENDING"`)
	f.ask(request{method: "GET", path: "/agents/a/runs?session_id=s1", scopes: everything}).want(t, "what is stored", 200,
		`"COMPLETED"`)
}
