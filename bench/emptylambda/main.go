// Command emptylambda is the least Lambda function there can be: what the
// authorizer's size and start are measured beside.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() {}) }
