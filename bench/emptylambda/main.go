// Command emptylambda is a Lambda function that does nothing. Its size and its start are
// the lower bound that the benchmark compares the authorizer with.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() {}) }
