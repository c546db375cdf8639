// Package awsenv reads AWS credentials, regions and endpoints from the environment
// variables that Lambda sets and that AWS's own tools read. It decides which variable
// counts. It reads no profile, no file of AWS's and no metadata service: the environment
// alone decides which AWS identity a process has. It makes no request, so that it is small
// enough for the authorizer's binary.
package awsenv

import (
	"cmp"
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Lookup reads an environment variable, as os.LookupEnv does. An empty variable is the
// same as an absent one. A nil Lookup is an empty environment.
type Lookup func(name string) (value string, ok bool)

// Remedy is how a person gets credentials into the environment of a shell.
const Remedy = `run: eval "$(aws configure export-credentials --format env)"`

// MissingError is the error of Credentials.
type MissingError struct {
	// Variable is the first one that is missing: AWS_ACCESS_KEY_ID or
	// AWS_SECRET_ACCESS_KEY.
	Variable string
}

// Error names the Remedy.
func (e *MissingError) Error() string {
	return "there are no AWS credentials in the environment; " + Remedy
}

// Credentials returns AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
// The session token is empty for the long-term key of an IAM user. The error is a
// *MissingError.
func Credentials(env Lookup) (aws.Credentials, error) {
	c := aws.Credentials{
		AccessKeyID:     env.value("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: env.value("AWS_SECRET_ACCESS_KEY"),
		SessionToken:    env.value("AWS_SESSION_TOKEN"),
	}
	switch {
	case c.AccessKeyID == "":
		return c, &MissingError{"AWS_ACCESS_KEY_ID"}
	case c.SecretAccessKey == "":
		return c, &MissingError{"AWS_SECRET_ACCESS_KEY"}
	}
	return c, nil
}

// Provider calls Credentials for a client of the AWS SDK whenever the client needs
// them. Nothing is read before the first request.
func Provider(env Lookup) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return Credentials(env) })
}

// Region returns AWS_REGION, else AWS_DEFAULT_REGION, else "". Lambda sets both.
func Region(env Lookup) string {
	return cmp.Or(env.value("AWS_REGION"), env.value("AWS_DEFAULT_REGION"))
}

// Endpoint returns the address of a service that isn't AWS's own, such as a stand-in
// for tests or a VPC endpoint: AWS_ENDPOINT_URL_<service>, else AWS_ENDPOINT_URL, else
// "". The service is written as in the AWS SDKs' reference guide ("Service-specific
// endpoints"): SQS, SECRETS_MANAGER, BEDROCK_RUNTIME.
func Endpoint(env Lookup, service string) string {
	return cmp.Or(env.value("AWS_ENDPOINT_URL_"+service), env.value("AWS_ENDPOINT_URL"))
}

func (env Lookup) value(name string) string {
	if env == nil {
		return ""
	}
	value, _ := env(name)
	return value
}
