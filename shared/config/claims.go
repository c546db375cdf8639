package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/scope"
)

// Names returns the names that lead to the value. It is nil for the zero ClaimSource.
func (s ClaimSource) Names() []string {
	if s.Claim != "" {
		return []string{s.Claim}
	}
	return s.Path
}

// Splits reports whether a text holds several values, with spaces between them.
func (s ClaimSource) Splits() bool {
	if s.Split != nil {
		return *s.Split
	}
	return s.Claim == "scope" || s.Claim == "scp"
}

// fromText reads the short form of a source, the name of a claim.
func (s *ClaimSource) fromText(d *decoder, path string, n *node) {
	s.Claim = d.text(path, n, `min:"1"`)
}

// source reads the long form of a source. It names a claim, unless the name is a variable that can be unset.
func (d *decoder) source(path string, n *node) (s ClaimSource) {
	if d.object(path, n, reflect.ValueOf(&s).Elem()); n.kind != objectKind || s.Names() != nil {
		return s
	}
	if _, unset := d.c.Unset[Member(path, "claim")]; !unset && d.clean(path) {
		d.fault(path, "names no claim", "add claim: NAME")
	}
	return ClaimSource{}
}

// Sources is one ClaimSource or a list of them.
type Sources []ClaimSource

// named returns the sources that have a name: not those whose variable is unset. It is nil if there is no other one,
// and empty only if the file has an empty list: an unset variable must not mean that nothing is read.
func (s Sources) named() Sources {
	before := len(s)
	if s = slices.DeleteFunc(s, func(one ClaimSource) bool { return one.Names() == nil }); len(s) == 0 && before > 0 {
		return nil
	}
	return s
}

// Texts is one text or a list of texts.
type Texts []string

// oneOrMany decodes a list that can be written as its only element.
func (d *decoder) oneOrMany(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	if n.kind == listKind {
		d.list(path, n, v, tag)
		return
	}
	e := reflect.New(v.Type().Elem()).Elem()
	if d.value(path, n, e, tag); !e.IsZero() {
		v.Set(reflect.Append(v, e))
	}
}

// Grants are the scopes that each role or group grants.
type Grants map[string][]string

// grants reads "ROLE": [scopes…]. Whether a text is a scope is checked by checkGrants, which knows the
// administrator's scope.
func (d *decoder) grants(path string, n *node) Grants {
	if !d.expect(path, n, objectKind, "lines such as web-users: [agents:read]") {
		return nil
	}
	all := Grants{}
	for i, role := range n.keys {
		at := Member(path, role)
		if strings.Contains(role, "${") { // it would never be the name of a role, and the grant would have no effect
			d.fault(at, "has a variable in its name, and names can't hold variables", "write the name itself")
			continue
		}
		if n.sub[i].kind == listKind && len(n.sub[i].sub) == 0 {
			d.fault(at, "lists no scope", "list a scope, or remove the line: a role without a line grants nothing")
			continue
		}
		all[role] = d.scopes(at, n.sub[i])
	}
	return all
}

// checkClaims checks the claims and grants of auth and of each key.
func (d *decoder) checkClaims(a *Auth) {
	d.checkSources("auth.claims", KeyClaims(a.Claims))
	d.checkGrants("auth.grants", a.Grants, a.AdminScope)
	readers, unlisted := 0, []string(nil)
	for i, k := range a.Keys {
		path := Element("auth.keys", i)
		d.checkSources(path+".claims", k.Claims)
		d.checkGrants(path+".grants", k.Grants, a.AdminScope)
		roles, scopes := a.ClaimsOf(k).Roles, a.ClaimsOf(k).Scopes
		if len(roles) > 0 && !k.hasNoSource() {
			readers++
			if k.Grants == nil && !k.isText() { // a key that is written as a text has only the grants of auth
				unlisted = append(unlisted, path)
			}
		}
		switch {
		case k.hasNoSource():
		case len(roles) > 0 && k.Grants == nil && a.Grants == nil && d.clean(path) && d.clean("auth.grants"):
			d.warn(path, "reads roles, but no grants say what they grant", "add grants: {ROLE: [agents:read]}")
		case len(roles) == 0 && k.Grants != nil && d.clean(path):
			d.warn(path+".grants", "has no effect, because no claim with roles is read", "add roles to claims")
		case len(roles) == 0 && scopes != nil && len(scopes) == 0 && d.clean(path) && d.clean("auth.claims"):
			d.warn(path, "reads neither scopes nor roles, so its tokens grant nothing", "add roles to claims, and grants")
		}
	}
	d.warnShared(a)
	d.noteScope(a)
	if readers > 1 { // the group "admins" of one issuer must not be that of another by accident
		for _, path := range unlisted {
			d.fault(path, "reads roles, and so does another entry, so it needs grants of its own",
				"add grants to this entry; {} grants nothing")
		}
	}
	if readers == 0 && len(a.Grants) > 0 && len(a.Claims.Roles) == 0 {
		d.warn("auth.grants", "has no effect, because no claim with roles is read", "add roles to auth.claims")
	}
}

