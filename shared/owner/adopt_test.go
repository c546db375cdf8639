package owner_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

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
		{[]owner.File{file(""), demanding("a", "a"), file(""), file("c")},
			"keyway owners move --from home --to a --apply, or --to c if"},
		{[]owner.File{file(""), demanding("a", "a"), file(""), demanding("c", "c")}, "remove it from keyway.yaml"},
		{[]owner.File{file(""), demanding(owner.None, "a"), file("")}, "keyway owners move --from home --to ISSUER --apply"},
		{[]owner.File{file(""), demanding(owner.None, "a"), file("", "a")}, owner.None},
		{[]owner.File{demanding(owner.None, "a", ""), file("")}, owner.None},
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

// realm is the issuer that the entry names, or "".
func (e entry) realm() string {
	if s := e.spellings(); s != nil {
		return s[0]
	}
	return ""
}

// tokens returns the issuers of ann's tokens that the entry accepts, by a name of the token.
func (e entry) tokens() map[string]string {
	all := map[string]string{}
	accepted := e.spellings()
	if accepted == nil {
		accepted = []string{e.issuer, strings.ToUpper(e.issuer)}
		all[e.key+" none"], all[e.key+" other"] = "", "other"
	}
	for _, s := range accepted {
		all[e.key+" "+s] = s
	}
	return all
}

// names returns the owner of ann by the token, for those that the entry accepts.
func (e entry) names(r *owner.Record) map[string]string {
	all := e.tokens()
	for token, issuer := range all {
		all[token] = r.Name(e.realm(), issuer, "ann")
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

// history is a database with the files that were in force one after the other. Each entry of pool is in entries, or was
// removed and is in absent as it was.
type history struct {
	pool, entries, absent []entry
	record                *owner.Record
	names                 map[string]string // of ann, by token
	stored                owner.Stored
	none                  bool // The operator answers a refusal with auth.home_issuer: none.
}

// begin draws the entries that files can have. They are absent at first.
func begin(t *rapid.T) *history {
	h := &history{names: map[string]string{}}
	for i := range rapid.IntRange(2, 5).Draw(t, "keys") {
		h.pool = append(h.pool, entry{
			key: fmt.Sprint("k", i), issuer: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "issuer"),
			form: rapid.IntRange(0, forms-1).Draw(t, "form"),
		})
	}
	h.absent = slices.Clone(h.pool)
	h.stored = func() (map[string]bool, error) {
		groups := map[string]bool{}
		for _, n := range h.names {
			groups[owner.GroupOf(n)] = true
		}
		return groups, nil
	}
	return h
}

// step changes the file as an operator does: an entry is added, removed, moved, gets its issuer, loses it or spells it
// otherwise. It reports whether the file is in force then.
func (h *history) step(t *rapid.T) bool {
	next, out := slices.Clone(h.entries), slices.Clone(h.absent)
	switch what := rapid.SampledFrom([]string{"add", "remove", "turn", "name"}).Draw(t, "step"); {
	case what == "add" && len(out) > 0:
		i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
		next, out = append(next, out[i]), slices.Delete(out, i, i+1)
	case len(next) == 0:
		return false
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
	recorded, err := h.record.Adopt(f, h.stored)
	if home := soleOwner(h.pool, h.names); errors.Is(err, fault.Conflict) && home != "" {
		f.Home = home // The operator knows whose data it is.
		recorded, err = h.record.Adopt(f, h.stored)
	}
	if errors.Is(err, fault.Conflict) && h.none {
		f.Home = owner.None
		recorded, err = h.record.Adopt(f, h.stored)
	}
	if err != nil {
		if !errors.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
		return false
	}
	h.record, h.entries, h.absent = recorded, next, out
	return true
}

// After each step everybody whose token is accepted has the same name as before, or the step is refused and the earlier
// file stays in force.
func TestNoSequenceOfFilesRenamesAnOwner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := begin(t)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if !h.step(t) {
				continue
			}
			for _, e := range h.entries {
				for token, name := range e.names(h.record) {
					if before, ok := h.names[token]; ok && before != name {
						t.Fatalf("the owner of %s was %q and is %q with %+v", token, before, name, h.entries)
					}
					h.names[token] = name
				}
			}
		}
	})
}

// revocation is about the tokens of ann that an issuer had issued when it was made.
type revocation struct {
	issuer string
	made   time.Time
	// means has the tokens that were refused by it with some file.
	means map[string]bool
	// others are the issuers that have been in each file since, with the keys that they had, by their first letter.
	others map[string][]string
}

