package token

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// Rules say which tokens of one source of keys are accepted, and how their claims are read. The zero value accepts
// access tokens of any issuer, and reads AgentOS's claims.
type Rules struct {
	// Issuers are the spellings of one issuer: iss must be one of them. Defaults to nil: any issuer.
	Issuers []string
	// Audience are the accepted audiences: aud must contain one of them. Defaults to nil: aud is not checked.
	Audience []string
	// Clients are the accepted clients. At least one of azp, client_id and cid must be present, and each that is present
	// must be one of these. Defaults to nil: any client.
	Clients []string
	// IDTokens accepts OpenID Connect's ID tokens. They are made for the client that shows them, not for an API.
	IDTokens bool
	// Bound accepts tokens that are bound to a key (cnf, RFC 7800) without the proof of that key.
	Bound bool

	// Scopes are the claims with scopes. Defaults to nil: the claim scopes. With an empty list no claim holds scopes.
	Scopes []ClaimSource
	// Roles are the claims with roles or groups. Their values count only through Grants. Defaults to none.
	Roles []ClaimSource
	// Prefix limits the values of Scopes to those that begin with it, and is removed from them. Defaults to "".
	Prefix string
	// Grants are the scopes that each role grants. Defaults to none.
	Grants map[string][]string
	// Limits are what the callers with each role may use; the name "*" stands for every caller. Defaults to no limit.
	Limits map[string]limit.Limits
	// LimitsFrom is the claim with limits of the caller. Defaults to none.
	LimitsFrom ClaimSource
	// Subject is the claim with the user. Defaults to sub.
	Subject ClaimSource
	// Session is the claim with the session. Defaults to session_id.
	Session ClaimSource
}

// ClaimSource is a place in the claims.
type ClaimSource struct {
	// Path are the names that lead to the value: one for a claim, more for a member of an object.
	Path []string
	// Split means that a string is a list of values with spaces between them (RFC 8693 section 4.2). An element of a list
	// is never split.
	Split bool
}

// String returns the path as people write it.
func (s ClaimSource) String() string { return strings.Join(s.Path, ".") }

// Put sets the value at the path. Objects on the way are made where there are none.
func (s ClaimSource) Put(claims map[string]any, value any) {
	last := len(s.Path) - 1
	for _, name := range s.Path[:last] {
		inner, ok := claims[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			claims[name] = inner
		}
		claims = inner
	}
	claims[s.Path[last]] = value
}

// Ignored is a part of a token that grants nothing.
type Ignored struct {
	// Claim is where it is, and Value is its value; "" stands for the whole claim.
	Claim, Value string
	// Why is a clause such as "no grant has this name".
	Why string
}

// source is a source of keys as verification uses it. All its keys share it.
type source struct {
	Rules
	name  string
	realm string // see Claims.Realm
	plain bool   // all scopes are as one claim has them, empty and repeated ones included, as in AgentOS
}

// newSource completes the rules of a source. issuer is the issuer that every token must have, or "".
func newSource(name string, r Rules, issuer string) *source {
	s := &source{Rules: r, name: name, realm: issuer}
	if len(r.Issuers) > 0 && s.realm == "" {
		s.realm = r.Issuers[0]
	}
	named := func(list []ClaimSource) []ClaimSource { // without those whose variable was unset
		return slices.DeleteFunc(slices.Clone(list), func(s ClaimSource) bool { return len(s.Path) == 0 })
	}
	s.Scopes, s.Roles = named(r.Scopes), named(r.Roles)
	if none := r.Scopes != nil && len(r.Scopes) == 0; len(s.Scopes) == 0 && !none {
		s.Scopes = []ClaimSource{{Path: []string{defaultScopesClaim}}}
	}
	if len(s.Subject.Path) == 0 {
		s.Subject.Path = []string{defaultSubjectClaim}
	}
	if len(s.Session.Path) == 0 {
		s.Session.Path = []string{defaultSessionClaim}
	}
	s.plain = len(s.Scopes) == 1 && len(s.Roles) == 0 && s.Prefix == "" && !s.Scopes[0].Split
	return s
}

