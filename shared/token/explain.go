package token

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// Explanation says what a token is and how it was read. It is for the operator: it contains what callers must not see.
type Explanation struct {
	// Claims are those of an accepted token. They are zero for a refused one.
	Claims Claims
	// Ignored are the parts of an accepted token that grant nothing, among the claims that are read.
	Ignored []Ignored
	// Limits are those of Claims, with where each is from.
	Limits []LimitOrigin
	// Reads are the claims from which scopes are read, and RolesFrom those with roles.
	Reads, RolesFrom []string

	// Algorithm, Type and KeyID are alg, typ and kid of the header, or "". Nobody has verified them.
	Algorithm, Type, KeyID string

	// Signer is the source of the key that made the signature, such as keys[0]; a refused token can have one too. If it
	// is "", no key made the signature, and the fields below are zero.
	Signer string
	// Kind is "access token", "access token that is bound to a key", "ID token", "logout token" or "another kind of
	// token".
	Kind string
	// Issuer is the claim iss as the token has it.
	Issuer string
	// Audience is the claim aud.
	Audience []string
	// Clients are those of azp, client_id and cid that are present, in this form: azp=web.
	Clients []string
	// Absent are the claims that are read for scopes and roles and that the token doesn't have.
	Absent []string
	// Has are the claims that may hold scopes, roles or groups and that are not read. At most 8.
	Has []string
}

// LimitOrigin is one limit of a caller. From is "claim=role", "*" for the limits of every caller, or the claim that
// lowers it.
type LimitOrigin struct {
	Name  limit.Name
	Value float64
	From  string
}

// Explain is Verify, and also says how the token was read.
func (v *Verifier) Explain(ctx context.Context, authorization []string) (x Explanation, err error) {
	x.Claims, err = v.verify(ctx, authorization, &x)
	return x, err
}

// sawHeader sets what the header says.
func (x *Explanation) sawHeader(header object) {
	x.Algorithm, _ = header.text("alg")
	x.Type, _ = header.text("typ")
	x.KeyID, _ = header.text("kid")
}

// saw sets what a token with a good signature says. It is called again if the same key is configured twice.
func (x *Explanation) saw(o, header object, from *source) {
	x.Signer, x.Kind, x.Ignored = from.name, kindOf(o, header), nil
	x.Issuer, _ = o.text("iss")
	x.Audience, x.Clients = o.list("aud"), nil
	for _, name := range clientClaims {
		if client, ok := o.text(name); ok && client != "" {
			x.Clients = append(x.Clients, name+"="+client)
		}
	}
	names := func(list []ClaimSource) (all []string) {
		for _, s := range list {
			all = append(all, s.String())
		}
		return all
	}
	x.Reads, x.RolesFrom, x.Absent = names(from.Scopes), names(from.Roles), nil
	read := map[string]bool{}
	for _, s := range slices.Concat(from.Scopes, from.Roles) {
		raw, err := s.find(o)
		if read[s.Path[0]] = err == nil && raw != ""; !read[s.Path[0]] {
			x.Absent = append(x.Absent, s.String())
		}
	}
	x.Has = o.likeScopes(read)
}

// limitOrigins says where the limits of an accepted token are from.
func (from *source) limitOrigins(o object, limits limit.Limits) (all []LimitOrigin) {
	type place struct {
		name string
		limit.Limits
	}
	var places []place // in which a limit of the file can be
	byRole := limit.Limits{}
	for _, claim := range from.Roles {
		roles, _, _ := claim.values(o) // the token was accepted
		for _, role := range roles {
			if l, ok := from.roleLimits(role); ok {
				places, byRole = append(places, place{claim.String() + "=" + role, l}), byRole.Largest(l)
			}
		}
	}
	everyone := from.Limits[anyRole]
	ofFile := byRole.Or(everyone)
	places = append(places, place{anyRole, everyone})
	for name, value := range limits.All() {
		origin := from.LimitsFrom.String()
		if ofFile.Of(name) == value {
			i := slices.IndexFunc(places, func(p place) bool { return p.Of(name) == value })
			origin = places[i].name
		}
		all = append(all, LimitOrigin{name, value, origin})
	}
	return all
}

