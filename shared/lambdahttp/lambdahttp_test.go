package lambdahttp_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/lambdahttp"
	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// The test binary is also the tested program, so that the tests use a real process as Lambda
// does.
func TestMain(m *testing.M) {
	if mode := os.Getenv("LAMBDAHTTP_TEST"); mode != "" {
		lambdahttp.Start(lambdahttp.Options{Handler: http.HandlerFunc(answer), Log: logging.NewLogger(os.Stderr, false),
			Streamed: mode == "streamed"})
	}
	os.Exit(m.Run())
}

// answer is a handler with one behaviour for each path.
func answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panic":
		panic("a secret")
	case "/late":
		_, _ = io.WriteString(w, "half of it")
		panic("a secret")
	case "/large":
		_, _ = io.WriteString(w, strings.Repeat("x", 7<<20))
	case "/quotes": // each quote becomes two bytes in JSON
		_, _ = io.WriteString(w, strings.Repeat(`"`, 4<<20))
	case "/half":
		_, _ = io.WriteString(w, strings.Repeat(`"`, lambdahttp.MaxJSON))
	case "/html":
		_, _ = io.WriteString(w, strings.Repeat("<", 5<<20))
	case "/binary":
		_, _ = w.Write([]byte{0xff, 0, 0xfe})
	case "/nothing":
	case "/twice":
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot)
	case "/parts":
		for _, part := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
		}
	case "/burst":
		for _, part := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(w, part)
		}
	case "/until":
		<-r.Context().Done()
		_, _ = io.WriteString(w, r.Context().Err().Error())
	default:
		body, err := io.ReadAll(r.Body)
		p, _ := authz.From(r.Context())
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.URL.Path, r.URL.EscapedPath(), r.URL.Query(), r.Header, r.Host,
			string(body), p, err == nil && int64(len(body)) == r.ContentLength})
	}
}

// seen is a request as the handler received it.
type seen struct {
	Method, Path string
	Escaped      string
	Query        url.Values
	Header       http.Header
	Host, Body   string
	Caller       *authz.Principal
	Whole        bool
}

func start(t *testing.T, mode string) *lambdatest.Function {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return lambdatest.Start(t, program, "LAMBDAHTTP_TEST="+mode)
}

// get returns the answer to a GET of the path.
func get(t *testing.T, f *lambdatest.Function, path string) events.APIGatewayProxyResponse {
	t.Helper()
	return send(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Path: path})
}

func send(t *testing.T, f *lambdatest.Function, e events.APIGatewayProxyRequest) (out events.APIGatewayProxyResponse) {
	t.Helper()
	event, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	a := f.Invoke(event, time.Minute)
	body := a.Body()
	if err := json.Unmarshal(body, &out); err != nil || a.Kind != "response" || len(body) > 6<<20 {
		t.Fatalf("%s of %d bytes: %.300s: %v", a.Kind, len(body), body, err)
	}
	return out
}

func request(t *testing.T, f *lambdatest.Function, e events.APIGatewayProxyRequest) (out seen) {
	t.Helper()
	if r := send(t, f, e); r.StatusCode != 200 || json.Unmarshal([]byte(r.Body), &out) != nil {
		t.Fatalf("%d %s", r.StatusCode, r.Body)
	}
	return out
}

// API Gateway has decoded the path once. The function must see the same path as the local
// server, where net/http decodes it once.
func TestDecodedPathIsNotDecodedAgain(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	local := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(local.Close)
	for _, path := range []string{
		"/agents", "/agents/", "//agents", "/agents/a b", "/agents/ä", "/agents/100%", "/agents/%41", "/agents/a?x=1",
		"/agents/a#b", "/agents/%2F", "/agents/..", "/agents/a;b", "/agents/a+b",
	} {
		got := request(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Path: path,
			MultiValueQueryStringParameters: map[string][]string{"q": {"a b", "&"}}})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, local.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path, r.URL.RawQuery = path, "q=a+b&q=%26"
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var want seen
		if err := json.NewDecoder(resp.Body).Decode(&want); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got.Path != path || want.Path != path || fmt.Sprint(got.Query) != fmt.Sprint(want.Query) {
			t.Errorf("%q arrives as %q %v, locally as %q %v", path, got.Path, got.Query, want.Path, want.Query)
		}
	}
}

func TestRequestIsConvertedCompletely(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	got := request(t, f, events.APIGatewayProxyRequest{
		HTTPMethod: "POST", Path: "/x", Body: base64.StdEncoding.EncodeToString([]byte("a\x00b")), IsBase64Encoded: true,
		MultiValueHeaders: map[string][]string{"Host": {"api.example.com"}, "accept": {"a", "b"}},
	})
	if got.Method != "POST" || got.Body != "a\x00b" || !got.Whole || got.Host != "api.example.com" ||
		len(got.Header["Accept"]) != 2 || got.Header["Host"] != nil {
		t.Errorf("%+v", got)
	}
}

