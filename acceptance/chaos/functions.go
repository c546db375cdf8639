//go:build unix

package main

import (
	"context"
	"crypto/md5" // #nosec G501 -- SQS's protocol requires it
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/acceptance/harness"
	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// deployment is the built functions as they run on AWS: API Gateway in front of the functions runs and sessions, and a
// queue with the function worker behind it. A function handles one event at a time, so each has several instances.
type deployment struct {
	phase     *phase
	dir       string // of the programs and of keyway.json
	web       *http.Server
	url       string
	instances map[string][]*instance // by the name of the function
	// free holds the instances that handle no event now.
	free  map[string]chan *instance
	queue *messageQueue
	work  sync.WaitGroup
}

// The numbers of instances of each function.
var functionCounts = map[string]int{"runs": 8, "sessions": 1, "worker": 3}

// The time limits of the functions. Runs hand over to the worker when less than a minute is left.
const (
	runsLimit   = 90 * time.Second
	workerLimit = 5 * time.Minute
	// visibility is after how long the queue delivers a message again if its worker has crashed. On AWS it is longer than
	// the worker's time limit; here no instance that was killed answers any more.
	visibility = 10 * time.Second
	schedule   = 20 * time.Second // the time between two events of the schedule
)

// functionsConfig is keyway.json. The tool get_user_details of hackernews is the tool that the model calls.
const functionsConfig = `{"id":"chaos","agents":[{"id":"chaos","model":"openai:gpt-4o",` +
	`"instructions":"Follow the script.","add_history_to_context":true,"tools":["hackernews"]}],` +
	`"auth":{"keys":[{"secret":"${JWT_KEY_SECRET}"}]},` +
	`"database":{"url":"${DATABASE_URL}"}}`

// openFunctions builds and starts the functions on the database.
func (p *phase) openFunctions(ctx context.Context, database *url.URL) (*deployment, error) {
	d := &deployment{phase: p, dir: filepath.Join(p.dir, "functions"), instances: map[string][]*instance{},
		free: map[string]chan *instance{}}
	err := errors.Join(os.MkdirAll(d.dir, 0o700),
		os.WriteFile(filepath.Join(d.dir, "keyway.json"), []byte(functionsConfig), 0o600))
	if err != nil {
		return nil, err
	}
	for name := range functionCounts {
		p.lab.say("%s: building the function %s", p.plan.name, name)
		pkg := "github.com/keyway-agents/keyway/functions/" + name
		if err := lambdatest.Build(ctx, pkg, filepath.Join(d.dir, name)); err != nil {
			return nil, err
		}
	}
	if err := p.migrate(ctx, database); err != nil {
		return nil, err
	}
	if d.queue, err = openQueue(ctx); err != nil {
		return nil, err
	}
	for name, n := range functionCounts {
		d.free[name] = make(chan *instance, n)
		for i := range n {
			if err := d.add(ctx, name, i, database); err != nil {
				return nil, err
			}
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.url, d.web = "http://"+l.Addr().String(), &http.Server{Handler: d, ReadHeaderTimeout: time.Minute}
	go func() { _ = d.web.Serve(l) }()
	for range functionCounts["worker"] {
		d.work.Go(func() { d.deliver(ctx) })
	}
	d.work.Go(func() { d.wake(ctx) })
	return d, nil
}

// add starts an instance of a function.
func (d *deployment) add(ctx context.Context, name string, number int, database *url.URL) error {
	proxy, err := openProxy(ctx, database.Host)
	if err != nil {
		return err
	}
	through := *database
	through.Host = proxy.addr()
	i := &instance{deployment: d, function: name, label: fmt.Sprintf("%s%d", name, number+1), proxy: proxy,
		env: []string{
			"LAMBDA_TASK_ROOT=" + d.dir, "AWS_LAMBDA_FUNCTION_NAME=" + name, "DATABASE_URL=" + through.String(),
			"OPENAI_API_KEY=sk-chaos", "KEYWAY_QUEUE_URL=" + d.queue.url + "/1/runs", "AWS_ENDPOINT_URL_SQS=" + d.queue.url,
			"AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=chaos", "AWS_SECRET_ACCESS_KEY=chaos",
		}}
	if i.log, err = os.Create(filepath.Join(d.phase.dir, i.label+".log")); err != nil {
		return err
	}
	i.start()
	d.instances[name] = append(d.instances[name], i)
	d.free[name] <- i
	if name != "sessions" {
		d.phase.targets = append(d.phase.targets, i)
	}
	return nil
}

// close ends all functions.
func (d *deployment) close() {
	_ = d.web.Close()
	d.work.Wait()
	for _, list := range d.instances {
		for _, i := range list {
			i.end()
			i.proxy.close()
			i.log.Close()
		}
	}
	d.queue.close()
}

// ServeHTTP is API Gateway: it makes an event of the request, sends it to a function, and passes the answer on as it
// arrives. If the function crashes before its answer has ended, so does the connection of the client. A client that
// leaves does not end the function's work.
func (d *deployment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := "runs"
	if strings.HasPrefix(r.URL.Path, "/sessions") {
		name = "sessions"
	}
	event, err := gatewayEvent(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var i *instance
	select {
	case i = <-d.free[name]:
	case <-r.Context().Done():
		return
	}
	chunks, left := make(chan []byte), make(chan struct{})
	defer close(left)
	go func() {
		defer func() { d.free[name] <- i }()
		defer close(chunks)
		_ = i.invoke(event, runsLimit, func(chunk []byte) {
			select {
			case chunks <- chunk:
			case <-left:
			}
		})
	}()
	if !relay(w, chunks) {
		panic(http.ErrAbortHandler) // closes the connection
	}
}

// wholeAnswer marks the end of a whole answer among its chunks.
var wholeAnswer = []byte("the end of a whole answer")

// relay writes a function's answer: a JSON document with status and headers, eight zero bytes and the body of a stream;
// or a JSON document with everything. It returns false if the answer is not whole.
func relay(w http.ResponseWriter, chunks <-chan []byte) bool {
	const separator = "\x00\x00\x00\x00\x00\x00\x00\x00"
	var head []byte
	streaming, whole := false, false
	for chunk := range chunks {
		if whole = string(chunk) == string(wholeAnswer); whole {
			break
		}
		if streaming {
			_, _ = w.Write(chunk)
			_ = http.NewResponseController(w).Flush()
			continue
		}
		head = append(head, chunk...)
		if before, rest, found := strings.Cut(string(head), separator); found {
			if !writeHead(w, []byte(before), false) {
				return false
			}
			streaming = true
			_, _ = io.WriteString(w, rest)
			_ = http.NewResponseController(w).Flush()
		}
	}
	return whole && (streaming || writeHead(w, head, true))
}

// writeHead writes the status and the headers of a function's answer and, with body, its body.
func writeHead(w http.ResponseWriter, head []byte, body bool) bool {
	var a events.APIGatewayProxyResponse
	if json.Unmarshal(head, &a) != nil || a.StatusCode == 0 {
		return false
	}
	for name, values := range a.MultiValueHeaders {
		w.Header()[name] = values
	}
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.StatusCode)
	if body {
		_, _ = io.WriteString(w, a.Body)
	}
	return true
}

// gatewayEvent is the event that API Gateway makes of a request, after the authorizer has accepted its token.
func gatewayEvent(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	e := events.APIGatewayProxyRequest{
		HTTPMethod: r.Method, Path: r.URL.Path, MultiValueQueryStringParameters: r.URL.Query(), Body: string(body),
		MultiValueHeaders: r.Header,
	}
	e.RequestContext.Authorizer = map[string]any{
		"principalId": "ann", "sub": "ann", "exp": fmt.Sprint(time.Now().Add(time.Hour).Unix()),
		"scopes": `["agents:read","agents:run","sessions:read","sessions:write","sessions:delete"]`,
	}
	return json.Marshal(e)
}

// deliver gives the worker one message after the other. A message whose worker reports a failure or crashes is
// delivered again.
func (d *deployment) deliver(ctx context.Context) {
	for {
		body, ok := d.queue.receive(ctx)
		if !ok {
			return
		}
		event, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{
			{MessageId: body, Body: body, EventSource: "aws:sqs"},
		}})
		if err != nil {
			d.phase.fail("%v", err)
			return
		}
		var out events.SQSEventResponse
		answer, err := d.invokeWorker(ctx, event)
		if err != nil || json.Unmarshal(answer, &out) != nil || len(out.BatchItemFailures) > 0 {
			d.queue.add(body, visibility)
		}
	}
}

// wake sends the worker the events of the schedule.
func (d *deployment) wake(ctx context.Context) {
	for harness.Wait(ctx, schedule) == nil {
		_, _ = d.invokeWorker(ctx, []byte(`{"source":"aws.events","detail-type":"Scheduled Event"}`))
	}
}

// invokeWorker sends an event to a free worker and returns its answer.
func (d *deployment) invokeWorker(ctx context.Context, event []byte) (answer []byte, err error) {
	select {
	case i := <-d.free["worker"]:
		defer func() { d.free["worker"] <- i }()
		whole := false
		err = i.invoke(event, workerLimit, func(chunk []byte) {
			if whole = string(chunk) == string(wholeAnswer); !whole {
				answer = append(answer, chunk...)
			}
		})
		if err == nil && !whole {
			err = errors.New("the worker crashed")
		}
		return answer, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// instance is a process of a function. It is started again for the next event after it was killed, as Lambda does.
type instance struct {
	deployment *deployment
	function   string
	label      string
	env        []string
	proxy      *proxy
	log        *os.File

	mu      sync.Mutex
	starts  int
	running *lambdatest.Function
	harness *functionHarness
}

// start starts the process. The caller holds mu or is the only one that knows the instance.
func (i *instance) start() {
	i.starts++
	base := i.deployment.phase.outside.url + "/" + i.processName()
	i.harness = &functionHarness{}
	i.running = lambdatest.Start(i.harness, filepath.Join(i.deployment.dir, i.function), append([]string{
		"OPENAI_BASE_URL=" + base + "/v1", "HACKERNEWS_BASE_URL=" + base}, i.env...)...)
}

func (i *instance) processName() string { return fmt.Sprintf("%s.%d", i.label, i.starts) }

// end ends the process and keeps its log.
func (i *instance) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stop()
}

// stop is end for a caller that holds mu.
func (i *instance) stop() {
	i.harness.cleanup()
	fmt.Fprintf(i.log, "chaos: the log of %s\n%s", i.processName(), i.running.Stderr)
}

// invoke sends an event to the process and calls receive for each chunk of its answer, and for wholeAnswer at the end
// of a whole one. The error reports that the process has ended.
func (i *instance) invoke(event []byte, limit time.Duration, receive func([]byte)) (err error) {
	i.mu.Lock()
	select {
	case <-i.running.Ended:
		i.stop()
		i.start()
	default:
	}
	f := i.running
	i.mu.Unlock()
	defer func() {
		if failed, ok := recover().(functionFailed); ok {
			err = errors.New(string(failed))
		}
	}()
	a := f.Invoke(event, limit)
	for chunk := range a.Chunks {
		receive(chunk)
	}
	select {
	case <-f.Ended:
	default:
		if a.Kind == "response" && a.Trailer.Get("Lambda-Runtime-Function-Error-Type") == "" {
			receive(wholeAnswer)
		}
	}
	return nil
}

// name implements target.
func (i *instance) name() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.processName()
}

// isUp implements target.
func (i *instance) isUp() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.running.Ended:
		return false
	default:
		return true
	}
}

