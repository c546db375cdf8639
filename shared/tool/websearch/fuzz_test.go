package websearch

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse checks, for any page, that the texts of a result are single lines without
// control characters, and that its address is http or https.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"results.html", "none.html", "anomaly.html", "news.json"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		findVQD(data)
		results, _ := parsePage(data)
		for _, r := range results {
			checkResult(t, r.Href, r.Title, r.Body)
		}
		articles, _ := parseNews(data)
		for _, a := range articles {
			checkResult(t, a.URL, a.Title, a.Body, a.Date, a.Source)
		}
	})
}

// checkResult checks the address and the texts of a result.
func checkResult(t *testing.T, address string, texts ...string) {
	t.Helper()
	if !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		t.Errorf("address %q", address)
	}
	for _, s := range texts {
		if strings.ContainsAny(s, "\n\t\x00\u202e") || !utf8.ValidString(s) {
			t.Errorf("text %q", s)
		}
	}
}
