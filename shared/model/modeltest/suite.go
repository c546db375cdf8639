// Package modeltest tests implementations of model.Model. It has a server that plays a
// provider from a script (Server, Script), a reader that checks the rules of
// model.Model (Collect), and a suite of what the package of every provider must do
// (Run). What a request looks like differs between providers; their own tests check it
// with Server.Requests.
package modeltest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

// APIKey is the key, or for Bedrock the secret access key, with which models are opened
// for Run. The suite checks that no error text contains it.
const APIKey = "sk-modeltest-0123456789"

// The public texts that the suite expects where the provider gave no reason. They are
// copied here and not imported, so that the suite fails if one of them is changed.
const (
	connectionText = "Connection error."  // AgentOS 3.1.10's text
	timeoutText    = "Request timed out." // likewise
	cutShortText   = "The model's answer ended before it was complete"
	noAnswerText   = "The model's server sent something that is not an answer"
	noStreamText   = "The model's server did not answer with an event stream: check base_url"
	tooLongText    = "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once"
)

// Answer is everything that one Stream yielded.
type Answer struct {
	// Parts are all parts, the one with End included.
	Parts []model.Part
	// Text is the text of all parts, joined.
	Text string
	// Reasoning is the thoughts of all parts, joined.
	Reasoning string
	// End is nil if the answer ended with an error.
	End *model.End
	// Err is nil if the answer is complete.
	Err error
}

// Collect sends r to m and reads the answer to its end. It fails the test if the
// sequence breaks a rule of model.Model.
func Collect(ctx context.Context, tb testing.TB, m model.Model, r model.Request) Answer {
	tb.Helper()
	var a Answer
	for p, err := range m.Stream(ctx, r) {
		if a.Err != nil || a.End != nil {
			tb.Errorf("part %+v, error %v after the end", p, err)
		}
		if err != nil {
			a.Err = err
			continue
		}
		if p.End != nil && p.Text != "" {
			tb.Errorf("the last part has the text %q", p.Text)
		}
		a.Parts = append(a.Parts, p)
		a.Text += p.Text
		a.Reasoning += p.Reasoning
		a.End = p.End
	}
	if a.Err == nil && a.End == nil {
		tb.Error("the sequence ends with neither an error nor an end")
	}
	return a
}

// Ask returns the request of a user's message.
func Ask(text string) model.Request {
	return model.Request{Messages: []model.Message{{Role: model.User, Content: text}}}
}

// Provider is the implementation that Run tests.
type Provider struct {
	// Open returns the model as production opens it, with APIKey, on the API at
	// baseURL. It sends its requests by client. Required.
	Open func(baseURL string, client *http.Client) model.Model
	// OpenOnce returns the same model, but one that never repeats a request. Defaults
	// to Open, which is right for providers that obey X-Should-Retry, which Fail sends.
	OpenOnce func(baseURL string, client *http.Client) model.Model
	// Streams states that the model ignores model.Request.Whole. Defaults to false.
	Streams bool
}

// Run tests a provider's model. Rules are subtests, so that a name in a failure says
// which rule is broken.
func Run(t *testing.T, p Provider) {
	t.Helper()
	if p.OpenOnce == nil {
		p.OpenOnce = p.Open
	}
	for _, rules := range [][]rule{
		contentRules, callIDRules, failureRules, requestRules, connectionRules, wholeRules, serverRules,
	} {
		for _, r := range rules {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.check(t, p)
			})
		}
	}
}

// rule is one rule that every provider must follow. check opens models of p and fails t
// if they break the rule.
type rule struct {
	name  string
	check func(*testing.T, Provider)
}

// once returns a model on srv that never repeats a request. Its connections are closed
// when the test ends.
func (p Provider) once(t *testing.T, srv *Server) model.Model {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return p.OpenOnce(srv.URL, &http.Client{Transport: transport})
}

// bounded returns a context with a deadline, so that a model that hangs returns an error.
// The deadline is later than that of Server.Quiet. Otherwise Quiet could succeed because
// this context ended and closed the connection, and not because the model closed it.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// collect returns the answer of a server with this one script.
func (p Provider) collect(t *testing.T, s Script) Answer {
	t.Helper()
	return p.collectRequest(t, s, Ask("hello"))
}

