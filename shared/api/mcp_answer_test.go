package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/wire"
)

const mcpStreamed = `{"jsonrpc":"2.0","id":1,"result":{}}`

func TestAnMCPCallWithoutProgressIsAnsweredAsJSON(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	a := &mcpAnswer{w: w}
	a.begun()
	a.end(nil, []byte(mcpStreamed), nil)
	a.close()
	if w.Header().Get("Content-Type") != "application/json" || w.Body.String() != mcpStreamed || w.Flushed {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
}

func TestALongMCPCallGetsCommentsAndThenItsResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		a := &mcpAnswer{w: w}
		a.begun()
		time.Sleep(keepAlive - time.Second)
		a.mu.Lock() // the timer's goroutine writes with it
		early := w.Body.Len()
		a.mu.Unlock()
		if early > 0 {
			t.Errorf("%d bytes are sent early", early)
		}
		time.Sleep(2*keepAlive - time.Second)
		a.end(nil, []byte(mcpStreamed), nil)
		a.close()
		a.notify([]byte("too late"))
		const want = wire.KeepAlive + wire.KeepAlive + "event: message\ndata: " + mcpStreamed + "\n\n"
		if w.Body.String() != want || w.Header().Get("Content-Type") != wire.MediaType {
			t.Errorf("%v %q", w.Header(), w.Body)
		}
	})
}

// The status has been sent. The client still has to know which call was refused, and why.
func TestARefusalAfterAnMCPNotificationIsInTheStream(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	a := &mcpAnswer{w: w}
	a.notify([]byte(`{"a":"` + "\u2028" + `"}`))
	a.end(nil, nil, &mcp.Error{Status: http.StatusForbidden, ID: []byte("1"), Code: mcp.CodeRefused, Text: "no"})
	a.close()
	const want = "event: message\ndata: {\"a\":\"\\u2028\"}\n\nevent: message\n" +
		"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"no\"}}\n\n"
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
