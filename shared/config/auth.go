package config

import (
	"encoding/pem"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/scope"
)

// newSecret is the remedy for every HMAC secret that others could know or guess.
const newSecret = "make one with: openssl rand -hex 32"

// key reads an entry of auth.keys that is an object. Its member key has the rules of an entry that is a text.
func (d *decoder) key(path string, n *node, k *Key) {
	d.object(path, n, reflect.ValueOf(k).Elem())
	at := Member(path, "key")
	if text := n.member("key"); n.kind == objectKind && text != nil && text.kind == textKind && d.clean(at) {
		k.Literal = ""
		k.fromText(d, at, text)
	}
}

// isText reports whether the entry has nothing but its key, as one that is written as a text.
func (k Key) isText() bool {
	return k.Literal != "" && reflect.DeepEqual(k, Key{Literal: k.Literal, FromVariable: k.FromVariable})
}

// fromText reads a key that is written as a text: an HMAC secret or a PEM public key. No error
// message quotes it. A PEM key may be on one line with \n in place of its line breaks, because .env
// files and web consoles often allow one line only.
func (k *Key) fromText(d *decoder, path string, n *node) {
	literal := n.text
	isPEM := strings.Contains(literal, "-----BEGIN ")
	if isPEM {
		literal = strings.ReplaceAll(literal, `\n`, "\n")
	}
	block, _ := pem.Decode([]byte(literal))
	switch {
	case strings.TrimSpace(literal) == "":
		d.fault(path, "is empty", "write ${JWT_VERIFICATION_KEY}, and set that variable")
	case strings.Contains(literal, "PRIVATE KEY-----"):
		d.fault(path, "is a private key",
			"give the public key, which this command prints: openssl pkey -in private.pem -pubout")
	case isPEM && block == nil:
		d.fault(path, "is an incomplete PEM key",
			"give all of it, from -----BEGIN to END-----, with its line breaks")
	case !isPEM && len(literal) < 32: // RFC 7518, section 3.2: at least as long as the hash
		d.fault(path, "is an HMAC secret of fewer than 32 bytes, which can be guessed", newSecret)
	default:
		k.Literal, k.FromVariable = Secret(literal), n.hasVariable
	}
}

// dropEmptyKeys removes the entries of auth.keys whose only content is a variable that is set to "".
// One keyway.yaml then works in several places, such as AWS, where a secret holds the key, and a
// laptop, where a variable holds it: each place sets the other entry's variable to an empty value.
//
// Three cases stay errors, because removing the entry would hide a mistake or change what the rest
// means:
//   - a variable that is not set at all is likely a typing error (Options.OptionalKeys allows it);
//   - without its last entry, auth.keys would contain no key;
//   - the issuers of all entries decide how owners are named (see Owners), so an entry with an issuer
//     must not disappear.
func (d *decoder) dropEmptyKeys(root *node) {
	keys := (*node)(nil)
	if auth := root.member("auth"); auth != nil {
		keys = auth.member("keys")
	}
	if keys == nil || keys.kind != listKind {
		return
	}
	dropped, names := map[string]*node{}, map[string]string{} // by path
	for i, entry := range keys.sub {
		path := Element("auth.keys", i)
		if entry.kind == objectKind && len(entry.sub) == 1 && slices.Contains(keySources, entry.keys[0]) {
			path, entry = Member(path, entry.keys[0]), entry.sub[0]
		}
		name, opened := strings.CutPrefix(entry.text, "${")
		name, closed := strings.CutSuffix(name, "}")
		if entry.kind != textKind || !opened || !closed || !isWord(name) || len(keys.sub) == 1 {
			continue
		}
		d.droppable = append(d.droppable, path)
		if value, set := d.Lookup(name); value == "" && (set || d.OptionalKeys) {
			dropped[path], names[path] = entry, name
		}
	}
	if len(dropped) == len(keys.sub) {
		return
	}
	for path, entry := range dropped {
		d.c.Unset[path], entry.kind = names[path], absentKind
	}
}

// keySources are the fields of an entry of auth.keys that say where its keys come from.
var keySources = []string{"key", "jwks_file", "jwks_url", "discovery", "secret"}

// isPEM reports whether the literal is a public key. Any other literal is an HMAC secret.
func (k Key) isPEM() bool { return strings.Contains(string(k.Literal), "-----BEGIN ") }

