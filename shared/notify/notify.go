// Package notify reports pauses and ends of runs to the operator's webhook. It decides what a notice says, how it is
// signed, and when it is tried again. A notice has ids, the user and the status, and nothing that was said.
//
// The statement that stores the end of a run leaves the notice in the database (store.Notice), so that none is lost
// with a process. Each is reported at least once, and in any order.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
)

// again are the times between the tries, those that the specification of Standard Webhooks proposes. After the last one
// the notice is given up: it was tried for three days.
var again = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
	20 * time.Hour, 24 * time.Hour,
}

const (
	// patience is how long one try may take. A receiver should only store the notice and answer.
	patience = 15 * time.Second
	// batch is how many notices are reported at the same time.
	batch = 8
	// maxAnswer is how much of an answer is read, in bytes, so that its connection can be used again.
	maxAnswer = 64 << 10
)

// Sender reports notices. It is safe for concurrent use, also in several processes.
type Sender struct {
	db     *store.DB
	log    *slog.Logger
	now    func() time.Time
	url    string
	key    *webhooks.Webhook
	client *http.Client
}

// New returns the Sender of a configuration, or nil if it names no webhook. Redirects are not followed: the operator
// wrote the address that may learn of runs.
func New(c config.Notify, db *store.DB, log *slog.Logger, now func() time.Time) (*Sender, error) {
	if c.URL == "" {
		return nil, nil
	}
	key, err := webhooks.NewWebhook(string(c.Secret))
	if err != nil {
		return nil, fmt.Errorf("notify.secret: %w", err)
	}
	client, err := tool.Egress{}.Origin(string(c.URL), nil)
	if err != nil {
		return nil, fmt.Errorf("notify.url: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Sender{db: db, log: log, now: now, url: string(c.URL), key: key, client: client}, nil
}

// Deliver reports the notices that are due, until none is left or ctx ends. It returns those that the webhook has not
// accepted, each with the time of its next try. A nil Sender does nothing.
func (s *Sender) Deliver(ctx context.Context) (left []Left, err error) {
	if s == nil {
		return nil, nil
	}
	for ctx.Err() == nil {
		notices, err := s.db.ClaimNotices(ctx, batch, again)
		if err != nil || len(notices) == 0 {
			return left, err
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, n := range notices {
			all.Go(func() {
				if wait, more := s.report(ctx, n); more {
					mu.Lock()
					defer mu.Unlock()
					left = append(left, Left{n, wait})
				}
			})
		}
		all.Wait()
	}
	return left, ctx.Err()
}

// Left is a notice that is tried again after a while.
type Left struct {
	store.Notice
	Wait time.Duration
}

// report makes one try. more is whether there is another one, after the time.
func (s *Sender) report(ctx context.Context, n store.Notice) (wait time.Duration, more bool) {
	gone, err := s.post(ctx, n)
	last := n.Tries > len(again)
	if err != nil && !gone && !last {
		wait = again[n.Tries-1]
		s.log.Warn("the webhook has not accepted a notice; will try again", "run_id", n.RunID, "status", n.Status,
			"try", n.Tries, "after", wait.String(), "err", err)
		return wait, true
	}
	if err != nil {
		s.log.Error("a notice is given up", "run_id", n.RunID, "status", n.Status, "tries", n.Tries, "err", err)
	}
	if err := s.db.DropNotice(context.WithoutCancel(ctx), n.ID); err != nil {
		// It stays in the table and is reported again.
		s.log.Warn("a notice could not be deleted; it will be reported again", "run_id", n.RunID, "err", err)
	}
	return 0, false
}

// body is the payload, in the form that Standard Webhooks proposes.
type body struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

type data struct {
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
	AgentID   string `json:"agent_id"`
	UserID    string `json:"user_id,omitempty"`
	Status    string `json:"status"`
}

// post sends a notice. gone means that the webhook does not exist any more. An error names no address, because that can
// have a key.
func (s *Sender) post(ctx context.Context, n store.Notice) (gone bool, err error) {
	payload, err := json.Marshal(body{
		Type: "run." + strings.ToLower(n.Status), Timestamp: n.MadeAt.UTC(),
		Data: data{n.RunID.String(), n.SessionID, n.AgentID, n.Owner, n.Status},
	})
	if err != nil {
		return false, err
	}
	id, at := "msg_"+n.ID.String(), s.now()
	signature, err := s.key.Sign(id, at, payload)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(payload))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "keyway")
	r.Header.Set(webhooks.HeaderWebhookID, id)
	r.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(webhooks.HeaderWebhookSignature, signature)
	answer, err := s.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return false, fmt.Errorf("the webhook can't be reached: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode >= 300 {
		return answer.StatusCode == http.StatusGone, fmt.Errorf("the webhook answers %d", answer.StatusCode)
	}
	return false, nil
}
