// Package providers opens a model by the name of its provider in keyway.yaml. It
// decides which environment variables complete the settings, and what is missing. It is
// the only package that imports all providers, so that a Lambda function that runs no
// model links none of them.
package providers

import (
	"cmp"
	"net/http"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// Lookup returns the value of an environment variable and whether it is set, as
// os.LookupEnv does. A variable that is set to "" counts as unset.
type Lookup func(name string) (string, bool)

// Open returns the model that an agent names. A value in keyway.yaml has precedence
// over the provider's usual environment variable (OPENAI_API_KEY, OPENAI_BASE_URL and
// so on). An unknown provider, or a value that the provider can't use, is a
// fault.Invalid error. A missing key, credential or region is a NoKey error. Open
// doesn't connect.
func Open(m config.Model, env Lookup) (model.Model, error) {
	switch m.Provider {
	case "demo":
		return demo.New(m.ID), nil
	case "openai":
		o, err := openAIOptions(m, env)
		if err != nil {
			return nil, err
		}
		return openai.NewChat(o), nil
	case "openai-responses":
		o, err := openAIOptions(m, env)
		if err != nil {
			return nil, err
		}
		return openai.NewResponses(o), nil
	case "anthropic":
		a, err := openAnthropic(m, env)
		if err != nil {
			return nil, err
		}
		return a, nil
	case "bedrock":
		b, err := openBedrock(m, env)
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	text := "the provider " + m.Provider + " is unknown; use openai, openai-responses, anthropic, bedrock or demo"
	return nil, fault.Public(fault.Invalid, text, nil)
}

// openAIOptions returns the options for either API of OpenAI, or of a server that is
// compatible with it. Such a server may need no key, so a key is required only for
// OpenAI's own address.
func openAIOptions(m config.Model, env Lookup) (openai.Options, error) {
	o := openai.Options{
		ID: m.ID, Temperature: m.Temperature,
		BaseURL: cmp.Or(string(m.BaseURL), value(env, "OPENAI_BASE_URL")),
		APIKey:  cmp.Or(string(m.APIKey), value(env, "OPENAI_API_KEY")),
		Headers: headers(m),
	}
	if o.APIKey == "" && o.BaseURL == "" {
		return o, NoKey{Variable: "OPENAI_API_KEY", Model: m.Provider + ":" + m.ID}
	}
	return o, nil
}

// Address returns the address that requests of a model lead to, by the rules of Open, or "" if there is none: for the
// provider demo, and for bedrock without a region.
func Address(m config.Model, env Lookup) string {
	lookup := awsenv.Lookup(env)
	switch m.Provider {
	case "openai", "openai-responses":
		return cmp.Or(string(m.BaseURL), value(env, "OPENAI_BASE_URL"), "https://api.openai.com/v1")
	case "anthropic":
		return cmp.Or(string(m.BaseURL), value(env, "ANTHROPIC_BASE_URL"), "https://api.anthropic.com")
	case "bedrock":
		if at := cmp.Or(string(m.BaseURL), awsenv.Endpoint(lookup, "BEDROCK_RUNTIME")); at != "" {
			return at
		}
		if r := awsenv.Region(lookup); region().MatchString(r) {
			return "https://bedrock-runtime." + r + ".amazonaws.com"
		}
	}
	return ""
}

// headers returns the operator's headers of a model in the form of net/http.
func headers(m config.Model) http.Header {
	h := http.Header{}
	for name, v := range m.Headers {
		h.Set(name, string(v))
	}
	return h
}

// NoKey is the error for a missing API key, or for another missing credential or the
// region. It has its own type because keyway serve --dev replaces the model by the demo
// model where nothing but the key is missing.
type NoKey struct {
	// Variable is the environment variable that would supply the value.
	Variable string
	// Model is the model's provider and ID, such as "openai:gpt-4o".
	Model string
	// Remedy is the rest of the error's sentence after Model. Defaults to the advice to
	// set Variable, or api_key in keyway.yaml.
	Remedy string
}

// Error names the model, what is missing, and how to supply it.
func (e NoKey) Error() string {
	return e.Model + " " + cmp.Or(e.Remedy, "needs an API key: set "+e.Variable+", or api_key in keyway.yaml")
}

// value returns a variable, "" if it is unset.
func value(env Lookup, name string) string {
	v, _ := env(name)
	return v
}
