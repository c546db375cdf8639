package token

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Hash identifies a token in logs, which must not contain the token itself: the first
// 16 hex digits of its SHA-256. authorization are the values of the Authorization
// header, whether or not the token is valid. Several values have one common hash. Hash
// returns "" if no token was sent.
func Hash(authorization []string) string {
	value := bare(strings.Join(authorization, ", "))
	if value == "" {
		return ""
	}
	// 64 bits distinguish all tokens of a log, and nobody can find a token from them.
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:8])
}
