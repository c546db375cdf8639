package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Endpoint is one address of a provider's API, with what each request to it has.
type Endpoint struct {
	// URL is the address. Required.
	URL string
	// Header is sent with each request. Defaults to the headers that say that the body and the answer are JSON.
	Header http.Header
}

// Address returns the address of a path below the address that an operator has configured. A query of that has no
// effect.
func Address(base, path string) string {
	base, _, _ = strings.Cut(base, "?")
	return strings.TrimRight(base, "/") + path
}

// UserAgent is the User-Agent of requests without another one.
const UserAgent = "keyway"

const (
	// tries is how often a request is sent at most, as with the SDKs of OpenAI and Anthropic.
	tries = 3
	// firstDelay is the wait before the first repetition if the provider names none. Each further one is twice as long,
	// and up to a quarter shorter, so that the requests of many runs spread.
	firstDelay = 500 * time.Millisecond
)

// maxRetryDelay is the longest delay before a request is repeated. If
// the provider asks for a longer one, the caller gets the error with that delay as
// Retry-After: a run that only waits would hold its lease, a connection and, on Lambda,
// paid time.
const maxRetryDelay = 10 * time.Second

// Post sends body as JSON and returns the response to the last try, whatever its status; see IsAnswer. The caller must
// close its body, of which no more than 64 KiB can be read if it is an error. Without a response there is an error.
//
// A request is repeated if there was no response, and for the status 408, 409, 429 and those from 500 on, unless the
// header X-Should-Retry says otherwise. An answer that has begun is never requested again. ctx ends the waiting too.
func (e Endpoint) Post(ctx context.Context, client *http.Client, body any) (*http.Response, error) {
	data, err := Encode(body)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		resp, err := e.send(ctx, client, data)
		if try == tries || ctx.Err() != nil || !mayRepeat(resp) {
			return resp, err
		}
		wait := firstDelay << (try - 1)
		wait -= rand.N(wait / 4) // #nosec G404 -- no secret
		if resp != nil {
			if asked := RetryAfter(resp.Header); asked > maxRetryDelay {
				return resp, nil
			} else if asked > 0 {
				wait = asked
			}
			_ = resp.Body.Close()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Encode returns the JSON of a request. HTML is not escaped, which would only make it longer.
func Encode(body any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// send sends a request once.
func (e Endpoint) send(ctx context.Context, client *http.Client, data []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {UserAgent},
	}
	for name, values := range e.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if !IsAnswer(resp) {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
	}
	return resp, nil
}

// IsAnswer reports whether the status of a response is one of success. A redirect that was not followed is none.
func IsAnswer(resp *http.Response) bool { return resp.StatusCode < http.StatusMultipleChoices }

// mayRepeat reports whether the request of a response may be sent again; resp is nil if there was none.
func mayRepeat(resp *http.Response) bool {
	if resp == nil {
		return true
	}
	switch resp.Header.Get("X-Should-Retry") {
	case "true":
		return true
	case "false":
		return false
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return resp.StatusCode >= http.StatusInternalServerError
}
