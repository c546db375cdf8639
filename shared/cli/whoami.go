package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/token"
)

// whoamiCmd explains how this OS reads a token.
type whoamiCmd struct {
	// Token is in the form that readToken takes. It is verified as the server would.
	Token string `placeholder:"TOKEN" help:"${help_token}"`
}

// Help adds examples to the command's --help.
func (whoamiCmd) Help() string {
	return `Verifies a token as the server does. Prints the entry of auth.keys that verified it, the
user, the owner of the user's data, each scope and each limit with the claim or role that it
is from, what grants nothing and why, and which claims are not read. For a refused token it
prints the reason, and what was expected. It fetches keys that have an address, and needs no database.

Exit status 0: accepted, 3: refused, 1: the keys can't be fetched, 2: a mistake in the
command line or in the file.

  keyway whoami --token @alice.jwt
  keyway token --sub ann --scopes agents:read | keyway whoami --token - --json`
}

// identity is what whoami prints. Its member names are part of the output of --json.
type identity struct {
	Accepted bool `json:"accepted"`
	// Refused is the text that the caller gets, Cause what only the operator sees, and Hint the remedy.
	Refused string `json:"refused,omitempty"`
	Cause   string `json:"cause,omitempty"`
	Hint    string `json:"hint,omitempty"`
	// Entry is the path of the entry of auth.keys whose key made the signature, and Place where it is in the file.
	Entry string `json:"entry,omitempty"`
	Place string `json:"place,omitempty"`
	// Kind is empty without a good signature. Alg, Typ and KeyID are the header's.
	Kind  string `json:"kind,omitempty"`
	Alg   string `json:"alg,omitempty"`
	Typ   string `json:"typ,omitempty"`
	KeyID string `json:"kid,omitempty"`

	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	Owner   string `json:"owner,omitempty"`
	// Otherwise is the owner if the database has recorded another home issuer.
	Otherwise string    `json:"owner_otherwise,omitempty"`
	Session   string    `json:"session,omitempty"`
	Clients   []string  `json:"clients,omitempty"`
	Audience  []string  `json:"audience,omitempty"`
	TokenID   string    `json:"jti,omitempty"`
	Issued    time.Time `json:"issued,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`

	// Scopes are those that count, Ignored what grants nothing.
	Scopes  []originOf `json:"scopes"`
	Ignored []ignored  `json:"ignored,omitempty"`
	// Limits are what the caller's runs may use.
	Limits []limitFrom `json:"limits,omitempty"`
	// Absent are claims that are read and that the token doesn't have, and NotRead those that may hold scopes or roles.
	Absent []string `json:"absent,omitempty"`
	// NoSubject is the claim that the subject is read from, if the token has none.
	NoSubject string   `json:"no_subject,omitempty"`
	NotRead   []string `json:"not_read,omitempty"`
	// Remedies are lines for keyway.yaml.
	Remedies []string `json:"remedies,omitempty"`
}

// ignored is a part of the token that grants nothing. Value is empty for the whole claim.
type ignored struct {
	Claim string `json:"claim"`
	Value string `json:"value,omitempty"`
	Why   string `json:"why"`
}

// limitFrom is one limit of the caller, and the role or claim that it is from. "*" stands for every caller.
type limitFrom struct {
	Name  limit.Name `json:"name"`
	Value float64    `json:"limit"`
	From  string     `json:"from"`
}

// Run prints who the token is.
func (c whoamiCmd) Run(ctx context.Context, e env) error {
	raw, err := e.readToken(c.Token)
	if err != nil {
		return err
	}
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	if err := e.addDevKey(cfg, false); err != nil {
		return err
	}
	a, err := e.authorizer(cfg)
	if err != nil {
		return err
	}
	x, err := a.Verifier.Explain(ctx, []string{"Bearer " + raw})
	if errors.Is(err, fault.Unavailable) {
		return err
	}
	who := identify(cfg, x, err)
	who.Place = e.place(who.Entry)
	asWritten(cfg, &who)
	if e.cli.JSON {
		err = printJSON(e.out, who)
	} else {
		_, err = fmt.Fprint(e.out, who.text(e.now()))
	}
	if err == nil && !who.Accepted {
		err = silent(exitDenied)
	}
	return err
}

