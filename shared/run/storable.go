package run

import (
	"encoding/json"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// storableJSON makes valid JSON from a model, a tool or a caller storable as jsonb:
// with a NUL or half a surrogate pair in it, the run's row could not be written.
func storableJSON(data json.RawMessage) json.RawMessage { return strictjson.MakeStorable(data) }
