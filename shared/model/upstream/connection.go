package upstream

import (
	"io"
	"net"
	"net/http"
	"time"
)

// HeaderPatience is how long a stream's header may take: a local server may first
// have to load the model.
const HeaderPatience = 5 * time.Minute

// NewTransport bounds every step up to the first byte, but not the answer, which may
// rightly take minutes; a peer that died is found by TCP and HTTP/2 pings. header is
// how long it waits for the answer's, and 0 is as long as the request's context does.
func NewTransport(header time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: header,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   64,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 30 * time.Second},
	}
}

// Drain reads what follows the end mark, normally just the end of the body, because
// HTTP/1.1 re-uses only a connection that was read to its end. A vendor who keeps it
// open instead loses it by cancel, which ends the request.
func Drain(body io.Reader, cancel func()) {
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, body, 4096) // the answer is complete already
}
