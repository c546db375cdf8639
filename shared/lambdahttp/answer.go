package lambdahttp

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// buffer is a ResponseWriter that collects a whole answer.
type buffer struct {
	header http.Header
	body   []byte
	status int // 0 until it is known
}

func newBuffer() *buffer { return &buffer{header: http.Header{}} }

// Header implements http.ResponseWriter.
func (b *buffer) Header() http.Header { return b.header }

// WriteHeader implements http.ResponseWriter. Only the first status counts, as in net/http.
func (b *buffer) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

// Write implements http.ResponseWriter. Without a Content-Type, the first bytes decide, as in net/http.
func (b *buffer) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	if b.header.Get("Content-Type") == "" {
		b.header.Set("Content-Type", http.DetectContentType(p))
	}
	b.body = append(b.body, p...)
	return len(p), nil
}

// FlushError does nothing: the answer is sent as a whole.
func (b *buffer) FlushError() error { return nil }

// replacement returns an error answer to send in place of b. It keeps the request id:
// a caller who reports the error names that id, and the log line has it too.
func (b *buffer) replacement(err error) *buffer {
	w := newBuffer()
	w.Header().Set("X-Request-Id", b.Header().Get("X-Request-Id"))
	fault.Write(w, err)
	return w
}

// marshal encodes the answer for API Gateway. A body of valid UTF-8 is sent as text,
// any other in base64 with isBase64Encoded.
func (b *buffer) marshal() []byte {
	b.WriteHeader(http.StatusOK)
	out := make([]byte, 0, len(b.body)+len(b.body)/4+1024)
	out = append(appendHead(out, b.status, b.header, `,"headers":null`), `,"body":`...)
	if utf8.Valid(b.body) {
		return append(strictjson.AppendText(out, b.body), '}')
	}
	out = append(base64.StdEncoding.AppendEncode(append(out, '"'), b.body), '"')
	return append(out, `,"isBase64Encoded":true}`...)
}

// appendHead appends the begin of an answer's JSON: its status, and its headers in the order of their names. between is
// between the two.
func appendHead(out []byte, status int, header http.Header, between string) []byte {
	out = strconv.AppendInt(append(out, `{"statusCode":`...), int64(status), 10)
	out = append(append(out, between...), `,"multiValueHeaders":{`...)
	var room [16]string // on the stack
	names := slices.AppendSeq(room[:0], maps.Keys(header))
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(strictjson.AppendText(out, name), ':')
		out = strictjson.AppendTexts(out, header[name])
	}
	return append(out, '}')
}

// streamed is a ResponseWriter that sends what was written since the last flush as one chunk. A handler flushes when
// the client should get what it has written, so an event of a run doesn't wait for the next one.
type streamed struct {
	in     *lambdaruntime.Invocation
	header http.Header
	status int // 0 until it is known
	// prelude is the status and the headers in Lambda's form, until they are sent.
	prelude []byte
	begun   bool
	body    []byte
}

// maxUnsent is how many bytes of a body are collected at most.
const maxUnsent = 32 << 10

// Header implements http.ResponseWriter.
func (s *streamed) Header() http.Header { return s.header }

// mediaType is that of a streamed answer: JSON with status and headers, eight zero bytes, the body.
const mediaType = "application/vnd.awslambda.http-integration-response"

// WriteHeader implements http.ResponseWriter. Headers that are set later have no
// effect, as in net/http.
func (s *streamed) WriteHeader(status int) {
	if s.status != 0 {
		return
	}
	s.status = status
	s.prelude = append(appendHead(nil, status, s.header, ""), "}\x00\x00\x00\x00\x00\x00\x00\x00"...)
}

// Write implements http.ResponseWriter.
func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if len(s.body)+len(p) <= maxUnsent {
		s.body = append(s.body, p...)
		return len(p), nil
	}
	err := s.FlushError()
	if err == nil {
		err = s.in.Send(p)
	}
	return len(p), err
}

// FlushError sends the headers and what was written.
func (s *streamed) FlushError() (err error) {
	s.WriteHeader(http.StatusOK)
	if s.begun {
		err = s.in.Send(s.body)
	} else {
		s.begun = true
		err = s.in.Stream(mediaType, s.prelude, s.body)
	}
	s.body = s.body[:0]
	return err
}

// end sends the rest and ends the answer. With a cause, the client learns that the answer is not complete.
func (s *streamed) end(cause error) error {
	if !s.begun {
		if err := s.FlushError(); err != nil {
			return err
		}
	}
	return s.in.Close(s.body, cause)
}
