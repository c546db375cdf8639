package revoke

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
)

// Issuers are the issuers whose tokens one OS accepts. They decide which tokens a revocation is about.
type Issuers struct {
	// groups have the spellings of one issuer each.
	groups [][]string
	// any means that some key accepts tokens of any issuer. Revocations of these have the issuer "".
	any bool
}

// IssuersOf returns the issuers that auth in keyway.yaml names.
func IssuersOf(a config.Auth) (i Issuers) {
	if a.Issuer != "" { // every token must have it
		i.groups = [][]string{{a.Issuer}}
	}
	for _, k := range a.Keys {
		group := k.Issuers()
		switch same := func(g []string) bool { return slices.Equal(g, group) }; {
		case len(group) > 0 && !slices.ContainsFunc(i.groups, same):
			i.groups = append(i.groups, group)
		case len(group) == 0 && a.Issuer == "":
			i.any = true
		}
	}
	return i
}

// Of returns all names of a token's issuer: the realm, the issuer itself and its other spellings. So a revocation holds
// whichever spelling it names, and also after the order of spellings has changed. For tokens of keys that accept any
// issuer, the realm is "": the owner of their data depends on no issuer either.
func (i Issuers) Of(realm, issuer string) []string {
	names := []string{realm}
	if issuer != realm {
		names = append(names, issuer)
	}
	for _, group := range i.groups {
		if !slices.Contains(group, issuer) {
			continue
		}
		for _, other := range group {
			if !slices.Contains(names, other) {
				names = append(names, other)
			}
		}
	}
	return names
}

// Spellings returns all names under which a revocation of an issuer may be stored, by the file and by the record of the
// database, which may be nil.
func (i Issuers) Spellings(issuer string, recorded *owner.Record) []string {
	names := i.Of(issuer, issuer)
	if recorded != nil {
		names = append(names, recorded.Spellings(issuer)...)
	}
	return names
}

// Choose returns the issuer of a new revocation. named is what the operator named, nil for nothing: then there must be
// only one issuer. The error has the remedy, for a person. An issuer that no token can have is an error, because the
// revocation would have no effect. So is "" if by the record, which may be nil, no entry without an issuer is in force:
// this process has an earlier file then, and the entries have got issuers.
func (i Issuers) Choose(named *string, recorded *owner.Record) (string, error) {
	issuer, err := i.choose(named)
	if err == nil && issuer == "" && recorded != nil && !recorded.AcceptsUnnamed() {
		return "", errors.New("a later keyway.yaml is in force, in which each entry of auth.keys names an issuer; name the " +
			"issuer of the token")
	}
	return issuer, err
}

// choose is Choose by the file alone.
func (i Issuers) choose(named *string) (string, error) {
	known := slices.ContainsFunc(i.groups, func(g []string) bool { return named != nil && slices.Contains(g, *named) })
	switch {
	case named != nil && (known || i.any):
		return *named, nil
	case named != nil && len(i.groups) > 0:
		return "", fmt.Errorf("keyway.yaml names no such issuer; it must be %s", i.list())
	case named == nil && len(i.groups) == 0:
		return "", nil
	case named == nil && len(i.groups) == 1 && !i.any:
		return i.groups[0][0], nil
	case named != nil:
		return *named, nil
	}
	return "", fmt.Errorf("tokens of several issuers are accepted, so it must be named: %s", i.list())
}

// list names the issuers, each by its first spelling.
func (i Issuers) list() string {
	var names []string
	for _, group := range i.groups {
		names = append(names, group[0])
	}
	if i.any {
		names = append(names, `"" (for tokens of the keys without an issuer)`)
	}
	return strings.Join(names, " or ")
}
