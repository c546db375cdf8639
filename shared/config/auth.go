package config

import (
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
)

// newSecret is the remedy for every secret that others may know.
const newSecret = "make one with: openssl rand -hex 32"

// fromText reads a key given as itself, and never quotes it. Many .env files and
// consoles keep a PEM key on one line, with \n written out.
func (k *Key) fromText(d *decoder, path string, n *node) {
	literal := n.text
	isPEM := strings.Contains(literal, "-----BEGIN ")
	if isPEM {
		literal = strings.ReplaceAll(literal, `\n`, "\n")
	}
	block, _ := pem.Decode([]byte(literal))
	switch {
	case strings.TrimSpace(literal) == "":
		d.fault(path, "is empty", "write ${JWT_VERIFICATION_KEY}, and set it")
	case strings.Contains(literal, "PRIVATE KEY-----"):
		d.fault(path, "is a private key", "give the public one: openssl pkey -in private.pem -pubout")
	case isPEM && block == nil:
		d.fault(path, "is a damaged PEM key", "give all of it, from -----BEGIN to END-----, with its line breaks")
	case !isPEM && len(literal) < 32: // RFC 7518, 3.2
		d.fault(path, "is an HMAC secret under 32 bytes, short enough to guess", newSecret)
	default:
		k.Literal, k.FromVariable = Secret(literal), n.vars
	}
}

// leaveOutKeys takes out each entry of auth.keys whose whole content is one variable
// that is set and empty, so that one file serves where a secret holds the key and where
// a variable does. A variable that is not set at all may be a typing error, and stays a
// fault, except where a platform sets them. So does the last entry, since no key is no rule, and an entry with an issuer,
// by which owners are named.
func (d *decoder) leaveOutKeys(root *node) {
	keys := (*node)(nil)
	if auth := root.member("auth"); auth != nil {
		keys = auth.member("keys")
	}
	if keys == nil || keys.kind != listKind {
		return
	}
	left, names := map[string]*node{}, map[string]string{}
	for i, entry := range keys.sub {
		path := Element("auth.keys", i)
		if entry.kind == objectKind && len(entry.sub) == 1 && slices.Contains([]string{"jwks_file", "jwks_url", "secret"}, entry.keys[0]) {
			path, entry = Member(path, entry.keys[0]), entry.sub[0]
		}
		name, alone := strings.CutPrefix(entry.text, "${")
		name, closed := strings.CutSuffix(name, "}")
		if entry.kind != textKind || !alone || !closed || !isWord(name) || len(keys.sub) == 1 {
			continue
		}
		d.dispensable = append(d.dispensable, path)
		if value, set := d.Lookup(name); value == "" && (set || d.Platform) {
			left[path], names[path] = entry, name
		}
	}
	if len(left) == len(keys.sub) {
		return
	}
	for path, entry := range left {
		d.c.Unset[path], entry.kind = names[path], absentKind
	}
}

// isPEM tells a public key from an HMAC secret.
func (k Key) isPEM() bool { return strings.Contains(string(k.Literal), "-----BEGIN ") }

// waits reports whether k names no source of keys, its variable being unset.
func (k Key) waits() bool {
	return k.Literal == "" && k.JWKSFile == "" && k.JWKSURL == "" && k.Secret == ""
}

// checkAuth holds the rules that span several fields. A key is checked against the
// algorithms only when those are sound, lest one typing error be reported twice.
func (d *decoder) checkAuth(a *Auth) {
	hmac := slices.ContainsFunc(a.Algorithms, isHMAC)
	public := slices.ContainsFunc(a.Algorithms, func(s string) bool { return s != "" && !isHMAC(s) })
	if hmac && public {
		d.fault("auth.algorithms", "mixes HMAC and public-key algorithms, so that a public key could pass as a secret", "keep one kind")
	}
	if len(a.Keys) == 0 && !d.Dev && d.clean("auth.keys") {
		d.fault("auth.keys", "is missing", `add keys: ["${JWT_VERIFICATION_KEY}"], and set it; or use --dev`)
	}
	urls := 0
	for i, k := range a.Keys {
		path := Element("auth.keys", i)
		if k.JWKSURL != "" {
			urls++
			d.checkJWKSURL(path+".jwks_url", k.JWKSURL)
		}
		d.checkSource(path, k)
		if hmac != public && d.clean("auth.algorithms") {
			d.checkFamily(path, k, a.Algorithms[0])
		}
		d.warnKey(path, k, a)
	}
	d.checkIssuers(a.Keys, urls)
	if len(a.Audience) > 0 && !a.VerifyAudience {
		d.warn("auth.audience", "has no effect while verify_audience is false", "set verify_audience: true")
	}
}

func isHMAC(algorithm string) bool { return strings.HasPrefix(algorithm, "HS") }

// checkSource wants exactly one source. None is fine only for one that waits.
func (d *decoder) checkSource(path string, k Key) {
	n := 0
	for _, s := range []string{k.JWKSFile, k.JWKSURL, k.Secret} {
		if s != "" {
			n++
		}
	}
	if n == 1 || k.Literal != "" || !d.clean(path) {
		return
	}
	for waiting := range d.c.Unset {
		if n == 0 && (waiting == path || strings.HasPrefix(waiting, path+".")) {
			return
		}
	}
	d.fault(path, "needs exactly one source of keys", "write jwks_file, jwks_url or secret")
}

