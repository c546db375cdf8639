package run

import (
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Caller is who was admitted to a run, and to what. It stands in the run's row, so
// that whoever carries the run next can decide again. The token's expiry is not in
// it: a run that was admitted in time may end.
type Caller struct {
	Subject   string   `json:"sub,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	SessionID string   `json:"session,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
	Path      string   `json:"path"` // the request's: a POST
}

// admitted decides about a run's caller again.
func (r *Runner) admitted(recorded json.RawMessage) error {
	if recorded == nil {
		return fault.Public(fault.Forbidden, "The server stopped while this run was in progress, and an older version began it that did not record for whom", nil)
	}
	var c Caller
	if err := json.Unmarshal(recorded, &c); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	if err := r.admit(c); err != nil {
		return fault.Public(fault.Forbidden, "The run is no longer allowed: "+fault.Detail(err), err)
	}
	return nil
}
