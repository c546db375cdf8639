// Command authorizer is the custom authorizer of a deployed OS: a Lambda function that
// answers API Gateway's REQUEST events. Package edge makes every decision. The program
// links no YAML parser, no database driver and no AWS SDK client, since its size adds
// to the first request of every new instance.
package main

import (
	"errors"
	"os"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// errUnauthorized has the only error text that API Gateway answers with 401. Any other
// error of an authorizer is an AUTHORIZER_FAILURE, which is 500 by default and 503 with
// this template. See AWS's documentation, "Use API Gateway Lambda authorizers".
var errUnauthorized = errors.New("Unauthorized")

// main ends the process if the configuration is wrong. API Gateway then answers every
// request with AUTHORIZER_FAILURE, and no request reaches a function.
func main() {
	log := logging.NewLogger(os.Stderr, false)
	a, err := open(log)
	if err != nil {
		logging.Exit(log, "the authorizer", err)
	}
	lambdaruntime.Start(log, func(in *lambdaruntime.Invocation) error {
		ctx, cancel := in.Context()
		defer cancel()
		answer, err := a.Answer(ctx, in.Event)
		switch {
		case errors.Is(err, fault.Unauthenticated):
			return errUnauthorized
		case err != nil:
			return err
		}
		return in.Answer(answer)
	})
}
