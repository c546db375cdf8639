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

// Result is one page that was found. The JSON names are those of AgentOS's tool.
type Result struct {
	Title string `json:"title"`
	Href  string `json:"href"`
	Body  string `json:"body"`
}

// Article is one piece of news. JSON names and order are those of AgentOS's tool.
type Article struct {
	// Date is in RFC 3339, UTC. If DuckDuckGo sent a text and no number, Date is that text.
	Date   string `json:"date"`
	Title  string `json:"title"`
	Body   string `json:"body"`
	URL    string `json:"url"`
	Image  string `json:"image"`
	Source string `json:"source"`
}

// parsePage returns the results of a /html/ page without the advertisements. A result
// is, with most attributes left out:
//
//	<div class="result__body">
//	  <a class="result__a" href="//duckduckgo.com/l/?uddg=https%3A%2F%2Fgo.dev">Title</a>
//	  <a class="result__snippet">Excerpt</a>
//	</div>
//
// A page that has no results and doesn't state that there are none is the error
// errChanged: DuckDuckGo may have changed its pages, and an empty list would mislead the
// model.
func parsePage(page []byte) ([]Result, error) {
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil { // the page is nested too deeply
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

// result reads one result.
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

// target returns the address of a result. DuckDuckGo links to a redirect of its own
// (//duckduckgo.com/l/?uddg=…) that has the address as a parameter. target returns "" for
// an address that isn't http or https, such as javascript:.
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

// isAdvertisement reports whether a link is one of DuckDuckGo's advertisements.
func isAdvertisement(href string) bool {
	return strings.HasPrefix(href, "https://duckduckgo.com/y.js?")
}

// hasClass reports whether an element has a CSS class.
func hasClass(n *html.Node, class string) bool {
	return slices.Contains(strings.Fields(attribute(n, "class")), class)
}

// attribute returns an attribute's value, "" if it is missing.
func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// text returns the visible text of a node as one line.
func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type != html.TextNode {
			continue
		}
		if p := c.Parent; p == nil || p.DataAtom != atom.Script && p.DataAtom != atom.Style {
			b.WriteString(c.Data)
		}
	}
	return clean(b.String())
}

// clean returns s as one line without control and format characters (Unicode category
// C). With them a page could give the model instructions that a person who reads the
// result doesn't see.
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

// findVQD returns the token that news.js requires. The main page has it in one of three
// forms.
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

// parseNews reads the response of news.js.
func parseNews(data []byte) ([]Article, error) {
	var answer struct {
		Results *[]struct {
			Date    json.RawMessage `json:"date"` // seconds since 1970 in all known answers
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
			articles = append(articles, Article{
				Date: date(r.Date), Title: plain(r.Title), Body: plain(r.Excerpt),
				URL: to, Image: target(r.Image), Source: clean(r.Source),
			})
		}
	}
	return articles, nil
}

// date formats seconds since 1970. It returns a text unchanged.
func date(raw json.RawMessage) string {
	var seconds int64
	var words string
	if json.Unmarshal(raw, &seconds) == nil && seconds > 0 && seconds < 1<<38 {
		return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	_ = json.Unmarshal(raw, &words)
	return clean(words)
}

// plain returns the text of an HTML fragment. In the news the words of the query are in
// <b> elements.
func plain(fragment string) string {
	n, err := html.Parse(strings.NewReader(fragment))
	if err != nil {
		return clean(fragment)
	}
	return text(n)
}