// named returns the keys of each issuer that the file names.
func (h *history) named() map[string][]string {
	keys := map[string][]string{}
	for _, e := range h.entries {
		if e.form > 0 {
			keys[e.issuer] = append(keys[e.issuer], e.key)
		}
	}
	return keys
}

// TestNoSequenceOfFilesEndsARevocation revokes ann's tokens between the steps. A token that was refused once stays
// refused, and a revocation for entries without an issuer refuses no token of an issuer that has been in the file since
// before, with the same keys.
func TestNoSequenceOfFilesEndsARevocation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h, revoked := begin(t), []*revocation(nil)
		data := rapid.Bool().Draw(t, "data")
		h.none = rapid.Bool().Draw(t, "none")
		for i := range rapid.IntRange(1, 16).Draw(t, "steps") {
			if len(h.entries) > 0 && rapid.IntRange(0, 2).Draw(t, "revoke") == 0 {
				e := rapid.SampledFrom(h.entries).Draw(t, "entry")
				r := &revocation{made: hour(2*i + 1), means: map[string]bool{}, others: h.named()}
				if s := e.spellings(); s != nil {
					r.issuer = rapid.SampledFrom(s).Draw(t, "spelling")
				}
				revoked = append(revoked, r)
			} else if h.step(t) {
				h.record.Date(hour(2 * i))
			}
			keys := h.named()
			for _, e := range h.entries {
				if data {
					maps.Copy(h.names, e.names(h.record))
				}
				for _, r := range revoked {
					for token, issuer := range e.tokens() {
						means := h.record.Means(r.issuer, r.made, e.realm(), issuer)
						if r.means[token] && !means {
							t.Fatalf("%s was revoked by %+v and is accepted with %+v, %+v", token, r, h.entries, h.record)
						}
						r.means[token] = r.means[token] || means
					}
				}
			}
			for _, r := range revoked {
				r.spares(t, h, keys)
			}
		}
	})
}

// spares fails if the revocation is one of entries without an issuer and means an issuer that has been in each file
// since it was made.
func (r *revocation) spares(t *rapid.T, h *history, now map[string][]string) {
	for issuer, keys := range r.others {
		if slices.ContainsFunc(now[issuer], func(k string) bool { return !slices.Contains(keys, k) }) || now[issuer] == nil {
			delete(r.others, issuer)
		}
	}
	for _, e := range h.entries {
		home := h.record.Home != nil && *h.record.Home == h.record.Issuer(e.realm())
		if r.issuer != "" || e.form == 0 || home || r.others[e.issuer] == nil {
			continue
		}
		if h.record.Means("", r.made, e.realm(), e.realm()) {
			t.Fatalf("%+v means the tokens of %+v with %+v, %+v", r, e, h.entries, h.record)
		}
	}
}

// The remedy of a refused file is one that works: after the move that it names, the file can be put in force, and the
// users of each issuer own what the operator chose.
func TestTheMoveThatARefusalNamesEndsIt(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		files []owner.File // The last one is refused.
		to    string
		again owner.File
		names map[string]string // of ann, by issuer
	}{
		{
			[]owner.File{file(""), demanding("a", "a"), file(""), file("b")}, "a",
			file("b"), map[string]string{"a": "a#ann", "b": "b#ann"},
		},
		{
			[]owner.File{file(""), demanding("a", "a"), file(""), file("b")}, "b",
			file("b"), map[string]string{"a": "a#ann", "b": "b#ann"},
		},
		{
			[]owner.File{file(""), demanding(owner.None, "a"), file("")}, "a",
			file("a"), map[string]string{"a": "a#ann"},
		},
	} {
		var r *owner.Record
		for i, f := range row.files {
			next, err := r.Adopt(f, data("ann"))
			if last := i == len(row.files)-1; last != (err != nil) {
				t.Fatalf("%+v: %v", f, err)
			} else if !last {
				r = next
			}
		}
		r, err := r.Move("home", row.to, row.again)
		if err == nil {
			r, err = r.Adopt(row.again, data(row.to+"#ann"))
		}
		if err != nil {
			t.Errorf("%+v: %v", row.files, err)
			continue
		}
		for issuer, want := range row.names {
			if got := r.Name(issuer, issuer, "ann"); got != want {
				t.Errorf("%+v: ann of %s is %q, want %q", row.files, issuer, got, want)
			}
		}
	}
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
