// Package hackernews lets a model read the top stories and the users of Hacker News, by
// the same functions as AgentOS's tool of that name. It uses the service's public API
// (https://github.com/HackerNews/API), which needs no key.
package hackernews

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

// BaseURL is the address of the service.
const BaseURL = "https://hacker-news.firebaseio.com/v0"

const (
	callTime    = 10 * time.Second // for one call with all its requests
	maxStories  = 100
	maxParallel = 8       // requests of one call at the same time
	maxBody     = 4 << 20 // bytes of one response
)

// News is the tool.Set of both functions.
type News struct {
	base   string
	client *http.Client
}

// New returns the tools. base is the address of a server with the same API; "" means
// BaseURL. An address that isn't http or https is a fault.Invalid error.
func New(base string, egress tool.Egress) (*News, error) {
	base = strings.TrimRight(cmp.Or(base, BaseURL), "/")
	client, err := egress.Origin(base, nil)
	if err != nil {
		return nil, err
	}
	return &News{base: base, client: client}, nil
}

// topStories is the parameters of get_top_hackernews_stories, as in AgentOS.
type topStories struct {
	NumStories *int `json:"num_stories,omitempty" jsonschema:"how many stories to return, 100 at most; 10 when left out"`
}

// userDetails is the parameters of get_user_details, as in AgentOS.
type userDetails struct {
	Username string `json:"username" jsonschema:"the user's name, case-sensitive"`
}

// Tools implements tool.Set.
func (n *News) Tools(context.Context) ([]tool.Tool, error) {
	return []tool.Tool{
		tool.JSON("get_top_hackernews_stories",
			"Get the stories at the top of Hacker News right now, best first.", n.top),
		tool.JSON("get_user_details",
			"Get a Hacker News user's karma, self-description and number of submissions.", n.user),
	}, nil
}

// Close implements tool.Set.
func (n *News) Close() error {
	n.client.CloseIdleConnections()
	return nil
}

// top returns the items as the service sends them, with the author's name a second time
// as username, as AgentOS does. Items that no longer exist (the service sends null) are
// left out.
func (n *News) top(ctx context.Context, in topStories) ([]map[string]any, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errSlow)
	defer cancel()
	want := 10
	if in.NumStories != nil {
		want = min(max(*in.NumStories, 0), maxStories)
	}
	var ids []int64
	if err := n.get(ctx, "topstories", &ids); err != nil {
		return nil, err
	}
	stories, err := n.items(ctx, ids[:min(want, len(ids))])
	if err != nil {
		return nil, err
	}
	found := []map[string]any{}
	for _, s := range stories {
		if s != nil {
			s["username"] = "unknown"
			if by, ok := s["by"]; ok {
				s["username"] = by
			}
			found = append(found, s)
		}
	}
	return found, nil
}

// items requests items in parallel. The first failure cancels the other requests.
func (n *News) items(ctx context.Context, ids []int64) ([]map[string]any, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	items := make([]map[string]any, len(ids))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := n.get(ctx, fmt.Sprintf("item/%d", id), &items[i]); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	return items, context.Cause(ctx)
}

// details is the result of get_user_details. JSON names and order are those of AgentOS.
type details struct {
	ID        *string  `json:"id"`
	Karma     *float64 `json:"karma"`
	About     *string  `json:"about"`
	Submitted int      `json:"total_items_submitted"`
}

// user returns the details of a user. The model chooses the name, so it is escaped: it
// must not change the path of the request.
func (n *News) user(ctx context.Context, in userDetails) (details, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errSlow)
	defer cancel()
	if in.Username == "" {
		return details{}, errors.New("username is empty")
	}
	var u *struct {
		details
		Items []json.RawMessage `json:"submitted"`
	}
	if err := n.get(ctx, "user/"+url.PathEscape(in.Username), &u); err != nil {
		return details{}, err
	}
	if u == nil {
		return details{}, fmt.Errorf("there is no Hacker News user %q; names are case-sensitive", in.Username)
	}
	u.Submitted = len(u.Items)
	return u.details, nil
}

// errSlow is the cause with which a call's context ends after callTime.
var errSlow = fault.Public(fault.Unavailable, "Hacker News did not answer within 10 seconds", nil)

// get requests a path of the API and decodes the response.
func (n *News) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+"/"+path+".json", nil)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	resp, err := n.client.Do(r)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer resp.Body.Close()
	data, err := tool.ReadAll(resp.Body, maxBody)
	switch {
	case err != nil:
		return unreachable(ctx, err)
	case resp.StatusCode != http.StatusOK:
		text := fmt.Sprintf("Hacker News answered with status %d", resp.StatusCode)
		return fault.Public(fault.Upstream, text, nil)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.Public(fault.Upstream, "Hacker News sent a response that does not match its documentation", err)
	}
	return nil
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
	return fault.Public(fault.Unavailable, "Hacker News cannot be reached", err)
}
