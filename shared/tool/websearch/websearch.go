// Package websearch lets a model search the web and the news with DuckDuckGo, by the
// same functions as AgentOS's tool of that name. It decides which pages have results
// and which are refusals. It never opens a result, so that no model can make it connect
// to an address of its choice. DuckDuckGo has no official API for this;
// testdata/README.md describes the form of its pages.
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

// DuckDuckGo's addresses: the search page that works without scripts, and the main page
// for news.
const (
	htmlURL = "https://html.duckduckgo.com"
	newsURL = "https://duckduckgo.com"
)

const (
	callTime   = 10 * time.Second // for one call with all its requests
	maxResults = 50
	maxBody    = 4 << 20 // bytes of one response
	region     = "us-en" // as AgentOS's tool requests
)

// Search is the tool.Set of both functions.
type Search struct {
	html, news             string
	htmlClient, newsClient *http.Client
}

// New returns the tools. base is the address of a server that serves /html/, /news.js
// and / as DuckDuckGo does; "" means DuckDuckGo itself. An address that isn't http or
// https is a fault.Invalid error.
func New(base string, egress tool.Egress) (*Search, error) {
	s := &Search{
		html: strings.TrimRight(cmp.Or(base, htmlURL), "/"), news: strings.TrimRight(cmp.Or(base, newsURL), "/"),
	}
	var err error
	if s.htmlClient, err = egress.Origin(s.html, nil); err != nil {
		return nil, err
	}
	s.newsClient, err = egress.Origin(s.news, nil)
	return s, err
}

// question is the parameters of both functions. Their names are those of AgentOS's
// tool.
type question struct {
	Query      string `json:"query" jsonschema:"what to search for"`
	MaxResults *int   `json:"max_results,omitempty" jsonschema:"how many results to return, 50 at most; 5 when left out"`
}

// limit returns how many results are requested, within the limits.
func (q question) limit() int {
	if q.MaxResults == nil {
		return 5
	}
	return min(max(*q.MaxResults, 0), maxResults)
}

// Tools implements tool.Set.
func (s *Search) Tools(context.Context) ([]tool.Tool, error) {
	return []tool.Tool{
		tool.JSON("web_search",
			"Search the web. Returns title, address and an excerpt of each result.", s.searchWeb),
		tool.JSON("search_news",
			"Search the latest news. Returns date, title, excerpt, address and source of each article.", s.searchNews),
	}, nil
}

// Close implements tool.Set.
func (s *Search) Close() error {
	s.htmlClient.CloseIdleConnections()
	s.newsClient.CloseIdleConnections()
	return nil
}

// searchWeb requests the search page and returns its results.
func (s *Search) searchWeb(ctx context.Context, q question) ([]Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errSlow)
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
	return results[:min(q.limit(), len(results))], err
}

// searchNews returns the latest news. It needs two requests: news.js requires a token
// ("vqd") that the main page contains.
func (s *Search) searchNews(ctx context.Context, q question) ([]Article, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errSlow)
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
	data, err := s.get(ctx, "/news.js", url.Values{
		"l": {region}, "o": {"json"}, "noamp": {"1"}, "q": {q.Query}, "vqd": {vqd}, "p": {"-1"},
	})
	if err != nil {
		return nil, err
	}
	articles, err := parseNews(data)
	return articles[:min(q.limit(), len(articles))], err
}

// get requests a page of the main address.
func (s *Search) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.news+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return send(s.newsClient, r)
}

// The errors that a model reads. They distinguish a service that should be tried later
// from one that has changed, so that the operator knows which it is.
var (
	errSlow    = fault.Public(fault.Unavailable, "DuckDuckGo did not answer within 10 seconds", nil)
	errBlocked = fault.Public(fault.Unavailable,
		"DuckDuckGo blocks this server as a robot; try again in some minutes", nil)
	errChanged = fault.Public(fault.Upstream, "DuckDuckGo answered with a page that has no results in it", nil)
)

// send sends a request and returns the body of the response. It has a browser's
// User-Agent, because DuckDuckGo blocks Go's own. A blocked request gets a page with a
// challenge ("anomaly-modal"), often with status 202 or 200; without the check for it
// the model would read that there are no results.
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
	case resp.StatusCode == http.StatusAccepted, resp.StatusCode == http.StatusForbidden,
		resp.StatusCode == http.StatusTooManyRequests,
		bytes.Contains(data, []byte("anomaly-modal")):
		return nil, errBlocked
	case resp.StatusCode != http.StatusOK:
		return nil, fault.Public(fault.Upstream, fmt.Sprintf("DuckDuckGo answered with status %d", resp.StatusCode), nil)
	}
	return data, nil
}

// unreachable returns the error for a request that got no response. An error with a
// public text, such as that of the egress rule, stays. Any other one may name the
// address of a mirror, which the model must not learn.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.Public(fault.Unavailable, "DuckDuckGo cannot be reached", err)
}
