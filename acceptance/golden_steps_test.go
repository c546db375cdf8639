package acceptance

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// gate makes the model wait before one chunk of "slow" until the test opens the gate.
type gate struct {
	mu      sync.Mutex
	at      int // the chunk; -1 if the gate is open
	hold    chan struct{}
	reached chan struct{} // closed when the model has come to that chunk
}

// opened is a closed channel: nobody waits for it.
var opened = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

func newGate() *gate { return &gate{at: -1} }

// before closes the gate before a chunk.
func (g *gate) before(chunk int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.hold, g.reached = chunk, make(chan struct{}), make(chan struct{})
}

// open opens the gate: the model continues.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at >= 0 {
		g.at = -1
		close(g.hold)
	}
}

func (g *gate) pause(chunk int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if chunk != g.at {
		return opened
	}
	select {
	case <-g.reached:
	default:
		close(g.reached)
	}
	return g.hold
}

// await waits until the model waits at the gate.
func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(process.Patience):
		t.Fatal("the model did not come to the gate")
	}
}

// overlapping replays exchanges that overlapped when they were recorded. The key is the
// name of the first exchange. Each function returns how many exchanges it replayed; the
// caller opens the gate after it.
var overlapping = map[string]func(p *replayer, list []exchange) int{
	"stream that is cancelled": func(p *replayer, list []exchange) int {
		p.gate.before(3)
		resp := p.send(list[0])
		defer resp.Body.Close()
		got := p.receive(list[0], resp, "chunk-2")
		p.compare(list[0], got) // binds the id of the run, which the next path needs
		p.call(list[1])
		got.Body += p.receive(list[0], resp).Body
		p.check(list[0], got)
		return 2
	},
	"client disconnects (no background)": func(p *replayer, list []exchange) int {
		p.gate.before(3)
		p.disconnect(list[0], "chunk-2")
		p.gate.open()
		p.pollUntilEnded(list[1])
		return 2
	},
	"background json": func(p *replayer, list []exchange) int {
		p.gate.before(0)
		p.call(list[0])
		p.gate.await(p.t)
		p.call(list[1]) // poll while running
		resp := p.send(list[2])
		defer resp.Body.Close()
		p.gate.open()
		p.check(list[2], p.receive(list[2], resp)) // resume while running
		p.pollUntilEnded(list[3])
		return 4
	},
	"background json cancel": func(p *replayer, list []exchange) int {
		p.gate.before(3)
		p.call(list[0])
		p.gate.await(p.t)
		p.call(list[1]) // cancel
		p.pollUntilEnded(list[2])
		return 3
	},
	"background stream, client drops": func(p *replayer, list []exchange) int {
		p.gate.before(4)
		p.disconnect(list[0], "chunk-3")
		resp := p.send(list[1]) // resume
		defer resp.Body.Close()
		got := p.receive(list[1], resp, "\n\n")
		p.gate.open()
		got.Body += p.receive(list[1], resp).Body
		p.check(list[1], got)
		return 2
	},
}

// disconnect reads a stream up to a text and closes the connection.
func (p *replayer) disconnect(e exchange, until string) {
	p.t.Helper()
	resp := p.send(e)
	defer resp.Body.Close()
	p.check(e, p.receive(e, resp, until))
}

// pollUntilEnded repeats a request for a run until the run has ended, and checks that
// answer.
func (p *replayer) pollUntilEnded(e exchange) {
	p.t.Helper()
	var got process.Reply
	for end := time.Now().Add(process.Patience); time.Now().Before(end); {
		resp := p.send(e)
		got = p.receive(e, resp)
		resp.Body.Close()
		if got.Status != http.StatusOK || !strings.Contains(got.Body, `"RUNNING"`) &&
			!strings.Contains(got.Body, `"PENDING"`) {
			break
		}
	}
	p.check(e, got)
}
