package owner_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/owner"
)

// home returns a record with a home issuer; None is nobody.
func home(issuer string) *owner.Record {
	r := &owner.Record{Issuers: map[string]string{"https://a": "https://a", "https://A": "https://a"}}
	if issuer != owner.None {
		r.Home = &issuer
	}
	return r
}

func TestOnlyTheHomeIssuersUsersHaveBareNames(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ home, realm, issuer, subject, want string }{
		{"https://a", "https://a", "https://a", "ann", "ann"},
		{"https://a", "https://b", "https://b", "ann", "https://b#ann"},
		{"https://a", "", "https://b", "ann", "https://b#ann"},
		{"https://a", "", "https://a", "ann", "ann"}, // its entry has lost its issuer
		{"https://a", "", "", "ann", "#ann"},
		{"https://a", "https://A", "https://A", "ann", "ann"},   // another spelling
		{"https://a", "https://a", "https://a", "x#y", "%#x#y"}, // "x#y" is the user y of x
		{"https://a", "https://a", "https://a", "https://b#ann", "%#https://b#ann"},
		{"https://a", "https://a", "https://a", "%23", "%23"},
		{"https://a", "https://b#c", "https://b#c", "ann", "https://b%23c#ann"},
		{"https://a", "https://b", "https://b", "c#ann", "https://b#c#ann"},
		{"https://a", "%", "%", "ann", "%25#ann"},
		{"", "", "https://b", "ann", "ann"},
		{"", "", "", "ann", "ann"},
		{"", "", "", "x#y", "%#x#y"},
		{"", "https://b", "https://b", "ann", "https://b#ann"},
		{owner.None, "https://a", "https://a", "ann", "https://a#ann"},
		{owner.None, "https://A", "https://A", "ann", "https://a#ann"},
		{owner.None, "", "https://A", "ann", "https://a#ann"},
		{owner.None, "", "", "ann", "#ann"},
		{"https://a", "https://b", "https://b", "", ""},
	} {
		if got := home(row.home).Name(row.realm, row.issuer, row.subject); got != row.want {
			t.Errorf("home %q: realm %q, issuer %q, subject %q: owner %q, want %q",
				row.home, row.realm, row.issuer, row.subject, got, row.want)
		}
	}
}

// The file can be put back after its only entry got an issuer, and servers with the earlier file can run meanwhile.
func TestEntriesWithoutAnIssuerStayAtHome(t *testing.T) {
	t.Parallel()
	r := home("https://a")
	r.Unnamed = true
	for _, row := range []struct{ realm, issuer, want string }{
		{"", "", "ann"}, {"", "https://a", "ann"}, {"", "https://b", "ann"}, {"https://a", "https://a", "ann"},
		{"https://b", "https://b", "https://b#ann"},
	} {
		if got := r.Name(row.realm, row.issuer, "ann"); got != row.want {
			t.Errorf("realm %q, issuer %q: %q, want %q", row.realm, row.issuer, got, row.want)
		}
	}
}

// text draws texts that could be mistaken for names: of few letters, and of the characters with a meaning.
var text = rapid.StringMatching(`[ab%#235]{0,6}`)

func TestUsersOfTwoIssuersNeverShareAName(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := &owner.Record{}
		if h := text.Draw(t, "home"); rapid.Bool().Draw(t, "has home") {
			r.Home = &h
		}
		type user struct{ realm, subject string }
		draw := func(who string) (user, string) {
			realm, subject := text.Draw(t, who+" realm"), text.Filter(func(s string) bool { return s != "" }).Draw(t, who)
			issuer := realm
			if realm == "" {
				issuer = text.Draw(t, who+" issuer")
			}
			u := user{realm, subject}
			if realm == "" && (r.Home == nil || *r.Home != "") {
				u.realm = issuer // An entry without an issuer speaks for the issuer of the token.
			}
			return u, r.Name(realm, issuer, subject)
		}
		first, a := draw("first")
		second, b := draw("second")
		if (first == second) != (a == b) {
			t.Errorf("%+v owns as %q, %+v as %q", first, a, second, b)
		}
	})
}

func TestGroupsLeadBackToTheirIssuer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		issuer, subject := text.Draw(t, "issuer"), "x"+text.Draw(t, "subject")
		name := home(owner.None).Name("", issuer, subject)
		if got, isHome := owner.IssuerOf(owner.GroupOf(name)); got != issuer || isHome {
			t.Errorf("%q is of issuer %q (home: %t), want %q", name, got, isHome, issuer)
		}
		h := home("https://a").Name("https://a", "https://a", subject)
		if _, isHome := owner.IssuerOf(owner.GroupOf(h)); !isHome {
			t.Errorf("%q is not of the home issuer", h)
		}
	})
}

// hour is a time in the tests of sequences of files, which take an hour each.
func hour(n int) time.Time { return time.Unix(0, 0).Add(time.Duration(n) * time.Hour) }