// identify returns what is printed about a token. refusal is the error of its verification.
func identify(cfg *config.Config, x token.Explanation, refusal error) identity {
	who := identity{
		Accepted: refusal == nil, Kind: x.Kind, Alg: x.Algorithm, Typ: x.Type, KeyID: x.KeyID, Scopes: []originOf{},
		Entry: entryNamed(cfg, x.Signer), Issuer: x.Issuer, Clients: x.Clients, Audience: x.Audience,
	}
	if refusal != nil {
		who.Refused, who.Cause = fault.Detail(refusal), causeOf(refusal, "")
		who.Hint = fault.Hint(who.Refused)
		return who
	}
	who.Absent, who.NotRead = x.Absent, x.Has
	claims := x.Claims
	who.Subject, who.Session, who.TokenID = claims.Subject, claims.SessionID, claims.ID
	who.NoSubject = claims.SubjectClaim
	who.Issued, who.Expires = claims.IssuedAt, claims.ExpiresAt
	who.Owner, who.Otherwise = cfg.Auth.Owners().Likely(claims.Realm, claims.Issuer, claims.Subject)
	for _, i := range x.Ignored {
		who.Ignored = append(who.Ignored, ignored(i))
	}
	for _, l := range x.Limits {
		who.Limits = append(who.Limits, limitFrom(l))
	}
	for i, text := range claims.Scopes {
		origin := x.Reads[0] // the only claim that is read
		if claims.Origins != nil {
			origin = claims.Origins[i]
		}
		if why := grantsNothing(text, cfg.Auth.AdminScope); why != "" {
			who.Ignored = append(who.Ignored, ignored{origin, text, why})
		} else {
			who.Scopes = append(who.Scopes, originOf{text, origin})
		}
	}
	if len(who.Scopes) == 0 {
		who.Remedies = remedies(x.Has)
	}
	return who
}

// entryNamed returns the path in the file of the source with this name, such as keys[0].
func entryNamed(cfg *config.Config, source string) string {
	var i int
	if _, err := fmt.Sscanf(source, "keys[%d]", &i); err != nil {
		return ""
	}
	return entryOf(cfg, i)
}

// entryOf returns the path in the file of the source of keys with this index.
func entryOf(cfg *config.Config, i int) string {
	if i < len(cfg.KeyPaths) {
		return cfg.KeyPaths[i]
	}
	return "the key of keyway serve --dev"
}

