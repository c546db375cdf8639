// Package owner decides under which name a caller's sessions, runs and memories are stored. Subjects are unique within
// one issuer only (RFC 7519, section 4.1.2), so the name depends on the issuer too. It depends on nothing that a change
// of keyway.yaml can move: one issuer of a database, the home issuer, is recorded there, and its users own data under
// their bare subjects. See docs/adr/0017.
// The package knows nothing about tokens, files or SQL.
package owner

import (
	"cmp"
	"strings"
)

// None is the value of auth.home_issuer for a database without a home issuer.
const None = "none"

// Record is what a database knows about the names in it.
type Record struct {
	// Home is the home issuer. It is "" if the entries of auth.keys that name no issuer are at home, and nil if nobody is:
	// then every name has its issuer.
	Home *string `json:"home"`
	// Unnamed reports that the entries that name no issuer are at home too, because they were before Home got a name. So
	// the file can be put back, and a deployment can roll.
	Unnamed bool `json:"unnamed,omitempty"`
	// Issuers has each spelling of an issuer that keyway.yaml has ever named, with the spelling that stands in names.
	Issuers map[string]string `json:"issuers"`
	// Entries counts the entries of auth.keys in the last file by their issuer, "" being those that name none. A later
	// file shows by it whether an entry got an issuer or lost it.
	Entries map[string]int `json:"entries"`
}

// escaper escapes the separator in an issuer, so that no issuer and subject join to the name of another pair.
var (
	escaper   = strings.NewReplacer("%", "%25", "#", "%23")
	unescaper = strings.NewReplacer("%25", "%", "%23", "#")
)

// homePrefix begins the names of users of the home issuer whose subjects contain #. No escaped issuer is "%".
const homePrefix = "%#"

// Name returns the owner of a caller's data. realm is the issuer that the verifying entry of auth.keys names, "" for
// none, and issuer is the token's. A caller without a subject owns nothing, and the name is "".
//
// The name is the subject for users of the home issuer, and issuer#subject for others. A subject of the home issuer
// that contains # gets a prefix, so that it cannot spell the name of another issuer's user.
func (r *Record) Name(realm, issuer, subject string) string {
	from := r.Issuer(cmp.Or(realm, issuer))
	switch {
	case subject == "":
		return ""
	case !r.atHome(realm, from):
		return Group(from) + subject
	}
	return HomeName(subject)
}

// HomeName returns the owner of the data of a user of the home issuer.
func HomeName(subject string) string {
	if strings.Contains(subject, "#") {
		return homePrefix + subject
	}
	return subject
}

// atHome reports whether a token is one of the home issuer. An entry without an issuer may verify tokens of the home
// issuer too: its issuer may have been removed from the file.
func (r *Record) atHome(realm, from string) bool {
	switch {
	case r.Home == nil:
		return false
	case realm == "" && (*r.Home == "" || r.Unnamed):
		return true
	}
	return *r.Home != "" && *r.Home == from
}

// Issuer returns the spelling of an issuer that stands in names.
func (r *Record) Issuer(spelling string) string { return cmp.Or(r.Issuers[spelling], spelling) }

// Means reports whether the tokens of a realm and an issuer are of a named issuer, in any spelling that was ever
// recorded. The name "" is for entries of auth.keys without an issuer. It includes the home issuer, because it may
// be the one that such an entry has got since.
func (r *Record) Means(named, realm, issuer string) bool {
	from := r.Issuer(cmp.Or(realm, issuer))
	if named == "" {
		return realm == "" || r.atHome(realm, from)
	}
	named = r.Issuer(named)
	return named == from || named == r.Issuer(issuer) || r.Unnamed && r.atHome(realm, from) && *r.Home == named
}

// Spellings returns issuer and its other recorded spellings, in no order. If it is the home issuer, and no entry of the
// last file is without an issuer, "" is one of them; see Means.
func (r *Record) Spellings(issuer string) []string {
	all := []string{issuer}
	for s := range r.Issuers {
		if s != issuer && r.Issuer(s) == r.Issuer(issuer) {
			all = append(all, s)
		}
	}
	if issuer != "" && r.Home != nil && *r.Home == r.Issuer(issuer) && r.Entries[""] == 0 {
		all = append(all, "")
	}
	return all
}

// Group returns what the names of an issuer's users begin with, unless it is the home issuer.
func Group(issuer string) string { return escaper.Replace(issuer) + "#" }

// IssuerOf returns the issuer of a group. home is true for the two groups of the home issuer.
func IssuerOf(group string) (issuer string, home bool) {
	return unescaper.Replace(strings.TrimSuffix(group, "#")), group == "" || group == homePrefix
}
