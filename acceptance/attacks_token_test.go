package acceptance

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The beginnings of AgentOS's error details.
const (
	noHeader     = "Authorization header missing"
	badAlgorithm = "Invalid token: The specified alg value is not allowed"
	badSignature = "Invalid token: Signature verification failed"
	badSubject   = "Invalid token subject"
	badToken     = "Invalid token: "
	badAudience  = "Invalid token audience"
)

// withToken is an attack with an invalid token in the right header.
func withToken(name, says, token string) attack {
	return attack{name: name, lines: bearer(token), says: says}
}

func TestTokenNotSignedByTheIssuerIsRejected(t *testing.T) {
	t.Parallel()
	forEveryIssuer(t, func(t *testing.T, f *attackedOS) {
		t.Helper()
		f.rejectsAll(t, unsigned(f.issuer))
		f.rejectsAll(t, borrowedKeys(f.issuer))
		f.rejectsAll(t, brokenSignatures(f.issuer))
	})
}

// unsigned are tokens whose header names no algorithm, with a signature and without.
func unsigned(issuer forge) (list []attack) {
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "none ", "", "null", "HS0", strings.ToLower(issuer.alg),
		issuer.alg + " ", issuer.alg + "\x00"} {
		head := strings.Replace(jose(alg, ""), `\x00`, `\u0000`, 1)
		signed := b64(head) + "." + b64(payload())
		for kind, signature := range map[string]string{
			"no signature": "", "an empty key's": b64(string(hmacForge("HS256", "").sign(signed))),
			"the issuer's own": b64(string(issuer.sign(signed))), "text": "c2lnbmF0dXJl",
		} {
			list = append(list, withToken(fmt.Sprintf("alg %q with %s", alg, kind), badAlgorithm, signed+"."+signature))
		}
	}
	for name, head := range map[string]string{"no alg": `{"typ":"JWT"}`, "alg null": `{"alg":null}`,
		"alg a list": `{"alg":["` + issuer.alg + `"]}`, "alg a number": `{"alg":256}`} {
		list = append(list, withToken(name, badToken, issuer.jws(head, payload())),
			withToken(name+", unsigned", badToken, b64(head)+"."+b64(payload())+"."))
	}
	return list
}

// borrowedKeys are tokens signed with another key than the issuer's private key, or by
// another algorithm: for example HMAC with the public key as its secret.
func borrowedKeys(issuer forge) (list []attack) {
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		for i, secret := range append(issuer.public, []byte(issuer.jwk), []byte{}, make([]byte, 32)) {
			f := hmacForge(alg, string(secret))
			says := badAlgorithm
			if alg == issuer.alg {
				says = badSignature
			}
			list = append(list, withToken(fmt.Sprintf("%s with public form %d", alg, i), says, f.token(payload())),
				withToken(fmt.Sprintf("%s with public form %d, called %s", alg, i, issuer.alg), badSignature,
					f.named(issuer.alg).token(payload())))
		}
	}
	for name, f := range otherAlgorithms(issuer.alg) {
		list = append(list, withToken(name, badAlgorithm, f.token(payload())),
			withToken(name+" called "+issuer.alg, badSignature, f.named(issuer.alg).token(payload())))
	}
	return append(list, withToken("a stranger's key", badSignature, attacker(issuer.alg).token(payload())))
}

