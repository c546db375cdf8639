package anthropic_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// onPipe makes a model whose connections are pipes to a server that answers every
// request whole and ends the body a while later, so that time in the test is the
// bubble's. dials counts the connections.
func onPipe(t *testing.T, while time.Duration) (m *anthropic.Model, dials *int) {
	t.Helper()
	dials = new(0)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		*dials++
		here, there := net.Pipe()
		go answerAll(there, while)
		return here, nil
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return anthropic.New(anthropic.Options{ID: "m", BaseURL: "http://vendor.test", HTTPClient: &http.Client{Transport: transport}}), dials
}

func answerAll(c net.Conn, while time.Duration) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		body := sse(hi, over, stop)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body)
		time.Sleep(while) // the bubble's time
		if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
			return
		}
	}
}

func TestTheConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, dials := onPipe(t, 50*time.Millisecond)
		for range 3 {
			if a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello")); a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		if *dials != 1 {
			t.Errorf("%d connections for 3 requests, want 1", *dials)
		}
	})
}

func TestAVendorWhoKeepsTheBodyOpenHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := onPipe(t, time.Hour)
		begun := time.Now()
		if a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello")); a.Err != nil {
			t.Fatal(a.Err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the answer took %v", took)
		}
		time.Sleep(2 * time.Hour) // the bubble wants the vendor to end too
	})
}
