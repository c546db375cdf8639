//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// secret is the key of the tokens, for this machine only.
const secret = "hostile-hostile-hostile-hostile-hostile"

// mint returns a token of a user with the scopes of an application's users.
func mint(sub string, extra jwt.MapClaims) (string, error) {
	claims := jwt.MapClaims{
		"sub": sub, "iat": time.Now().Unix(), "exp": time.Now().Add(24 * time.Hour).Unix(),
		"scopes": []string{"agents:read", "agents:run", "sessions:read", "sessions:write", "sessions:delete",
			"memories:read", "memories:write", "memories:delete"},
	}
	maps.Copy(claims, extra)
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
}

// What an attacker sees instead of a status.
const (
	closed = 0  // the server closed the connection, or refused it
	held   = -1 // the server held the connection for longer than patience
	left   = -2 // the pass ended before the connection
)

// attacker does one kind of abuse, and counts what it sends and which answers it gets.
type attacker struct {
	url, host string
	token     string
	// scale is how many times what the short form sends is sent.
	scale  int
	client *http.Client
	// sent and received are bytes on the wire.
	sent, received atomic.Int64

	mu       sync.Mutex
	statuses map[int]int
}

// newAttacker makes an attacker with connections of its own.
func newAttacker(base, token string, scale int) *attacker {
	a := &attacker{
		url: base, host: strings.TrimPrefix(base, "http://"), token: token, scale: scale, statuses: map[int]int{},
	}
	a.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx) },
		// As many as the largest burst has.
		MaxIdleConnsPerHost: 1000,
	}}
	return a
}

// saw counts an answer.
func (a *attacker) saw(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.statuses[status]++
}

// dial opens a connection that is counted.
func (a *attacker) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, err
	}
	return counted{conn, a}, nil
}

// counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	a *attacker
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.a.sent.Add(int64(n))
	return n, err
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.a.received.Add(int64(n))
	return n, err
}

// send sends a request with the attacker's token, unless the headers have another Authorization, and reads the answer.
// It returns the answer's first 64 KB.
func (a *attacker) send(ctx context.Context, method, path, kind string, body []byte, header ...string) string {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
	if err != nil {
		panic(err) // the requests are constants of this program
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := a.client.Do(req)
	if err != nil {
		if ctx.Err() == nil { // otherwise the attacker itself gave up
			a.saw(closed)
		}
		return ""
	}
	defer resp.Body.Close()
	a.saw(resp.StatusCode)
	start, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_, _ = io.Copy(io.Discard, resp.Body) // an answer that breaks off shows in what the attacker does next
	return string(start)
}

// The types of bodies.
const (
	asJSON = "application/json"
	asForm = "application/x-www-form-urlencoded"
)

// together calls do n times, all at the same time.
func together(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// hold opens n connections, writes text on each and then waits until the server closes them. A connection that is open
// after the patience is held. Answers are read unless deaf.
func (a *attacker) hold(ctx context.Context, n int, text string, deaf bool, patience time.Duration) {
	together(n, func(int) {
		conn, err := a.dial(ctx)
		if err != nil {
			a.saw(closed)
			return
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Write([]byte(text))
		if deaf && err == nil {
			// Nothing is read, so what shows that the server has closed the connection is that a write fails.
			for err == nil && ctx.Err() == nil {
				time.Sleep(time.Second)
				_, err = conn.Write([]byte("X"))
			}
		} else if err == nil {
			_, err = io.Copy(io.Discard, conn)
		}
		switch timeout, _ := errors.AsType[net.Error](err); {
		case ctx.Err() != nil:
			a.saw(left)
		case timeout != nil && timeout.Timeout():
			a.saw(held)
		default:
			a.saw(closed)
		}
	})
}