// A revocation holds the issuer's text of its day. Later files must not change whose tokens it means.
func TestAnIssuerMeansTheSameTokensWhateverFilesFollow(t *testing.T) {
	t.Parallel()
	none := func(entries ...string) owner.File { return demanding(owner.None, entries...) }
	for _, row := range []struct {
		files                []owner.File // The revocation is made after the first one.
		named, realm, issuer string
		want                 bool
	}{
		{[]owner.File{file("")}, "", "", "x", true},
		{[]owner.File{file(""), file("a")}, "", "a", "a", true}, // the entry has got an issuer
		{[]owner.File{file("", "b"), file("a", "b")}, "", "b", "b", false},
		{[]owner.File{file("", "b"), file("", "b", "b")}, "", "b", "b", false}, // a rotation of b's keys
		{[]owner.File{file("b", "c"), file("", "b")}, "", "b", "b", false},
		{[]owner.File{none("a")}, "", "a", "a", false},
		{[]owner.File{file("old|new"), file("new")}, "old", "new", "new", true}, // a spelling was removed
		{[]owner.File{file("old"), file("new|old"), file("new")}, "old", "new", "new", true},
		{[]owner.File{file("old|new"), file("old")}, "new", "old", "old", true},
		{[]owner.File{file("a"), file("")}, "a", "", "a", true}, // the issuer was removed
		{[]owner.File{file("a", "b")}, "a", "b", "b", false},
		// The entry has got an issuer, and the file was put back.
		{[]owner.File{file(""), demanding("a", "a"), file("")}, "a", "", "", true},
		{[]owner.File{file(""), demanding("a", "a"), file("")}, "b", "", "", false},
		{[]owner.File{file("")}, "a", "", "b", false},
		// Entries without an issuer got issuers that are not at home.
		{[]owner.File{file(""), none("a")}, "", "a", "a", true},
		{[]owner.File{file("", ""), none("a", "b")}, "", "b", "b", true},
		{[]owner.File{none("", "b"), file("a", "")}, "", "a", "a", true},
		{[]owner.File{none("", "b"), none("a", "b")}, "", "a", "a", true},
		{[]owner.File{none("", "b"), none("a", "b")}, "", "b", "b", false},
		{[]owner.File{none("", "b"), none("b", "b")}, "", "b", "b", true}, // It is an entry of b now.
		// An issuer was added, or was away for a time: which entry its tokens had then is not known.
		{[]owner.File{none(""), none("", "b")}, "", "b", "b", true},
		{[]owner.File{none("", "b"), none(""), none("", "b")}, "", "b", "b", true},
	} {
		var r *owner.Record
		for i, f := range row.files {
			next, err := r.Adopt(f, data("ann"))
			if err != nil {
				next, err = r.Adopt(f, data())
			}
			if err != nil {
				t.Fatal(err)
			}
			r = next
			r.Date(hour(2 * i))
		}
		if got := r.Means(row.named, hour(1), row.realm, row.issuer); got != row.want {
			t.Errorf("%+v: %q means a token of %q, %q: %t", row.files, row.named, row.realm, row.issuer, got)
		}
	}
}

// A process can have a file that the record does not have yet. Its new issuers have no time, and may be those of
// entries that had none.
func TestAnIssuerThatIsNotRecordedYetMayBeAnyOne(t *testing.T) {
	t.Parallel()
	r, err := (*owner.Record)(nil).Adopt(demanding(owner.None, "", "b"), data())
	if err != nil || !r.Means("", hour(1), "a", "a") || r.Means("", hour(1), "b", "b") {
		t.Errorf("%+v: %v", r, err)
	}
	if r, err = r.Adopt(file("a", "", "b"), data()); err != nil || !r.Means("", hour(1), "a", "a") {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestSpellingsAreThoseOfOneIssuer(t *testing.T) {
	t.Parallel()
	var r *owner.Record
	for _, f := range []owner.File{file(""), file("a|A"), file("a|A", "b|B")} {
		var err error
		if r, err = r.Adopt(f, data()); err != nil {
			t.Fatal(err)
		}
	}
	for issuer, want := range map[string][]string{
		"a": {"", "A", "a"}, "A": {"", "A", "a"}, "B": {"B", "b"}, "x": {"x"}, "": {""},
	} {
		got := r.Spellings(issuer)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", issuer, got, want)
		}
	}
	unnamed, err := r.Adopt(file("a|A", ""), data())
	if err != nil || slices.Contains(unnamed.Spellings("a"), "") {
		t.Errorf("with an entry without an issuer, undoing for a would allow its tokens: %v", err)
	}
	// The only entry got its issuer, and nobody is at home. Earlier revocations are about its users.
	r, err = (*owner.Record)(nil).Adopt(file(""), data("ann"))
	for i, f := range []owner.File{demanding(owner.None, "a"), file("a", "b")} {
		if err == nil {
			r, err = r.Adopt(f, data("ann"))
		}
		if err != nil || slices.Contains(r.Spellings("a"), "") != (i == 0) {
			t.Errorf("%+v: %q, %v", f, r.Spellings("a"), err)
		}
	}
	// The only entry got the issuer of the home users, a revocation named it, and the file was put back.
	r, err = (*owner.Record)(nil).Adopt(file(""), data("ann"))
	for _, f := range []owner.File{demanding("a", "a|A"), file("")} {
		if slices.Contains(r.Spellings(""), "a") {
			t.Errorf("%q: %v", r.Spellings(""), err)
		}
		if r, err = r.Adopt(f, data("ann")); err != nil {
			t.Fatal(err)
		}
	}
	got := r.Spellings("")
	if slices.Sort(got); !slices.Equal(got, []string{"", "A", "a"}) {
		t.Errorf("%q", got)
	}
}