// checkFamily catches what would answer 401 to every token.
func (d *decoder) checkFamily(path string, k Key, algorithm string) {
	switch {
	case isHMAC(algorithm) && k.isPEM():
		d.fault(path, "is a public key, but auth.algorithms has "+algorithm, "write algorithms: [RS256], or whichever the key is for")
	case isHMAC(algorithm) && k.JWKSFile+k.JWKSURL != "":
		d.fault(path, "is a set of public keys, but auth.algorithms has "+algorithm, "write algorithms: [RS256], or whichever the keys are for")
	case !isHMAC(algorithm) && k.Literal != "" && !k.isPEM():
		d.fault(path, "is not a PEM public key, which "+algorithm+" needs", "give the text that begins with -----BEGIN PUBLIC KEY-----, or algorithms: [HS256]")
	}
}

// checkJWKSURL: whoever can change the answer signs as anybody, so only loopback,
// and only with --dev, goes without TLS.
func (d *decoder) checkJWKSURL(path, s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil:
		d.fault(path, "is not an https address", "write https://host/path, without credentials")
	case u.Scheme == "https" || d.Dev && u.Scheme == "http" && loopback(u.Hostname()):
	default:
		d.fault(path, "is not https, so that anybody on the way could replace the keys", "use https; with --dev, http on loopback works too")
	}
}

// checkIssuers: without an issuer of their own, the keys of one identity provider
// would sign for the users of another.
func (d *decoder) checkIssuers(keys []Key, urls int) {
	for i, k := range keys {
		path := Element("auth.keys", i)
		if urls > 1 && k.JWKSURL != "" && k.Issuer == "" && d.clean(path) {
			d.fault(path, "names no issuer, which each of several jwks_url needs", "add issuer: https://…, the iss of its tokens")
		}
	}
}

// SeveralIssuers reports whether tokens of more than one issuer are believed, so
// that a subject alone names nobody.
func (a Auth) SeveralIssuers() bool {
	return a.Issuer == "" && slices.ContainsFunc(a.Keys, func(k Key) bool { return k.Issuer != a.Keys[0].Issuer })
}

// warnKey names at most one thing: the worst.
func (d *decoder) warnKey(path string, k Key, a *Auth) {
	switch {
	case k.Literal == PublishedSecret:
		d.warn(path, published, newSecret)
	case k.Literal != "" && !k.FromVariable && !k.isPEM():
		d.warn(path, "is a secret in the file", "write ${JWT_VERIFICATION_KEY}, and set that")
	case k.JWKSURL != "" && len(k.Audience) == 0 && !a.VerifyAudience:
		d.warn(path, "accepts tokens that its issuer made for other services", "set verify_audience: true, or an audience here")
	}
}

const published = "is the secret printed in the Agno documents, with which anybody can sign"

// Forgeable lists, out of the warnings, the keys with which anybody can sign. A
// server that others than this machine can reach must refuse to start with any.
func (c *Config) Forgeable() (keys Faults) {
	for _, w := range c.Warnings {
		if w.Text == published {
			keys = append(keys, w)
		}
	}
	return keys
}

// Methods returns the methods that a scope mapping may name: those of AgentOS's routes.
func Methods() []string { return []string{"GET", "POST", "PUT", "PATCH", "DELETE"} }

// mapping is the shape of a mapping's key. Patterns meet decoded paths, and * is
// their only sign; fnmatch's others would pass as letters and protect nothing.
var mapping = onFirstUse(`^([A-Z]+) (/[^\s\x00-\x1f?#%\[\]{}\\]*)$`)

// scopeMappings reads "METHOD /path": [scopes…]. What it refuses would otherwise
// leave a route at its default need, with its operator believing otherwise.
func (d *decoder) scopeMappings(path string, n *node) []ScopeMapping {
	if !d.expect(path, n, objectKind, `lines such as "GET /agents": [app:read]`) {
		return nil
	}
	var all []ScopeMapping
	for i, key := range n.keys {
		at := Member(path, key)
		m := ScopeMapping{Scopes: d.scopes(at, n.sub[i])}
		parts := mapping().FindStringSubmatch(key)
		if parts == nil || !slices.Contains(Methods(), parts[1]) {
			d.fault(at, "is not a method and a path", `write it as "GET /agents/*": `+OneOf(Methods())+", one space, a path whose only sign is *")
			continue
		}
		m.Method, m.Pattern = parts[1], parts[2]
		if m.Pattern == "/authz" || strings.HasPrefix(m.Pattern, "/authz/") {
			d.fault(at, "is an operator route", "leave it to admin_scope")
		} else if d.MatchesRoute != nil && !d.MatchesRoute(m.Method, m.Pattern) {
			d.fault(at, "matches no route", "compare with the list that keyway routes prints")
		}
		all = append(all, m)
	}
	return all
}

// scopes wants at least one: an empty list would open the route to every token.
func (d *decoder) scopes(path string, n *node) []string {
	if n.kind == faultyKind || !d.expect(path, n, listKind, "a list of scopes") {
		return nil
	}
	if len(n.sub) == 0 {
		d.fault(path, "needs no scope at all, which would open it to every token", "list a scope")
	}
	var all []string
	for i, sub := range n.sub {
		at := Element(path, i)
		switch {
		case sub.kind == faultyKind || !d.expect(at, sub, textKind, "a scope, such as app:read"):
		case sub.text == "" || strings.ContainsAny(sub.text, " \t\r\n\x00"):
			d.fault(at, "is "+seen(at, sub), "write one scope in each element, without spaces")
		default:
			all = append(all, sub.text)
		}
	}
	return all
}
