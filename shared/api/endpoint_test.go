package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// gone is a client that has gone, while the server still reads what was written for it.
type gone struct {
	http.ResponseWriter
	kept []byte
}

func (g *gone) Write(p []byte) (int, error) {
	g.kept = p
	return 0, io.ErrClosedPipe
}

func TestTheBufferOfAnAnswerThatWasNotWrittenIsLeftToNoOther(t *testing.T) {
	t.Parallel()
	for range 100 {
		out := borrow()
		out.text = append(out.text, `{"of":"ann"}`...)
		w := &gone{ResponseWriter: httptest.NewRecorder()}
		if err := writeJSON(w, http.StatusOK, out); err != nil {
			t.Fatal(err)
		}
		next := borrow()
		next.text = append(next.text, `{"of":"bob"}`...)
		if string(w.kept) != `{"of":"ann"}` {
			t.Fatalf("the answer of ann has become %s", w.kept)
		}
		next.giveBack()
	}
}