// connections implements target.
func (i *instance) connections() *proxy { return i.proxy }

// signal implements target. Lambda sends no SIGTERM.
func (i *instance) signal(sig syscall.Signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.running.Ended:
		return
	default:
	}
	defer func() { _ = recover() }() // the process has ended just now
	switch sig {
	case syscall.SIGKILL:
		i.running.Kill()
	case syscall.SIGSTOP, syscall.SIGCONT:
		i.running.Signal(sig)
	}
}

// functionHarness is what lambdatest needs of a test. A failure is a panic, which invoke recovers.
type functionHarness struct {
	testing.TB // nil: no other method is called
	mu         sync.Mutex
	cleanups   []func()
}

// functionFailed is the panic of a failure.
type functionFailed string

func (*functionHarness) Helper()               {}
func (*functionHarness) Error(...any)          {}
func (*functionHarness) Errorf(string, ...any) {}
func (*functionHarness) Fatal(args ...any)     { panic(functionFailed(fmt.Sprint(args...))) }
func (*functionHarness) Fatalf(format string, args ...any) {
	panic(functionFailed(fmt.Sprintf(format, args...)))
}

// Cleanup collects what cleanup calls.
func (h *functionHarness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

// cleanup calls what was passed to Cleanup, the last first.
func (h *functionHarness) cleanup() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.cleanups) > 0 {
		last := len(h.cleanups) - 1
		h.cleanups[last]()
		h.cleanups = h.cleanups[:last]
	}
}