// hasNoSource reports whether k has no source of keys. After the checks, only an entry whose variable
// is unset is like that.
func (k Key) hasNoSource() bool {
	return k.Literal == "" && k.JWKSFile == "" && k.JWKSURL == "" && k.Discovery == "" && k.Secret == ""
}

// checkAuth checks the rules that involve several fields of auth. It compares the keys with the
// algorithms only if the algorithms are valid, so that one typing error is not reported twice.
//
// HMAC and public-key algorithms must not be mixed: with both, an attacker could sign a token with
// the public key, which is no secret, as the HMAC secret (RFC 8725, section 2.1).
func (d *decoder) checkAuth(a *Auth) {
	hmac := slices.ContainsFunc(a.Algorithms, isHMAC)
	public := slices.ContainsFunc(a.Algorithms, func(s string) bool { return s != "" && !isHMAC(s) })
	if hmac && public {
		d.fault("auth.algorithms",
			"mixes HMAC and public-key algorithms, so a public key could be used as an HMAC secret", "keep one kind")
	}
	if len(a.Keys) == 0 && !d.Dev && d.clean("auth.keys") {
		d.fault("auth.keys", "is missing", `add keys: ["${JWT_VERIFICATION_KEY}"], and set that variable; or use --dev`)
	}
	urls := 0
	for i, k := range a.Keys {
		path := Element("auth.keys", i)
		if k.JWKSURL != "" {
			urls++
			d.checkAddress(path+".jwks_url", k.JWKSURL, k.HTTP)
		}
		if k.Discovery != "" {
			urls++
			d.checkDiscovery(path+".discovery", k)
		}
		d.checkSource(path, k)
		d.checkConnection(path, k)
		d.checkElements(path+".issuer", k.Issuer)
		d.checkElements(path+".audience", k.Audience)
		d.checkElements(path+".clients", k.Clients)
		if hmac != public && d.clean("auth.algorithms") {
			d.checkFamily(path, k, a.Algorithms[0])
		}
		d.warnKey(path, k, a)
	}
	d.checkIssuers(a, urls)
	d.warnOrder(a)
	d.checkClaims(a)
	d.checkLimits(a)
	d.checkHome(a)
	if a.VerifyAudience {
		d.checkElements("auth.audience", a.Audience)
	} else if len(a.Audience) > 0 {
		d.warn("auth.audience", "has no effect while verify_audience is false", "set verify_audience: true")
	}
}

func isHMAC(algorithm string) bool { return strings.HasPrefix(algorithm, "HS") }

// checkSource checks that a key has exactly one source. A key whose variable is unset, and allowed to
// be, has none.
func (d *decoder) checkSource(path string, k Key) {
	n := 0
	for _, s := range []string{string(k.Literal), k.JWKSFile, k.JWKSURL, k.Discovery, k.Secret} {
		if s != "" {
			n++
		}
	}
	if n == 1 || !d.clean(path) {
		return
	}
	for unset := range d.c.Unset {
		if n == 0 && (unset == path || strings.HasPrefix(unset, path+".")) {
			return
		}
	}
	d.fault(path, "needs exactly one source of keys", "set one of key, jwks_file, jwks_url, discovery and secret")
}

// checkFamily checks that a key fits the kind of the algorithms. With a wrong kind every token would
// get a 401.
func (d *decoder) checkFamily(path string, k Key, algorithm string) {
	switch {
	case isHMAC(algorithm) && k.isPEM():
		d.fault(path, "is a public key, but auth.algorithms has "+algorithm,
			"set auth.algorithms to the algorithm of the key, such as [RS256]")
	case isHMAC(algorithm) && k.JWKSFile+k.JWKSURL+k.Discovery != "":
		d.fault(path, "is a set of public keys, but auth.algorithms has "+algorithm,
			"set auth.algorithms to the algorithm of the keys, such as [RS256]")
	case !isHMAC(algorithm) && k.Literal != "" && !k.isPEM():
		d.fault(path, "is not a PEM public key, which "+algorithm+" needs",
			"give the text that begins with -----BEGIN PUBLIC KEY-----, or set auth.algorithms to [HS256]")
	}
}