// errTwice refuses an object in which a member that is read occurs twice: another reader could take the other one.
var errTwice = denyToken("Invalid payload string: two members of one name")

// find returns the JSON text at the path, or "" if there is none or null.
func (s ClaimSource) find(o object) (string, error) {
	raw := o[s.Path[0]]
	for _, name := range s.Path[1:] {
		if raw == "" || raw[0] != '{' {
			return "", nil
		}
		inner := ""
		for member, value := range (strictjson.Value{Raw: raw}).Members() {
			if member != name {
				continue
			}
			if inner != "" {
				return "", errTwice
			}
			inner = value.Raw
		}
		raw = inner
	}
	if raw == "null" {
		raw = ""
	}
	return raw, nil
}

// text returns the string at the path, "" if there is none. ok is false for a value of another type.
func (s ClaimSource) text(o object) (text string, ok bool, err error) {
	raw, err := s.find(o)
	if raw == "" || err != nil {
		return "", true, err
	}
	text, ok = strictjson.Value{Raw: raw}.Text()
	return text, ok, nil
}

// values returns the strings at the path. ok is false for a value of another type.
func (s ClaimSource) values(o object) (list []string, ok bool, err error) {
	raw, err := s.find(o)
	if raw == "" || err != nil {
		return nil, true, err
	}
	value := strictjson.Value{Raw: raw}
	text, isText := value.Text()
	switch {
	case isText && s.Split:
		for part := range strings.SplitSeq(text, " ") {
			if part != "" {
				list = append(list, part)
			}
		}
		return list, true, nil
	case isText:
		return []string{text}, true, nil
	}
	list = stringsIn(value)
	return list, list != nil, nil
}

// grant sets the scopes of a token: the values of the claims with scopes, and what the roles grant. It also sets the
// limits. note is nil or gets what grants and limits nothing.
func (from *source) grant(c *Claims, o object, note func(Ignored)) (err error) {
	if from.plain {
		if c.Scopes, err = from.Scopes[0].read(o, note); err != nil {
			return err
		}
		if name := from.Scopes[0].String(); name != defaultScopesClaim {
			c.ScopesClaim = clipped(name)
		}
		return from.limit(c, o, limit.Limits{}, note)
	}
	g := granting{source: from, claims: o, note: note}
	for _, claim := range from.Scopes {
		if err := g.addScopes(claim); err != nil {
			return err
		}
	}
	for _, claim := range from.Roles {
		if err := g.addRoles(claim); err != nil {
			return err
		}
	}
	c.Scopes, c.Origins = g.scopes.list, g.origins
	return from.limit(c, o, g.limits, note)
}

// anyRole is the name in Rules.Limits that stands for every caller. It is no role, even if a token has one of this
// name.
const anyRole = "*"

// roleLimits returns the limits of the callers with a role.
func (from *source) roleLimits(role string) (limit.Limits, bool) {
	l, ok := from.Limits[role]
	if role == anyRole {
		return limit.Limits{}, false
	}
	return l, ok
}

// limit sets the limits of a token: byRole are those of its roles. The claim can only lower what the file allows.
func (from *source) limit(c *Claims, o object, byRole limit.Limits, note func(Ignored)) error {
	c.Limits = byRole.Or(from.Limits[anyRole])
	if len(from.LimitsFrom.Path) == 0 {
		return nil
	}
	raw, err := from.LimitsFrom.find(o)
	if raw == "" || err != nil {
		return err
	}
	own, unknown, err := limit.FromClaim(raw)
	if err != nil {
		return denyBecause(Cause(from.LimitsFrom.String()+": "+err.Error()), "Invalid token: Invalid limits")
	}
	if note != nil {
		for _, name := range unknown {
			note(Ignored{from.LimitsFrom.String() + "." + name, "", "no limit has this name"})
		}
	}
	c.Limits = c.Limits.Tightest(own)
	return nil
}

