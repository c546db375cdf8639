package providers

import (
	"cmp"
	"errors"
	"regexp"
	"sync"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
)

// openBedrock returns a model of Amazon Bedrock. Its credentials come from the
// environment variables alone, where AWS Lambda puts those of the function's role.
// AWS's configuration files and the metadata service aren't read.
func openBedrock(m config.Model, env Lookup) (*bedrock.Model, error) {
	name := m.Provider + ":" + m.ID
	if m.APIKey != "" {
		text := name + " takes no api_key: leave it out; Bedrock's requests are signed with the AWS credentials" +
			" of the environment"
		return nil, fault.Public(fault.Invalid, text, nil)
	}
	if len(m.Headers) > 0 {
		text := name + " takes no headers: leave them out; Bedrock's requests are signed, and a gateway could not sign" +
			" them again"
		return nil, fault.Public(fault.Invalid, text, nil)
	}
	lookup := awsenv.Lookup(env)
	c, err := awsenv.Credentials(lookup)
	o := bedrock.Options{
		ID: m.ID, Temperature: m.Temperature,
		Region:  awsenv.Region(lookup),
		BaseURL: cmp.Or(string(m.BaseURL), awsenv.Endpoint(lookup, "BEDROCK_RUNTIME")),
		Credentials: bedrock.Credentials{
			AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		},
	}
	missing, none := errors.AsType[*awsenv.MissingError](err)
	switch {
	case none:
		return nil, NoKey{Variable: missing.Variable, Model: name, Remedy: noCredentials}
	case o.Region == "":
		return nil, NoKey{Variable: "AWS_REGION", Model: name, Remedy: noRegion}
	case !region().MatchString(o.Region):
		text := name + `: AWS_REGION is "` + o.Region + `", which is not a region; set it to one like eu-central-1`
		return nil, fault.Public(fault.Invalid, text, nil)
	}
	return bedrock.New(o), nil
}

const (
	noCredentials = "needs AWS credentials: " + awsenv.Remedy + ", and set AWS_REGION"
	noRegion      = "needs a region: set AWS_REGION to one where the model is, such as eu-central-1"
)

// region matches the names of AWS regions. The name becomes part of the host name that
// requests, and with them the session token, are sent to. It is checked so that no
// value of AWS_REGION can lead to another domain.
var region = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+$`) })
