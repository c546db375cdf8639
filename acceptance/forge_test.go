package acceptance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"time"

	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
)

// forge makes tokens byte by byte. A JWT library would refuse to make invalid ones.
type forge struct {
	alg      string
	sign     func(signed string) []byte
	verifies string   // the server's verification key: the secret, or the public key as PEM
	public   [][]byte // all encodings in which the public key may be published
	jwk      string   // the key as a JWK
	private  any
}

func b64(data string) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// jose is a JOSE header with alg and typ, followed by more members.
func jose(alg, more string) string { return fmt.Sprintf(`{"alg":%q,"typ":"JWT"%s}`, alg, more) }

// jws signs a header and a payload as they are given.
func (f forge) jws(header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(string(f.sign(signed)))
}

// token signs claims with this forge's own header.
func (f forge) token(payload string) string { return f.jws(jose(f.alg, ""), payload) }

// payload returns the claims of an administrator, valid for an hour. changes are pairs of a
// claim's name and the JSON text of its value; an empty text removes the claim.
func payload(changes ...string) string {
	now := time.Now().Unix()
	names := []string{"sub", "aud", "iat", "nbf", "exp", "scopes"}
	values := map[string]string{
		"sub": `"ann"`, "aud": `"fort"`, "iat": fmt.Sprint(now), "nbf": fmt.Sprint(now), "exp": fmt.Sprint(now + 3600),
		"scopes": `["agent_os:admin"]`,
	}
	for i := 0; i < len(changes); i += 2 {
		if values[changes[i]] == "" {
			names = append(names, changes[i])
		}
		values[changes[i]] = changes[i+1]
	}
	var members []string
	for _, name := range names {
		if values[name] != "" {
			members = append(members, fmt.Sprintf("%q:%s", name, values[name]))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

// scoped returns claims with these scopes instead of the administrator's.
func scoped(scopes ...string) string {
	list, _ := json.Marshal(append([]string{}, scopes...)) // a list of strings can always be encoded
	return payload("scopes", string(list))
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func digest(alg, signed string) (crypto.Hash, []byte) {
	h := hashes[alg[2:]]
	sum := h.New()
	sum.Write([]byte(signed))
	return h, sum.Sum(nil)
}

func hmacForge(alg, secret string) forge {
	return forge{
		alg: alg, verifies: secret, jwk: fmt.Sprintf(`{"kty":"oct","k":%q}`, b64(secret)),
		sign: func(signed string) []byte {
			mac := hmac.New(hashes[alg[2:]].New, []byte(secret))
			mac.Write([]byte(signed))
			return mac.Sum(nil)
		},
	}
}

func rsaForge(alg string, key *rsa.PrivateKey) forge {
	f := publicForge(forge{alg: alg, private: key}, &key.PublicKey)
	f.public = append(f.public, key.N.Bytes(), x509.MarshalPKCS1PublicKey(&key.PublicKey), []byte(key.N.String()),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}))
	f.jwk = fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(string(key.N.Bytes())))
	f.sign = func(signed string) []byte {
		h, sum := digest(alg, signed)
		if alg[:2] == "PS" {
			return must(rsa.SignPSS(rand.Reader, key, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(nil, key, h, sum))
	}
	return f
}

func ecForge(alg string, key *ecdsa.PrivateKey) forge {
	f := publicForge(forge{alg: alg, private: key}, &key.PublicKey)
	point := must(key.PublicKey.Bytes())
	size := (len(point) - 1) / 2
	f.public = append(f.public, point, point[1:1+size])
	f.jwk = fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q}`, key.Params().Name, b64(string(point[1:1+size])),
		b64(string(point[1+size:])))
	f.sign = func(signed string) []byte {
		_, sum := digest(alg, signed)
		r, s := must2(ecdsa.Sign(rand.Reader, key, sum))
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
	return f
}

// publicForge adds the encodings in which a public key is usually published.
func publicForge(f forge, key any) forge {
	der := must(x509.MarshalPKIXPublicKey(key))
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	f.verifies = string(text)
	lines := strings.Split(strings.TrimSpace(f.verifies), "\n")
	f.public = [][]byte{
		text, text[:len(text)-1], append(text, '\n'), []byte(strings.ReplaceAll(f.verifies, "\n", "\r\n")),
		[]byte(strings.ReplaceAll(f.verifies, "\n", `\n`)),
		[]byte(strings.Join(lines[1:len(lines)-1], "")), []byte(strings.Join(lines[1:len(lines)-1], "\n")), der,
	}
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[T, U any](v T, w U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return v, w
}

// The keys of the issuer, and the attacker's keys of the same kinds.
var (
	issuerRSA   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	attackerRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	issuerEC    = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) })
	attackerEC  = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) })
)

func newEC(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

const issuerSecret = "TEST KEY ONLY: thirty-two bytes at the very least"

// honestIssuers returns the issuer for each of the three kinds of keys.
func honestIssuers() map[string]forge {
	return map[string]forge{
		"HS256": hmacForge("HS256", issuerSecret), "RS256": rsaForge("RS256", issuerRSA()),
		"ES256": ecForge("ES256", issuerEC()),
	}
}

// attacker is a forge with another key of the same kind.
func attacker(alg string) forge {
	switch alg[:2] {
	case "HS":
		return hmacForge(alg, strings.Repeat("attacker", 5))
	case "ES":
		return ecForge(alg, attackerEC())
	}
	return rsaForge(alg, attackerRSA())
}

// otherAlgorithms returns forges for other algorithms of the same family: with the
// issuer's own key, and with a key made for the other algorithm.
func otherAlgorithms(alg string) map[string]forge {
	switch alg[:2] {
	case "HS":
		return map[string]forge{"HS384": hmacForge("HS384", issuerSecret), "HS512": hmacForge("HS512", issuerSecret)}
	case "ES":
		return map[string]forge{
			"ES384 of P-384":         ecForge("ES384", newEC(elliptic.P384())),
			"ES512 of P-521":         ecForge("ES512", newEC(elliptic.P521())),
			"ES384 of the right key": ecForge("ES384", issuerEC()), "ES512 of the right key": ecForge("ES512", issuerEC()),
			"RS256 of a stranger": rsaForge("RS256", attackerRSA()),
		}
	}
	out := map[string]forge{"ES256 of a stranger": ecForge("ES256", attackerEC())}
	for _, other := range []string{"RS384", "RS512", "PS256", "PS384", "PS512"} {
		out[other] = rsaForge(other, issuerRSA())
	}
	return out
}

// named returns a forge that writes another algorithm into the token's header.
func (f forge) named(alg string) forge { f.alg = alg; return f }
