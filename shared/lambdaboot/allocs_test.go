package lambdaboot

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdahttp"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
)

// repeated is a connection to a Runtime API that sends the same event again and again, and drops what it gets.
type repeated struct {
	net.Conn
	responses string
	left      int    // how often responses is sent
	at        int    // how much of it was sent
	posted    []byte // the last write
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.at == len(r.responses) {
		if r.left--; r.left == 0 {
			return 0, io.EOF
		}
		r.at = 0
	}
	n := copy(p, r.responses[r.at:])
	r.at += n
	return n, nil
}

func (r *repeated) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "POST ") {
		r.posted = append(r.posted[:0], p...)
	}
	return len(p), nil
}

// agentsEvent is an event of GET /agents with the headers of a usual client.
const agentsEvent = `{"resource":"/agents","path":"/agents","httpMethod":"GET","headers":{"Accept":"*/*",` +
	`"Authorization":"Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln","Host":"api.example.com","User-Agent":"curl/8.5.0",` +
	`"X-Forwarded-For":"192.0.2.1","X-Forwarded-Port":"443","X-Forwarded-Proto":"https"},"multiValueHeaders":{` +
	`"Accept":["*/*"],"Authorization":["Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln"],"Host":["api.example.com"],` +
	`"User-Agent":["curl/8.5.0"],"X-Forwarded-For":["192.0.2.1"],"X-Forwarded-Port":["443"],` +
	`"X-Forwarded-Proto":["https"]},"queryStringParameters":null,"multiValueQueryStringParameters":null,` +
	`"pathParameters":null,"stageVariables":null,"requestContext":{"resourcePath":"/agents","httpMethod":"GET",` +
	`"requestId":"c6af9ac6-7b61-11e6-9a41-93e8deadbeef","domainName":"api.example.com","stage":"v1",` +
	`"identity":{"sourceIp":"192.0.2.1","userAgent":"curl/8.5.0","user":null},"authorizer":{"sub":"ann",` +
	`"session_id":"","iss":"","jti":"","scopes":"[\"agents:read\"]","exp":"1999999999","iat":"1","tokenHash":"x",` +
	`"subHash":"","digest":"x","scopes_claim":"scopes","principalId":"caller","integrationLatency":3}},` +
	`"body":null,"isBase64Encoded":false}`

// serveRepeated answers the event n times with the function agents, and returns its last answer.
func serveRepeated(tb testing.TB, f *lambdahttp.Function, n int) string {
	tb.Helper()
	conn := &repeated{left: n, responses: fmt.Sprintf("HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\n"+
		"Lambda-Runtime-Deadline-Ms: %d\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
		time.Now().Add(time.Hour).UnixMilli(), len(agentsEvent), agentsEvent)}
	if _, err := lambdaruntime.Serve(conn, "runtime", f.Invoke, false); err != nil {
		tb.Fatal(err)
	}
	return string(conn.posted)
}

// agentsFunction is the function of that name, as Lambda runs it.
func agentsFunction(tb testing.TB) *lambdahttp.Function {
	tb.Helper()
	dir := tb.TempDir()
	document := `{"id":"os","auth":{"keys":["${NOT_READ}"]},"agents":[{"id":"a","model":"demo:x"},` +
		`{"id":"b","model":"demo:x"}]}`
	if err := os.WriteFile(filepath.Join(dir, "keyway.json"), []byte(document), 0o600); err != nil {
		tb.Fatal(err)
	}
	if t, ok := tb.(interface{ Setenv(key, value string) }); ok {
		t.Setenv("LAMBDA_TASK_ROOT", dir)
	}
	f := Function{Name: route.Agents, Without: []config.Part{config.Keys, config.Data, config.Runs}}
	o, err := f.open(logging.NewLogger(io.Discard, false))
	if err != nil {
		tb.Fatal(err)
	}
	return lambdahttp.New(o)
}

// What a warm request allocates is what the garbage collector has to collect. The bound has room for the race detector.
func TestAWarmRequestAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts what the whole process allocates
	const mostAllocations, mostBytes, requests = 120, 20 << 10, 300
	f := agentsFunction(t)
	got := serveRepeated(t, f, 10)
	if !strings.Contains(got, `{"statusCode":200,`) || !strings.Contains(got, `\"id\":\"a\"`) {
		t.Fatal(got)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	serveRepeated(t, f, requests)
	runtime.ReadMemStats(&after)
	allocations, bytes := (after.Mallocs-before.Mallocs)/requests, (after.TotalAlloc-before.TotalAlloc)/requests
	if t.Logf("%d allocations, %d bytes", allocations, bytes); allocations > mostAllocations || bytes > mostBytes {
		t.Errorf("a request makes %d allocations of %d bytes", allocations, bytes)
	}
}

func BenchmarkWarmRequest(b *testing.B) {
	f := agentsFunction(b)
	b.ReportAllocs()
	b.ResetTimer()
	serveRepeated(b, f, b.N)
}