// The principal comes from the authorizer's context, and headers can't change it.
func TestPrincipalComesFromAuthorizerOnly(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	said := map[string]any{"principalId": "x", "integrationLatency": 12, "sub": "ann", "scopes": `["agents:read"]`,
		"exp": "2000000000"}
	with := func(context map[string]any) events.APIGatewayProxyRequest {
		forged := `{"authorizer":{"sub":"root","scopes":"[\"agent_os:admin\"]"}}`
		return events.APIGatewayProxyRequest{
			HTTPMethod: "GET", Path: "/x", RequestContext: events.APIGatewayProxyRequestContext{Authorizer: context},
			MultiValueHeaders: map[string][]string{"X-GoLambdaProxy-ApiGw-Context": {forged},
				"x-golambdaproxy-apigw-stagevars": {forged}, "X-Amzn-Lambda-Context": {forged}},
		}
	}
	got := request(t, f, with(said))
	if got.Caller == nil || got.Caller.Subject != "ann" || len(got.Caller.Scopes) != 1 ||
		got.Header["X-Golambdaproxy-Apigw-Context"] != nil || got.Header["X-Golambdaproxy-Apigw-Stagevars"] != nil {
		t.Errorf("%+v of %v", got.Caller, got.Header)
	}
	for name, context := range map[string]map[string]any{
		"none": nil, "empty": {}, "no scopes": {"sub": "ann"}, "scopes as words": {"sub": "ann", "scopes": "agents:read"},
		"numbers":        {"sub": 1, "scopes": "[]"},
		"another expiry": {"sub": "ann", "scopes": "[]", "exp": "soon"},
	} {
		if got := request(t, f, with(context)); got.Caller != nil {
			t.Errorf("%s: %+v", name, got.Caller)
		}
	}
}

func TestBufferedAnswers(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	const tooLarge = `{"detail":"The answer is larger than the 6 MB that a Lambda function can send; request a part of ` +
		`it with limit and page. One run that is too large is answered by GET /agents/{agent_id}/runs/{run_id}"}`
	ids := map[string]bool{}
	for path, want := range map[string]struct {
		status int
		body   string
		base64 bool
	}{
		"/nothing": {200, "", false}, "/twice": {202, "", false}, "/parts": {200, "onetwothree", false},
		"/binary": {200, "/wD+", true},
		"/panic":  {500, `{"detail":"Internal server error"}`, false},
		"/late":   {500, `{"detail":"Internal server error"}`, false},
		"/large":  {413, tooLarge, false}, "/quotes": {413, tooLarge, false},
		"/half": {200, strings.Repeat(`"`, lambdahttp.MaxJSON), false}, // two bytes for one, and room for the headers
		"/html": {200, strings.Repeat("<", 5<<20), false},              // not six bytes for one
	} {
		got := get(t, f, path)
		if got.StatusCode != want.status || strings.TrimSpace(got.Body) != want.body || got.IsBase64Encoded != want.base64 {
			t.Errorf("%s: %d %.200s %t", path, got.StatusCode, got.Body, got.IsBase64Encoded)
		}
		id := http.Header(got.MultiValueHeaders).Get("X-Request-Id")
		if id == "" || ids[id] {
			t.Errorf("%s: the id %q", path, id)
		}
		ids[id] = true
	}
}

