package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"
)

// function is a subject that is a Lambda function. Its process asks a Runtime API for
// events, and its HTTP client turns each request into an event.
type function struct {
	*subject
	// programs returns the command of the function of a name.
	programs func(name string) []string
	// dir holds keyway.json, which the program keyway makes. Both are empty for a peer.
	dir, keyway string
	// authorizer is the authorizer of the same build. A peer has none.
	authorizer *function
	api        *runtimeAPI
	// begun is when the process was started.
	begun time.Time
	// caller is the authorizer's context, which API Gateway adds to an event. With nil the
	// function verifies the token itself.
	caller map[string]any
}

// launch starts the program of a name and returns the time until it asks for an event,
// which Lambda calls the init phase. within bounds its CPU; nil is no bound.
func (f *function) launch(
	ctx context.Context, name string, within *quota, env ...string,
) (init time.Duration, err error) {
	if f.api, err = serveRuntimeAPI(ctx); err != nil {
		return 0, err
	}
	args := f.programs(name)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) // #nosec G204 -- running what the user names is its job
	cmd.Cancel = func() error { endGroup(cmd, false); return os.ErrProcessDone }
	// The full slice expression makes append copy: f.env is used for the next start, too.
	cmd.Env = append(append(f.env[:len(f.env):len(f.env)], env...),
		"AWS_LAMBDA_RUNTIME_API="+f.api.address, "AWS_LAMBDA_FUNCTION_NAME="+name,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512", "AWS_REGION=eu-central-1")
	cmd.Stderr, cmd.Stdout = f.log, f.log
	ownGroup(cmd)
	f.begun = time.Now()
	if err := within.start(cmd); err != nil {
		f.api.close()
		return 0, fmt.Errorf("%s: %w", f.name, err)
	}
	// The host is never resolved: RoundTrip handles every request of this client.
	f.url = "http://bench"
	f.cmd, f.done = cmd, make(chan struct{})
	f.client = &http.Client{Transport: f, Timeout: startPatience}
	go func(done chan struct{}) { _ = cmd.Wait(); close(done) }(f.done)
	select {
	case at := <-f.api.asked:
		return at.Sub(f.begun), nil
	case <-f.done:
		err = fmt.Errorf("it ended before it asked for an event (%s)", cmd.ProcessState)
	case <-time.After(startPatience):
		err = errors.New("it asked for no event within a minute")
	}
	f.end()
	return 0, fmt.Errorf("%s %s: %w; it wrote:\n%s", f.name, name, err, f.tail())
}

// end stops the process; launch may then start another one.
func (f *function) end() {
	f.stop()
	if f.api != nil {
		f.api.close()
	}
}

// authenticate starts the authorizer, asks it about a request and keeps the context of its answer for the function. It
// returns the time until the answer. It does nothing for a peer.
func (f *function) authenticate(ctx context.Context, method, path string, within *quota) (time.Duration, error) {
	a := f.authorizer
	if a == nil {
		return 0, nil
	}
	if _, err := a.launch(ctx, "authorizer", within); err != nil {
		return 0, err
	}
	// The time ends with the answer; stopping the authorizer is not part of it.
	caller, err := a.authorize(ctx, method, path)
	took := time.Since(a.begun)
	a.end()
	f.caller = caller
	return took, err
}

// authorize sends the authorizer the event of a request with the administrator's token,
// and returns the context of its answer.
func (f *function) authorize(ctx context.Context, method, path string) (caller map[string]any, err error) {
	event, err := json.Marshal(lambdaevents.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type:      "REQUEST",
		MethodArn: "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234/v1/" + method + path,
		Resource:  path, Path: path, HTTPMethod: method,
		Headers: map[string]string{"Authorization": "Bearer " + f.token}, MultiValueHeaders: f.bearer(),
	})
	if err != nil {
		return nil, err
	}
	body, err := f.api.invoke(ctx, event, f.done)
	if err != nil {
		return nil, err
	}
	var answer lambdaevents.APIGatewayCustomAuthorizerResponse
	// A refused token gives a policy without a context.
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Context) == 0 {
		return nil, fmt.Errorf("the authorizer answered %.300q: %w", body, err)
	}
	return answer.Context, nil
}

// RoundTrip does what API Gateway does: it sends the request to the function as an event
// and returns the function's answer as the response. So ask.go checks functions and
// servers with the same code. A streamed answer is returned when it is complete; how its
// chunks arrive is not measured here.
func (f *function) RoundTrip(r *http.Request) (*http.Response, error) {
	event, err := proxyEvent(r, f.caller)
	if err != nil {
		return nil, err
	}
	body, err := f.api.invoke(r.Context(), event, f.done)
	if err != nil {
		return nil, err
	}
	return proxyResponse(r, body)
}

// proxyEvent returns the event that a REST API of API Gateway makes of a request. The body
// is in base64, as for an API that has multipart/form-data among its binary media types.
// Decoding it is part of what a function costs on Lambda, so it must be part of the
// measured time.
func proxyEvent(r *http.Request, caller map[string]any) ([]byte, error) {
	e := lambdaevents.APIGatewayProxyRequest{
		Resource: "/{proxy+}", Path: r.URL.Path, HTTPMethod: r.Method, Headers: map[string]string{"Host": "bench"},
		MultiValueHeaders: map[string][]string{"Host": {"bench"}},
		PathParameters:    map[string]string{"proxy": strings.TrimPrefix(r.URL.Path, "/")},
	}
	// API Gateway passes each header and each parameter twice: with its last value, and
	// with all values.
	for name, values := range r.Header {
		e.Headers[name], e.MultiValueHeaders[name] = values[len(values)-1], values
	}
	if query := r.URL.Query(); len(query) > 0 {
		e.QueryStringParameters, e.MultiValueQueryStringParameters = map[string]string{}, query
		for name, values := range query {
			e.QueryStringParameters[name] = values[len(values)-1]
		}
	}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	e.RequestContext = lambdaevents.APIGatewayProxyRequestContext{
		AccountID: "123456789012", APIID: "abcdef1234", Stage: "v1", RequestID: "bench",
		ResourcePath: e.Resource, Path: e.Path, HTTPMethod: r.Method, Protocol: "HTTP/1.1",
		Identity: lambdaevents.APIGatewayRequestIdentity{SourceIP: "127.0.0.1"}, Authorizer: caller,
	}
	return json.Marshal(e)
}

// proxyResponse turns a function's answer into a response. A buffered answer is one JSON
// object. A streamed one is a JSON object with status and headers, eight zero bytes, and
// the body; that is Lambda's format for response streaming.
func proxyResponse(r *http.Request, answer []byte) (*http.Response, error) {
	// JSON never holds a zero byte, so the separator can't appear in a head.
	head, rest, streamed := strings.Cut(string(answer), strings.Repeat("\x00", 8))
	var a lambdaevents.APIGatewayProxyResponse
	if err := json.Unmarshal([]byte(head), &a); err != nil || a.StatusCode == 0 {
		return nil, errors.Join(err, fmt.Errorf("the function answered %.200q", answer))
	}
	if streamed {
		a.Body = rest
	}
	if a.IsBase64Encoded {
		body, err := base64.StdEncoding.DecodeString(a.Body)
		if err != nil {
			return nil, err
		}
		a.Body = string(body)
	}
	return &http.Response{
		Status:     fmt.Sprint(a.StatusCode, " ", http.StatusText(a.StatusCode)),
		StatusCode: a.StatusCode, Header: a.MultiValueHeaders,
		Body: io.NopCloser(strings.NewReader(a.Body)), Request: r,
	}, nil
}
