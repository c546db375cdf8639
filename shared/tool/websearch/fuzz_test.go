package websearch

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the page holds, a result is one line of text and a web address.
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
			sound(t, r.Href, r.Title, r.Body)
		}
		articles, _ := parseNews(data)
		for _, a := range articles {
			sound(t, a.URL, a.Title, a.Body, a.Date, a.Source)
		}
	})
}

func sound(t *testing.T, address string, texts ...string) {
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
