package lambdahttp

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// once is a connection to a Runtime API that sends one event and drops what it gets. It counts the writes.
type once struct {
	net.Conn
	responses *strings.Reader
	writes    int
}

func (o *once) Read(p []byte) (int, error)  { return o.responses.Read(p) }
func (o *once) Write(p []byte) (int, error) { o.writes++; return len(p), nil }

// A chunk of a stream is one system call and no memory, however many there are. What is written without a flush is one
// chunk.
//
//nolint:paralleltest // it counts what the whole process allocates
func TestAChunkCostsOneWriteAndNoMemory(t *testing.T) {
	const event = `{"httpMethod":"GET","path":"/"}`
	const responses = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\nContent-Length: 31\r\n\r\n" + event +
		"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
	var writes int
	measure := func(events int, flush bool) float64 {
		data := []byte("event: RunContent\ndata: {}\n\n")
		f := New(Options{Streamed: true, Log: logging.NewLogger(io.Discard, false), Handler: http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) {
				control := http.NewResponseController(w)
				for range events {
					_, _ = w.Write(data)
					if flush {
						_ = control.Flush()
					}
				}
			})})
		return testing.AllocsPerRun(50, func() {
			conn := &once{responses: strings.NewReader(responses)}
			if _, err := lambdaruntime.Serve(conn, "runtime", f.Invoke, false); err != nil {
				t.Fatal(err)
			}
			writes = conn.writes
		})
	}
	one := measure(1, true)
	if many := measure(501, true); (many-one)/500 > 0.2 || writes != 501+3 { // GET, the chunks, the end, GET
		t.Errorf("%g allocations for one chunk, %g for 501; %d writes", one, many, writes)
	}
	if measure(501, false); writes != 4 {
		t.Errorf("%d writes for a burst", writes)
	}
}