// warnShared warns of a claim that is read for scopes and for roles: a person who can name a group can then grant
// scopes.
func (d *decoder) warnShared(a *Auth) {
	keys := a.Keys
	if len(keys) == 0 { // with --dev
		keys = []Key{{}}
	}
	warned := map[string]bool{} // auth.claims applies to several entries
	for i, k := range keys {
		c, own := a.ClaimsOf(k), Element("auth.keys", i)+".claims"
		for j, role := range c.Roles {
			both := func(s ClaimSource) bool { return slices.Equal(s.Names(), role.Names()) }
			shared := slices.IndexFunc(c.Scopes, both)
			if shared < 0 || role.Names() == nil {
				continue
			}
			at := element("auth.claims.roles", c.Roles, j)
			switch {
			case k.Claims.Roles != nil:
				at = element(own+".roles", c.Roles, j)
			case k.Claims.Scopes != nil:
				at = element(own+".scopes", c.Scopes, shared)
			}
			if !warned[at] && d.clean(at) {
				warned[at] = true
				d.warn(at, "is read for scopes and for roles, so a group named like a scope grants it",
					"read scopes from another claim; scopes: [] reads roles only")
			}
		}
	}
}

// element returns the path of a source, which is that of the list if it is the only one: then it can be written without
// a list.
func element(path string, list Sources, i int) string {
	if len(list) > 1 {
		return Element(path, i)
	}
	return path
}

// noteScope notes what files of earlier versions don't expect, and what the claim scope means at an identity provider.
func (d *decoder) noteScope(a *Auth) {
	noted := map[string]bool{} // auth.claims applies to several entries
	note := func(path, text, remedy string) {
		if !noted[path+text] && d.clean(path) {
			noted[path+text] = true
			d.note(path, text, remedy)
		}
	}
	for i, k := range a.Keys {
		c, at := a.ClaimsOf(k), "auth.claims"
		if k.Claims.Scopes != nil {
			at = Element("auth.keys", i) + ".claims"
		}
		clients := len(c.Roles) == 0 && len(c.Scopes) > 0
		for j, s := range c.Scopes {
			path := element(Member(at, "scopes"), c.Scopes, j)
			if s.Splits() && s.Split == nil {
				note(path, "reads the claim "+s.Claim+", of which a text is split at spaces (RFC 8693, RFC 9068); earlier "+
					"versions "+
					"read it as one scope", "write {claim: "+s.Claim+", split: true} to confirm that, or split: false for one scope")
			}
			clients = clients && len(s.Names()) == 1 && (s.Names()[0] == "scope" || s.Names()[0] == "scp")
		}
		if clients && k.JWKSURL+k.Discovery != "" {
			note(Member(at, "scopes"), "reads what a client may ask for, which at many issuers each user can ask for",
				"let the issuer tie these scopes to roles, or read the user's roles too: claims.roles and grants")
		}
	}
}