// brokenSignatures are valid tokens with one part changed.
func brokenSignatures(issuer forge) []attack {
	good := issuer.token(payload())
	parts := strings.Split(good, ".")
	signed, signature := parts[0]+"."+parts[1], must(base64.RawURLEncoding.DecodeString(parts[2]))
	bob := strings.Split(issuer.token(payload("sub", `"bob"`)), ".")
	list := []attack{
		withToken("the signature cut off", badSignature, signed+"."),
		withToken("the signature and its dot cut off", badToken, signed),
		withToken("another token's payload", badSignature, parts[0]+"."+bob[1]+"."+parts[2]),
		withToken("another token's signature", badSignature, signed+"."+bob[2]),
		withToken("a header of its own", badSignature, b64(jose(issuer.alg, `,"x":1`))+"."+parts[1]+"."+parts[2]),
		withToken("no payload", badSignature, parts[0]+".."+parts[2]),
		withToken("a part more", badToken, good+"."+parts[2]),
		withToken("five parts, as a JWE", badToken, b64(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)+".a2V5.aXY."+parts[1]+".dGFn"),
		withToken("five parts, as a direct JWE", badToken, b64(`{"alg":"dir","enc":"A256GCM"}`)+"..aXY."+parts[1]+".dGFn"),
		withToken("three dots", badToken, "..."), withToken("two dots", badToken, ".."),
		withToken("padding", badToken, good+"="), withToken("padding in the header", badToken,
			parts[0]+"=."+parts[1]+"."+parts[2]),
		withToken("a line end in the payload", badToken, parts[0]+"."+parts[1][:8]+"\r\n "+parts[1][8:]+"."+parts[2]),
		withToken("a blank in the payload", badToken, parts[0]+"."+parts[1][:8]+" "+parts[1][8:]+"."+parts[2]),
		withToken("the other alphabet", badToken, otherAlphabet(issuer)),
		withToken("the signature's last bits", badToken, signed+"."+lastBits(parts[2])),
		withToken("a byte more", badSignature, signed+"."+b64(string(signature)+"\x00")),
		withToken("a byte before", badSignature, signed+"."+b64("\x00"+string(signature))),
		withToken("a byte less", badSignature, signed+"."+b64(string(signature[1:]))),
		withToken("the signature twice", badSignature, signed+"."+b64(string(signature)+string(signature))),
		withToken("zeros", badSignature, signed+"."+b64(string(make([]byte, len(signature))))),
		withToken("the signature in hexadecimal", badSignature, signed+"."+b64(hex.EncodeToString(signature))),
	}
	switch key := issuer.private.(type) {
	case *ecdsa.PrivateKey:
		list = append(list, brokenECDSA(key, signed, string(signature))...)
	case *rsa.PrivateKey:
		list = append(list, withToken("leading zeros trimmed", badSignature, trimmed(issuer)))
	}
	return list
}

// brokenECDSA are signatures (r, s) that a verifier must reject.
func brokenECDSA(key *ecdsa.PrivateKey, signed, signature string) (list []attack) {
	n, r, s := key.Params().N, signature[:32], signature[32:]
	wide := func(i *big.Int) string { return string(i.FillBytes(make([]byte, 32))) }
	number := func(text string) *big.Int { return new(big.Int).SetBytes([]byte(text)) }
	for name, signature := range map[string]string{
		"r = 0": wide(new(big.Int)) + s, "s = 0": r + wide(new(big.Int)), "r = n": wide(n) + s, "s = n": r + wide(n),
		"r = s = n":    wide(n) + wide(n),
		"r = 1, s = 1": wide(big.NewInt(1)) + wide(big.NewInt(1)), "swapped": s + r, "r alone": r, "empty": "",
		"as P-521": strings.Repeat("\x00", 68) + signature,
		"as DER":   string(must(asn1.Marshal(struct{ R, S *big.Int }{number(r), number(s)}))),
	} {
		list = append(list, withToken("ES256 with "+name, badSignature, signed+"."+b64(signature)))
	}
	return list
}

// otherAlphabet is a valid token in the alphabet of standard base64 instead of base64url.
func otherAlphabet(issuer forge) string {
	for i := 0; ; i++ {
		good := issuer.token(payload("jti", fmt.Sprintf(`"%d"`, i)))
		if plain := strings.NewReplacer("-", "+", "_", "/").Replace(good); plain != good {
			return plain
		}
	}
}

// lastBits changes the unused bits at the end of a base64 segment. A lax decoder returns
// the same bytes for it.
func lastBits(segment string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, segment[len(segment)-1])
	return segment[:len(segment)-1] + alphabet[last+1:last+2]
}

// trimmed is a valid token without the leading zero byte of its signature.
func trimmed(issuer forge) string {
	for i := 0; ; i++ {
		signed := b64(jose(issuer.alg, "")) + "." + b64(payload("jti", fmt.Sprintf(`"%d"`, i)))
		if signature := issuer.sign(signed); signature[0] == 0 {
			return signed + "." + b64(string(signature[1:]))
		}
	}
}

