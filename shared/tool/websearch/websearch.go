// Package websearch lets a model search the web and the news with DuckDuckGo, by
// the functions that AgentOS's tool of that name has. It decides which pages are
// results and which are refusals. It opens no result.
package websearch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

// DuckDuckGo's addresses: results without scripts, and the page with the news.
const (
	htmlURL = "https://html.duckduckgo.com"
	newsURL = "https://duckduckgo.com"
)

const (
	patience   = 10 * time.Second // one call, all its requests included
	maxResults = 50
	maxBody    = 4 << 20
	region     = "us-en" // as AgentOS's tool asks
)

// Search is the set of both functions.
type Search struct {
	html, news             string
	htmlClient, newsClient *http.Client
}

// New makes the tools. base "" is DuckDuckGo; another one serves /html/, /news.js
// and / as DuckDuckGo does. An address that isn't http or https is fault.Invalid.
func New(base string, egress tool.Egress) (*Search, error) {
	s := &Search{html: strings.TrimRight(cmp.Or(base, htmlURL), "/"), news: strings.TrimRight(cmp.Or(base, newsURL), "/")}
	var err error
	if s.htmlClient, err = egress.Origin(s.html, nil); err != nil {
		return nil, err
	}
	s.newsClient, err = egress.Origin(s.news, nil)
	return s, err
}

type question struct {
	Query      string `json:"query" jsonschema:"what to search for"`
	MaxResults *int   `json:"max_results,omitempty" jsonschema:"how many results to return, 50 at most; 5 when left out"`
}

// most is how many results are wanted.
func (q question) most() int {
	if q.MaxResults == nil {
		return 5
	}
	return min(max(*q.MaxResults, 0), maxResults)
}

// Tools implements tool.Set.
func (s *Search) Tools(context.Context) ([]tool.Tool, error) {
	return []tool.Tool{
		tool.JSON("web_search", "Search the web. Returns title, address and an excerpt of each result.", s.web),
		tool.JSON("search_news", "Search the latest news. Returns date, title, excerpt, address and source of each article.", s.latest),
	}, nil
}

// Close implements tool.Set.
func (s *Search) Close() error {
	s.htmlClient.CloseIdleConnections()
	s.newsClient.CloseIdleConnections()
	return nil
}

func (s *Search) web(ctx context.Context, q question) ([]Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
	defer cancel()
	if strings.TrimSpace(q.Query) == "" {
		return nil, errors.New("query is empty")
	}
	form := url.Values{"q": {q.Query}, "b": {""}, "l": {region}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.html+"/html/", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	page, err := send(s.htmlClient, r)
	if err != nil {
		return nil, err
	}
	results, err := parsePage(page)
	return results[:min(q.most(), len(results))], err
}

func (s *Search) latest(ctx context.Context, q question) ([]Article, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
	defer cancel()
	if strings.TrimSpace(q.Query) == "" {
		return nil, errors.New("query is empty")
	}
	page, err := s.get(ctx, "/", url.Values{"q": {q.Query}})
	if err != nil {
		return nil, err
	}
	vqd := findVQD(page)
	if vqd == "" {
		return nil, errChanged
	}
	data, err := s.get(ctx, "/news.js", url.Values{"l": {region}, "o": {"json"}, "noamp": {"1"}, "q": {q.Query}, "vqd": {vqd}, "p": {"-1"}})
	if err != nil {
		return nil, err
	}
	articles, err := parseNews(data)
	return articles[:min(q.most(), len(articles))], err
}

func (s *Search) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.news+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return send(s.newsClient, r)
}

var (
	errSlow    = fault.Public(fault.Unavailable, "DuckDuckGo did not answer within 10 seconds", nil)
	errBlocked = fault.Public(fault.Unavailable, "DuckDuckGo takes this server for a robot and refuses to search; try again in some minutes", nil)
	errChanged = fault.Public(fault.Upstream, "DuckDuckGo answered with a page that has no results in it", nil)
)

// send asks as a browser without scripts would: DuckDuckGo refuses Go's own name.
func send(client *http.Client, r *http.Request) ([]byte, error) {
	r.Header.Set("User-Agent", "Mozilla/5.0 (compatible; Keyway)")
	r.Header.Set("Accept-Language", "en-US,en;q=0.9")
	resp, err := client.Do(r)
	if err != nil {
		return nil, unreachable(r.Context(), err)
	}
	defer resp.Body.Close()
	data, err := tool.ReadAll(resp.Body, maxBody)
	switch {
	case err != nil:
		return nil, unreachable(r.Context(), err)
	case resp.StatusCode == http.StatusAccepted, resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusTooManyRequests,
		bytes.Contains(data, []byte("anomaly-modal")):
		return nil, errBlocked
	case resp.StatusCode != http.StatusOK:
		return nil, fault.Public(fault.Upstream, fmt.Sprintf("DuckDuckGo answered with status %d", resp.StatusCode), nil)
	}
	return data, nil
}

// unreachable keeps a public text, such as the egress rule's, and else hides the
// address, which may be a mirror's.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.Public(fault.Unavailable, "DuckDuckGo cannot be reached", err)
}
