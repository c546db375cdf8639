package wire

// Revocation says that a token, or the earlier tokens of a subject, are refused. AgentOS has no such type. One of
// TokenID and Subject is present.
type Revocation struct {
	Issuer  string `json:"issuer"`
	TokenID string `json:"jti,omitempty"`
	Subject string `json:"sub,omitempty"`
	// Before is present for a subject: its tokens that were issued before are refused.
	Before *MicroTime `json:"before,omitempty"`
	MadeAt MicroTime  `json:"made_at"`
	Note   string     `json:"note,omitempty"`
}