func TestSignedTokenWithInvalidClaimsIsRejected(t *testing.T) {
	t.Parallel()
	forEveryIssuer(t, func(t *testing.T, f *attackedOS) {
		t.Helper()
		var list []attack
		for _, row := range wrongClaims() {
			list = append(list, withToken(row.name+" "+fmt.Sprintf("%.60s", row.value), row.says,
				f.issuer.token(payload(row.name, row.value))))
		}
		for name, text := range map[string]string{
			"two subjects":              strings.Replace(payload(), `"sub":"ann"`, `"sub":"bob","sub":"ann"`, 1),
			"two subjects, one escaped": strings.Replace(payload(), `"sub":"ann"`, `"sub":"bob","s\u0075b":"ann"`, 1),
			"two expiries":              strings.Replace(payload(), `"exp"`, `"exp":0,"exp"`, 1),
			"two lists of scopes":       `{"scopes":[],` + payload()[1:],
			"a list":                    "[" + payload() + "]",
			"text after the claims":     payload() + "x",
			"two documents":             payload() + payload(),
			"a mark before the claims":  "\ufeff" + payload(),
			"bytes that are no UTF-8":   payload("x", "\"\xff\""),
			"half a surrogate pair":     payload("x", `"\ud800"`),
			"nesting of 10,000 levels":  payload("x", strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)),
			"no claims":                 "",
		} {
			list = append(list, withToken(name, badToken, f.issuer.jws(jose(f.issuer.alg, ""), text)))
		}
		f.rejectsAll(t, list)
	})
}

// seconds is the NumericDate (RFC 7519, section 2) that is d from now.
func seconds(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }

// wrongClaims are values of claims for which a correctly signed token is rejected.
func wrongClaims() (rows []struct{ name, value, says string }) {
	text := func(s string) string { return `"` + s + `"` }
	for says, byName := range map[string]map[string][]string{
		"Token has expired": {"exp": {"0", "-1", "-1e30", seconds(-time.Minute), "1", seconds(-time.Minute) + ".9"}},
		badToken: {
			"exp": {
				"", "null", text("123"), text(seconds(time.Hour)), "true", "1e400", "-1e400", "[" + seconds(time.Hour) + "]", "{}",
				seconds(time.Hour) + "000", "1e300", "NaN", "Infinity", "0x7fffffff",
			},
			"nbf": {seconds(time.Hour), seconds(time.Minute), text("x"), "true", "1e400", seconds(0) + "000"},
			"iat": {seconds(time.Hour), seconds(time.Minute), text("x"), "[]", "1e400", seconds(0) + "000"},
			"aud": {"", "null"},
			"sub": {"7", `["ann"]`, `{"sub":"ann"}`, "true", "1.5"},
			"iss": {"7", "[]"}, "jti": {"7", `["x"]`}, "session_id": {"7", `["hers"]`, text(strings.Repeat("s", 256))},
			"scopes": {`["` + strings.Repeat(`x","`, 4096) + `agent_os:admin"]`,
				`["agent_os:admin","` + strings.Repeat("x", 32<<10) + `"]`},
			"x": {text(strings.Repeat("x", 52<<10))},
		},
		badAudience: {"aud": {
			text("other"), text(""), text("FORT"), text("fort "), text("fort,other"), text("for"), "[]", `["other"]`, `[""]`,
			"{}", `{"fort":"fort"}`, "7", "true", `[["fort"]]`, `["fort",7]`,
		}},
		badSubject: {"sub": {
			text("sa:bot"), text("sa:"), text("__scheduler__"), text("__oauth__:x"), text(`\u0073a:bot`), text(`a\u0000b`),
			text(strings.Repeat("x", 1025)),
		}},
	} {
		for name, values := range byName {
			for _, value := range values {
				rows = append(rows, struct{ name, value, says string }{name, value, says})
			}
		}
	}
	return rows
}

