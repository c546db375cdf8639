package api

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/wire"
)

// mcpAnswer is the answer to one message: JSON if there is nothing to send before the response, and an event stream
// otherwise. It is safe for concurrent use, because its timer opens the stream from a goroutine of its own.
type mcpAnswer struct {
	w http.ResponseWriter

	mu     sync.Mutex
	stream *eventStream // nil until something is sent before the response
	waits  *time.Timer  // nil until begun
	closed bool
}

// begun is called when a call executes something. From then on the client sees that the server lives.
func (a *mcpAnswer) begun() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waits == nil {
		a.waits = time.AfterFunc(keepAlive, func() { a.send([]byte(wire.KeepAlive)) })
	}
}

// notify sends a message before the response.
func (a *mcpAnswer) notify(message []byte) { a.send(mcpFrame(message)) }

// send sends frames of the event stream.
func (a *mcpAnswer) send(frames []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	if a.stream == nil {
		a.stream = openStream(a.w)
	}
	a.stream.sendFrame(frames)
}

// mcpFrame returns a message as a server-sent event.
func mcpFrame(message []byte) []byte {
	frame := append([]byte("event: message\ndata: "), wire.EscapeLines(message)...)
	return append(frame, "\n\n"...)
}

// end sends the response, or the error. A notification has neither.
func (a *mcpAnswer) end(r *request, response []byte, e *mcp.Error) {
	if e != nil {
		if e.Code != mcp.CodeRefused { // the call has logged why
			noteMCP(r, e)
		}
		response = e.Message()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stream != nil:
		a.stream.sendFrame(mcpFrame(response))
	case e != nil:
		e.Write(a.w)
	case response == nil:
		a.w.WriteHeader(http.StatusAccepted)
	default:
		mcp.WriteJSON(a.w, http.StatusOK, response)
	}
}

// close stops the timer and the stream. The handler must call it before it returns.
func (a *mcpAnswer) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.waits != nil {
		a.waits.Stop()
	}
	if a.stream != nil {
		a.stream.close()
	}
}

// noteMCP logs an error about a message. The log has no text of it, which may repeat what was sent.
func noteMCP(r *request, e *mcp.Error) {
	logging.Note(r.Context(), "err", fmt.Sprintf("JSON-RPC error %d", e.Code))
}
