package openai_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// wholeAnswerOf returns the answer to a request that permits an answer in one piece.
func wholeAnswerOf(t *testing.T, srv *modeltest.Server) modeltest.Answer {
	t.Helper()
	r := modeltest.Ask("hello")
	r.Whole = true
	return modeltest.Collect(t.Context(), t, open(t, srv, openai.Options{}), r)
}

func TestAnAnswerInOnePieceIsRequestedWithoutStream(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("too lo").Finish("length"))
	a := wholeAnswerOf(t, srv)
	if a.Err != nil || a.Text != "too lo" || a.End.FinishReason != "length" {
		t.Fatalf("text %q, end %+v, error %v", a.Text, a.End, a.Err)
	}
	if got := string(a.Parts[0].ProviderData); got != `{"id":"chatcmpl-1","system_fingerprint":"fp_modeltest"}` {
		t.Errorf("provider data %s", got)
	}
	if body := srv.Requests()[0].Body; body["stream"] != nil || body["stream_options"] != nil {
		t.Errorf("request %v", body)
	}
}

func TestAnInvalidAnswerInOnePieceIsAnError(t *testing.T) {
	t.Parallel()
	const noAnswer = "The model's server sent something that is not an answer"
	for name, c := range map[string]struct{ body, detail string }{
		"no finish_reason":         {`{"choices":[{"message":{"content":"x"}}]}`, noAnswer},
		"an error with status 200": {`{"error":{"message":"overloaded"}}`, "overloaded"},
	} {
		a := wholeAnswerOf(t, modeltest.NewServer(t, modeltest.Script{}.Raw(c.body)))
		if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
			t.Errorf("%s: %v: public text %q, want %q", name, a.Err, fault.Detail(a.Err), c.detail)
		}
	}
}
