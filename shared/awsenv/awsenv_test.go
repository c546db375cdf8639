package awsenv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/keyway-agents/keyway/shared/awsenv"
)

// lookup is an environment of NAME=value pairs.
func lookup(pairs ...string) awsenv.Lookup {
	return func(name string) (string, bool) {
		for _, pair := range pairs {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

func TestCredentialsNeedAKeyAndItsSecret(t *testing.T) {
	t.Parallel()
	const id, secret = "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=test key only"
	const session = "AWS_SESSION_TOKEN=session"
	for name, row := range map[string]struct {
		env     awsenv.Lookup
		missing string
		session string
	}{
		"a role's":       {lookup(id, secret, session), "", "session"},
		"a user's":       {lookup(id, secret), "", ""},
		"no key":         {lookup(secret, session), "AWS_ACCESS_KEY_ID", ""},
		"an empty key":   {lookup("AWS_ACCESS_KEY_ID=", secret), "AWS_ACCESS_KEY_ID", ""},
		"no secret":      {lookup(id, session), "AWS_SECRET_ACCESS_KEY", ""},
		"no environment": {nil, "AWS_ACCESS_KEY_ID", ""},
	} {
		c, err := awsenv.Credentials(row.env)
		if missing, ok := errors.AsType[*awsenv.MissingError](err); row.missing != "" {
			if !ok || missing.Variable != row.missing || !strings.Contains(err.Error(), awsenv.Remedy) {
				t.Errorf("%s: %v, want %s to be missing", name, err, row.missing)
			}
			continue
		}
		want := aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "test key only", SessionToken: row.session}
		got, providerErr := awsenv.Provider(row.env).Retrieve(t.Context())
		if err != nil || c != want || providerErr != nil || got != want {
			t.Errorf("%s: %v %v, provider %v %v", name, c, err, got, providerErr)
		}
	}
}

func TestTheMoreSpecificVariableCounts(t *testing.T) {
	t.Parallel()
	region, fallback := "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=us-east-1"
	sqs, all := "AWS_ENDPOINT_URL_SQS=http://sqs", "AWS_ENDPOINT_URL=http://all"
	for _, row := range []struct {
		env              awsenv.Lookup
		region, endpoint string
	}{
		{lookup(region, fallback, sqs, all), "eu-central-1", "http://sqs"},
		{lookup("AWS_REGION=", fallback, "AWS_ENDPOINT_URL_SQS=", all), "us-east-1", "http://all"},
		{lookup("AWS_ENDPOINT_URL_SECRETS_MANAGER=http://secrets"), "", ""},
		{nil, "", ""},
	} {
		if got := awsenv.Region(row.env); got != row.region {
			t.Errorf("region %q, want %q", got, row.region)
		}
		if got := awsenv.Endpoint(row.env, "SQS"); got != row.endpoint {
			t.Errorf("endpoint %q, want %q", got, row.endpoint)
		}
	}
}
