package providers

import (
	"cmp"
	"regexp"
	"sync"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
)

// openBedrock makes a model of Amazon Bedrock. Its credentials come from the
// environment alone, where Lambda puts its role's.
func openBedrock(m config.Model, env Lookup) (*bedrock.Model, error) {
	name := m.Provider + ":" + m.ID
	if m.APIKey != "" {
		return nil, fault.Public(fault.Invalid, name+" takes no api_key: leave it out; Bedrock's requests are signed with the AWS credentials of the environment", nil)
	}
	o := bedrock.Options{
		ID: m.ID, Temperature: m.Temperature,
		Region:  cmp.Or(value(env, "AWS_REGION"), value(env, "AWS_DEFAULT_REGION")),
		BaseURL: cmp.Or(string(m.BaseURL), value(env, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"), value(env, "AWS_ENDPOINT_URL")),
		Credentials: bedrock.Credentials{
			AccessKeyID: value(env, "AWS_ACCESS_KEY_ID"), SecretAccessKey: value(env, "AWS_SECRET_ACCESS_KEY"), SessionToken: value(env, "AWS_SESSION_TOKEN"),
		},
	}
	switch {
	case o.Credentials.AccessKeyID == "":
		return nil, NoKey{Variable: "AWS_ACCESS_KEY_ID", Model: name, Remedy: noCredentials}
	case o.Credentials.SecretAccessKey == "":
		return nil, NoKey{Variable: "AWS_SECRET_ACCESS_KEY", Model: name, Remedy: noCredentials}
	case o.Region == "":
		return nil, NoKey{Variable: "AWS_REGION", Model: name, Remedy: "needs a region: set AWS_REGION to one where the model is, such as eu-central-1"}
	case !region().MatchString(o.Region):
		return nil, fault.Public(fault.Invalid, name+`: AWS_REGION is "`+o.Region+`", which is no region; set it to one like eu-central-1`, nil)
	}
	return bedrock.New(o), nil
}

const noCredentials = "needs AWS credentials: " + bedrock.NoCredentials + ", and set AWS_REGION"

// region is what a region's name looks like: it becomes part of a host's.
var region = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+$`) })