// kindOf says what kind of token this is, whichever kinds its source accepts.
func kindOf(o, header object) string {
	switch fault.Detail((&source{}).checkKind(o, header)) {
	case fault.Detail(errIDToken):
		return "ID token"
	case fault.Detail(errLogoutToken):
		return "logout token"
	case fault.Detail(errAnotherKind):
		return "another kind of token"
	}
	if raw := o["cnf"]; raw != "" && raw != "null" {
		return "access token that is bound to a key"
	}
	return "access token"
}

// usualClaims are the claims in which issuers put scopes, roles and groups. A claim with another name can be one of
// them too: issuers put a namespace before them, such as https://keyway.example/roles.
var usualClaims = []string{
	"scopes", "scope", "scp", "permissions", "roles", "groups", "realm_access", "resource_access", "cognito:groups",
	"app_metadata", "user_metadata", "entitlements", "authorities",
}

// Limits of the texts that explain a token without scopes.
const (
	maxUnread     = 8   // claims
	maxUnreadName = 100 // bytes of the name of each
)

// explainNone says why a token has no scopes at all: absent are the claims that are read and that the token doesn't
// have, and unread is what it has instead, without any value. A caller may see unread: it names only claims of the
// token. All of it is bounded, because it crosses to the functions and is logged.
func (from *source) explainNone(o object) (absent, unread string) {
	var missing, parts []string
	read := map[string]bool{}
	for _, s := range slices.Concat(from.Scopes, from.Roles) {
		raw, err := s.find(o)
		if err != nil || raw == "" {
			missing = append(missing, `"`+clipped(s.String())+`"`)
			continue
		}
		if len(s.Path) == 1 {
			read[s.Path[0]] = true
		}
		switch values, ok, _ := s.values(o); {
		case !ok:
			parts = append(parts, "its "+clipped(s.String())+" is neither a string nor a list of strings")
		case len(values) > 0:
			parts = append(parts, "none of the values of its "+clipped(s.String())+" grants scopes here")
		}
	}
	if len(missing) > 0 {
		absent = strings.Join(missing[:min(len(missing), maxUnread)], " or ")
	}
	if has := o.likeScopes(read); len(has) > 0 {
		parts = append([]string{"it has " + strings.Join(has, ", ")}, parts...)
	}
	return absent, strings.Join(parts[:min(len(parts), maxUnread)], "; ")
}

// likeScopes returns the names of the claims that may contain scopes or roles, except those that were read.
func (o object) likeScopes(read map[string]bool) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		_, last, namespaced := cutLast(name, "/")
		usual := slices.Contains(usualClaims, name) || namespaced && slices.Contains(usualClaims, last)
		if usual && !read[name] && !isEmpty(o[name]) {
			names = append(names, clipped(name))
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return usualRank(a) - usualRank(b) })
	return names[:min(len(names), maxUnread)]
}

// usualRank orders the names as usualClaims does, with those of a namespace at the end.
func usualRank(name string) int {
	if i := slices.Index(usualClaims, name); i >= 0 {
		return i
	}
	return len(usualClaims)
}

// isEmpty reports whether a JSON text holds nothing: null, "", [] or {}.
func isEmpty(raw string) bool {
	if raw == "null" || raw == `""` {
		return true
	}
	value := strictjson.Value{Raw: raw}
	for range value.Elements() {
		return false
	}
	for range value.Members() {
		return false
	}
	return raw[0] == '[' || raw[0] == '{'
}

// cutLast cuts text around the last sep.
func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

// clipped returns the beginning of a name.
func clipped(name string) string {
	if len(name) > maxUnreadName {
		return strings.ToValidUTF8(name[:maxUnreadName], "") + "…"
	}
	return name
}
