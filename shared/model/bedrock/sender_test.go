package bedrock_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// lateBody is the body of a response. Its first Read reads the rest of the request, as a
// server does that answers early.
type lateBody struct {
	request io.Reader
	got     bytes.Buffer
}

func (b *lateBody) Read([]byte) (int, error) {
	if _, err := b.got.ReadFrom(b.request); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func TestTheBodyOfARequestIsSentAfterAnEarlyAnswerToo(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		body := &lateBody{}
		transport := modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			body.request = r.Body
			return &http.Response{
				StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(body),
				Header: http.Header{"Content-Type": {"application/vnd.amazon.eventstream"}},
			}, nil
		})
		m := bedrock.New(bedrock.Options{
			ID: "m", Region: "eu-central-1", HTTPClient: &http.Client{Transport: transport}, Credentials: credentials,
		})
		r := modeltest.Ask("hello")
		r.Whole = whole
		modeltest.Collect(t.Context(), t, m, r)
		if sent := body.got.String(); !strings.Contains(sent, `"hello"`) {
			t.Errorf("whole %v: after the header of the response, the request's body is %q", whole, sent)
		}
	}
}
