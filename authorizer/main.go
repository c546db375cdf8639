// Command authorizer is the custom authorizer of a deployed OS: a Lambda function
// that answers API Gateway's REQUEST events. edge decides every answer; here is
// decided only whether the function may start. It links no YAML and no database.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/keyway-agents/keyway/shared/fault"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	a, err := open(log)
	if err != nil { // at once and in one line, where a panic would print its stack for each
		log.Error("the authorizer can't start", "faults", strings.Split(err.Error(), "\n"))
		os.Exit(1)
	}
	lambda.Start(func(ctx context.Context, e events.APIGatewayCustomAuthorizerRequestTypeRequest) (events.APIGatewayCustomAuthorizerResponse, error) {
		answer, err := a.Authorize(ctx, e)
		if errors.Is(err, fault.Unauthenticated) {
			err = errors.New("Unauthorized") // the one text that API Gateway makes a 401 of; any other is a 500
		}
		return answer, err
	})
}