// collectRequest returns the answer to r of a server with this one script. It checks
// too that the model has ended its request.
func (p Provider) collectRequest(t *testing.T, s Script, r model.Request) Answer {
	t.Helper()
	srv := NewServer(t, s)
	a := Collect(bounded(t), t, p.once(t, srv), r)
	srv.Quiet(t)
	return a
}

// mustEnd returns the End, and stops the test if there is none.
func (a Answer) mustEnd(t *testing.T) model.End {
	t.Helper()
	if a.Err != nil || a.End == nil {
		t.Fatalf("error %v after %q, want an end", a.Err, a.Text)
	}
	return *a.End
}

// mustFail checks an error's kind and public text, and that no text has the key.
func (a Answer) mustFail(t *testing.T, kind fault.Kind, detail string) {
	t.Helper()
	if a.Err == nil {
		t.Fatalf("the answer %q is complete, want an error", a.Text)
	}
	if got := fault.KindOf(a.Err); got != kind {
		t.Errorf("%v: kind %d, want %d", a.Err, got, kind)
	}
	if got := fault.Detail(a.Err); got != detail {
		t.Errorf("public text %q, want %q", got, detail)
	}
	if strings.Contains(a.Err.Error(), APIKey) {
		t.Errorf("the error contains the API key: %v", a.Err)
	}
}

// contentRules check what the parts and the End contain.
var contentRules = []rule{
	{"text arrives in order and complete", textInOrder},
	{"every piece of text is a part", everyPieceIsAPart},
	{"a character cut by the network stays intact", unicodeIntact},
	{"interleaved tool calls are assembled", toolCalls},
	{"usage is reported, and zero if the provider reports none", usage},
	{"an event of 9 MB is read and one of 11 MB is an error", largeEvents},
}

// textInOrder sends pieces with spaces and characters that JSON and HTML escape.
func textInOrder(t *testing.T, p Provider) {
	a := p.collect(t, Text("hel", "lo", " ", "wor", "ld\n", "  ", "<b>&\"\\"))
	end := a.mustEnd(t)
	if want := "hello world\n  <b>&\"\\"; a.Text != want {
		t.Errorf("text %q, want %q", a.Text, want)
	}
	if end.FinishReason == "" || len(end.ToolCalls) != 0 {
		t.Errorf("end %+v, want a finish reason and no tool calls", end)
	}
}

// everyPieceIsAPart accepts one more part with the empty text at the start, because
// OpenAI's first chunk has an empty text.
func everyPieceIsAPart(t *testing.T, p Provider) {
	a := p.collect(t, Text("hel", "", "lo"))
	a.mustEnd(t)
	var texts []string
	for _, part := range a.Parts {
		if part.End == nil && !part.Opening {
			texts = append(texts, part.Text)
		}
	}
	if len(texts) == 4 && texts[0] == "" {
		texts = texts[1:]
	}
	if diff := cmp.Diff([]string{"hel", "", "lo"}, texts); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
}

// unicodeIntact sends characters of several bytes, each cut in two by Script.Text.
func unicodeIntact(t *testing.T, p Provider) {
	const text = "naïve 日本語 👩‍👩‍👧 \u202eabc\u202c e\u0301"
	a := p.collect(t, Text(strings.SplitAfter(text, " ")...))
	a.mustEnd(t)
	if a.Text != text {
		t.Errorf("text %q, want %q", a.Text, text)
	}
}

// toolCalls sends three calls whose pieces are interleaved. The last has no arguments.
func toolCalls(t *testing.T, p Provider) {
	a := p.collect(t, Text("let me see").
		ToolCall("web_search", `{"query":"größe \"x\""}`).
		ToolCall("get_user_details", `{"username":"pg"}`).
		ToolCall("now", ""))
	want := []model.ToolCall{
		{Name: "web_search", Arguments: `{"query":"größe \"x\""}`},
		{Name: "get_user_details", Arguments: `{"username":"pg"}`},
		{Name: "now"},
	}
	if diff := cmp.Diff(want, withoutIDs(a.mustEnd(t).ToolCalls)); diff != "" {
		t.Errorf("tool calls (-want +got):\n%s", diff)
	}
	if a.Text != "let me see" {
		t.Errorf("text %q", a.Text)
	}
}