// checkAddress requires https of an address of keys. Someone who can change the answer on the network
// can add a key of their own and sign tokens for any user. There are two exceptions: http on a loopback
// address with Options.Dev, where no network is involved, and http at an address that is not public, if
// the operator accepts it with Key.HTTP. The verifier checks the latter again when it connects, because
// only then is the address behind a name known.
func (d *decoder) checkAddress(path, s string, http bool) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil:
		d.fault(path, "is not an https address", "write https://host/path, without credentials")
	case u.Scheme == "https" || d.Dev && !http && u.Scheme == "http" && loopback(u.Hostname()):
	case u.Scheme == "http" && http && public(u.Hostname()):
		d.fault(path, "is http at a public address, so anyone on the network path could replace the keys",
			"use https; http: true is for private addresses only")
	case u.Scheme == "http" && http:
		d.warn(path, "is http, so any program in that network can replace the keys",
			"use https, unless only programs that you trust are in that network")
	default:
		d.fault(path, "is not https, so anyone on the network path could replace the keys",
			"use https; inside a compose network or a cluster, add http: true to this key; with --dev, http on a loopback "+
				"address is accepted too")
	}
}

// public reports whether a host is an address, and not a name, to which http: true does not apply.
func public(host string) bool {
	a, err := netip.ParseAddr(host)
	a = a.Unmap()
	return err == nil && !a.IsLoopback() && !a.IsPrivate() && !sharedAddresses.Contains(a)
}

// sharedAddresses are RFC 6598's, which some clusters use for their services.
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// checkDiscovery checks the address of an issuer or of its metadata document.
func (d *decoder) checkDiscovery(path string, k Key) {
	u, err := url.Parse(k.Discovery)
	switch {
	case strings.ContainsAny(k.Discovery, "{}"):
		d.fault(path, "has a placeholder", "write the name or id of one tenant; each tenant needs an entry of its own")
	case err == nil && !strings.Contains(k.Discovery, wellKnown) && u.RawQuery != "",
		err == nil && u.Fragment != "":
		d.fault(path, "has a query or a fragment, which the address of an issuer has not",
			"remove it, or write the address of the metadata document, which contains "+wellKnown)
	default:
		d.checkAddress(path, k.Discovery, k.HTTP)
	}
}

// wellKnown is in the address of every metadata document (RFC 8615).
const wellKnown = "/.well-known/"

// checkConnection checks the settings of the connection to jwks_url and discovery.
func (d *decoder) checkConnection(path string, k Key) {
	const remove = "remove it"
	plain := strings.HasPrefix(k.JWKSURL, "http:")
	switch fetched := k.JWKSURL != "" || k.Discovery != ""; {
	case strings.Contains(k.CA, "PRIVATE KEY-----"):
		d.fault(path+".ca", "contains a private key", "give the certificate of the CA only")
	case k.CA != "" && !fetched:
		d.warn(path+".ca", "has no effect without jwks_url or discovery", remove)
	case k.CA != "" && plain:
		d.warn(path+".ca", "has no effect, because jwks_url is http", "use https")
	}
	switch {
	case k.HTTP && k.JWKSURL == "" && k.Discovery == "":
		d.warn(path+".http", "has no effect without jwks_url or discovery", remove)
	case k.HTTP && k.JWKSURL != "" && !plain:
		d.warn(path+".http", "has no effect, because jwks_url is not http", remove)
	}
	for _, document := range []string{"openid-configuration", "oauth-authorization-server"} {
		if strings.Contains(k.JWKSURL, wellKnown+document) {
			d.warn(path+".jwks_url", "is the address of a metadata document, which contains no keys",
				"write discovery in place of jwks_url")
		}
	}
}

// checkElements rejects empty elements. None is what an operator means: tokens whose claim is empty would match.
func (d *decoder) checkElements(path string, list []string) {
	for i, s := range list {
		if at := Element(path, i); s == "" && d.clean(at) {
			d.fault(at, "is empty", "give it a value, or remove it")
		}
	}
}

// checkIssuers requires an issuer of each jwks_url if there are several. Without it, one identity
// provider could sign tokens for the users of another. With auth.issuer, each entry must accept that one.
func (d *decoder) checkIssuers(a *Auth, urls int) {
	for i, k := range a.Keys {
		path := Element("auth.keys", i)
		if urls > 1 && k.JWKSURL != "" && len(k.Issuer) == 0 && d.clean(path) {
			d.fault(path, "has no issuer, which every jwks_url needs when there are several",
				"add issuer: https://…, the iss claim of its tokens")
		}
		if a.Issuer != "" && len(k.Issuer) > 0 && !slices.Contains(k.Issuer, a.Issuer) && d.clean(path+".issuer") {
			d.fault(path+".issuer", "lacks auth.issuer, which every token must have, so that none could pass",
				"add the value of auth.issuer, or remove auth.issuer")
		}
	}
	if a.Issuer == "" { // otherwise all entries have that issuer
		d.checkSpellings(a.Keys)
	}
}

