package acceptance

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// outcome is what a client got for a run.
type outcome struct {
	status int
	header http.Header
	body   string // of a refusal
	err    error
}

// crowd starts a run for each of n clients with a connection of its own, at the same time.
// The outcomes come in the order of the answers. ends receives the text of each accepted
// run when its stream has ended.
func (r *server) crowd(n int) (outcomes chan outcome, ends chan string) {
	outcomes, ends = make(chan outcome, n), make(chan string, n)
	for i := range n {
		body, kind := process.Form(r.t, "message", "hi", "session_id", fmt.Sprint("s", i))
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.URL+"/agents/assistant/runs", body)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.Tokens["ann"])
		req.Header.Set("Content-Type", kind)
		go func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			if err != nil {
				outcomes <- outcome{err: err}
				return
			}
			defer resp.Body.Close()
			o := outcome{status: resp.StatusCode, header: resp.Header}
			if o.status != http.StatusOK {
				body, err := io.ReadAll(resp.Body)
				o.body, o.err = string(body), err
				outcomes <- o
				return
			}
			outcomes <- o
			text, err := io.ReadAll(resp.Body)
			ends <- fmt.Sprint(string(text), err)
		}()
	}
	return outcomes, ends
}

// 400 clients ask for a run from a server that can open 300 files. Each of them gets an
// answer while the accepted runs are in progress, and each accepted run completes.
func TestNoAcceptedRunLacksAFileDescriptor(t *testing.T) {
	t.Parallel()
	model, release := heldModel(t)
	r := startWith(t, process.Keyway.LimitedTo(300), "quickstart", model)
	bound := r.AwaitLog(`"msg":"capacity","runs":(\d+)`)[1]
	const clients = 400
	outcomes, ends := r.crowd(clients)
	accepted := 0
	for range clients {
		switch o := <-outcomes; {
		case o.err != nil:
			t.Fatal(o.err)
		case o.status == http.StatusOK:
			accepted++
		case o.status != http.StatusServiceUnavailable || o.header.Get("Retry-After") == "":
			t.Errorf("a client got %d with Retry-After %q", o.status, o.header.Get("Retry-After"))
		}
	}
	if fmt.Sprint(accepted) != bound {
		t.Errorf("%d runs were accepted, the bound is %s", accepted, bound)
	}
	r.Get("-", "/health").Want(t, "/health while all runs are in progress", 200)
	r.Get("-", "/readyz").Want(t, "/readyz while all runs are in progress", 200)
	close(release)
	for range accepted {
		if text := <-ends; !strings.Contains(text, "event: RunCompleted") {
			t.Errorf("an accepted run ended with %.2000s", text)
		}
	}
	// The places are free again. The model holds nothing back any more.
	r.Run("ann", "assistant", "message", "hi", "session_id", "last").Want(t, "a run afterwards", 200, "RunCompleted")
	conn, err := pgx.Connect(t.Context(), r.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT status || ' ' || count(*) FROM keyway.runs GROUP BY status")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if want := fmt.Sprint("COMPLETED ", accepted+1); err != nil || strings.Join(stored, ", ") != want {
		t.Errorf("the stored runs are %v (%v), want %s", stored, err, want)
	}
	if log := r.Stderr.String(); strings.Contains(log, "too many open files") {
		t.Error("the server ran out of file descriptors")
	}
}

// The places of the clients are held by connections that are idle. A new client gets one.
func TestIdleClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.Keyway.LimitedTo(128), "quickstart", echoModel(t))
	bound := r.AwaitLog(`"msg":"capacity".*"connections":(\d+)`)[1]
	var idle sync.WaitGroup
	for i := range 60 { // twice as many as the server has places
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		idle.Go(func() {
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Errorf("client %d of 60, with %s places: %v", i, bound, err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
		if i%5 == 0 {
			idle.Wait()
		}
	}
	idle.Wait()
	r.Run("ann", "assistant", "message", "hi").Want(t, "a run among idle clients", 200, "RunCompleted")
}
