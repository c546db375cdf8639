package run

import (
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Caller is the verified identity that was allowed to start or continue a run, and the scopes that it had. It is
// stored in the run's row until the run ends, so that every later attempt can repeat the authorization decision
// under the policy then in force. The token itself and its expiry are not stored: a run that was allowed in time may
// finish after the token has expired, and a stored token could be stolen.
type Caller struct {
	Subject   string   `json:"sub,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	SessionID string   `json:"session,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
	Path      string   `json:"path"` // the path of the POST request
}

// checkStillAllowed repeats the authorization decision for the caller that is recorded in a run's row. Its error is
// fault.Forbidden with a text for the caller. Rows from versions that did not record a caller are denied.
func (r *Runner) checkStillAllowed(recorded json.RawMessage) error {
	if recorded == nil {
		return fault.Public(fault.Forbidden, "The server stopped while this run was in progress, and the run was started "+
			"by an older version that did not record its caller; start the run again", nil)
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
