package openai

import "github.com/keyway-agents/keyway/shared/wire"

// appendText appends a text as a JSON string.
func appendText(to []byte, s string) []byte { return wire.AppendText(to, s) }