// ClaimsOf returns the claims that are read from tokens of k: its own, and for those that it doesn't name the ones of
// auth.claims.
func (a Auth) ClaimsOf(k Key) Claims {
	c := a.Claims
	if k.Claims.Scopes != nil {
		c.Scopes = k.Claims.Scopes
	}
	if k.Claims.Roles != nil {
		c.Roles = k.Claims.Roles
	}
	if k.Claims.Subject.Names() != nil {
		c.Subject = k.Claims.Subject
	}
	if k.Claims.Session.Names() != nil {
		c.Session = k.Claims.Session
	}
	if k.Claims.Limits.Names() != nil {
		c.Limits = k.Claims.Limits
	}
	return c
}

// GrantsOf returns what the roles in tokens of k grant: its own grants, or those of auth.
func (a Auth) GrantsOf(k Key) Grants {
	if k.Grants != nil {
		return k.Grants
	}
	return a.Grants
}

// checkSources checks that each source is one claim or one path, and warns of a name that looks like a path.
func (d *decoder) checkSources(path string, c KeyClaims) {
	for _, several := range []struct {
		name string
		list Sources
	}{{"scopes", c.Scopes}, {"roles", c.Roles}} {
		for i, s := range several.list {
			d.checkSourceOfClaim(element(Member(path, several.name), several.list, i), s)
		}
	}
	for _, one := range []struct {
		name string
		s    ClaimSource
	}{{"subject", c.Subject}, {"session", c.Session}, {"limits", c.Limits}} {
		at := Member(path, one.name)
		d.checkSourceOfClaim(at, one.s)
		if one.s.Split != nil {
			d.fault(Member(at, "split"), "has no effect, because this claim holds one value", "remove it")
		}
	}
	if names := c.Subject.Names(); len(names) > 0 && names[len(names)-1] == "email" {
		d.warn(Member(path, "subject"), "is an address that its user or the issuer can change or give to another person, "+
			"who then owns the same data", "use sub")
	}
}

func (d *decoder) checkSourceOfClaim(at string, s ClaimSource) {
	switch {
	case !d.clean(at):
	case s.Claim != "" && s.Path != nil:
		d.fault(at, "has a claim and a path", "keep one of them")
	case slices.Contains(s.Path, ""):
		d.fault(at, "has an empty name in its path", "name each member")
	case dotted(s.Claim):
		name := d.c.AsWritten(s.Claim)
		d.warn(at, fmt.Sprintf("is the claim with the name %q, dots included", name),
			fmt.Sprintf("if it is a member of an object, write {path: [%s]}", strings.ReplaceAll(name, ".", ", ")))
	case slices.ContainsFunc(s.Path, dotted):
		name := d.c.AsWritten(s.Path[slices.IndexFunc(s.Path, dotted)])
		d.warn(at, fmt.Sprintf("has the name %q in its path, dots included", name),
			"if it stands for several names, write each of them: "+strings.ReplaceAll(name, ".", ", "))
	}
}

// dotted reports whether a name looks like a path. The names that issuers put into a namespace are addresses.
func dotted(name string) bool { return strings.Contains(name, ".") && !strings.Contains(name, "://") }

// checkGrants checks that each text of the grants is a scope. Another text would grant nothing. It warns of a scope for
// an agent that nobody declares. A file without agents is that of a program that declares them in Go.
func (d *decoder) checkGrants(path string, all Grants, admin string) {
	for _, role := range slices.Sorted(maps.Keys(all)) {
		at, scopes := Member(path, role), all[role]
		if role == "" {
			d.fault(path, "has an empty name", "name a role or group")
		}
		for i, text := range scopes {
			need, ok := scope.Parse(text)
			if !ok && text != admin && d.clean(at) {
				d.fault(Element(at, i), "is no scope, so it grants nothing", "write resource:action or resource:id:action")
			}
			declared := func(a Agent) bool { return a.ID == need.ID }
			if ok && need.Resource == "agents" && need.ID != "" && len(d.Agents) == 0 && len(d.c.Agents) > 0 &&
				d.clean("agents") && !slices.ContainsFunc(d.c.Agents, declared) {
				d.warn(Element(at, i),
					fmt.Sprintf("is about the agent %q, which this file does not declare", d.c.AsWritten(need.ID)),
					"compare it with the ids in agents")
			}
		}
	}
}
