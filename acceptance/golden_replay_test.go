package acceptance

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
)

// exchange is one recorded request with its answer: a line of testdata/agentos/GROUP.jsonl.
type exchange struct {
	Name string // empty for a request that only prepares data; its answer was not recorded
	Note string // for readers of the file

	// The request.
	Method, Path string
	Token        map[string]any  // the claims; nil sends no token
	Form         json.RawMessage // an object of texts, sent as multipart
	URLEncoded   json.RawMessage // an object of texts, sent URL-encoded
	JSON         json.RawMessage
	Raw          *string // sent as it is, with the content type Type
	Type         string
	Files        []file // sent with Form

	// The answer: Events of a stream, or Text if it isn't JSON, or Body.
	Status      int
	ContentType string `json:"content_type"`
	Events      [][2]json.RawMessage
	Text        string
	Body        json.RawMessage
}

type file struct {
	Field, Name, Type string
	Base64            []byte
}

func readExchanges(t *testing.T, group string) (list []exchange) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "agentos", group+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	for dec.More() {
		var e exchange
		if err := dec.Decode(&e); err != nil {
			t.Fatalf("%s, exchange %d: %v", group, len(list)+1, err)
		}
		list = append(list, e)
	}
	return list
}

// body returns the request's body and content type, with this server's ids.
func (e exchange) body(t *testing.T, ids *bindings) (body, kind string) {
	t.Helper()
	switch {
	case e.Raw != nil:
		return *e.Raw, e.Type
	case e.JSON != nil:
		return ids.ours(string(e.JSON)), "application/json"
	case e.URLEncoded != nil:
		values := url.Values{}
		eachField(t, e.URLEncoded, func(name, value string) { values.Set(name, ids.ours(value)) })
		return values.Encode(), "application/x-www-form-urlencoded"
	case e.Form == nil:
		return "", ""
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	// Writing to a buffer cannot fail.
	eachField(t, e.Form, func(name, value string) { _ = w.WriteField(name, ids.ours(value)) })
	for _, f := range e.Files {
		h := textproto.MIMEHeader{"Content-Type": {f.Type}}
		h.Set("Content-Disposition", fmt.Sprintf("form-data; name=%q; filename=%q", f.Field, f.Name))
		part, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write(f.Base64)
	}
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

func eachField(t *testing.T, fields json.RawMessage, do func(name, value string)) {
	t.Helper()
	v, err := ordered(string(fields))
	o, ok := v.(*jsonObject)
	if err != nil || !ok {
		t.Fatalf("fields %s: %v", fields, err)
	}
	for _, name := range o.names {
		do(name, o.values[name].(string))
	}
}

// send writes the request to a connection of its own, because an HTTP client would
// normalize the odd paths. Closing the answer's body closes the connection.
func (p *replayer) send(e exchange) *http.Response {
	p.t.Helper()
	c, err := (&net.Dialer{}).DialContext(p.t.Context(), "tcp", strings.TrimPrefix(p.server.URL, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(process.Patience))
	body, kind := e.body(p.t, p.ids)
	path := p.ids.ours(e.Path)
	p.mentioned.WriteString(path + " " + body + "\n")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n", e.Method, path)
	if e.Token != nil {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", signed(p.t, e.Token))
	}
	if kind != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", kind)
	}
	if body != "" || e.Method != "GET" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	if _, err := c.Write(b.Bytes()); err != nil {
		p.t.Fatalf("%s: %v", e.Name, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: e.Method})
	if err != nil {
		p.t.Fatalf("%s: %v", e.Name, err)
	}
	resp.Body = closing{resp.Body, c}
	return resp
}

// closing is a body whose Close closes the connection.
type closing struct {
	io.ReadCloser
	conn net.Conn
}

func (c closing) Close() error { return c.conn.Close() }

// signed signs a token with the secret of AgentOS's documents. It does not use Keyway's
// own code.
func signed(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(payload)
	mac := hmac.New(sha256.New, []byte(config.PublishedSecret))
	mac.Write([]byte(text))
	return text + "." + enc.EncodeToString(mac.Sum(nil))
}

// receive reads an answer to its end, or to the event with which it contains all texts of
// until.
func (p *replayer) receive(e exchange, resp *http.Response, until ...string) process.Reply {
	p.t.Helper()
	got := process.Reply{Status: resp.StatusCode, Header: resp.Header}
	r := bufio.NewReader(resp.Body)
	for {
		line, err := r.ReadString('\n')
		got.Body += line
		if err == io.EOF {
			return got
		}
		if err != nil {
			p.t.Fatalf("%s: %v after %q", e.Name, err, got.Body)
		}
		if line == "\n" && len(until) > 0 && containsAll(got.Body, until) {
			return got
		}
	}
}

func containsAll(s string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(s, text) {
			return false
		}
	}
	return true
}

// replayer sends the exchanges of one group to a server and compares the answers.
type replayer struct {
	t         *testing.T
	group     string
	server    *server
	ids       *bindings
	gate      *gate
	mentioned strings.Builder // all requests so far; ids in it belong to the group
	list      *differences
	result    *results
}

// play replays exchanges in order.
func (p *replayer) play(list []exchange) {
	p.t.Helper()
	for len(list) > 0 {
		n := 1
		if act := overlapping[list[0].Name]; act != nil {
			n = act(p, list)
		} else {
			p.call(list[0])
		}
		p.gate.open()
		list = list[n:]
	}
}

// call replays one exchange.
func (p *replayer) call(e exchange) {
	p.t.Helper()
	resp := p.send(e)
	defer resp.Body.Close()
	p.check(e, p.receive(e, resp))
}

// check compares an answer with the recorded one and notes the differences.
func (p *replayer) check(e exchange, got process.Reply) {
	p.t.Helper()
	found := p.compare(e, got)
	if e.Name == "" {
		if got.Status >= 300 {
			p.t.Errorf("%s: the preparing request %s %s answers %d %s", p.group, e.Method, e.Path, got.Status, got.Body)
		}
		return
	}
	p.result.note(p.group+"/"+e.Name, found, p.list)
}

func (p *replayer) compare(e exchange, got process.Reply) []string {
	p.t.Helper()
	c := &comparison{ids: p.ids}
	if e.Name != "" && e.Status != got.Status {
		c.differ("status", "%d → %d", e.Status, got.Status)
		if e.Status < 400 || got.Status < 400 {
			return c.found // a success and an error have nothing else in common
		}
	}
	if kind := got.Header.Get("Content-Type"); e.Name != "" && kind != e.ContentType {
		c.differ("content-type", "%s → %s", e.ContentType, kind)
		return c.found
	}
	switch {
	case e.Events != nil:
		c.events(p.recorded(e), p.stream(e, got.Body))
	case e.Text != "":
		if !strings.HasPrefix(got.Body, e.Text) { // only the beginning was recorded
			c.changed("text", e.Text, got.Body)
		}
	case e.Body != nil:
		p.compareBody(c, e, got.Body)
	}
	return c.found
}

func (p *replayer) compareBody(c *comparison, e exchange, body string) {
	p.t.Helper()
	want, err := ordered(string(e.Body))
	if err != nil {
		p.t.Fatalf("%s: %v", e.Name, err)
	}
	if body == "" {
		if want != nil {
			c.changed("body", want, "")
		}
		return
	}
	got, err := ordered(body)
	if err != nil {
		c.differ("body", "is not JSON: %s", brief(body))
		return
	}
	if summary, ok := want.(string); ok && strings.HasPrefix(summary, "(") {
		got = summaryOf(got)
	}
	if e.isList() {
		p.rows(c, want, got)
		return
	}
	c.value("", want, got)
}

// summaryOf is the form in which some answers were recorded: only their kind and size.
func summaryOf(v any) string {
	switch v := v.(type) {
	case []any:
		return fmt.Sprintf("(list of %d)", len(v))
	case *jsonObject:
		return fmt.Sprintf("(object: %s)", strings.Join(v.names[:min(4, len(v.names))], ", "))
	}
	return fmt.Sprint(v)
}

func (p *replayer) recorded(e exchange) (list []namedEvent) {
	p.t.Helper()
	for _, pair := range e.Events {
		var n namedEvent
		err := json.Unmarshal(pair[0], &n.name)
		if err == nil {
			n.data, err = ordered(string(pair[1]))
		}
		if err != nil {
			p.t.Fatalf("%s: %v", e.Name, err)
		}
		list = append(list, n)
	}
	return list
}

// stream parses the frames of an event stream. It skips comments and ids, which AgentOS never sends.
func (p *replayer) stream(e exchange, body string) (list []namedEvent) {
	p.t.Helper()
	for frame := range strings.SplitSeq(body, "\n\n") {
		for strings.HasPrefix(frame, ":") || strings.HasPrefix(frame, "id: ") {
			_, frame, _ = strings.Cut(frame, "\n")
		}
		if frame == "" {
			continue
		}
		name, data, ok := strings.Cut(frame, "\ndata: ")
		name, named := strings.CutPrefix(name, "event: ")
		v, err := ordered(data)
		if !ok || !named || err != nil {
			p.t.Fatalf("%s: not a frame: %q: %v", e.Name, frame, err)
		}
		list = append(list, namedEvent{name, v})
	}
	return list
}
