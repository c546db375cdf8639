package token

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Hash is how logs name the token in the values of an Authorization header, good
// or bad: 16 hex digits of its SHA-256, and "" when nothing was sent. Of several
// values it is the hash of them all.
func Hash(authorization []string) string {
	value := bare(strings.Join(authorization, ", "))
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:8])
}
