package modeltest

import (
	"io"
	"net/http"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

// Transport is a function as a http.Client's transport.
type Transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// LeavesEndlessPage holds a model to reading no more than a part of an error's page. open
// makes the model with a client.
func LeavesEndlessPage(t *testing.T, open func(*http.Client) model.Model) {
	t.Helper()
	page := &spaces{left: 1 << 20}
	client := &http.Client{Transport: Transport(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		return &http.Response{StatusCode: http.StatusNotFound, Body: io.NopCloser(page), Request: r, Header: http.Header{}}, nil
	})}
	a := Listen(t.Context(), t, open(client), Ask("hello"))
	if want := "The model's server answered 404 Not Found"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
	if page.left < 900<<10 {
		t.Errorf("only %d bytes of 1 MB are unread", page.left)
	}
}

// spaces is a page of left spaces.
type spaces struct{ left int }

func (p *spaces) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	p.left -= n
	return n, nil
}
