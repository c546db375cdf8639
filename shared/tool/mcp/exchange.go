package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// outgoing is a request to the server.
type outgoing struct {
	method string
	name   string // of the tool
	params members
	header http.Header
	// progress is called for each progress notification. nil asks the server for none.
	progress func()
}

// pair is one member of a JSON object.
type pair struct {
	name  string
	value any
}

// members is a JSON object. A json.RawMessage in it is sent byte for byte; json.Marshal
// would change its white space.
type members []pair

// json returns the text of the object.
func (ms members) json() json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	write := func(v any) {
		_ = enc.Encode(v)       // strings and small structs have no value that can't be encoded
		b.Truncate(b.Len() - 1) // Encode appends a line end
	}
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteByte(',')
		}
		write(m.name)
		b.WriteByte(':')
		if raw, ok := m.value.(json.RawMessage); ok {
			b.Write(raw)
		} else {
			write(m.value)
		}
	}
	b.WriteByte('}')
	return b.Bytes()
}

// message is a message of the server, of any kind.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// messages decodes one message or, from older servers, a list of them.
func messages(data []byte) (all []message, err error) {
	if data = bytes.TrimSpace(data); bytes.HasPrefix(data, []byte("[")) {
		err = json.Unmarshal(data, &all)
		return all, err
	}
	all = make([]message, 1)
	return all, json.Unmarshal(data, &all[0])
}

// exchange is the state of one request until its answer is found.
type exchange struct {
	c         *session
	id        string
	left      int // bytes that the server may still send
	questions int // that the server may still ask
	lastEvent string
	retry     time.Duration
}

// maxQuestions is how many requests of a server are answered during one of ours.
const maxQuestions = 100

// newExchange returns the state of a request before it is sent.
func (c *session) newExchange(id string) *exchange {
	return &exchange{c: c, id: id, left: maxBody, questions: maxQuestions, retry: time.Second}
}

// request sends a request and returns the result and the header of the response. The
// error is an rpcError if the server answered with one, a lostError if it doesn't know
// the session, and otherwise a fault.Error.
func (c *session) request(ctx context.Context, o outgoing) (json.RawMessage, http.Header, error) {
	id := c.nextID()
	meta := members{}
	if o.progress != nil {
		meta = append(meta, pair{"progressToken", json.RawMessage(id)})
	}
	if c.version == stateless {
		meta = append(meta, pair{"io.modelcontextprotocol/protocolVersion", c.version},
			pair{"io.modelcontextprotocol/clientInfo", c.s.about()},
			pair{"io.modelcontextprotocol/clientCapabilities", struct{}{}})
	}
	if len(meta) > 0 {
		o.params = append(o.params, pair{"_meta", meta.json()})
	}
	body := members{{"jsonrpc", "2.0"}, {"id", json.RawMessage(id)}, {"method", o.method}}
	if len(o.params) > 0 {
		body = append(body, pair{"params", o.params.json()})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.watch(id, o.progress)()
	r, err := c.newRequest(ctx, http.MethodPost, body.json())
	if err != nil {
		return nil, nil, err
	}
	if c.version == stateless {
		r.Header.Set("Mcp-Method", o.method)
		if o.name != "" {
			r.Header.Set("Mcp-Name", headerValue(o.name))
		}
		for name, values := range o.header {
			r.Header[name] = values
		}
	}
	resp, err := c.s.client.Do(r) //nolint:bodyclose // answer closes it
	if err != nil {
		return nil, nil, c.s.unreachable(err)
	}
	x := c.newExchange(id)
	answer, err := x.answer(ctx, resp)
	if err != nil {
		if ctx.Err() != nil && o.progress != nil {
			c.abandon(id)
		}
		return nil, nil, err
	}
	switch {
	case len(answer.Error) > 0 && string(answer.Error) != "null":
		return nil, nil, newRPCError(answer.Error)
	case answer.Result == nil || string(answer.Result) == "null":
		return nil, nil, c.s.unreadable("answer", errors.New("neither a result nor an error"))
	}
	return answer.Result, resp.Header, nil
}

// newRequest returns an HTTP request of the session.
func (c *session) newRequest(ctx context.Context, method string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.s.o.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "keyway/"+c.s.o.Version)
	r.Header.Set("Accept", "application/json, text/event-stream")
	if method == http.MethodGet {
		r.Header.Set("Accept", "text/event-stream")
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.version != "" {
		r.Header.Set("Mcp-Protocol-Version", c.version)
	}
	if c.id != "" {
		r.Header.Set("Mcp-Session-Id", c.id)
	}
	return r, nil
}

// answer finds the answer in the response to a request, and in the responses that
// continue it.
func (x *exchange) answer(ctx context.Context, resp *http.Response) (m message, err error) {
	defer func() { drain(resp) }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return m, x.c.refusal(resp)
	}
	switch mediaType(resp) {
	case "application/json":
		return x.whole(ctx, resp)
	case "text/event-stream":
	default:
		return m, x.c.s.noMCP(resp)
	}
	const attempts = 5
	for failed := 0; ; failed++ {
		before := x.lastEvent
		m, err = x.streamed(ctx, resp.Body)
		if err == nil || !errors.Is(err, errEnded) || x.lastEvent == "" || ctx.Err() != nil {
			return m, err
		}
		if x.lastEvent != before {
			failed = 0
		}
		if failed == attempts {
			return m, err
		}
		next, err := x.resume(ctx)
		if err != nil {
			return m, err
		}
		drain(resp)
		resp = next
	}
}

