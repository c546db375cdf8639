package providers

import (
	"cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
)

// openAnthropic returns a model of Anthropic, or of a server that is compatible with
// its API. Such a server may need no key, so a key is required only for Anthropic's own
// address.
func openAnthropic(m config.Model, env Lookup) (*anthropic.Model, error) {
	o := anthropic.Options{
		ID: m.ID, Temperature: m.Temperature,
		BaseURL: cmp.Or(string(m.BaseURL), value(env, "ANTHROPIC_BASE_URL")),
		APIKey:  cmp.Or(string(m.APIKey), value(env, "ANTHROPIC_API_KEY")),
		Headers: headers(m),
	}
	if o.APIKey == "" && o.BaseURL == "" {
		return nil, NoKey{Variable: "ANTHROPIC_API_KEY", Model: m.Provider + ":" + m.ID}
	}
	return anthropic.New(o), nil
}
