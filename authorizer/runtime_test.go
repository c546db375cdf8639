package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// function is the running program with its Runtime API.
type function struct {
	*lambdatest.Function
	t *testing.T
}

// start runs the program with the configuration in dir.
func start(t *testing.T, dir string, env ...string) function {
	t.Helper()
	return startProgram(t, bootstrap, append(env, "LAMBDA_TASK_ROOT="+dir)...)
}

func startProgram(t *testing.T, program string, env ...string) function {
	t.Helper()
	return function{lambdatest.Start(t, program, env...), t}
}

// policy returns the answer to an event, which must be a policy.
func (f function) policy(event []byte) (out events.APIGatewayCustomAuthorizerResponse) {
	f.t.Helper()
	a := f.Invoke(event, time.Minute)
	body := a.Body()
	if err := json.Unmarshal(body, &out); err != nil || a.Kind != "response" ||
		out.PolicyDocument.Version != "2012-10-17" {
		f.t.Fatalf("%s %s: %v", a.Kind, body, err)
	}
	return out
}

// refusal returns the errorMessage for an event, which must be rejected.
func (f function) refusal(event []byte) string {
	f.t.Helper()
	a := f.Invoke(event, time.Minute)
	body := a.Body()
	var said struct{ ErrorMessage string }
	if err := json.Unmarshal(body, &said); err != nil || a.Kind != "error" {
		f.t.Fatalf("%s %s: %v", a.Kind, body, err)
	}
	return said.ErrorMessage
}
