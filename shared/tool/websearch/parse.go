package websearch

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Result is one page found, in the names that AgentOS's tool has.
type Result struct {
	Title string `json:"title"`
	Href  string `json:"href"`
	Body  string `json:"body"`
}

// Article is one piece of news, in the names and order that AgentOS's tool has.
type Article struct {
	Date   string `json:"date"` // RFC 3339, UTC
	Title  string `json:"title"`
	Body   string `json:"body"`
	URL    string `json:"url"`
	Image  string `json:"image"`
	Source string `json:"source"`
}

// parsePage finds the results of a /html/ page, advertisements left out. A page that
// neither has results nor says that there are none is errChanged.
func parsePage(page []byte) ([]Result, error) {
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil { // too deep a tree: nothing that DuckDuckGo writes
		return nil, errChanged
	}
	results, none, advertised := []Result{}, false, false
	for n := range root.Descendants() {
		switch {
		case n.Type != html.ElementNode:
		case hasClass(n, "no-results"):
			none = true
		case hasClass(n, "result__body"):
			r := result(n)
			if r.Title == "" || r.Href == "" {
				break
			}
			if advertised = advertised || isAdvertisement(r.Href); !isAdvertisement(r.Href) {
				results = append(results, r)
			}
		}
	}
	if len(results) == 0 && !none && !advertised {
		return nil, errChanged
	}
	return results, nil
}

func result(n *html.Node) (r Result) {
	for c := range n.Descendants() {
		switch {
		case c.Type != html.ElementNode:
		case hasClass(c, "result__a") && r.Title == "":
			r.Title, r.Href = text(c), target(attribute(c, "href"))
		case hasClass(c, "result__snippet") && r.Body == "":
			r.Body = text(c)
		}
	}
	return r
}

// target is the page behind DuckDuckGo's counting link (//duckduckgo.com/l/?uddg=…),
// and "" for what is not a web address.
func target(href string) string {
	u, err := url.Parse(href)
	if err != nil {
		return ""
	}
	if u.Path == "/l/" && (u.Host == "" || strings.HasSuffix(u.Host, "duckduckgo.com")) {
		href = u.Query().Get("uddg")
		if u, err = url.Parse(href); err != nil {
			return ""
		}
	}
	if u.Scheme == "" && u.Host != "" {
		u.Scheme = "https"
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return ""
	}
	return u.String()
}

func isAdvertisement(href string) bool {
	return strings.HasPrefix(href, "https://duckduckgo.com/y.js?")
}

func hasClass(n *html.Node, class string) bool {
	return slices.Contains(strings.Fields(attribute(n, "class")), class)
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode && (c.Parent == nil || c.Parent.DataAtom != atom.Script && c.Parent.DataAtom != atom.Style) {
			b.WriteString(c.Data)
		}
	}
	return clean(b.String())
}

// clean makes one line of s, without control characters, which also hide text.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if unicode.Is(unicode.C, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	return strings.Join(strings.Fields(s), " ")
}

// findVQD is the token that news.js asks for; the search page has it in one of
// three spellings.
func findVQD(page []byte) string {
	for _, form := range [][2]string{{`vqd="`, `"`}, {"vqd=", "&"}, {"vqd='", "'"}} {
		if _, rest, ok := bytes.Cut(page, []byte(form[0])); ok {
			if vqd, _, ok := bytes.Cut(rest, []byte(form[1])); ok && len(vqd) > 0 && len(vqd) <= 256 {
				return string(vqd)
			}
		}
	}
	return ""
}

func parseNews(data []byte) ([]Article, error) {
	var answer struct {
		Results *[]struct {
			Date    json.RawMessage `json:"date"` // seconds, by what is known of it
			Title   string          `json:"title"`
			Excerpt string          `json:"excerpt"`
			URL     string          `json:"url"`
			Image   string          `json:"image"`
			Source  string          `json:"source"`
		} `json:"results"`
	}
	if err := json.Unmarshal(data, &answer); err != nil || answer.Results == nil {
		return nil, errChanged
	}
	articles := []Article{}
	for _, r := range *answer.Results {
		if to := target(r.URL); to != "" {
			articles = append(articles, Article{Date: date(r.Date), Title: plain(r.Title), Body: plain(r.Excerpt), URL: to, Image: target(r.Image), Source: clean(r.Source)})
		}
	}
	return articles, nil
}

// date reads seconds since 1970, or leaves a text as it is.
func date(raw json.RawMessage) string {
	var seconds int64
	var words string
	if json.Unmarshal(raw, &seconds) == nil && seconds > 0 && seconds < 1<<38 {
		return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	_ = json.Unmarshal(raw, &words)
	return clean(words)
}

// plain is the text of a fragment of HTML: news come with <b> around what matched.
func plain(fragment string) string {
	n, err := html.Parse(strings.NewReader(fragment))
	if err != nil {
		return clean(fragment)
	}
	return text(n)
}