// checkSpellings requires that each spelling belongs to one issuer, which the first spelling of a list names. Otherwise
// the key of a token, and not its issuer, would decide which user it is about. The issuer of a discovery has two
// spellings, because a slash at its end is optional there.
func (d *decoder) checkSpellings(keys []Key) {
	type place struct{ realm, path string }
	first := map[string]place{}
	for i, k := range keys {
		path, spellings := Element("auth.keys", i), k.Issuers()
		if len(k.Issuer) == 0 && k.Discovery != "" {
			bare := strings.TrimSuffix(spellings[0], "/")
			spellings = []string{bare, bare + "/"}
		}
		for j, s := range spellings {
			at := path + ".issuer"
			switch len(k.Issuer) {
			case 0:
				at = path + ".discovery"
			case 1:
			default:
				at = Element(at, j)
			}
			other, known := first[s]
			switch {
			case s == "":
			case !known:
				first[s] = place{k.Realm(), path}
			case other.realm != k.Realm() && d.clean(at):
				d.fault(at, "belongs to two issuers; the first spelling of an entry names its issuer, and "+other.path+
					" has this spelling with another first one",
					"begin the issuer of both entries with the same spelling, or remove this one")
			}
		}
	}
}

// warnOrder warns of two entries that can accept the same token, because they have the same keys and an issuer in
// common. Different clients keep them apart; audiences don't, because a token can have several.
func (d *decoder) warnOrder(a *Auth) {
	apart := func(a, b []string) bool {
		return len(a) > 0 && len(b) > 0 && !slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
	}
	for i, k := range a.Keys {
		same := func(other Key) bool {
			return k.from() == other.from() && (a.Issuer != "" || !apart(k.Issuers(), other.Issuers())) &&
				!apart(k.Clients, other.Clients)
		}
		path := Element("auth.keys", i)
		if j := slices.IndexFunc(a.Keys[:i], same); j >= 0 && !k.hasNoSource() && d.clean(path) {
			d.warn(path, "has the same keys as "+Element("auth.keys", j)+
				", and the first of the two that accepts a token decides its subject and scopes",
				"join them, or give each an issuer or clients that the other has not")
		}
	}
}

// from returns the source of the keys of k. Two entries with an equal one have the same keys.
func (k Key) from() [5]string {
	return [...]string{
		string(k.Literal), filepath.Clean(k.JWKSFile), k.JWKSURL, k.Secret, strings.TrimSuffix(issuerAt(k.Discovery), "/"),
	}
}

// checkHome refuses a home issuer that no entry names, because users of a misspelled one would own nothing. Without any
// named entry, it can be set before the entry gets its issuer.
func (d *decoder) checkHome(a *Auth) {
	names := func(spellings []string) bool { return slices.Contains(spellings, a.HomeIssuer) }
	entries := a.Owners().Entries
	named := slices.ContainsFunc(entries, func(spellings []string) bool { return len(spellings) > 0 })
	switch {
	case a.HomeIssuer == "", a.HomeIssuer == owner.None:
	case strings.EqualFold(a.HomeIssuer, owner.None):
		d.fault("auth.home_issuer", "is "+a.HomeIssuer+", which is no issuer", "write none")
	case named && !slices.ContainsFunc(entries, names):
		d.fault("auth.home_issuer", "is named by no entry of auth.keys", "write one of their issuers, or none")
	}
}

// Owners returns what decides about the owners of data: the issuers of all entries.
func (a Auth) Owners() owner.File {
	f := owner.File{Home: a.HomeIssuer}
	for _, k := range a.Keys {
		spellings := k.Issuers()
		if a.Issuer != "" {
			spellings = []string{a.Issuer}
		}
		f.Entries = append(f.Entries, spellings)
	}
	return f
}

// Issuers returns the spellings of the issuer of k: those that are configured, or the one that discovery asks for.
// It is nil if k accepts any issuer.
func (k Key) Issuers() []string {
	if len(k.Issuer) > 0 || k.Discovery == "" {
		return k.Issuer
	}
	return []string{issuerAt(k.Discovery)}
}

// Realm returns the first spelling of the issuer of k, or "" if k accepts any issuer.
func (k Key) Realm() string {
	if all := k.Issuers(); len(all) > 0 {
		return all[0]
	}
	return ""
}