// messageQueue is the part of Amazon SQS that the functions use: they send messages, with or without a delay. The
// harness delivers them.
type messageQueue struct {
	url string
	web *http.Server
	mu  sync.Mutex
	due map[string][]time.Time // by message
}

func openQueue(ctx context.Context) (*messageQueue, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	q := &messageQueue{url: "http://" + l.Addr().String(), due: map[string][]time.Time{}}
	q.web = &http.Server{Handler: q, ReadHeaderTimeout: time.Minute}
	go func() { _ = q.web.Serve(l) }()
	return q, nil
}

func (q *messageQueue) close() { _ = q.web.Close() }

// ServeHTTP answers SendMessage in SQS's JSON protocol. AWS's client compares the MD5 sum.
func (q *messageQueue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		MessageBody  string
		DelaySeconds int
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil ||
		r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessage" {
		http.Error(w, `{"__type":"InvalidAction"}`, http.StatusBadRequest)
		return
	}
	q.add(in.MessageBody, time.Duration(in.DelaySeconds)*time.Second)
	sum := md5.Sum([]byte(in.MessageBody)) // #nosec G401 -- the protocol requires it
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	fmt.Fprintf(w, `{"MessageId":%q,"MD5OfMessageBody":%q}`, in.MessageBody, hex.EncodeToString(sum[:]))
}

func (q *messageQueue) add(body string, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due[body] = append(q.due[body], time.Now().Add(delay))
}

// receive waits for a message that is due and removes it. ok is false at the end of ctx.
func (q *messageQueue) receive(ctx context.Context) (body string, ok bool) {
	for {
		if body, ok = q.next(); ok {
			return body, true
		}
		if harness.Wait(ctx, 100*time.Millisecond) != nil {
			return "", false
		}
	}
}

// next removes a message that is due.
func (q *messageQueue) next() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for body, times := range q.due {
		for i, at := range times {
			if time.Now().After(at) {
				if q.due[body] = append(times[:i:i], times[i+1:]...); len(times) == 1 {
					delete(q.due, body)
				}
				return body, true
			}
		}
	}
	return "", false
}
