package owner_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
)

// file makes a File of entries such as "", "a" and "a|b" (two spellings).
func file(entries ...string) (f owner.File) {
	for _, e := range entries {
		if e == "" {
			f.Entries = append(f.Entries, nil)
			continue
		}
		f.Entries = append(f.Entries, strings.Split(e, "|"))
	}
	return f
}

// demanding is file with auth.home_issuer.
func demanding(home string, entries ...string) owner.File {
	f := file(entries...)
	f.Home = home
	return f
}

// data returns a database with names.
func data(names ...string) owner.Stored {
	return func() (map[string]bool, error) {
		groups := map[string]bool{}
		for _, n := range names {
			groups[owner.GroupOf(n)] = true
		}
		return groups, nil
	}
}

func homeOf(r *owner.Record) string {
	switch {
	case r.Home == nil:
		return owner.None
	case *r.Home == "":
		return "unnamed"
	}
	return *r.Home
}

func TestTheHomeIssuerStaysWhateverFilesFollow(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		files []owner.File
		want  string // the home issuer in the end, or a part of the refusal of the last file
	}{
		{[]owner.File{file("")}, "unnamed"},
		{[]owner.File{file("", "")}, "unnamed"},
		{[]owner.File{file("a")}, "a"},
		{[]owner.File{file("a", "a")}, "a"},
		{[]owner.File{file("a|b", "b")}, "a"},
		{[]owner.File{demanding("b", "a", "b")}, "b"},
		{[]owner.File{demanding(owner.None, "a")}, owner.None},
		// The data has bare names only, so a second issuer was added with the update.
		{[]owner.File{file("a", "b")}, "set auth.home_issuer"},
		{[]owner.File{file("", "b")}, "set auth.home_issuer"},

		{[]owner.File{file("a"), file("a", "b")}, "a"},
		{[]owner.File{file("a"), file("b", "a"), file("b")}, "a"},
		{[]owner.File{file("a"), file("b")}, "a"},
		{[]owner.File{file("a"), file("")}, "a"},
		{[]owner.File{file("a"), file("a", ""), file("")}, "a"},
		{[]owner.File{file("a"), file("b|a"), file("b")}, "a"},
		{[]owner.File{file("a"), file("a|b"), file("a", "b")}, "a"},
		{[]owner.File{file("a"), file("a", "b"), file("a|b")}, "keyway owners move --from b --to home"},
		{[]owner.File{file("a"), demanding("b", "a", "b")}, "keyway owners move --from home --to a, and: "},
		{[]owner.File{file("a"), demanding(owner.None, "a")}, "keyway owners move --from home --to a"},
		{[]owner.File{file("a"), demanding("a", "a")}, "a"},
		{[]owner.File{demanding(owner.None, "a"), file("a")}, owner.None},
		{[]owner.File{demanding(owner.None, "a"), demanding("a", "a")}, "keyway owners move --from a --to home"},

		// The only entry has got an issuer, or it was replaced.
		{[]owner.File{file(""), file("a")}, "set auth.home_issuer: a if its users are those who own the data now"},
		{[]owner.File{file("", ""), file("a", "a")}, "set auth.home_issuer: a"},
		{[]owner.File{file(""), demanding("a", "a"), file("a")}, "a"},
		{[]owner.File{file(""), demanding("a", ""), file("a"), file("")}, "a"},
		{[]owner.File{file(""), demanding(owner.None, "b"), file("b")}, owner.None},
		{[]owner.File{file(""), demanding("a", "a"), file("")}, "a"},
		{[]owner.File{file(""), demanding("a", "a"), file("", "a")}, "name the issuer of each entry"},
		{[]owner.File{file(""), demanding("b", "", "b")}, "name the issuer of each entry"},
		{[]owner.File{file(""), demanding("a", "a"), file("a", "b"), file("", "")}, "name the issuer of each entry"},
		{[]owner.File{file(""), file("", "b"), demanding("a", "", "")}, "name the issuer of each entry"},
		{[]owner.File{file(""), demanding("a", "a"), file(""), file("c")}, "set auth.home_issuer: a"},
		{[]owner.File{file(""), demanding("a", "a"), file(""), file("a")}, "a"},
		{[]owner.File{file(""), file("", "b")}, "unnamed"},
		{[]owner.File{file(""), file("", "b"), file("b")}, "unnamed"},
		{[]owner.File{file(""), file("", "b"), file("b"), file("c")}, "set auth.home_issuer: c if"},
		{[]owner.File{file(""), file("a", "b")}, "set auth.home_issuer"},
		{[]owner.File{file(""), demanding("b", "a", "b")}, "b"},
		{[]owner.File{file(""), demanding(owner.None, "a", "b")}, owner.None},
		{[]owner.File{file(""), demanding(owner.None, "", "b")}, "keyway owners move --from home --to ISSUER"},
		{[]owner.File{file("", ""), file("", "b")}, "set auth.home_issuer"},
		{[]owner.File{file(""), file("", "b"), file("b", "b")}, "set auth.home_issuer"},
		{[]owner.File{file(""), file("", "b"), file("", "")}, "set auth.home_issuer"},
		{[]owner.File{file(""), file("", "b"), file("", "", "b")}, "unnamed"},
	} {
		var r *owner.Record
		var err error
		for _, f := range row.files {
			var next *owner.Record
			if next, err = r.Adopt(f, data("ann")); err == nil {
				r = next
			}
		}
		switch {
		case err != nil && (!errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), row.want)):
			t.Errorf("%+v: %v, want %s", row.files, err, row.want)
		case err == nil && homeOf(r) != row.want:
			t.Errorf("%+v: home issuer %s, want %s", row.files, homeOf(r), row.want)
		}
	}
}

func TestWithoutDataAnyFileBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		before, after owner.File
		want          string
	}{
		{file(""), file("a", "b"), owner.None},
		{file("a"), demanding("b", "a", "b"), "b"},
		{file("a", "b"), file("a|b"), "a"},
	} {
		r, err := (*owner.Record)(nil).Adopt(row.before, data())
		if err == nil {
			r, err = r.Adopt(row.after, data())
		}
		if err != nil || homeOf(r) != row.want {
			t.Errorf("%+v after %+v: %+v, error %v; want the home issuer %s", row.after, row.before, r, err, row.want)
		}
	}
}

func TestASpellingWhoseUsersOwnDataIsNotJoined(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ home, want string }{
		{owner.None, "keyway owners move --from b --to a"}, {"a", "keyway owners move --from b --to home"},
	} {
		r, err := (*owner.Record)(nil).Adopt(demanding(row.home, "a", ""), data("b#ann"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = r.Adopt(file("a|b", ""), data("b#ann")); !strings.Contains(fault.Detail(err), row.want) {
			t.Errorf("home %s: %v", row.home, err)
		}
	}
	r, _ := (*owner.Record)(nil).Adopt(file(""), data())
	_, err := r.Adopt(demanding("b", "b"), data("ann", "b#ann"))
	if want := "keyway owners move --from b --to home"; err == nil || !strings.Contains(fault.Detail(err), want) {
		t.Errorf("home b: %v", err)
	}
}

// A function does not look at the data. It serves each file that was put in force, and many that were not.
func TestAFileThatNeedsALookAtTheDataIsNoGuess(t *testing.T) {
	t.Parallel()
	blind := func() (map[string]bool, error) { return nil, owner.ErrStored }
	r, err := (*owner.Record)(nil).Adopt(file("", "b"), data("#ann", "b#ann"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []owner.File{file("", "b"), file("b", "c", ""), file("b")} {
		if _, err := r.Adopt(f, blind); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, err := r.Adopt(file("b|c"), blind); !errors.Is(err, owner.ErrStored) {
		t.Errorf("another spelling: %v", err)
	}
}

// entry is an entry of auth.keys with an issuer of its own. Each key signs for one issuer, whether the file names it or
// not, and several keys can sign for one. An issuer has two spellings, such as a and A.
type entry struct {
	key, issuer string
	form        int
}

// forms are the ways to write an issuer; the first one names none.
const forms = 4

// spellings returns what the file has.
func (e entry) spellings() []string {
	other := strings.ToUpper(e.issuer)
	return [forms][]string{nil, {e.issuer}, {e.issuer, other}, {other, e.issuer}}[e.form]
}

// names returns the owner of ann by the spelling in her token, for those that the entry accepts.
func (e entry) names(r *owner.Record) map[string]string {
	all, realm := map[string]string{}, ""
	accepted := e.spellings()
	if accepted == nil {
		accepted = []string{e.issuer, strings.ToUpper(e.issuer)}
	} else {
		realm = accepted[0]
	}
	for _, s := range accepted {
		all[e.key+" "+s] = r.Name(realm, s, "ann")
	}
	if realm == "" {
		all[e.key+" none"], all[e.key+" other"] = r.Name("", "", "ann"), r.Name("", "other", "ann")
	}
	return all
}

// soleOwner returns the issuer whose users own all data under bare names, or "" if there are several or none.
func soleOwner(pool []entry, names map[string]string) (issuer string) {
	for token, name := range names {
		for _, e := range pool {
			switch key, _, _ := strings.Cut(token, " "); {
			case key != e.key || name != "ann" || issuer == e.issuer:
			case issuer != "":
				return ""
			default:
				issuer = e.issuer
			}
		}
	}
	return issuer
}

// TestNoSequenceOfFilesRenamesAnOwner changes a file step by step, as an operator does: an entry is added, removed,
// moved, gets its issuer, loses it or spells it otherwise. After each step everybody whose token is accepted has the
// same name as before, or the step is refused and the earlier file stays in force.
func TestNoSequenceOfFilesRenamesAnOwner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r *owner.Record
		var entries []entry
		pool := []entry{}
		for i := range rapid.IntRange(2, 5).Draw(t, "keys") {
			pool = append(pool, entry{
				key: fmt.Sprint("k", i), issuer: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "issuer"),
				form: rapid.IntRange(0, forms-1).Draw(t, "form"),
			})
		}
		names := map[string]string{} // by token
		stored := func() (map[string]bool, error) {
			groups := map[string]bool{}
			for _, n := range names {
				groups[owner.GroupOf(n)] = true
			}
			return groups, nil
		}
		// absent keeps the entries that were removed as they were.
		absent := slices.Clone(pool)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			next, out := slices.Clone(entries), slices.Clone(absent)
			switch what := rapid.SampledFrom([]string{"add", "remove", "turn", "name"}).Draw(t, "step"); {
			case what == "add" && len(out) > 0:
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				next, out = append(next, out[i]), slices.Delete(out, i, i+1)
			case len(next) == 0:
				continue
			case what == "remove" && len(next) > 1:
				i := rapid.IntRange(0, len(next)-1).Draw(t, "which")
				out, next = append(out, next[i]), slices.Delete(next, i, i+1)
			case what == "turn":
				next = append(next[1:], next[0])
			case what == "name":
				i := rapid.IntRange(0, len(next)-1).Draw(t, "which")
				next[i].form = rapid.IntRange(0, forms-1).Draw(t, "form")
			}
			var f owner.File
			for _, e := range next {
				f.Entries = append(f.Entries, e.spellings())
			}
			recorded, err := r.Adopt(f, stored)
			if home := soleOwner(pool, names); errors.Is(err, fault.Conflict) && home != "" {
				f.Home = home // The operator knows whose data it is.
				recorded, err = r.Adopt(f, stored)
			}
			if err != nil {
				if !errors.Is(err, fault.Conflict) {
					t.Fatal(err)
				}
				continue
			}
			r, entries, absent = recorded, next, out
			for _, e := range entries {
				for token, name := range e.names(r) {
					if before, ok := names[token]; ok && before != name {
						t.Fatalf("the owner of %s was %q and is %q with %+v", token, before, name, entries)
					}
					names[token] = name
				}
			}
		}
	})
}

