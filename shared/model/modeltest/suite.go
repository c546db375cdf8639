// Package modeltest is what every vendor's model is tested with: a server that
// plays the vendor from a script (Server, Script), a reader that checks the rules
// of model.Model while it listens (Listen), and the suite of all that a vendor
// package must do (Run).
// It decides nothing about what a vendor's request looks like; that is for the
// vendor's own tests, with Server.Requests.
package modeltest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

// APIKey is the key, or the secret half of one, that Run's models must be opened with: the suite looks for it
// in texts where no key may be.
const APIKey = "sk-modeltest-0123456789"

// Answer is everything that one Stream yielded.
type Answer struct {
	Parts []model.Part // all, the last with End included
	Text  string       // the texts, joined
	End   *model.End   // nil after an error
	Err   error
}

// Listen hears r's answer to its end and fails the test when the sequence breaks a
// rule of model.Model.
func Listen(ctx context.Context, tb testing.TB, m model.Model, r model.Request) Answer {
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
		a.End = p.End
	}
	if a.Err == nil && a.End == nil {
		tb.Error("the sequence ends with neither an error nor an end")
	}
	return a
}

// Ask is the request of a user who says text.
func Ask(text string) model.Request {
	return model.Request{Messages: []model.Message{{Role: model.User, Content: text}}}
}

// Run checks one vendor's model. open makes a model that talks to srv.URL with
// APIKey and that keeps no idle connection beyond the test.
func Run(t *testing.T, open func(t *testing.T, srv *Server) model.Model) {
	t.Helper()
	for _, rule := range []struct {
		name  string
		check func(*testing.T, opener)
	}{
		{"text arrives in order and whole", textInOrder},
		{"a character cut by the network stays whole", unicodeIntact},
		{"parallel tool calls are assembled apart", toolCalls},
		{"usage is told, and zero when the vendor is mute", usage},
		{"an answer cut short is an error and no end", cutShort},
		{"an event that is no event is an error", malformed},
		{"a refusal has its kind and its public text", refusals},
		{"a part arrives while the server still writes", firstPartEarly},
		{"cancelling in the middle returns the cause", cancelled},
		{"cancelling before the answer returns the cause", cancelledEarly},
		{"a listener who leaves lets the vendor go", leaveEarly},
		{"one model serves many at once", concurrent},
	} {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			rule.check(t, open)
		})
	}
}

type opener = func(*testing.T, *Server) model.Model

// bounded is a context that turns a hang into an error. It outlasts Quiet, which
// must not mistake its end for the client's letting go.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// hear asks a model opened on a server with this one script.
func hear(t *testing.T, open opener, s Script) Answer {
	t.Helper()
	srv := NewServer(t, s)
	a := Listen(bounded(t), t, open(t, srv), Ask("hello"))
	srv.Quiet(t)
	return a
}

func (a Answer) mustEnd(t *testing.T) model.End {
	t.Helper()
	if a.Err != nil || a.End == nil {
		t.Fatalf("error %v after %q, want an end", a.Err, a.Text)
	}
	return *a.End
}

func (a Answer) mustFail(t *testing.T, kind fault.Kind, detail string) {
	t.Helper()
	if a.Err == nil {
		t.Fatalf("the answer %q ends well, want an error", a.Text)
	}
	if got := fault.KindOf(a.Err); got != kind {
		t.Errorf("%v: kind %d, want %d", a.Err, got, kind)
	}
	if got := fault.Detail(a.Err); got != detail {
		t.Errorf("public text %q, want %q", got, detail)
	}
	if strings.Contains(a.Err.Error(), APIKey) {
		t.Errorf("the error has the API key in it: %v", a.Err)
	}
}

func textInOrder(t *testing.T, open opener) {
	a := hear(t, open, Text("hel", "lo", " ", "wor", "ld\n", "  ", "<b>&\"\\"))
	end := a.mustEnd(t)
	if want := "hello world\n  <b>&\"\\"; a.Text != want {
		t.Errorf("text %q, want %q", a.Text, want)
	}
	if end.FinishReason == "" || len(end.ToolCalls) != 0 {
		t.Errorf("end %+v, want a finish reason and no tool calls", end)
	}
}

func unicodeIntact(t *testing.T, open opener) {
	const text = "naïve 日本語 👩‍👩‍👧 \u202eabc\u202c e\u0301"
	a := hear(t, open, Text(strings.SplitAfter(text, " ")...))
	a.mustEnd(t)
	if a.Text != text {
		t.Errorf("text %q, want %q", a.Text, text)
	}
}

func toolCalls(t *testing.T, open opener) {
	a := hear(t, open, Text("let me see").
		ToolCall("web_search", `{"query":"größe \"x\""}`).
		ToolCall("get_user_details", `{"username":"pg"}`).
		ToolCall("now", ""))
	want := []model.ToolCall{
		{ID: CallID(1, 1), Name: "web_search", Arguments: `{"query":"größe \"x\""}`},
		{ID: CallID(1, 2), Name: "get_user_details", Arguments: `{"username":"pg"}`},
		{ID: CallID(1, 3), Name: "now"},
	}
	got := a.mustEnd(t).ToolCalls
	for i := range got {
		got[i].ID = strings.TrimPrefix(got[i].ID, "fc_") // a call's item, in the Responses API
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tool calls (-want +got):\n%s", diff)
	}
	if a.Text != "let me see" {
		t.Errorf("text %q", a.Text)
	}
}

