package fault

import "strings"

// hints map the detail of a 401 to what the caller can do. The first entry whose
// detail is a prefix of the error's detail counts, and the last entry matches every
// detail. AgentOS's details name the problem only; the hint adds the remedy. A hint
// depends on nothing but the detail: it must not reveal a configured key, audience or
// issuer, because anybody can get it without a valid token, and it must not repeat
// what the token contains.
var hints = []struct{ detail, hint string }{
	{"Authorization header missing", "Send the header Authorization: Bearer TOKEN. Ask the operator of this server " +
		"where to get a token."},
	{"Ambiguous Authorization header", "Send exactly one Authorization header. The client or a proxy sent several."},
	{"Token has expired", "Get a new token. If this token is new, check that the clocks of its issuer and of this " +
		"server are right."},
	{"Token has been revoked", "Get a new token. The operator of this server has revoked this one, or all tokens of its " +
		"subject that were issued before a certain time."},
	{"Service accounts", "Send a JSON Web Token. Tokens of service accounts (agno_pat_) are not supported here."},
	{"Invalid token audience", "The signature is valid, but the token is for another service. Ask the issuer for a " +
		"token whose aud claim names this server."},
	{"Invalid token subject", "The subject of the token is reserved, too long or contains characters that can't be " +
		"stored. Ask the issuer for a token with another subject."},
	{"Invalid token: Signature verification failed", "No key of this server made this signature. The token is from " +
		"another issuer or environment, or it was changed or cut off on its way. Get a new token."},
	{"Invalid token: The specified alg", "This server does not accept the algorithm that the token is signed with. " +
		"Ask the issuer to use an algorithm that the operator of this server accepts."},
	{"Invalid token: Algorithm not specified", "The header of the token names no algorithm (alg). Ask the issuer for " +
		"a signed token."},
	{"Invalid token: Unsupported critical", "The header of the token requires an extension (crit or b64) that this " +
		"server does not support. Ask the issuer for a token without it."},
	{"Invalid token: Key ID", "The key ID (kid) in the header of the token is not a string. Ask the issuer for a " +
		"token whose kid is a string, or for one without kid."},
	{"Invalid token: Not enough segments", "The value that was sent is not a JSON Web Token, which has three parts " +
		"with dots between them. Send Authorization: Bearer TOKEN, with the whole token and without quotes. If the issuer " +
		"gave you a token without dots, it is an opaque one: " + askForJWT},
	{"Invalid token: Invalid header", unreadable + " With Authorization: DPoP, ask the issuer for a bearer token, which " +
		"is not bound to a key."},
	{"Invalid token: Invalid payload string", "The claims of the token are not one JSON object in which each name " +
		"occurs once. Get a new token. If it has the same fault, report that to its issuer."},
	{"Invalid token: Invalid payload", unreadable + " A token of five parts is encrypted (JWE): " + askForJWT},
	{"Invalid token: Invalid crypto", unreadable},
	{"Invalid token: Longer than", "Ask the issuer for a shorter token, for example with the scope resource:action " +
		"instead of many scopes resource:id:action."},
	{"Invalid token: More than", "Ask the issuer for a token with fewer scopes, for example with resource:action " +
		"instead of many scopes resource:id:action."},
	{"Invalid token: Invalid issuer", "The signature is valid, but the iss claim of the token is not the issuer that " +
		"this server trusts. Get a token from that issuer."},
	{"Invalid token: The token is not yet valid", "Wait until the token is valid. If it should be valid already, " +
		"check that the clocks of its issuer and of this server are right."},
	{`Invalid token: Token is missing the "exp"`, "Ask the issuer for a token with an expiry time (exp), in seconds " +
		"since 1970."},
	{`Invalid token: Token is missing the "aud"`, "Ask the issuer for a token whose audience (aud) names this server."},
	{`Invalid token: Token is missing the "iss"`, "Ask the issuer for a token that names its issuer (iss)."},
	{"Invalid token: Expiration Time", "Ask the issuer for a token whose exp claim is a number of seconds since 1970, " +
		"not milliseconds and not a string."},
	{"Invalid token: The header's typ", kindOfToken}, {"Invalid token: It is an ID token", kindOfToken},
	{"Invalid token: It is a logout token", kindOfToken},
	{"Invalid token: It is bound to a key", "This token is only for the holder of its key, and this server does not " +
		"ask for the proof. Ask the issuer for a token without cnf (DPoP or a client certificate)."},
	{"Invalid token: Invalid client", foreignClient}, {"Invalid token: Token names no client", foreignClient},
	{"The code is wrong", "Open the last address that keyway serve has printed, or start it again to get a new code."},
	{"Invalid token: ", "Ask the issuer for a new token without the problem that the detail names."},
	{"", "Ask the operator of this server where to get a new token, and send it as Authorization: Bearer TOKEN."},
}

// askForJWT is for tokens that only their issuer can read. Auth0 and oidc-provider, for example, issue such tokens
// unless the request names an API.
const askForJWT = "ask the issuer for a signed JWT as access token. Most issuers give one if the request names the " +
	"API of this server, as audience or resource."

const unreadable = "The token can't be read. Send all of it, exactly as it was issued: three parts of unpadded " +
	"base64url, without quotes, line ends or any scheme other than Bearer."

const kindOfToken = "The signature is valid, but this is not an access token. Send the one that the issuer gave as " +
	"access_token, not the id_token."

const foreignClient = "The signature is valid, but the token was issued to a client that this server does not " +
	"accept. " +
	"Its azp, client_id or cid claim must name one of the accepted clients."

// Hint returns what the caller can do about a 401 with this detail. It is never empty.
func Hint(detail string) string {
	for _, h := range hints {
		if strings.HasPrefix(detail, h.detail) {
			return h.hint
		}
	}
	return ""
}

// challenge returns the WWW-Authenticate header of a 401 with this detail. RFC 9110
// section 15.5.2 requires the header. RFC 6750 section 3.1 says that a request without
// any token should get no error code, so that the two details for a missing token get
// the realm alone.
func challenge(detail string) string {
	const realm = `Bearer realm="agentos"`
	if detail == hints[0].detail || detail == Unauthenticated.Error() {
		return realm
	}
	return realm + `, error="invalid_token", error_description="` + strings.Map(describable, detail) + `"`
}

// describable maps a character to one that RFC 6750 section 3 allows in an
// error_description: printable ASCII without " and \, which no escape makes legal.
func describable(r rune) rune {
	switch {
	case r == '"':
		return '\''
	case r < ' ' || r > '~' || r == '\\':
		return '?'
	}
	return r
}