func TestAMoveChangesWhoIsAtHome(t *testing.T) {
	t.Parallel()
	unnamed, a := "", "a"
	all := map[string]string{"a": "a", "b": "b", "B": "b"}
	for _, row := range []struct {
		home     *string
		from, to string
		names    []string // issuers that the file names
		want     string   // the home issuer, or a part of the refusal
	}{
		{nil, "a", "home", []string{"a", "b"}, "a"},
		{nil, "home", "a", []string{"a", "b"}, owner.None}, // earlier bare names
		{nil, "a", "b", []string{"b"}, owner.None},
		{&a, "home", "a", []string{"a"}, owner.None},
		{&a, "home", "b", []string{"b"}, owner.None},
		{&a, "a", "home", []string{"a"}, "a"}, // what a server wrote before it knew
		{&a, "b", "home", []string{"a"}, "keyway owners move --from home --to a"},
		{&a, "b", "a", []string{"a"}, "write home for it"},
		{&a, "a", "b", []string{"a"}, "write home for it"},
		{&unnamed, "a", "home", []string{"a"}, "a"},
		{&unnamed, "a", "home", nil, "unnamed"},
		{&unnamed, "a", "home", []string{"a", ""}, "name the issuer of each entry first"},
		{&a, "b", "home", []string{"b|a"}, "a"},
		{&unnamed, "home", "a", nil, owner.None},
		{nil, "a", "a", nil, "both are"},
	} {
		r := &owner.Record{Home: row.home, Issuers: all}
		next, err := r.Move(row.from, row.to, file(row.names...))
		switch {
		case err != nil && !strings.Contains(fault.Detail(err), row.want):
			t.Errorf("%+v: %v", row, err)
		case err == nil && homeOf(next) != row.want:
			t.Errorf("%+v: home %s", row, homeOf(next))
		}
	}
	next, err := (&owner.Record{Issuers: all}).Move("b", "a", file("a", "b"))
	if err == nil {
		_, err = next.Adopt(file("a|b|B"), data("a#ann"))
	}
	if err != nil {
		t.Errorf("the spellings of two issuers can't be joined after a move: %v", err)
	}
}
