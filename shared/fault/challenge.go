package fault

import "strings"

// hints say what a caller who gets a 401 can do. The first entry that begins the
// detail counts. They know the kind of fault only: never a configured key,
// audience or issuer, and nothing that the token held.
var hints = []struct{ detail, hint string }{
	{"Authorization header missing", "Send the header Authorization: Bearer TOKEN. Tokens come from whoever issues them for this OS."},
	{"Ambiguous Authorization header", "Send one Authorization header; a client or a proxy added another."},
	{"Token has expired", "Get a new token. If this one is new, compare the clocks of its issuer and of this OS."},
	{"Service accounts", "Send a JSON Web Token; service accounts' tokens (agno_pat_) are not served here."},
	{"Invalid token audience", "The token is genuine but made for another service: ask its issuer for one whose aud names this OS."},
	{"Invalid token subject", "The token's subject is reserved, too long or holds text that can't be stored: have it issued for another one."},
	{"Invalid token: Signature verification failed", "No key of this OS made this signature. The token comes from another issuer or environment, or was changed or cut on its way; get a new one."},
	{"Invalid token: The specified alg", "The token is signed with an algorithm that this OS does not accept: have its issuer sign with the one agreed on with this OS's operator."},
	{"Invalid token: Algorithm not specified", "The token's header names no algorithm (alg): have its issuer sign it."},
	{"Invalid token: Unsupported critical", "The token's header asks for an extension (crit, b64) that is not understood here: have it issued without."},
	{"Invalid token: Key ID", "The token's header has a kid that is no text: have it issued with a text or without kid."},
	{"Invalid token: Not enough segments", "What was sent is no JSON Web Token, which is three parts with dots between them. Send Authorization: Bearer TOKEN, with the whole token and without quotes."},
	{"Invalid token: Invalid header", unreadable},
	{"Invalid token: Invalid payload", unreadable},
	{"Invalid token: Invalid crypto", unreadable},
	{"Invalid token: Longer than", "Have a shorter token issued, for example with resource:action in place of many resource:id:action."},
	{"Invalid token: More than", "Have a token with fewer scopes issued, for example resource:action in place of many resource:id:action."},
	{"Invalid token: Invalid issuer", "The token is genuine but its iss is not the issuer that this OS trusts: get one from that issuer."},
	{"Invalid token: The token is not yet valid", "Wait until the token is valid, or compare the clocks of its issuer and of this OS."},
	{`Invalid token: Token is missing the "exp"`, "Have the token issued with an expiry (exp), in seconds since 1970."},
	{`Invalid token: Token is missing the "aud"`, "Have the token issued with an audience (aud) that names this OS."},
	{`Invalid token: Token is missing the "iss"`, "Have the token issued with its issuer (iss)."},
	{"Invalid token: Expiration Time", "Have the token issued with an exp in whole seconds since 1970, not in milliseconds and not as text."},
	{"Invalid token: ", "The token can't be used as it is: have it issued again without the fault that is named."},
	{"", "Get a new token from whoever issues them for this OS, and send it as Authorization: Bearer TOKEN."},
}

const unreadable = "The token can't be read. Send it whole and as it was issued: unpadded base64url in three parts, no quotes, no line ends, no scheme but Bearer."

// Hint is what to do about a 401 with this detail.
func Hint(detail string) string {
	for _, h := range hints {
		if strings.HasPrefix(detail, h.detail) {
			return h.hint
		}
	}
	return ""
}

// challenge is the WWW-Authenticate of a 401 with this detail (RFC 6750 section 3):
// who sent no token is told of no error.
func challenge(detail string) string {
	const realm = `Bearer realm="agentos"`
	if detail == hints[0].detail || detail == Unauthenticated.Error() {
		return realm
	}
	return realm + `, error="invalid_token", error_description="` + strings.Map(describable, detail) + `"`
}

// describable keeps what RFC 6750 lets an error_description hold: printable ASCII
// without " and \, which no escape makes legal.
func describable(r rune) rune {
	switch {
	case r == '"':
		return '\''
	case r < ' ' || r > '~' || r == '\\':
		return '?'
	}
	return r
}