// granting is the state of grant.
type granting struct {
	*source
	claims  object
	note    func(Ignored) // or nil
	scopes  distinct
	origins []string // of each of scopes
	roles   distinct // those that granted something
	limits  limit.Limits
}

func (g *granting) addScopes(claim ClaimSource) error {
	values, err := claim.read(g.claims, g.note)
	if err != nil {
		return err
	}
	name := claim.String()
	for _, value := range values {
		scope, ok := strings.CutPrefix(value, g.Prefix)
		switch {
		case ok && scope != "":
			if g.scopes.add(scope) && !g.count(name) {
				return errTooManyScopes
			}
		case g.note == nil:
		case ok:
			g.note(Ignored{name, value, "it names no scope"})
		default:
			g.note(Ignored{name, value, "it does not begin with the prefix " + g.Prefix})
		}
	}
	return nil
}

func (g *granting) addRoles(claim ClaimSource) error {
	values, err := claim.read(g.claims, g.note)
	if err != nil {
		return err
	}
	name := claim.String()
	for _, role := range values {
		scopes, granted := g.Grants[role]
		limits, limited := g.roleLimits(role)
		if !granted && !limited && g.note != nil {
			g.note(Ignored{name, role, "no grant has this name"})
		}
		g.limits = g.limits.Largest(limits)
		// A role counts once, however often the token repeats it.
		if len(scopes) == 0 || !g.roles.add(role) {
			continue
		}
		origin := ""
		for _, scope := range scopes {
			if !g.scopes.add(scope) {
				continue
			}
			if origin == "" {
				origin = name + "=" + role
			}
			if !g.count(origin) {
				return errTooManyScopes
			}
		}
	}
	return nil
}

// count adds the origin of a new scope. It reports whether the scopes are within the limits: the first one above them
// ends the reading, so that a token can't cause more work than that.
func (g *granting) count(origin string) bool {
	g.origins = append(g.origins, origin)
	return len(g.scopes.list) <= maxScopes && g.scopes.bytes <= maxScopeBytes
}

// read is values for claims with scopes or roles: a value of another type grants nothing.
func (s ClaimSource) read(o object, note func(Ignored)) ([]string, error) {
	values, ok, err := s.values(o)
	if !ok && note != nil {
		note(Ignored{Claim: s.String(), Why: "it is neither a string nor a list of strings"})
	}
	return values, err
}

// distinct is a list of texts without repetition. The sender of a token chooses its length, so that a long one has an
// index. A short one needs none.
type distinct struct {
	list  []string
	bytes int
	index map[string]struct{}
}

// add reports whether the text is new.
func (d *distinct) add(text string) bool {
	const short = 16
	if d.list == nil {
		d.list = make([]string, 0, short/2)
	}
	if d.index == nil && slices.Contains(d.list, text) {
		return false
	}
	if len(d.list) == short && d.index == nil {
		d.index = map[string]struct{}{}
		for _, old := range d.list {
			d.index[old] = struct{}{}
		}
	}
	if d.index != nil {
		if _, twice := d.index[text]; twice {
			return false
		}
		d.index[text] = struct{}{}
	}
	d.list, d.bytes = append(d.list, text), d.bytes+len(text)
	return true
}

// check refuses tokens that the rules don't accept. The checks of aud and iss come first, in the order of PyJWT.
func (from *source) check(o object, header object, to *For) error {
	if err := (restriction{from.Issuers, from.Audience}).check(o, to); err != nil {
		return foreign{err}
	}
	if err := from.checkClient(o); err != nil {
		return foreign{err}
	}
	if raw := o["cnf"]; raw != "" && raw != "null" && !from.Bound {
		return denyToken("It is bound to a key, and a bearer sent it without the proof")
	}
	return from.checkKind(o, header)
}

// clientClaims are the claims with the client that asked for the token.
var clientClaims = []string{"azp", "client_id", "cid"}

// foreign is the refusal of a token of another issuer, audience or client than those of a source. The same key can
// be in several sources, and the one whose tokens these are has the reason that helps.
type foreign struct{ error }