// The header of a token can't make the server use another key, read a file or fetch a URL.
func TestTokenHeaderCannotChooseTheKey(t *testing.T) {
	t.Parallel()
	forEveryIssuer(t, func(t *testing.T, f *attackedOS) {
		t.Helper()
		theirs := attacker(f.issuer.alg)
		var fetched atomic.Int32
		listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fetched.Add(1)
			fmt.Fprintf(w, `{"keys":[%s],"jwks_uri":"http://%s/jwks.json"}`, theirs.jwk, "localhost")
		}))
		t.Cleanup(listener.Close)
		var list []attack
		for name, more := range keyPointers(t, theirs, listener.URL) {
			list = append(list, withToken(name, badSignature, theirs.jws(jose(theirs.alg, more), payload())))
			// In a token that the issuer signed, the same members are ignored.
			got := f.raw("GET /config", bearer(f.issuer.jws(jose(f.issuer.alg, more), payload())), "")
			got.Want(t, name+", signed by the issuer", 200)
		}
		for i, secret := range []string{"", "1", readFile(t, "../go.mod"), listener.URL} {
			list = append(list, withToken(fmt.Sprintf("kid with a known content, %d", i), badSignature,
				hmacForge("HS256", secret).named(f.issuer.alg).jws(jose(f.issuer.alg, `,"kid":"../go.mod"`), payload())))
		}
		for _, more := range []string{
			`,"kid":7`, `,"kid":["a"]`, `,"kid":{"k":"` + b64(issuerSecret) + `"}`, `,"crit":["exp"]`, `,"crit":[]`,
			`,"crit":["x"],"x":1`, `,"b64":false`, `,"b64":true,"crit":["b64"]`,
			`,"alg":"` + f.issuer.alg + `"`, `,"\u0061lg":"none"`,
			`,"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		} {
			list = append(list, withToken(fmt.Sprintf("header with %.40s", more), badToken,
				f.issuer.jws(jose(f.issuer.alg, more), payload())))
		}
		f.rejectsAll(t, list)
		if n := fetched.Load(); n > 0 {
			t.Errorf("the server fetched the attacker's URL %d times", n)
		}
	})
}

// keyPointers are members of a token's header that point to the attacker's key.
func keyPointers(t *testing.T, theirs forge, listener string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(`{"keys":[`+theirs.jwk+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate := "MA=="
	if theirs.private != nil {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		public := map[bool]any{true: &attackerRSA().PublicKey,
			false: &attackerEC().PublicKey}[strings.HasPrefix(theirs.alg, "RS")]
		certificate = base64.StdEncoding.EncodeToString(must(x509.CreateCertificate(rand.Reader, template, template,
			public, theirs.private)))
	}
	posts := map[string]string{
		"jku": `,"jku":"` + listener + `/jwks.json"`, "jku and kid": `,"kid":"1","jku":"` + listener + `/jwks.json"`,
		"x5u": `,"x5u":"` + listener + `/cert.pem"`,
		"jwk": `,"jwk":` + theirs.jwk, "x5c": `,"x5c":["` + certificate + `"]`, "x5t": `,"x5t":"x","x5t#S256":"x"`,
		"iss":         `,"iss":"` + listener + `"`,
		"cty and zip": `,"cty":"JWT","zip":"DEF"`, "keys": `,"keys":[` + theirs.jwk + `]`,
	}
	for name, kid := range map[string]string{
		"up": "../../../../../../dev/null", "absolute": "/etc/passwd", "a file": "file:///etc/passwd",
		"the attacker's file": file, "its URL": "file://" + file,
		"an address": listener + "/jwks.json", "SQL": "x' UNION SELECT '1'; DROP TABLE keyway.runs; --",
		"a shell's": "$(curl " + listener + ")", "10 KB": strings.Repeat("k", 10<<10),
		"NUL": `a\u0000b`, "empty": "", "a format": "%s%n{}${jndi:ldap://" + strings.TrimPrefix(listener, "http://") + "}",
	} {
		posts["kid: "+name] = `,"kid":"` + kid + `"`
	}
	return posts
}

// The token is read from one Authorization header only: not from other headers, cookies,
// the query or the form.
func TestTokenIsReadOnlyFromTheAuthorizationHeader(t *testing.T) {
	t.Parallel()
	forEveryIssuer(t, func(t *testing.T, f *attackedOS) {
		t.Helper()
		good := f.Tokens["ann"]
		const missing, two = noHeader, "Ambiguous Authorization header"
		list := []attack{
			{name: "none", says: missing},
			{name: "an empty header", lines: []string{"Authorization:"}, says: missing},
			{name: "a scheme alone", lines: []string{"Authorization: Bearer"}, says: badToken},
			{name: "a scheme and blanks", lines: []string{"Authorization: Bearer   \t "}, says: badToken},
			{name: "Basic", lines: []string{"Authorization: Basic " +
				base64.StdEncoding.EncodeToString([]byte("ann:"+good))}, says: badToken},
			{name: "Basic with a token", lines: []string{"Authorization: Basic " + good}, says: badToken},
			{name: "Token", lines: []string{"Authorization: Token " + good}, says: badToken},
			{name: "Bearer twice", lines: []string{"Authorization: Bearer Bearer " + good}, says: badToken},
			{name: "a parameter", lines: []string{`Authorization: Bearer token="` + good + `"`}, says: badToken},
			{name: "twice", lines: append(bearer(good), bearer(good)...), says: two},
			{name: "twice, bad first", lines: append(bearer("x"), bearer(good)...), says: two},
			{name: "twice, bad last", lines: append(bearer(good), bearer("x")...), says: two},
			{name: "twice, in odd case", lines: []string{"aUTHORIZATION: bearer " + good,
				"AUTHORIZATION: Bearer " + good}, says: two},
			{name: "twice, one empty", lines: []string{"Authorization:", "authorization: Bearer " + good}, says: two},
			{name: "a list of two", lines: bearer(good + ", Bearer " + good), says: badToken},
			{name: "a list with an empty one", lines: bearer(good + ","), says: badToken},
			{name: "a folded line", lines: []string{"Authorization: Bearer", "\t" + good + "\r\n x"}, says: badToken},
			{name: "a personal access token", lines: bearer("agno_pat_0123456789"), says: "Service accounts are not enabled"},
			withToken("70 KB", "Invalid token: Longer than", strings.Repeat("a", 70<<10)),
			withToken("70 KB of dots", "Invalid token: Longer than", strings.Repeat(".", 70<<10)),
			withToken("60 KB of dots", badToken, strings.Repeat(".", 60<<10)),
		}
		for _, name := range []string{
			"X-Authorization", "Proxy-Authorization", "X-Forwarded-Authorization", "X-Amzn-Remapped-Authorization", "X-Api-Key",
			"Access-Token", "Sec-WebSocket-Protocol", "Authorization-", "X-Amz-Security-Token",
		} {
			list = append(list, attack{name: name, lines: []string{name + ": Bearer " + good}, says: missing})
		}
		for _, name := range []string{"Authorization", "access_token", "token", "session", "jwt", "id_token"} {
			list = append(list, attack{name: "cookie " + name, lines: []string{"Cookie: " + name + "=" + good + "; " + name +
				"=Bearer%20" + good}, says: missing},
				attack{name: "query " + name, query: name + "=" + good + "&" + name + "=Bearer%20" + good, says: missing},
				attack{name: "field " + name, field: name + "=" + good, says: missing})
		}
		f.rejectsAll(t, list)
		for _, line := range []string{"Authorization : Bearer ", "Authorization\t: Bearer ", " Authorization: Bearer ",
			"Authorization\x00: Bearer "} {
			if got := f.raw("GET /config", []string{"X: y", line + good}, ""); got.Status != 400 && got.Status != 401 {
				t.Errorf("%q: %d %s", line, got.Status, got.Body)
			}
		}
		body := "12\r\nmessage=hi&stream=0\r\n0\r\nAuthorization: Bearer " + good + "\r\n\r\n"
		f.raw("POST /agents/a/runs", []string{contentType(""), "Transfer-Encoding: chunked", "Trailer: Authorization", "",
			body}, "").Want(t, "in a trailer", 401, missing)
	})
}