// place returns file:line:column of a path in keyway.yaml, or "".
func (e env) place(path string) string {
	if !strings.HasPrefix(path, "auth.") {
		return ""
	}
	doc, err := yamlfile.Open(e.cli.Config)
	if err != nil {
		return ""
	}
	f := doc.Place([]config.Fault{{Path: path}})[0]
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// grantsNothing says why a text of the token is no scope, or returns "".
func grantsNothing(text, admin string) string {
	if _, ok := scope.Parse(text); text == admin || ok && !strings.ContainsAny(text, " \t\r\n") {
		return ""
	}
	isScope := func(word string) bool { _, ok := scope.Parse(word); return ok || word == admin }
	if words := strings.Fields(text); len(words) > 1 && slices.ContainsFunc(words, isScope) {
		return "it is one value, although it looks like a list: with {claim: NAME, split: true} a text is split at spaces, " +
			"and an element of a list never"
	}
	return "it is not a scope, which is resource:action or resource:id:action"
}

// remedies returns lines for keyway.yaml that read the claims with these names.
func remedies(claims []string) (lines []string) {
	for _, name := range claims {
		const grants = ", grants: {ROLE: [agents:read]}"
		quoted := name
		if strings.ContainsAny(name, ":/") {
			quoted = strconv.Quote(name)
		}
		switch name {
		case "scope", "scp", "scopes", "permissions":
			lines = append(lines, "claims: {scopes: "+quoted+"}")
		case "realm_access":
			lines = append(lines, "claims: {roles: {path: [realm_access, roles]}}"+grants)
		case "resource_access":
			lines = append(lines, "claims: {roles: {path: [resource_access, CLIENT, roles]}}"+grants)
		case "app_metadata", "user_metadata":
			lines = append(lines, "claims: {roles: {path: ["+name+", NAME]}}"+grants)
		default:
			lines = append(lines, "claims: {roles: "+quoted+"}"+grants)
		}
	}
	return lines
}

// text returns the lines for people.
func (w identity) text(now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(&b, "%-11s %s\n", name, text)
		}
	}
	if !w.Accepted {
		line("refused", "%s", w.Refused)
		line("cause", "%s", w.Cause)
		line("hint", "%s", w.Hint)
	}
	line("verified by", "%s", strings.TrimSuffix(fmt.Sprintf("%s (%s)", w.Entry, w.Place), " ()"))
	var is []string
	for _, part := range []struct{ before, text string }{
		{"", w.Kind}, {"", w.Alg}, {"typ ", w.Typ}, {"kid ", w.KeyID}, {"jti ", w.TokenID},
	} {
		if part.text != "" {
			is = append(is, part.before+visible(part.text))
		}
	}
	line("token", "%s", strings.Join(is, ", "))
	line("issuer", "%s", visible(w.Issuer))
	line("subject", "%s", visible(w.Subject))
	if w.NoSubject != "" {
		line("subject", "none: no claim %q, so with user_isolation this caller owns nothing", w.NoSubject)
	}
	line("owner", "%s", visible(w.Owner))
	if w.Otherwise != "" {
		line("", "or %s, if the database has recorded another home issuer", visible(w.Otherwise))
	}
	line("session", "%s", visible(w.Session))
	line("client", "%s", visible(strings.Join(w.Clients, ", ")))
	line("audience", "%s", visible(strings.Join(w.Audience, ", ")))
	if w.Accepted {
		line("expires", "%s", expiry(w.Expires, now))
		w.grants(line)
		w.limits(line)
		w.missing(line)
	}
	return b.String()
}

// grants prints the scopes and what grants nothing.
func (w identity) grants(line func(name, format string, args ...any)) {
	if len(w.Scopes) == 0 {
		line("scopes", "none")
	}
	for i, s := range w.Scopes {
		line(first(i, "scopes"), "%s from %s", visible(s.Scope), visible(s.Origin))
	}
	for i, v := range w.Ignored {
		line(first(i, "ignored"), "%s: %s", strings.TrimSuffix(visible(v.Claim)+"="+visible(v.Value), "="), v.Why)
	}
}

// limits prints the limits of the caller.
func (w identity) limits(line func(name, format string, args ...any)) {
	for i, l := range w.Limits {
		from := visible(l.From)
		if l.From == config.AnyRole {
			from = "* (every caller)"
		}
		line(first(i, "limits"), "%s %s from %s", l.Name, amount(l.Value), from)
	}
}

// missing prints which claims are absent, which are not read, and how to read them.
func (w identity) missing(line func(name, format string, args ...any)) {
	has := visible(strings.Join(w.NotRead, ", "))
	var parts []string
	for _, name := range w.Absent {
		parts = append(parts, "no claim "+strconv.Quote(name))
	}
	switch {
	case len(parts) == 0:
		line("not read", "%s", has)
	case has != "":
		parts = append(parts, "it has "+has)
	}
	line("missing", "%s", strings.Join(parts, "; "))
	for i, remedy := range w.Remedies {
		line(first(i, "to read it"), "%s", remedy)
	}
}

// first returns name for the first line of a list.
func first(i int, name string) string {
	if i > 0 {
		return ""
	}
	return name
}

// expiry says when a token expires.
func expiry(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s, in %s", at.Format(time.RFC3339), at.Sub(now).Round(time.Second))
}

// visible returns a text of the token, in quotes if a terminal could show it as something else.
func visible(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
