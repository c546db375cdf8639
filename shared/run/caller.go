package run

import "github.com/keyway-agents/keyway/shared/limit"

// Caller is the verified identity that was allowed to start or continue a run, and the scopes that it had. It is
// stored in the run's row until the run ends, so that every later attempt can repeat the authorization decision
// under the policy then in force. The token itself and its expiry are not stored: a run that was allowed in time may
// finish after the token has expired, and a stored token could be stolen.
type Caller struct {
	Subject   string   `json:"sub,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	Realm     string   `json:"realm,omitempty"`
	SessionID string   `json:"session,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
	Path      string   `json:"path"` // the path of the POST request
	// TokenID and IssuedAt, in Unix seconds, say whether the token was revoked meanwhile. Both are zero for a token
	// without the claim, and in rows of earlier versions.
	TokenID  string `json:"jti,omitempty"`
	IssuedAt int64  `json:"iat,omitempty"`
	// Limits are those of the caller when the run was begun or continued. The statement that claims a run reads
	// concurrent_runs from the row.
	Limits limit.Limits `json:"limits,omitzero"`
	// Trace is the span of the request, in the form of the header traceparent. The spans of a process that claims the run
	// become a part of the same trace. It is "" if the request was not traced.
	Trace string `json:"trace,omitempty"`
}
