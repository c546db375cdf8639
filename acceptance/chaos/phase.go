//go:build unix

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// plan describes a phase.
type plan struct {
	// name is the name on the command line.
	name string
	// servers is how many processes share the database.
	servers int
	// clients is how many clients send requests at the same time.
	clients int
	// load is how long faults are injected. killEvery is the mean time between two kills.
	load, killEvery time.Duration
	// long also stops a server, or freezes its connections, for longer than a lease now and then.
	long bool
	// pooler puts PgBouncer between the proxies and PostgreSQL.
	pooler bool
	// functions tests the Lambda functions instead of servers.
	functions bool
}

// phase is a part of the harness's work: some servers, a load, faults and an audit, on a database of its own.
type phase struct {
	plan    plan
	lab     *lab
	dir     string // of its logs
	journal *journal
	outside *outside
	direct  string // the URL of the database, past all proxies
	servers []*server
	// deployment is the functions, if the plan has them.
	deployment *deployment
	targets    []target
	// background waits for the faults that last while others are injected.
	background sync.WaitGroup

	mu       sync.Mutex
	failures []string
	expired  map[string]bool
}

// fail notes a failure of the harness itself.
func (p *phase) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = append(p.failures, fmt.Sprintf(format, args...))
}

// result is what a phase has found.
type result struct {
	plan       plan
	evidence   evidence
	violations []violation
	took       time.Duration
}

// run executes the phase.
func (p *phase) run(ctx context.Context) (r result, err error) {
	began := time.Now()
	if err := os.MkdirAll(p.dir, 0o755); err != nil { // #nosec G301 -- PgBouncer may run as another user
		return r, err
	}
	p.journal, p.expired = newJournal(), map[string]bool{}
	if p.outside, err = openOutside(ctx, p.journal); err != nil {
		return r, err
	}
	defer func() { _ = p.outside.close() }()
	database, err := p.lab.pg.Database(ctx, "chaos_"+strings.NewReplacer("-", "_").Replace(p.plan.name))
	if err != nil {
		return r, err
	}
	p.direct = database.String()
	if p.plan.pooler {
		pooler, behind, err := openPooler(ctx, database, p.dir)
		if err != nil {
			return r, err
		}
		defer pooler.close()
		database = behind
	}
	alive, stop := context.WithCancel(ctx)
	defer p.close(stop)
	if p.plan.functions {
		p.deployment, err = p.openFunctions(alive, database)
	} else {
		err = p.openServers(alive, database)
	}
	if err != nil {
		return r, err
	}
	if err := p.awaitServers(ctx); err != nil {
		return r, err
	}
	p.lab.say("%s: %d processes run; load and faults for %s", p.plan.name, len(p.targets), p.plan.load)
	go p.observe(alive)
	p.disturbLoad(ctx)
	if err := p.settle(ctx); err != nil {
		return r, err
	}
	r = result{plan: p.plan, evidence: p.journal.observed()}
	if err := r.evidence.readDatabase(ctx, p.direct); err != nil {
		return r, err
	}
	p.mu.Lock()
	r.evidence.Expired, r.evidence.Failures = slices.Sorted(maps.Keys(p.expired)), p.failures
	p.mu.Unlock()
	r.evidence.Replays, r.evidence.Panics = p.replays(ctx, r.evidence.Rows), p.panics()
	r.violations, r.took = audit(r.evidence), time.Since(began)
	return r, ctx.Err()
}

// migrate brings the schema of the database up to date.
func (p *phase) migrate(ctx context.Context, database *url.URL) error {
	cmd := exec.CommandContext(ctx, p.lab.program, "migrate", "--config",
		p.lab.config()) // #nosec G204 -- built by the harness
	cmd.Env = append(os.Environ(), "DATABASE_URL="+database.String(), "JWT_VERIFICATION_KEY="+secret,
		"OPENAI_API_KEY=sk-chaos")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("keyway migrate: %w\n%s", err, out)
	}
	return nil
}

// close stops the servers and waits for them.
func (p *phase) close(stop func()) {
	stop()
	if p.deployment != nil {
		p.deployment.close()
	}
	for _, s := range p.servers {
		s.signal(syscall.SIGCONT)
		s.ended.Wait()
		s.proxy.close()
		s.log.Close()
	}
}

// awaitServers waits until every server answers.
func (p *phase) awaitServers(ctx context.Context) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		var down []string
		for _, s := range p.servers {
			if !s.isUp() {
				down = append(down, s.label)
			}
		}
		if len(down) == 0 {
			return nil
		}
		if err := harness.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %v do not answer; see the logs in %s", p.plan.name, down, p.dir)
		}
	}
}

// disturbLoad sends requests and injects faults, until the time of the phase is over.
func (p *phase) disturbLoad(ctx context.Context) {
	load := p.newLoad()
	sending, stopSending := context.WithCancel(ctx)
	var sent sync.WaitGroup
	sent.Go(func() { load.run(sending, p.plan.clients, p.lab.seed) })
	// The first fault finds runs in progress.
	for p.journal.inProgress() < p.plan.clients/2 && harness.Wait(ctx, 50*time.Millisecond) == nil {
	}
	disturbing, stop := context.WithTimeout(ctx, p.plan.load)
	defer stop()
	var injected sync.WaitGroup
	for i, inject := range []func(context.Context, *rand.Rand){p.injectKills, p.injectOthers, p.report} {
		random := rand.New(rand.NewPCG(p.lab.seed, uint64(100+i))) // #nosec G404 -- a test repeats its choices by a seed
		injected.Go(func() { inject(disturbing, random) })
	}
	injected.Wait()
	p.background.Wait()
	for _, s := range p.targets {
		s.signal(syscall.SIGCONT)
		s.connections().calm()
	}
	stopSending()
	p.lab.say("%s: no more faults; waiting for the clients and for the ends of all runs", p.plan.name)
	sent.Wait()
}