// issuerAt returns the issuer whose metadata document is at an address. The address may be that of the issuer itself.
// OpenID Connect Discovery section 4 appends the path of the document, RFC 8414 section 3.1 inserts it.
func issuerAt(address string) string {
	before, after, found := strings.Cut(address, wellKnown)
	if !found {
		return address
	}
	_, path, inserted := strings.Cut(after, "/")
	if inserted {
		return before + "/" + path
	}
	return before
}

// warnKey warns of the most serious problem of a key that is valid and still unwise.
func (d *decoder) warnKey(path string, k Key, a *Auth) {
	switch {
	case k.Literal == PublishedSecret:
		d.warn(path, published, newSecret)
	case k.Literal != "" && !k.FromVariable && !k.isPEM():
		d.warn(path, "is a secret written in the file", "write ${JWT_VERIFICATION_KEY} instead, and set that variable")
	case (k.JWKSFile+k.JWKSURL+k.Discovery != "" || k.isPEM()) && !a.VerifyAudience &&
		len(k.Audience) == 0 && len(k.Clients) == 0:
		d.warn(path, "accepts tokens that its issuer made for other services",
			"set verify_audience: true, or set audience on this key")
	}
}

const published = "is the secret printed in the Agno documents, so anyone can sign tokens with it"

// Forgeable returns those of the warnings that concern a published secret: anyone can sign tokens
// with such a key. A server that other machines can reach must not start if there is one.
func (c *Config) Forgeable() (keys Faults) {
	for _, w := range c.Warnings {
		if w.Text == published {
			keys = append(keys, w)
		}
	}
	return keys
}

// Methods returns the methods that a scope mapping can name: those of AgentOS's routes.
func Methods() []string { return []string{"GET", "POST", "PUT", "PATCH", "DELETE"} }

// mapping is the form of a scope mapping's key. A pattern is compared with a decoded path, and * is
// its only special character. The other characters of Python's fnmatch, which AgentOS uses, are
// rejected: they would match as ordinary letters, and the mapping would protect nothing.
var mapping = onFirstUse(`^([A-Z]+) (/[^\s\x00-\x1f?#%\[\]{}\\]*)$`)

// scopeMappings reads "METHOD /path": [scopes…]. It rejects every mapping that cannot have an effect.
// The route would otherwise keep its default scopes while the operator expects the new ones.
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
			d.fault(at, "is not a method and a path", `write it as "GET /agents/*": `+OneOf(Methods())+
				", one space, and a path in which * is the only special character")
			continue
		}
		m.Method, m.Pattern = parts[1], parts[2]
		if m.Pattern == "/authz" || strings.HasPrefix(m.Pattern, "/authz/") {
			d.fault(at, "is an operator route", "remove it, since only admin_scope opens operator routes")
		} else if d.MatchesRoute != nil && !d.MatchesRoute(m.Method, m.Pattern) {
			d.fault(at, "matches no route", "compare with the output of keyway routes")
		}
		if d.clean(at) {
			d.checkMapped(at, n.sub[i])
		}
		all = append(all, m)
	}
	return all
}

// checkMapped checks that each text of a mapping is a scope. Another text, such as the name of a group, is never
// granted: a token can contain it, but only scopes are compared with the needs of a route.
func (d *decoder) checkMapped(path string, n *node) {
	for i, sub := range n.sub {
		at := Element(path, i)
		if _, ok := scope.Parse(sub.text); !ok && n.kind == listKind && sub.kind == textKind && d.clean(at) {
			d.fault(at, "is "+seen(at, sub)+", which is not a scope", "write resource:action or resource:id:action; "+
				"for the name of a role or group, let auth.grants say which scopes it grants")
		}
	}
}

// scopes reads the scopes of a mapping or of a grant. There must be at least one, because an empty list would open
// the route to every token.
func (d *decoder) scopes(path string, n *node) []string {
	if n.kind == faultyKind || n.kind == absentKind || !d.expect(path, n, listKind, "a list of scopes") {
		return nil
	}
	if len(n.sub) == 0 {
		d.fault(path, "lists no scope, which would open the route to every token", "list a scope")
	}
	var all []string
	for i, sub := range n.sub {
		at := Element(path, i)
		switch {
		case sub.kind == faultyKind || sub.kind == absentKind || !d.expect(at, sub, textKind, "a scope, such as app:read"):
		case sub.text == "" || strings.ContainsAny(sub.text, " \t\r\n\x00"):
			d.fault(at, "is "+seen(at, sub), "write one scope in each element, without spaces")
		default:
			all = append(all, sub.text)
		}
	}
	return all
}
