package upstream

import (
	"io"
	"net"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/trace"
)

// HeaderTimeout is how long a provider may take to send the header of a streamed
// response. It is long because a local server (Ollama, vLLM) may have to load the model
// first.
const HeaderTimeout = 5 * time.Minute

// NewTransport returns a transport that limits the time of every step up to the
// response's header. It sets no limit for the body, because an answer may take minutes
// and the run has its own time budget. TCP keep-alive and HTTP/2 pings detect a server that
// crashed while it sent the body.
//
// header limits the wait for the response's header. 0 means no limit except the
// request's context; it is for answers in one piece, whose header comes only when the
// model has finished.
//
// A request of a run that is traced has the header traceparent.
func NewTransport(header time.Duration) http.RoundTripper {
	return trace.Outgoing(&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: header,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   64,
		// A longer request is written past the buffer, and more of an answer is read at once where it comes at once. The 4
		// KB that net/http has for each would stay with each open stream.
		WriteBufferSize: 1 << 10, ReadBufferSize: 2 << 10,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second},
	})
}

// Drain reads what follows an answer's end mark. That is normally only the end of the
// body, and net/http reuses an HTTP/1.1 connection only if the body was read to its
// end. Drain waits 100 ms at most: if the provider keeps the body open longer, Drain
// calls cancel, which ends the request and closes the connection.
func Drain(body io.Reader, cancel func()) {
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, body, 4096) // an error doesn't matter: the answer is complete already
}
