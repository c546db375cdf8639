// Package hackernews lets a model read Hacker News: its top stories and its users,
// by the functions that AgentOS's tool of that name has. It knows nothing of who
// asks.
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

// BaseURL is the service's own address.
const BaseURL = "https://hacker-news.firebaseio.com/v0"

const (
	patience   = 10 * time.Second // one call, all its requests included
	maxStories = 100
	atOnce     = 8 // requests at the same time
	maxBody    = 4 << 20
)

// News is the set of both functions.
type News struct {
	base   string
	client *http.Client
}

// New makes the tools; base "" is BaseURL. An address that isn't http or https is
// fault.Invalid.
func New(base string, egress tool.Egress) (*News, error) {
	base = strings.TrimRight(cmp.Or(base, BaseURL), "/")
	client, err := egress.Origin(base, nil)
	if err != nil {
		return nil, err
	}
	return &News{base: base, client: client}, nil
}

type topStories struct {
	NumStories *int `json:"num_stories,omitempty" jsonschema:"how many stories to return, 100 at most; 10 when left out"`
}

type userDetails struct {
	Username string `json:"username" jsonschema:"the user's name, case-sensitive"`
}

// Tools implements tool.Set.
func (n *News) Tools(context.Context) ([]tool.Tool, error) {
	return []tool.Tool{
		tool.JSON("get_top_hackernews_stories", "Get the stories at the top of Hacker News right now, best first.", n.top),
		tool.JSON("get_user_details", "Get a Hacker News user's karma, self-description and number of submissions.", n.user),
	}, nil
}

// Close implements tool.Set.
func (n *News) Close() error {
	n.client.CloseIdleConnections()
	return nil
}

// top answers the items as the service has them, with the author's name once more
// as username, as AgentOS does. Items that are gone are left out.
func (n *News) top(ctx context.Context, in topStories) ([]map[string]any, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
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

// items fetches in parallel; the first failure ends the others.
func (n *News) items(ctx context.Context, ids []int64) ([]map[string]any, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	items := make([]map[string]any, len(ids))
	places := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, id := range ids {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := n.get(ctx, fmt.Sprintf("item/%d", id), &items[i]); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	return items, context.Cause(ctx)
}

// details has AgentOS's names and order.
type details struct {
	ID        *string  `json:"id"`
	Karma     *float64 `json:"karma"`
	About     *string  `json:"about"`
	Submitted int      `json:"total_items_submitted"`
}

func (n *News) user(ctx context.Context, in userDetails) (details, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
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

var errSlow = fault.Public(fault.Unavailable, "Hacker News did not answer within 10 seconds", nil)

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
		return fault.Public(fault.Upstream, fmt.Sprintf("Hacker News answered with status %d", resp.StatusCode), nil)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.Public(fault.Upstream, "Hacker News sent something that is not what it documents", err)
	}
	return nil
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
	return fault.Public(fault.Unavailable, "Hacker News cannot be reached", err)
}