func usage(t *testing.T, open opener) {
	told := model.Usage{Input: 1000, Output: 20, Total: 1020, Reasoning: 7, CacheRead: 900}
	srv := NewServer(t, Text("a").Usage(told))
	got := Listen(bounded(t), t, open(t, srv), Ask("hello")).mustEnd(t).Usage
	if converses, _ := isConverse(srv.Requests()[0].Path); converses {
		told.Reasoning = 0 // counted as output there
	}
	if diff := cmp.Diff(told, got); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if got = hear(t, open, Text("a").NoUsage()).mustEnd(t).Usage; got != (model.Usage{}) {
		t.Errorf("usage %+v of a mute vendor, want zeros", got)
	}
}

func cutShort(t *testing.T, open opener) {
	const (
		truncated = "The model's answer ended before it was complete"
		dropped   = "Connection error." // AgentOS 3.1.10's text
	)
	a := hear(t, open, Text("hel", "lo").Truncate())
	a.mustFail(t, fault.Upstream, truncated)
	if a.Text != "hello" {
		t.Errorf("text %q before the cut, want %q", a.Text, "hello")
	}
	hear(t, open, Script{}.Truncate()).mustFail(t, fault.Upstream, truncated)
	hear(t, open, ToolCall("f", `{"half":`).Truncate()).mustFail(t, fault.Upstream, truncated)
	hear(t, open, Text("hel", "lo").Drop()).mustFail(t, fault.Upstream, dropped)
	hear(t, open, ToolCall("f", `{"half":`).Drop()).mustFail(t, fault.Upstream, dropped)
}

func malformed(t *testing.T, open opener) {
	a := hear(t, open, Text("ok").Raw("data: {\"id\": nonsense}\n\n").Text("never"))
	a.mustFail(t, fault.Upstream, "The model's server sent something that is not an answer")
	if a.Text != "ok" {
		t.Errorf("text %q, want %q", a.Text, "ok")
	}
}

func refusals(t *testing.T, open opener) {
	hear(t, open, Fail(http.StatusInternalServerError, "stub failure 500")).
		mustFail(t, fault.Upstream, "stub failure 500")
	hear(t, open, Fail(http.StatusNotFound, "The model `gpt-0` does not exist")).
		mustFail(t, fault.Upstream, "The model `gpt-0` does not exist")

	busy := hear(t, open, Fail(http.StatusTooManyRequests, "slow down").Header("Retry-After", "7"))
	busy.mustFail(t, fault.Unavailable, "slow down")
	if e, ok := errors.AsType[*fault.Error](busy.Err); !ok || e.RetryAfter != 7*time.Second {
		t.Errorf("error %#v, want a hint to retry after 7s", busy.Err)
	}

	denied := hear(t, open, Fail(http.StatusUnauthorized, "Incorrect API key provided: "+APIKey))
	denied.mustFail(t, fault.Upstream, fault.Detail(denied.Err))
	if text := fault.Detail(denied.Err); !namesCredential(text) || strings.Contains(text, "sk-") {
		t.Errorf("public text %q, want one that names the API key or the AWS credentials and does not show them", text)
	}
}

func namesCredential(text string) bool {
	return strings.Contains(text, "API key") || strings.Contains(text, "AWS credentials")
}

func firstPartEarly(t *testing.T, open opener) {
	seen := make(chan struct{})
	srv := NewServer(t, Text("first").Wait(seen).Text("second"))
	var text string
	for p, err := range open(t, srv).Stream(bounded(t), Ask("hello")) {
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		if text += p.Text; text == "first" && p.Text != "" {
			close(seen)
		}
	}
	if text != "firstsecond" {
		t.Errorf("text %q", text)
	}
}

func cancelled(t *testing.T, open opener) {
	why := errors.New("the user pressed stop")
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	srv := NewServer(t, Text("first").Wait(nil).Text("never"))
	var last error
	for p, err := range open(t, srv).Stream(ctx, Ask("hello")) {
		if last = err; p.Text == "first" {
			cancel(why)
		}
	}
	if last != why { //nolint:errorlint // it must be the cause itself, unclassified
		t.Errorf("error %v, want the cause itself", last)
	}
	srv.Quiet(t)
}

func cancelledEarly(t *testing.T, open opener) {
	why := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	a := Listen(ctx, t, open(t, NewServerFunc(t, func(Request) Script { return Text("a") })), Ask("hello"))
	if a.Err != why { //nolint:errorlint // as above
		t.Errorf("error %v, want the cause itself", a.Err)
	}
}

func leaveEarly(t *testing.T, open opener) {
	srv := NewServer(t, Text("first").Wait(nil).Text("never"))
	for p, err := range open(t, srv).Stream(bounded(t), Ask("hello")) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Text == "first" {
			break
		}
	}
	srv.Quiet(t)
}

func concurrent(t *testing.T, open opener) {
	const many = 4
	together := make(chan struct{})
	arrived := make(chan struct{}, many)
	srv := NewServerFunc(t, func(r Request) Script {
		arrived <- struct{}{}
		return Text(AnswerID(r.N)).Wait(together).Text(" done")
	})
	ctx, m := bounded(t), open(t, srv)
	answers := make(chan Answer, many)
	for range many {
		go func() { answers <- Listen(ctx, t, m, Ask("hello")) }()
	}
	for range many {
		select {
		case <-arrived:
		case <-ctx.Done():
			t.Fatal("the model asks for one answer after the other")
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
