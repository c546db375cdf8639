// Package owner decides under which name a caller's sessions, runs and memories are stored. Subjects are unique within
// one issuer only (RFC 7519, section 4.1.2), so the name depends on the issuer too. It depends on nothing that a change
// of keyway.yaml can move: one issuer of a database, the home issuer, is recorded there, and its users own data under
// their bare subjects. See docs/adr/0017.
// The package knows nothing about tokens, files or SQL.
package owner

import (
	"cmp"
	"slices"
	"strings"
	"time"
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
	// Since has the time since which the file names an issuer, by the clock of the database. An issuer without a time was
	// in the file when the record began. See Means.
	Since map[string]time.Time `json:"since,omitempty"`
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

// Means reports whether a revocation is about the tokens of a realm and an issuer. named is its issuer, in any spelling
// that was ever recorded, and made is when it was made. The name "" is for entries of auth.keys without an issuer. It
// includes the issuers that such an entry may have got since: the home issuer, and each that the file names only since
// the revocation was made.
func (r *Record) Means(named string, made time.Time, realm, issuer string) bool {
	from := r.Issuer(cmp.Or(realm, issuer))
	if named == "" {
		return realm == "" || r.atHome(realm, from) || r.namedAfter(made, from)
	}
	named = r.Issuer(named)
	return named == from || named == r.Issuer(issuer) || r.Unnamed && r.atHome(realm, from) && *r.Home == named
}

// namedAfter reports whether the file did not name an issuer yet at a time.
func (r *Record) namedAfter(at time.Time, issuer string) bool {
	since, dated := r.Since[issuer]
	return r.Entries[issuer] == 0 || dated && (since.IsZero() || !at.After(since))
}

// Spellings returns the issuers of the revocations that are about one issuer and no other, in no order: all its
// spellings and, with the file in force, the names that the same tokens had with an earlier one; see Means.
func (r *Record) Spellings(issuer string) []string {
	all := []string{issuer}
	add := func(issuer string) {
		for s := range r.Issuers {
			if r.Issuer(s) == r.Issuer(issuer) && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	add(issuer)
	atHome := r.Home != nil && *r.Home == r.Issuer(issuer)
	only := len(r.Entries) == 1 && r.Entries[r.Issuer(issuer)] > 0
	switch {
	case issuer == "" && r.Entries[""] > 0 && r.Unnamed:
		add(*r.Home)
	case issuer != "" && r.Entries[""] == 0 && (atHome || only):
		all = append(all, "")
	}
	return all
}

// AcceptsUnnamed reports whether tokens of entries without an issuer are accepted, by this file or while one that had
// such an entry is replaced.
func (r *Record) AcceptsUnnamed() bool {
	return r.Entries[""] > 0 || r.Unnamed || r.Home != nil && *r.Home == ""
}

// Group returns what the names of an issuer's users begin with, unless it is the home issuer.
func Group(issuer string) string { return escaper.Replace(issuer) + "#" }

// IssuerOf returns the issuer of a group. home is true for the two groups of the home issuer.
func IssuerOf(group string) (issuer string, home bool) {
	return unescaper.Replace(strings.TrimSuffix(group, "#")), group == "" || group == homePrefix
}

// Likely returns the name of a caller's data for a program without the database, and the name that it can be instead.
// The database records the home issuer, whose users have plain names. What is likely is what a new database would
// record. A file that is refused there has no likely name. See Name for the parameters.
func (f File) Likely(realm, issuer, subject string) (likely, otherwise string) {
	record, err := (*Record)(nil).Adopt(f, func() (map[string]bool, error) { return nil, nil })
	if err != nil {
		return "", ""
	}
	likely = record.Name(realm, issuer, subject)
	if subject == "" || realm == "" || f.Home != "" {
		return likely, ""
	}
	nobody := Record{Issuers: record.Issuers} // without a home issuer
	if otherwise = nobody.Name(realm, issuer, subject); otherwise == likely {
		home := Record{Issuers: record.Issuers, Home: new(record.Issuer(realm))}
		otherwise = home.Name(realm, issuer, subject)
	}
	return likely, otherwise
}
