//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// buildServer builds keyway serve with the tools of the harness and with a clock that $CHAOS_CLOCK moves, into dir. The
// clock is no setting of the product: the build replaces the file that has it.
func buildServer(ctx context.Context, root, dir string) (program string, err error) {
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "shared/assemble/clock.go"): filepath.Join(root, "acceptance/chaos/testdata/clock.go"),
	}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "keyway")
	return program, harness.Build(ctx, root, "acceptance/chaos/program", program, "-overlay", file)
}

// server is a keyway serve that is started again whenever it ends. Each start is a process of its own, with a name of
// its own in the journal.
type server struct {
	label   string
	url     string
	program string
	// args are those of the program, and env its environment without what differs between two starts.
	args, env []string
	outside   string // the address of the model and the tools
	proxy     *proxy
	log       *os.File
	random    *rand.Rand
	ended     sync.WaitGroup

	mu      sync.Mutex
	process *os.Process
	starts  int
	up      bool
}

// clocks are how far the clock of a process is ahead. Most are right.
var clocks = []time.Duration{0, 0, 0, 90 * time.Second, -90 * time.Second}

// name is the name of the process that runs now, or ran last.
func (s *server) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s.%d", s.label, s.starts)
}

// isUp reports whether the process answers, as far as is known.
func (s *server) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// run starts the process, and starts it again when it has ended, until ctx ends.
func (s *server) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.once(ctx); err != nil {
			fmt.Fprintln(s.log, "chaos: the process ended:", err)
		}
		_ = harness.Wait(ctx, 200*time.Millisecond)
	}
}

// once runs one process to its end.
func (s *server) once(ctx context.Context) error {
	s.mu.Lock()
	s.starts++
	s.mu.Unlock()
	name, clock := s.name(), clocks[s.random.IntN(len(clocks))]
	fmt.Fprintf(s.log, "chaos: %s starts %s, clock %s\n", time.Now().Format(time.TimeOnly), name, clock)
	cmd := exec.CommandContext(ctx, s.program, s.args...) // #nosec G204 -- built by the harness
	cmd.Stdout, cmd.Stderr = s.log, s.log
	base := s.outside + "/" + name
	cmd.Env = append(append([]string{}, s.env...),
		"OPENAI_BASE_URL="+base+"/v1", "CHAOS_TOOLS_URL="+base+"/tools", "CHAOS_CLOCK="+clock.String())
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	s.process = cmd.Process
	s.mu.Unlock()
	ready, stop := context.WithCancel(ctx)
	go s.awaitHealth(ready)
	err := cmd.Wait()
	stop()
	s.mu.Lock()
	s.process, s.up = nil, false
	s.mu.Unlock()
	return err
}

// awaitHealth sets up when the process answers.
func (s *server) awaitHealth(ctx context.Context) {
	for ctx.Err() == nil {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/health", nil); err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				s.mu.Lock()
				s.up = s.process != nil && resp.StatusCode == http.StatusOK
				s.mu.Unlock()
				return
			}
		}
		_ = harness.Wait(ctx, 50*time.Millisecond)
	}
}

// connections implements target.
func (s *server) connections() *proxy { return s.proxy }

// signal implements target.
func (s *server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		s.up = false
	}
	if s.process != nil {
		_ = s.process.Signal(sig) // fails if the process has ended
	}
}

// freePort returns a port that was free a moment ago.
func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// openServers starts servers on the database, each behind a proxy of its own.
func (p *phase) openServers(ctx context.Context, database *url.URL) error {
	for i := range p.plan.servers {
		port, err := freePort(ctx)
		if err != nil {
			return err
		}
		label := fmt.Sprintf("server%d", i+1)
		log, err := os.Create(filepath.Join(p.dir, label+".log"))
		if err != nil {
			return err
		}
		proxy, err := openProxy(ctx, database.Host)
		if err != nil {
			return err
		}
		through := *database
		through.Host = proxy.addr()
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		s := &server{
			label: label, url: "http://" + addr, program: p.lab.program, outside: p.outside.url, proxy: proxy, log: log,
			random: rand.New(rand.NewPCG(p.lab.seed, uint64(i))), // #nosec G404 -- a test repeats its choices by a seed
			args: []string{"serve", "--config", p.lab.config(),
				"--data", filepath.Join(p.dir, label), "--addr", addr},
			env: append(os.Environ(), "DATABASE_URL="+through.String(), "JWT_VERIFICATION_KEY="+secret,
				"OPENAI_API_KEY=sk-chaos", "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1"),
		}
		p.servers, p.targets = append(p.servers, s), append(p.targets, s)
		s.ended.Go(func() { s.run(ctx) })
	}
	return nil
}
