package owner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// File is what a keyway.yaml says about issuers.
type File struct {
	// Entries has the spellings of the issuer that each entry of auth.keys names, none for an entry that names none.
	Entries [][]string
	// Home is auth.home_issuer: an issuer, None, or "" to keep what is recorded.
	Home string
}

// Stored returns the groups of the names in a database: of each name what it has up to the first #, or "" for a bare
// name.
type Stored func() (map[string]bool, error)

// ErrStored is the error of a Stored that cannot look at the data.
var ErrStored = errors.New("the file names other issuers than the recorded ones, and the data was not looked at")

// Adopt returns the record after a file was put in force; r is nil if nothing is recorded yet. An error is
// fault.Conflict: with this file, somebody's data could get another owner. Its text has the remedy.
//
// A new record follows the rule of Keyway 0.1, so that names stay as they are: if all entries name one issuer, or all
// name none, that one is at home. Without any data the home issuer is always a new one.
//
// Issuers that are new in the file have the zero time in Since, until Date sets it.
func (r *Record) Adopt(f File, stored Stored) (*Record, error) {
	next, err := r.adopt(r.clone(), f, stored)
	if r != nil && errors.Is(err, fault.Conflict) {
		if groups, err2 := stored(); err2 == nil && len(groups) == 0 {
			next, err = (*Record)(nil).adopt(r.anew(f), f, stored)
		}
	}
	if err != nil {
		return nil, err
	}
	if r != nil {
		next.setSince(r)
	}
	return next, nil
}