// report prints a line of progress every 10 seconds.
func (p *phase) report(ctx context.Context, _ *rand.Rand) {
	for harness.Wait(ctx, 10*time.Second) == nil {
		e := p.journal.observed()
		p.lab.say("%s: %d requests, %d runs in progress, %d model calls, %d faults, %d of them kills", p.plan.name,
			len(e.Requests), p.journal.inProgress(), len(e.Asks), len(e.Faults), countKind(e.Faults, killed))
	}
}

func countKind(faults []fault, kind string) (n int) {
	for _, f := range faults {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// inProgress counts the runs of the load in progress.
func (j *journal) inProgress() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.running()
}

// newLoad returns the load of the phase.
func (p *phase) newLoad() *load {
	l := &load{
		journal: p.journal, token: p.lab.token, name: p.plan.name, tool: "note", argument: "key",
		kinds: []string{
			kindStream, kindWhole, kindBackground, kindKey, kindPause, kindPause, kindCancel, kindDelete, kindFollow,
		},
		// A connection that a killed server has closed is not used again for a request that can't be repeated.
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	}
	if p.deployment != nil {
		l.tool, l.argument = "get_user_details", "username"
		l.kinds = slices.DeleteFunc(l.kinds, func(kind string) bool { return kind == kindPause })
		l.addresses = func() []string { return []string{p.deployment.url} }
		return l
	}
	l.addresses = func() (list []string) {
		for _, s := range p.servers {
			if s.isUp() {
				list = append(list, s.url)
			}
		}
		return list
	}
	return l
}

// settleTime is how long all runs may take to end after the last fault: a lease expires after a minute, and a server
// looks for such runs every 15 seconds. A run may have to wait twice, since a lease may have been acquired just before
// the last fault.
const settleTime = 3 * time.Minute

// settle waits until no run is in progress, or until the time for it is over. The audit reports those that are.
func (p *phase) settle(ctx context.Context) error {
	if err := p.awaitServers(ctx); err != nil {
		return err
	}
	left := -1
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		n, err := p.count(ctx, "SELECT count(*) FROM keyway.runs WHERE status IN ('RUNNING', 'PENDING')")
		if err == nil && n == 0 {
			// A client may have received the end before the database answered this question.
			return harness.Wait(ctx, time.Second)
		}
		if err == nil && n != left {
			left = n
			p.lab.say("%s: %d runs have not ended", p.plan.name, n)
		}
		if err := harness.Wait(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (p *phase) count(ctx context.Context, sql string) (n int, err error) {
	conn, err := pgx.Connect(ctx, p.direct)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, sql).Scan(&n)
}

// lost is how long a lease may have expired until a server has found the run: it looks every 15 seconds, and may have
// to start first.
const lost = 60 * time.Second

// lostFunction is the same for functions, which learn of a crash by a delayed message or by the schedule.
const lostFunction = 150 * time.Second

// observe reads the statuses of the runs twice a second, past the proxies, until ctx ends.
func (p *phase) observe(ctx context.Context) {
	known, limit := map[string]bool{}, lost
	if p.plan.functions {
		limit = lostFunction
	}
	for harness.Wait(ctx, 500*time.Millisecond) == nil {
		conn, err := pgx.Connect(ctx, p.direct)
		if err != nil {
			continue // PostgreSQL restarts
		}
		rows, err := conn.Query(ctx, `SELECT run_id::text, status,
			COALESCE(extract(epoch FROM now() - lease_until)::float8, 0)
			FROM keyway.runs WHERE status IN ('COMPLETED', 'ERROR', 'CANCELLED', 'RUNNING')`)
		if err == nil {
			var run, status string
			var since float64
			_, _ = pgx.ForEachRow(rows, []any{&run, &status, &since}, func() error {
				switch {
				case status != "RUNNING" && !known[run]:
					known[run] = true
					p.journal.sawEnd(run)
				case status == "RUNNING" && since > limit.Seconds():
					p.mu.Lock()
					p.expired[run] = true
					p.mu.Unlock()
				}
				return nil
			})
		}
		_ = conn.Close(ctx)
	}
}

// replays asks a server for all events of each streamed run.
func (p *phase) replays(ctx context.Context, rows []row) map[string]view {
	load := p.newLoad()
	out := map[string]view{}
	for _, w := range rows {
		if !w.Streamed || !isEnd(w.Status) {
			continue
		}
		c := client{load: load, r: &request{Session: w.Session}}
		v := newView()
		c.resume(ctx, w.ID, &v)
		out[w.ID] = v
	}
	return out
}

// panics are the lines of the logs that report a panic. A function's log is written when its process has ended.
func (p *phase) panics() (lines []string) {
	files, _ := filepath.Glob(filepath.Join(p.dir, "*.log"))
	for _, name := range files {
		text, err := os.ReadFile(name) // #nosec G304 -- a log of this phase
		if err != nil {
			p.fail("%v", err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") ||
				strings.Contains(line, `"panic"`) {
				lines = append(lines, filepath.Base(name)+": "+strings.TrimSpace(line))
			}
		}
	}
	return lines
}
