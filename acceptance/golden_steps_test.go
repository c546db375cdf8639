package acceptance

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate holds the model at one chunk of "slow" until the test lets it go on.
type gate struct {
	mu      sync.Mutex
	at      int // -1: nowhere
	hold    chan struct{}
	reached chan struct{} // closed when the model was asked for that chunk
}

// opened holds nothing.
var opened = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

func newGate() *gate { return &gate{at: -1} }

// before holds the model before a chunk.
func (g *gate) before(chunk int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.hold, g.reached = chunk, make(chan struct{}), make(chan struct{})
}

// open lets it go on.
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

// await returns when the model was asked.
func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(patience):
		t.Fatal("the model was not asked")
	}
}

// choreography is how exchanges that overlapped are replayed, by the name of the
// first. Each returns how many it played. The gate is open behind each.
var choreography = map[string]func(p *replayer, list []exchange) int{
	"stream that is cancelled": func(p *replayer, list []exchange) int {
		p.gate.before(3)
		resp := p.send(list[0])
		defer resp.Body.Close()
		got := p.receive(list[0], resp, "chunk-2")
		p.compare(list[0], got) // binds the run's id for the next path
		p.call(list[1])
		got.body += p.receive(list[0], resp).body
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
		got.body += p.receive(list[1], resp).body
		p.check(list[1], got)
		return 2
	},
}

// leave reads a stream up to a text and hangs up.
func (p *replayer) disconnect(e exchange, until string) {
	p.t.Helper()
	resp := p.send(e)
	defer resp.Body.Close()
	p.check(e, p.receive(e, resp, until))
}

// settled asks until the run asked for has ended, and judges that answer.
func (p *replayer) pollUntilEnded(e exchange) {
	p.t.Helper()
	var got reply
	for end := time.Now().Add(patience); time.Now().Before(end); {
		resp := p.send(e)
		got = p.receive(e, resp)
		resp.Body.Close()
		if got.status != http.StatusOK || !strings.Contains(got.body, `"RUNNING"`) && !strings.Contains(got.body, `"PENDING"`) {
			break
		}
	}
	p.check(e, got)
}
