// Package providers opens a model by the name of its provider. It is the only
// importer of every vendor, so that a function that runs no model links none.
package providers

import (
	"cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// Lookup reads a provider's usual variables, as os.LookupEnv does.
type Lookup func(name string) (string, bool)

// Open makes the model that an agent names. The values of keyway.yaml win over
// the provider's usual variables. A provider that isn't known is
// fault.Invalid; a key, or what stands for one, that is missing is NoKey.
func Open(m config.Model, env Lookup) (model.Model, error) {
	switch m.Provider {
	case "demo":
		return demo.New(m.ID), nil
	case "openai", "openai-responses":
		o := openai.Options{
			ID: m.ID, Temperature: m.Temperature,
			BaseURL: cmp.Or(string(m.BaseURL), value(env, "OPENAI_BASE_URL")),
			APIKey:  cmp.Or(string(m.APIKey), value(env, "OPENAI_API_KEY")),
		}
		// A server of one's own may well ask for no key; OpenAI's always does.
		if o.APIKey == "" && o.BaseURL == "" {
			return nil, NoKey{Variable: "OPENAI_API_KEY", Model: m.Provider + ":" + m.ID}
		}
		if m.Provider == "openai-responses" {
			return openai.NewResponses(o), nil
		}
		return openai.NewChat(o), nil
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
	return nil, fault.Public(fault.Invalid, "the provider "+m.Provider+" is unknown; use openai, openai-responses, anthropic, bedrock or demo", nil)
}

// NoKey says that a provider's API key, or what else it asks for, is nowhere to be
// found. Remedy is empty where it is to set the variable or api_key.
type NoKey struct{ Variable, Model, Remedy string }

func (e NoKey) Error() string {
	return e.Model + " " + cmp.Or(e.Remedy, "needs an API key: set "+e.Variable+", or api_key in keyway.yaml")
}

func value(env Lookup, name string) string {
	v, _ := env(name)
	return v
}