// adopt changes next, a copy of the record.
func (r *Record) adopt(next *Record, f File, stored Stored) (*Record, error) {
	next.Entries = map[string]int{}
	for _, spellings := range f.Entries {
		issuer, err := next.learn(spellings, stored)
		if err != nil {
			return nil, err
		}
		next.Entries[issuer]++
	}
	home := next.Issuer(f.Home)
	if f.Home != "" && f.Home != None {
		next.Issuers[home] = home
	}
	var err error
	switch {
	case r == nil && f.Home == "":
		err = next.begin(stored)
	case r == nil:
		next.setHome(home)
	case f.Home != "":
		err = next.choose(home, stored)
	case r.Home != nil && *r.Home == "":
		err = next.follow(r)
	case r.Home == nil:
		err = next.keepNobody(r, stored)
	}
	if err == nil && next.Unnamed {
		err = next.keepUnnamed(r, f.Home != "")
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

// anew returns a record that knows nothing but the spellings of issuers. Nobody owns data then, but there may be
// revocations, which name issuers by them. Two issuers that f joins are one.
func (r *Record) anew(f File) *Record {
	next := &Record{Issuers: r.clone().Issuers}
	for _, spellings := range f.Entries {
		one := ""
		for _, s := range spellings {
			known := next.Issuers[s]
			one = cmp.Or(one, known)
			for other, issuer := range next.Issuers {
				if known != "" && issuer == known {
					next.Issuers[other] = one
				}
			}
		}
	}
	return next
}

// setSince sets Since after a change of the file; was is the record before. An issuer that stays in the file keeps its
// time, unless it may have got an entry that named no issuer.
func (r *Record) setSince(was *Record) {
	r.Since = map[string]time.Time{}
	fewerUnnamed := r.Entries[""] < was.Entries[""]
	for issuer, n := range r.Entries {
		before := was.Entries[issuer]
		since, dated := was.Since[issuer]
		switch {
		case issuer == "":
		case before == 0 || fewerUnnamed && n > before:
			r.Since[issuer] = time.Time{}
		case dated:
			r.Since[issuer] = since
		}
	}
}

// Date sets the time since which the file names the issuers that are new in it.
func (r *Record) Date(now time.Time) {
	for issuer, since := range r.Since {
		if since.IsZero() {
			r.Since[issuer] = now
		}
	}
}

// changed reports whether an issuer has more entries than in the record before, and whether one has fewer. It ignores
// entries without an issuer, and those of except.
func (r *Record) changed(was *Record, except string) (gained, lost bool) {
	for _, issuer := range slices.Concat(slices.Collect(maps.Keys(was.Entries)), slices.Collect(maps.Keys(r.Entries))) {
		if issuer != "" && issuer != except {
			gained = gained || r.Entries[issuer] > was.Entries[issuer]
			lost = lost || r.Entries[issuer] < was.Entries[issuer]
		}
	}
	return gained, lost
}

// mixed refuses a file with an entry of the home issuer and one without an issuer, while the latter are at home too:
// the users of another key would own the data of the home issuer's users.
func (r *Record) mixed(home string) error {
	if r.Entries[home] == 0 || r.Entries[""] == 0 {
		return nil
	}
	return conflict("an entry of auth.keys names the home issuer %s, and another entry names no issuer, so its users "+
		"would own the same data; name the issuer of each entry", home)
}

// keepUnnamed refuses a file in which an entry without an issuer got one that is not at home, or an entry of another
// issuer lost it. was is the record before. demanded reports that auth.home_issuer is set: the operator knows then that
// the users of an entry with another issuer are others.
func (r *Record) keepUnnamed(was *Record, demanded bool) error {
	gained, lost := r.changed(was, *r.Home)
	before, now := was.Entries[""], r.Entries[""]
	if now == 0 && before > 0 && gained && r.Entries[*r.Home] == 0 {
		return conflict("data is stored for users of the home issuer %[1]s, which an entry of auth.keys without an issuer "+
			"has replaced, and now no entry is one or the other; with this keyway.yaml, move the data to the issuer whose "+
			"users own it: keyway owners move --from home --to %[1]s --apply, or --to %[2]s if the entry only got its issuer",
			*r.Home, strings.Join(slices.Sorted(maps.Keys(r.Entries)), " or "))
	}
	if now < before && gained && !demanded || now > before && lost {
		return conflict("entries of auth.keys without an issuer are those of the home issuer %s, and it can't be known "+
			"whether one of them got another issuer, or an entry of another issuer lost it; name the issuer of each entry, "+
			"and set auth.home_issuer: %s", *r.Home, *r.Home)
	}
	return r.mixed(*r.Home)
}

// clone returns a copy that can be changed; a nil record becomes one without a home issuer.
func (r *Record) clone() *Record {
	next := &Record{Issuers: map[string]string{}}
	if r != nil {
		next.Home, next.Unnamed, next.Entries, next.Since = r.Home, r.Unnamed, r.Entries, maps.Clone(r.Since)
		maps.Copy(next.Issuers, r.Issuers)
	}
	return next
}

// setHome sets the home issuer from a text in the form of auth.home_issuer.
func (r *Record) setHome(home string) {
	if r.Home = nil; home != None {
		r.Home = &home
	}
}

// learn records the spellings of one issuer and returns the spelling that stands in names: the one that is recorded
// already, or else the first. So the order of a list has no effect, and a spelling can be added or removed.
func (r *Record) learn(spellings []string, stored Stored) (issuer string, err error) {
	for _, s := range spellings {
		known := r.Issuers[s]
		if known != "" && issuer != "" && known != issuer {
			from, to := known, issuer
			switch r.homeText() {
			case issuer:
				to = "home"
			case known:
				from, to = issuer, "home"
			}
			return "", conflict("the list of issuers with %q and %q makes one issuer of two that have users of their own; "+
				"keep them apart in two entries, or join their data first: keyway owners move --from %s --to %s",
				issuer, known, from, to)
		}
		if known != "" {
			issuer = known
		}
	}
	if issuer == "" && len(spellings) > 0 {
		issuer = spellings[0]
	}
	for _, s := range spellings {
		if r.Issuers[s] != "" {
			continue
		}
		if s != issuer {
			if err := r.mustBeUnused(s, issuer, stored); err != nil {
				return "", err
			}
		}
		r.Issuers[s] = issuer
	}
	return issuer, nil
}

// mustBeUnused refuses another spelling of an issuer if data is stored under it already.
func (r *Record) mustBeUnused(spelling, issuer string, stored Stored) error {
	groups, err := stored()
	if err != nil {
		return err
	}
	if !groups[Group(spelling)] {
		return nil
	}
	to := issuer
	if r.Home != nil && *r.Home == issuer {
		to = "home"
	}
	return conflict("users of %q own data already, which they would lose if it were another spelling of %q; "+
		"move the data first: keyway owners move --from %s --to %s", spelling, issuer, spelling, to)
}

// begin sets the home issuer of a database that has none recorded, by the rule of Keyway 0.1: the only issuer, or
// nobody if there are several. If the data shows that the file has just got its second issuer, only the operator
// knows which one is at home.
func (r *Record) begin(stored Stored) error {
	switch issuers := slices.Sorted(maps.Keys(r.Entries)); len(issuers) {
	case 0:
		r.setHome("")
		return nil
	case 1:
		r.Home = &issuers[0]
		return nil
	}
	groups, err := stored()
	if err == nil && groups[""] && len(groups) == 1 {
		return ambiguous()
	}
	return err
}

// choose sets the home issuer that the file demands. It differs from the recorded one only if an issuer was added to
// entries that named none.
func (r *Record) choose(home string, stored Stored) error {
	recorded := r.homeText()
	if recorded == home {
		return nil
	}
	if recorded == "" && home == None && r.Entries[""] == 0 {
		r.setHome(None) // Bare names stay until the operator moves them.
		return nil
	}
	if recorded != "" && recorded != None && home != None {
		return conflict("auth.home_issuer is %[1]s, but in the database it is %[2]s; remove it from keyway.yaml. To let "+
			"%[1]s take its place, run then: keyway owners move --from home --to %[2]s, and: "+
			"keyway owners move --from %[1]s --to home", home, recorded)
	}
	if recorded != "" || home == None {
		now, from, to := recorded, "home", recorded
		switch recorded {
		case None:
			from, to = home, "home"
		case "":
			now, to = "that of the entries without an issuer", "ISSUER"
		}
		return conflict("auth.home_issuer is %s, but in the database it is %s; remove it from keyway.yaml, or move the "+
			"data first: keyway owners move --from %s --to %s", home, now, from, to)
	}
	if err := r.mixed(home); err != nil {
		return err
	}
	groups, err := stored()
	if err != nil {
		return err
	}
	if groups[Group(home)] {
		return conflict("auth.home_issuer is %[1]s, and its users own data as %[1]s#subject, which they would lose; move "+
			"it first: keyway owners move --from %[1]s --to home", home)
	}
	r.setHome(home)
	r.Unnamed = true
	return nil
}

// homeText is the home issuer in the form of auth.home_issuer.
func (r *Record) homeText() string {
	if r.Home == nil {
		return None
	}
	return *r.Home
}

// follow keeps the home of entries that name no issuer. was is the record before. It refuses a file in which some
// entries have got an issuer, or lost it: their users would own other data. If all entries name an issuer, and one is
// new, only the operator knows whether its users are those who own the data.
//
// An entry has no name, so the numbers of entries decide. A file that names an issuer in one entry and adds another
// entry without one looks like a file with a new issuer.
func (r *Record) follow(was *Record) error {
	gained, lost := r.changed(was, "")
	before, now := was.Entries[""], r.Entries[""]
	if now == 0 && gained {
		return allNamed(slices.Sorted(maps.Keys(r.Entries)))
	}
	if now < before && gained || now > before && lost {
		return ambiguous()
	}
	return nil
}

// keepNobody refuses a file without any issuer, if nobody is at home and all entries had issuers before: it may be the
// earlier file, whose users would not find what they stored under bare names. was is the record before.
func (r *Record) keepNobody(was *Record, stored Stored) error {
	if was.Entries[""] > 0 || len(was.Entries) == 0 || r.Entries[""] == 0 || len(r.Entries) > 1 {
		return nil
	}
	groups, err := stored()
	if err == nil && groups[""] {
		return conflict("data is stored under names without an issuer, no issuer is at home, and now no entry of auth.keys " +
			"names one, so nobody would own that data; name the issuer of each entry again, and give the data to the issuer " +
			"whose users own it: keyway owners move --from home --to ISSUER --apply")
	}
	return err
}

// allNamed is the error of a file whose entries all name an issuer, while the owners are of entries that named none.
func allNamed(issuers []string) error {
	set := "set auth.home_issuer to the issuer whose users are"
	if len(issuers) == 1 {
		set = "set auth.home_issuer: " + issuers[0] + " if its users are"
	}
	return conflict("data is stored under the names of users whose entry of auth.keys named no issuer, and now every "+
		"entry names one; %s those who own the data now (the entry only got its issuer), or none if they are others", set)
}

// ambiguous is the error of a file whose entries changed in a way that has two meanings.
func ambiguous() error {
	return conflict("data is stored under the names of users whose entry of auth.keys named no issuer, or was the only " +
		"one, and now it can't be known which entry they belong to; name the issuer of each entry, and set auth.home_issuer" +
		" to the issuer whose users they are")
}

func conflict(format string, args ...any) error {
	return fault.Public(fault.Conflict, fmt.Sprintf(format, args...), nil)
}

// Fits reports whether r is the record of a file already: Adopt would change nothing.
func (r *Record) Fits(next *Record) bool {
	return r != nil && r.homeText() == next.homeText() && r.Unnamed == next.Unnamed &&
		maps.Equal(r.Issuers, next.Issuers) && maps.Equal(r.Entries, next.Entries)
}

// know records an issuer that a move names.
func (r *Record) know(issuer string) {
	if issuer != "" {
		r.Issuers[issuer] = issuer
	}
}

// Agrees returns fault.Conflict if auth.home_issuer demands another home issuer than the record has.
func (r *Record) Agrees(home string) error {
	if home == "" || r.homeText() == r.Issuer(home) {
		return nil
	}
	now := cmp.Or(r.homeText(), "that of the entries without an issuer")
	return conflict("auth.home_issuer in keyway.yaml is %s, and after the move it would be %s; change or remove it first",
		home, now)
}

// Move returns the record after the data of one issuer was moved to another one, by keyway owners move. from and to are
// issuers, or "home". f is the file in force.
func (r *Record) Move(from, to string, f File) (*Record, error) {
	next := r.clone()
	if from == to {
		return nil, conflict("both are %q; name two issuers, or an issuer and home", from)
	}
	switch home := next.homeText(); {
	case from == "home":
		next.Home, next.Unnamed = nil, false
		next.know(to)
	case to == "home" && home == "":
		if !r.Named(f, from) {
			break
		}
		if slices.ContainsFunc(f.Entries, func(spellings []string) bool { return len(spellings) == 0 }) {
			return nil, conflict("entries of auth.keys without an issuer are at home, and their users would own the same " +
				"data; name the issuer of each entry first, or move their data: keyway owners move --from home --to ISSUER")
		}
		next.Home, next.Unnamed = &from, true
		next.know(from)
	case to == "home" && home == None:
		next.Home = &from
		next.know(from)
	case to == "home" && home == from:
	case to == "home" && r.joined(f, from, home):
		next.forget(from)
	case to == "home":
		return nil, conflict("the home issuer is %[1]s, and its users would own the same data; list both in one entry of "+
			"auth.keys if they are one issuer, or move theirs first: keyway owners move --from home --to %[1]s", home)
	case home == to, home == from:
		return nil, conflict("%s is the home issuer; write home for it", home)
	default:
		next.forget(from)
	}
	return next, nil
}

// forget removes an issuer whose data another one has got.
func (r *Record) forget(issuer string) {
	maps.DeleteFunc(r.Issuers, func(_, known string) bool { return known == issuer })
}

// Named reports whether an entry of the file names an issuer.
func (r *Record) Named(f File, issuer string) bool { return r.joined(f, issuer, issuer) }

// joined reports whether one entry of the file names both issuers.
func (r *Record) joined(f File, a, b string) bool {
	return slices.ContainsFunc(f.Entries, func(spellings []string) bool {
		has := func(issuer string) bool {
			return slices.ContainsFunc(spellings, func(s string) bool { return r.Issuer(s) == issuer })
		}
		return has(a) && has(b)
	})
}