// streamed returns the status, the chunks of the body and the trailer of a streamed answer.
func streamed(t *testing.T, f *lambdatest.Function, path string, limit time.Duration) (status int, chunks []string,
	trailer http.Header) {
	t.Helper()
	event, err := json.Marshal(events.APIGatewayProxyRequest{HTTPMethod: "GET", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	a := f.Invoke(event, limit)
	if a.Kind != "response" || a.Header.Get("Content-Type") != "application/vnd.awslambda.http-integration-response" {
		t.Fatalf("%s %v", a.Kind, a.Header)
	}
	for {
		chunk, ok := a.Next()
		if !ok {
			break
		}
		chunks = append(chunks, string(chunk))
	}
	prelude, ok := strings.CutSuffix(chunks[0], strings.Repeat("\x00", 8))
	var head struct{ StatusCode int }
	if err := json.Unmarshal([]byte(prelude), &head); err != nil || !ok {
		t.Fatalf("%q: %v", chunks[0], err)
	}
	return head.StatusCode, chunks[1:], a.Trailer
}

func TestStreamedAnswers(t *testing.T) {
	t.Parallel()
	f := start(t, "streamed")
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/parts": {200, "one|two|three"}, "/burst": {200, "onetwothree"}, "/nothing": {200, ""}, "/twice": {202, ""},
		"/panic": {500, `{"detail":"Internal server error"}`},
	} {
		status, chunks, trailer := streamed(t, f, path, time.Minute)
		if status != want.status || strings.TrimSpace(strings.Join(chunks, "|")) != want.body ||
			trailer.Get("Lambda-Runtime-Function-Error-Type") != "" {
			t.Errorf("%s: %d %q %v", path, status, chunks, trailer)
		}
	}
	if _, chunks, _ := streamed(t, f, "/large", time.Minute); len(strings.Join(chunks, "")) != 7<<20 {
		t.Errorf("%d bytes of a large answer arrive", len(strings.Join(chunks, "")))
	}
}

// A client can't mistake the part of an aborted answer for the whole, and the trailer
// doesn't reveal the panic's text.
func TestAbortedStreamEndsWithErrorTrailer(t *testing.T) {
	t.Parallel()
	status, chunks, trailer := streamed(t, start(t, "streamed"), "/late", time.Minute)
	said, err := base64.StdEncoding.DecodeString(trailer.Get("Lambda-Runtime-Function-Error-Body"))
	if err != nil || status != 200 || strings.Join(chunks, "") != "half of it" ||
		!strings.Contains(string(said), "the response was aborted") || strings.Contains(string(said), "secret") {
		t.Errorf("%d %q %v %s: %v", status, chunks, trailer, said, err)
	}
}

// A request ends before Lambda ends the process.
func TestRequestEndsBeforeFunctionDeadline(t *testing.T) {
	t.Parallel()
	f := start(t, "streamed")
	streamed(t, f, "/nothing", time.Minute) // waits until the process is running
	const limit = 8 * time.Second
	began := time.Now()
	_, chunks, trailer := streamed(t, f, "/until", limit)
	if took := time.Since(began); took > limit || strings.Join(chunks, "") != context.DeadlineExceeded.Error() ||
		len(trailer) > 2 {
		t.Errorf("after %s: %q %v", took, chunks, trailer)
	}
}

func TestConcurrentRequestsShareNothing(t *testing.T) {
	t.Parallel()
	f := lambdahttp.New(lambdahttp.Options{Handler: http.HandlerFunc(answer), Log: logging.NewLogger(io.Discard, false)})
	done := make(chan string)
	for n := range 50 {
		go func() {
			path := fmt.Sprintf("/%d", n)
			answer := invoke(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Path: path})
			defer answer.Close()
			body, err := io.ReadAll(answer)
			if err != nil || !strings.Contains(string(body), `\"Path\":\"`+path+`\"`) {
				done <- fmt.Sprintf("%s: %s %v", path, body, err)
				return
			}
			done <- ""
		}()
	}
	for range 50 {
		if complaint := <-done; complaint != "" {
			t.Error(complaint)
		}
	}
}

// invoke sends an event to a function in this process and returns the body of what it posts, which the caller must
// close.
func invoke(t *testing.T, f *lambdahttp.Function, e events.APIGatewayProxyRequest) io.ReadCloser {
	t.Helper()
	event, err := json.Marshal(e)
	if err != nil {
		t.Error(err)
	}
	api, runtime := net.Pipe()
	go func() { _, _ = lambdaruntime.Serve(runtime, "runtime", f.Invoke, false) }()
	r := bufio.NewReader(api)
	if _, err := http.ReadRequest(r); err != nil {
		t.Error(err)
	}
	const head = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\n"
	fmt.Fprintf(api, head+"Content-Length: %d\r\n\r\n%s", len(event), event)
	posted, err := http.ReadRequest(r)
	if err != nil {
		t.Error(err)
	}
	return struct {
		io.Reader
		io.Closer
	}{posted.Body, api}
}

// The answer ends only when the work that the request left running has ended, because Lambda
// freezes the process after it.
func TestAnswerWaitsForSettle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settled := make(chan struct{})
		f := lambdahttp.New(lambdahttp.Options{
			Handler: http.HandlerFunc(answer), Log: logging.NewLogger(io.Discard, false), Streamed: true,
			Settle: func(context.Context) error { <-settled; return nil },
		})
		body := invoke(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Path: "/twice"})
		ended := make(chan string, 1)
		defer body.Close()
		go func() { answer, err := io.ReadAll(body); ended <- fmt.Sprintf("%.17s %v", answer, err) }()
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("the answer ended before Settle returned")
		}
		close(settled)
		if got := <-ended; got != `{"statusCode":202 <nil>` {
			t.Error(got)
		}
	})
}