// Unwrap returns the refusal.
func (f foreign) Unwrap() error { return f.error }

func isForeign(err error) bool { _, ok := errors.AsType[foreign](err); return ok }

// checkClient checks azp (OpenID Connect Core section 2), client_id (RFC 9068 section 2.2) and cid (Okta).
func (from *source) checkClient(o object) error {
	if from.Clients == nil {
		return nil
	}
	present := false
	for _, name := range clientClaims {
		if raw := o[name]; raw == "" || raw == "null" {
			continue
		}
		present = true
		if client, ok := o.text(name); !ok || !slices.Contains(from.Clients, client) {
			return denyBecause(mismatch(name, o[name], from.Clients),
				"Invalid token: Invalid client")
		}
	}
	if !present {
		return denyBecause(Cause("azp, client_id and cid are absent, expected "+oneOf(from.Clients)),
			"Invalid token: Token names no client in azp, client_id or cid")
	}
	return nil
}

// sameWord reports whether a text is this ASCII word in any case. Of equal length, it holds no other letters, such as
// ſ for s.
func sameWord(text, word string) bool { return len(text) == len(word) && strings.EqualFold(text, word) }

// The refusals of tokens of other kinds.
var (
	errAnotherKind = denyToken("The header's typ is that of another kind of token")
	errLogoutToken = denyToken("It is a logout token; send an access token")
	errIDToken     = denyToken("It is an ID token; send an access token")
)

// checkKind refuses tokens that are no access tokens. Issuers sign ID tokens and logout tokens with the same keys, and
// RFC 8725 section 3.12 requires rules that keep them apart.
func (from *source) checkKind(o, header object) error {
	typ, isText := header.text("typ")
	// A media type can be written without its "application/" (RFC 7515 section 4.1.9), and its case has no meaning.
	const application = "application/"
	if len(typ) > len(application) && sameWord(typ[:len(application)], application) {
		typ = typ[len(application):]
	}
	marked := sameWord(typ, "at+jwt") // RFC 9068 section 2.1
	if !isText || typ != "" && !marked && !sameWord(typ, "JWT") {
		return errAnotherKind
	}
	payloadTyp, _ := o.text("typ") // Keycloak
	if raw, err := logoutEvent.find(o); raw != "" || err != nil ||
		sameWord(payloadTyp, "Logout") || sameWord(payloadTyp, "logout+jwt") {
		return errLogoutToken
	}
	if from.IDTokens {
		return nil
	}
	use, _ := o.text("token_use") // Cognito
	has := func(name string) bool { raw := o[name]; return raw != "" && raw != "null" }
	marked = marked || sameWord(payloadTyp, "Bearer") || sameWord(use, "access") ||
		has("scope") || has("scp") || has("client_id")
	if sameWord(payloadTyp, "ID") || sameWord(use, "id") || !marked && (has("at_hash") || has("nonce")) {
		return errIDToken
	}
	return nil
}

// logoutEvent is in every logout token (OpenID Connect Back-Channel Logout section 2.4), whose typ may be missing.
var logoutEvent = ClaimSource{Path: []string{"events", "http://schemas.openid.net/event/backchannel-logout"}}

// mismatch says which value a claim has and which ones are expected.
func mismatch(claim, got string, expected []string) Cause {
	return Cause(fmt.Sprintf("%s is %s, expected %s", claim, brief(got), oneOf(expected)))
}

// oneOf lists the first of the expected values.
func oneOf(expected []string) string {
	const limit = 5
	var list []string
	for i, value := range expected {
		if i == limit {
			list = append(list, "one of the others")
			break
		}
		list = append(list, strconv.Quote(value))
	}
	return strings.Join(list, " or ")
}

// brief returns the beginning of a JSON text, for the operator's log.
func brief(raw string) string {
	const limit = 200
	if len(raw) > limit {
		raw = strings.ToValidUTF8(raw[:limit], "") + "…"
	}
	return cmp.Or(raw, "absent")
}