// usage checks the counts that all providers report.
func usage(t *testing.T, p Provider) {
	want := model.Usage{Input: 1000, Output: 20, Total: 1020, Reasoning: 7, CacheRead: 900}
	srv := NewServer(t, Text("a").Usage(want))
	got := Collect(bounded(t), t, p.once(t, srv), Ask("hello")).mustEnd(t).Usage
	if converse, _ := isConverse(srv.Requests()[0].Path); converse {
		want.Reasoning = 0 // Bedrock counts it as output
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if got = p.collect(t, Text("a").NoUsage()).mustEnd(t).Usage; got != (model.Usage{}) {
		t.Errorf("usage %+v of a provider that reports none, want zeros", got)
	}
}

// largeEvents checks the limit of 10 MB for an event from both sides.
func largeEvents(t *testing.T, p Provider) {
	a := p.collect(t, Script{}.Huge(9<<20))
	a.mustEnd(t)
	if len(a.Text) != 9<<20 {
		t.Errorf("%d bytes of text", len(a.Text))
	}
	a = p.collect(t, Script{}.Huge(11<<20).Text("never"))
	a.mustFail(t, fault.Upstream, tooLongText)
	if a.Text != "" {
		t.Errorf("%d bytes of text before the error", len(a.Text))
	}
}

// requestRules check when the parts of an answer arrive and how a request is ended.
var requestRules = []rule{
	{"a part arrives while the server still writes", firstPartEarly},
	{"cancelling in the middle returns the cause", cancelled},
	{"cancelling before the answer returns the cause", cancelledEarly},
	{"a consumer that stops reading ends the request", stopReading},
	{"one model serves several requests at once", concurrent},
	{"a request that can't be built is an internal error", unbuildable},
}

// firstPartEarly lets the server send the rest only when the first part has arrived. A
// model that collects the answer before it yields would wait for ever.
func firstPartEarly(t *testing.T, p Provider) {
	seen := make(chan struct{})
	srv := NewServer(t, Text("first").Wait(seen).Text("second"))
	var text string
	for part, err := range p.once(t, srv).Stream(bounded(t), Ask("hello")) {
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		if text += part.Text; text == "first" && part.Text != "" {
			close(seen)
		}
	}
	if text != "firstsecond" {
		t.Errorf("text %q", text)
	}
}

// cancelled cancels the context while the server waits.
func cancelled(t *testing.T, p Provider) {
	why := errors.New("the user pressed stop")
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	srv := NewServer(t, Text("first").Wait(nil).Text("never"))
	var last error
	for part, err := range p.once(t, srv).Stream(ctx, Ask("hello")) {
		if last = err; part.Text == "first" {
			cancel(why)
		}
	}
	if last != why { //nolint:errorlint // it must be the cause itself, not wrapped
		t.Errorf("error %v, want the cause itself", last)
	}
	srv.Quiet(t)
}

// cancelledEarly cancels the context before the request.
func cancelledEarly(t *testing.T, p Provider) {
	why := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	srv := NewServerFunc(t, func(Request) Script { return Text("a") })
	a := Collect(ctx, t, p.once(t, srv), Ask("hello"))
	if a.Err != why { //nolint:errorlint // as above
		t.Errorf("error %v, want the cause itself", a.Err)
	}
}

// stopReading leaves the loop while the server waits.
func stopReading(t *testing.T, p Provider) {
	srv := NewServer(t, Text("first").Wait(nil).Text("never"))
	for part, err := range p.once(t, srv).Stream(bounded(t), Ask("hello")) {
		if err != nil {
			t.Fatal(err)
		}
		if part.Text == "first" {
			break
		}
	}
	srv.Quiet(t)
}

// concurrent lets the server answer only when several requests have arrived.
func concurrent(t *testing.T, p Provider) {
	const many = 4
	together := make(chan struct{})
	arrived := make(chan struct{}, many)
	srv := NewServerFunc(t, func(r Request) Script {
		arrived <- struct{}{}
		return Text(AnswerID(r.N)).Wait(together).Text(" done")
	})
	ctx, m := bounded(t), p.once(t, srv)
	answers := make(chan Answer, many)
	for range many {
		go func() { answers <- Collect(ctx, t, m, Ask("hello")) }()
	}
	for range many {
		select {
		case <-arrived:
		case <-ctx.Done():
			t.Fatal("the model sends a request only after the previous answer")
		}
	}
	close(together)
	texts := map[string]bool{}
	for range many {
		a := <-answers
		a.mustEnd(t)
		texts[a.Text] = true
	}
	if len(texts) != many {
		t.Errorf("answers %v, want %d different ones", texts, many)
	}
}

// unbuildable offers a tool whose schema isn't JSON. The request never reaches the
// provider, so the error must not be an error of the provider.
func unbuildable(t *testing.T, p Provider) {
	for _, whole := range []bool{false, true} {
		r := Ask("hello")
		r.Whole, r.Tools = whole, []model.ToolSpec{{Name: "f", Parameters: []byte("{")}}
		srv := NewServer(t)
		a := Collect(bounded(t), t, p.once(t, srv), r)
		if a.Err == nil || fault.KindOf(a.Err) != fault.Internal || len(srv.Requests()) != 0 {
			t.Errorf("whole %t: error %v, want an internal one", whole, a.Err)
		}
	}
}

// wholeRules check answers in one piece (model.Request.Whole).
var wholeRules = []rule{
	{"an answer in one piece equals the streamed one", wholeEqualsStream},
	{"an answer in one piece that is none is an error", wholeFailures},
	{"cancelling while an answer in one piece is awaited returns the cause", wholeCancelled},
}

// askWhole returns a request that permits an answer in one piece.
func askWhole() model.Request {
	r := Ask("hello")
	r.Whole = true
	return r
}

// wholeEqualsStream plays one script in both forms. The arguments have a number that
// float64 can't represent: a model must not decode and encode them.
func wholeEqualsStream(t *testing.T, p Provider) {
	s := Text("naïve ", "日本").ToolCall("f", `{"n":12345678901234567890,"é":1.5}`).ToolCall("g", "{}")
	streamed := p.collect(t, s)
	whole := p.collectRequest(t, s, askWhole())
	whole.mustEnd(t)
	if diff := cmp.Diff(streamed.End, whole.End); diff != "" || whole.Text != streamed.Text {
		t.Errorf("text %q, end (-streamed +whole):\n%s", whole.Text, diff)
	}
	if !p.Streams && len(whole.Parts) != 2 {
		t.Errorf("parts %+v, want the text and the end", whole.Parts)
	}
}

// wholeFailures checks bodies that are not a complete answer.
func wholeFailures(t *testing.T, p Provider) {
	if p.Streams {
		return // a provider that streams every answer has no whole body to check
	}
	for name, c := range map[string]struct {
		script Script
		kind   fault.Kind
		detail string
	}{
		"half a body":       {Text("hello").Truncate(), fault.Upstream, cutShortText},
		"a lost connection": {Text("hello").Drop(), fault.Upstream, connectionText},
		"HTML":              {Script{}.Raw("<html>"), fault.Upstream, noAnswerText},
		"an empty body":     {Script{}.Raw(""), fault.Upstream, cutShortText},
		"an empty object":   {Script{}.Raw("{}"), fault.Upstream, noAnswerText},
		"too many bytes":    {Script{}.Huge(11 << 20), fault.Upstream, tooLongText},
		"an HTTP error": {
			Fail(http.StatusTooManyRequests, "slow down").Header("Retry-After", "7"), fault.Unavailable, "slow down",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.collectRequest(t, c.script, askWhole()).mustFail(t, c.kind, c.detail)
		})
	}
}

// wholeCancelled cancels the context while the model waits for the response's header.
func wholeCancelled(t *testing.T, p Provider) {
	ctx, cancel := context.WithCancelCause(bounded(t))
	why := errors.New("enough")
	srv := NewServerFunc(t, func(Request) Script {
		cancel(why) // the request has arrived, so the model is waiting
		return Script{}.Wait(nil)
	})
	a := Collect(ctx, t, p.once(t, srv), askWhole())
	if a.Err != why { //nolint:errorlint // it must be the cause itself
		t.Errorf("error %v, want the cause itself", a.Err)
	}
	srv.Quiet(t)
}