// whole finds the answer in a response that isn't a stream. An error without an id can
// only be the answer.
func (x *exchange) whole(ctx context.Context, resp *http.Response) (message, error) {
	data, err := io.ReadAll(x.limit(resp.Body))
	if err != nil {
		return message{}, x.c.s.broken(err)
	}
	all, err := messages(data)
	if err != nil {
		return message{}, x.c.s.unreadable("answer", err)
	}
	for _, m := range all {
		if m.Method == "" && (unquoted(m.ID) == x.id || m.Error != nil && unquoted(m.ID) == "") {
			return m, nil
		}
		x.handle(ctx, m)
	}
	return message{}, x.c.s.unreadable("answer", errors.New("no message has the id of the request"))
}

// streamed finds the answer in a stream, and handles what else the server sends in it.
func (x *exchange) streamed(ctx context.Context, body io.Reader) (message, error) {
	for e, err := range events(x.limit(body)) {
		if err != nil {
			return message{}, x.c.s.broken(err)
		}
		if e.id != "" {
			x.lastEvent = e.id
		}
		if e.hasRetry {
			x.retry = min(e.retry, longestRetry)
		}
		if e.data == "" || e.name != "" && e.name != "message" {
			continue
		}
		all, err := messages([]byte(e.data))
		if err != nil {
			return message{}, x.c.s.unreadable("event", err)
		}
		for _, m := range all {
			if m.Method == "" && unquoted(m.ID) == x.id {
				return m, nil
			}
			x.handle(ctx, m)
		}
	}
	return message{}, x.c.s.broken(nil)
}

// handle handles a message that is not the answer.
func (x *exchange) handle(ctx context.Context, m message) {
	switch {
	case m.Method == "notifications/progress":
		x.c.progressed(m.Params)
	case m.Method != "" && unquoted(m.ID) != "" && x.questions > 0:
		x.questions--
		x.c.answerQuestion(ctx, m)
	}
}

// The delays before a stream is resumed. The server chooses one within these bounds.
const (
	shortestRetry = 50 * time.Millisecond
	longestRetry  = 30 * time.Second
)

// resume continues a stream that ended before the answer. A server may end it on
// purpose, so that it needs no open connection for a slow tool, and states with retry when
// to come back (specification, "Resumability and Redelivery"). It tries five times.
func (x *exchange) resume(ctx context.Context) (resp *http.Response, err error) {
	for range 5 {
		select {
		case <-time.After(max(x.retry, shortestRetry)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var r *http.Request
		if r, err = x.c.newRequest(ctx, http.MethodGet, nil); err != nil {
			return nil, err
		}
		r.Header.Set("Last-Event-ID", x.lastEvent)
		if resp, err = x.c.s.client.Do(r); err != nil {
			err = x.c.s.broken(err)
			continue
		}
		if resp.StatusCode < http.StatusMultipleChoices && mediaType(resp) == "text/event-stream" {
			return resp, nil
		}
		err = x.c.refusal(resp)
		temporary := resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
		drain(resp)
		if !temporary {
			break
		}
	}
	if lost, ok := errors.AsType[*lostError](err); ok {
		// The call may have been executed, so it must not be repeated as after a lostError.
		x.c.s.forget(x.c)
		err = fault.Public(fault.Upstream, "The tool server ended the session before it answered", lost.cause)
	}
	return nil, err
}

// limit returns a reader that fails with errTooLarge when the server has sent more than
// the exchange allows.
func (x *exchange) limit(body io.Reader) io.Reader { return &limitedReader{body, &x.left} }

// limitedReader fails with errTooLarge after left bytes. It reads one byte more than
// left to distinguish a body that ends there from one that is larger.
type limitedReader struct {
	io.Reader
	left *int
}

// errTooLarge is the error of a response with more than maxBody bytes.
var errTooLarge = fault.Public(fault.Upstream, "The tool server's answer is larger than 4 MiB", nil)

// Read implements io.Reader.
func (l *limitedReader) Read(p []byte) (int, error) {
	if *l.left == 0 {
		if n, err := l.Reader.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errTooLarge
	}
	n, err := l.Reader.Read(p[:min(len(p), *l.left)])
	*l.left -= n
	return n, err
}

// drain reads what follows an answer, normally only the end of the body, and closes it:
// net/http reuses an HTTP/1.1 connection only if its body was read to the end. It waits
// 100 ms at most.
func drain(resp *http.Response) {
	stop := time.AfterFunc(100*time.Millisecond, func() { _ = resp.Body.Close() })
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // an error doesn't matter: the answer is complete
	_ = resp.Body.Close()
}

// mediaType returns the type of the response's body in lower case, without parameters.
func mediaType(resp *http.Response) string {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // an error leaves the type
	return t
}

// unquoted returns the text of an id: of a number, or of a string of this client. It is
// empty for null and for no id.
func unquoted(id json.RawMessage) string {
	text := strings.Trim(string(id), `"`)
	if text == "null" {
		return ""
	}
	return text
}
