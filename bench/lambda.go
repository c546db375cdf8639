package main

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// smallShare is the share of a processor that a function with 512 MB of memory gets. AWS
// documents that a function with 1,769 MB has one whole processor, and that the share is
// proportional to the memory: 512 / 1769 = 0.29. The template's default is 512 MB.
const smallShare = 0.29

// zipped are the programs of template.yaml. timed are those of them that are started here.
var (
	zipped = []string{"agents", "sessions", "memories", "config", "runs", "worker", "migrate", "authorizer"}
	timed  = []string{"agents", "sessions", "runs", "authorizer"}
)

// lambdaBench measures the deployed programs, started as Lambda starts them, and beside
// them an AgentOS that runs as a function. It shows what the programs themselves cost.
// The network, AWS's machines and the time that AWS needs to load a program are missing,
// so a figure is no prediction of a time on AWS; the ratio of two subjects is what counts.
type lambdaBench struct {
	flags
	report
	lab *lab
	// dir holds the programs that are built, and keyway.json.
	dir string
	// functions are the subjects: the base build or nothing, Keyway, and then the peer if there is one.
	functions []*function
	// nothing is a function that does nothing. What it costs is the lower bound of a warm function.
	nothing *function
	// small limits CPU to smallShare; nil if this machine does not allow it.
	small *quota
}

// request is one kind of request to a function.
type request struct {
	name, function string
	method, path   string
	// ask sends the request and returns an error if the answer is wrong.
	ask func(context.Context, *subject) error
}

// requests returns the measured requests in the order of the table. They differ in what a
// function needs: no database, a database and a model, a stream, a database alone.
func (b *lambdaBench) requests() []request {
	text := b.lab.model.fast.text
	const runs = "/agents/" + agent + "/runs"
	return []request{
		{"GET /agents", "agents", "GET", "/agents", func(ctx context.Context, s *subject) error {
			return s.listAgents(ctx)
		}},
		{"a run, not streamed", "runs", "POST", runs, func(ctx context.Context, s *subject) error {
			return s.run(ctx, text)
		}},
		{fmt.Sprintf("a streamed run of %d tokens", b.tokens), "runs", "POST", runs,
			func(ctx context.Context, s *subject) error {
				_, err := s.stream(ctx, text)
				return err
			}},
		{"GET /sessions?limit=20", "sessions", "GET", "/sessions", func(ctx context.Context, s *subject) error {
			return s.someSessions(ctx)
		}},
	}
}

// benchLambda measures the functions and prints the figures.
func benchLambda(ctx context.Context, f flags) (err error) {
	if err := build(ctx); err != nil {
		return err
	}
	b := lambdaBench{flags: f, report: report{
		About: machine(ctx), Seconds: f.cell.Seconds(), Rounds: f.rounds, Tokens: f.tokens,
	}}
	if b.dir, err = os.MkdirTemp("", "keyway-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	// In this order: sizes builds the programs that the other parts start.
	parts := []func(context.Context) error{b.sizes, b.starts, b.warm, b.counts}
	if f.warm {
		parts = []func(context.Context) error{b.programs, b.warm}
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return b.print()
}

// open starts what the subjects share and describes the subjects. Their programs are built
// later, by sizes.
func (b *lambdaBench) open(ctx context.Context) (err error) {
	say("starting PostgreSQL and the model")
	if b.lab, err = openLab(ctx, b.tokens); err != nil {
		return err
	}
	b.About.PostgreSQL = b.lab.version
	if b.small, err = newQuota(smallShare); err != nil {
		say("starts at %g of a processor are left out; they need root and cgroups: %v", smallShare, err)
	}
	names := []string{"keyway"}
	switch {
	case b.base != "":
		names = []string{"before", "after"}
	case b.peer != "":
		names = append(names, "peer")
	}
	for _, name := range names {
		f, err := b.subject(ctx, name)
		if err == nil && name != "peer" {
			f.authorizer, err = b.subject(ctx, name+"_authorizer")
		}
		if err != nil {
			return errors.Join(err, b.close())
		}
		b.functions, b.Subjects = append(b.functions, f), append(b.Subjects, name)
	}
	if b.nothing, err = b.subject(ctx, "nothing"); err != nil {
		return errors.Join(err, b.close())
	}
	if err := b.deploy(ctx); err != nil {
		return errors.Join(err, b.close())
	}
	return nil
}

// subject returns a function of that name, which is not started yet.
func (b *lambdaBench) subject(ctx context.Context, name string) (*function, error) {
	s, err := b.lab.subject(ctx, name, nil) // a function has programs instead
	if err != nil {
		return nil, err
	}
	f := &function{subject: s, programs: func(string) []string { return []string{"sh", "-c", b.peer} }}
	if name == "peer" {
		return f, nil
	}
	f.programs = func(name string) []string { return []string{b.program(name, runtime.GOARCH)} }
	f.dir, f.keyway = b.dir, keywayBinary
	if before, _, _ := strings.Cut(name, "_"); before == "before" {
		f.programs = func(name string) []string { return []string{filepath.Join(b.base, name)} }
		f.dir, f.keyway = filepath.Join(b.dir, "before"), filepath.Join(b.base, "keyway")
	}
	// Without this process's own environment, as on Lambda.
	f.env = append(f.env[len(os.Environ()):], "LAMBDA_TASK_ROOT="+f.dir)
	return f, nil
}

// close stops the functions and everything that open started.
func (b *lambdaBench) close() (err error) {
	// open may have failed before it made all of them.
	for _, f := range append(b.functions, b.nothing) {
		if f == nil {
			continue
		}
		f.end()
		if f.authorizer != nil {
			f.authorizer.end()
		}
	}
	if b.small != nil {
		err = b.small.remove()
	}
	return errors.Join(err, b.lab.close())
}

// deploy migrates Keyway's database and writes keyway.json, as a deployment does. A
// deployment does both before the first request, so neither is part of a cold start. The
// peer creates its tables itself, in the first round, which is not counted.
func (b *lambdaBench) deploy(ctx context.Context) error {
	for _, f := range b.functions {
		if f.keyway == "" {
			continue
		}
		if err := os.MkdirAll(f.dir, 0o750); err != nil {
			return err
		}
		// An earlier build may not know all settings of today's file, so make bench-base keeps its own.
		config := filepath.Join(filepath.Dir(f.keyway), "keyway.yaml")
		if _, err := os.Stat(config); err != nil {
			config = keywayConfig
		}
		for _, args := range [][]string{{"migrate", "--config", config}, {"build", "--config", config, f.dir}} {
			cmd := exec.CommandContext(ctx, f.keyway, args...) // #nosec G204 -- running what the user names is its job
			cmd.Env = f.env
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s %s: %w\n%s", f.keyway, args[0], err, out)
			}
		}
	}
	return nil
}

// program returns the path of a function's program.
func (b *lambdaBench) program(name, arch string) string {
	return filepath.Join(b.dir, name+"-"+arch)
}

// build builds the program of a function.
func (b *lambdaBench) build(ctx context.Context, name, arch string) error {
	say("building %s for linux/%s", name, arch)
	pkg := "./functions/" + name
	switch name {
	case "authorizer":
		pkg = "./authorizer"
	case "nothing":
		pkg = "./bench/emptylambda"
	}
	return lambdatest.Build(ctx, pkg, b.program(name, arch), "GOOS=linux", "GOARCH="+arch)
}

// programs builds the programs that are started. They run on this machine, whatever its processor is.
func (b *lambdaBench) programs(ctx context.Context) error {
	for _, name := range append(timed, "nothing") {
		if err := b.build(ctx, name, runtime.GOARCH); err != nil {
			return err
		}
	}
	return nil
}

// sizes builds the programs, and reports the sizes of the zips for arm64, which is what
// the template deploys by default. Lambda loads the zip at a cold start, so a smaller zip
// starts faster.
func (b *lambdaBench) sizes(ctx context.Context) error {
	if err := b.programs(ctx); err != nil {
		return err
	}
	// The programs of another build are there for this machine only, so their sizes are of files of this machine.
	if b.base != "" {
		return b.fileSizes()
	}
	for _, name := range zipped {
		if err := b.build(ctx, name, "arm64"); err != nil {
			return err
		}
		size, err := zipSize(map[string]string{
			"bootstrap": b.program(name, "arm64"), "keyway.json": filepath.Join(b.dir, "keyway.json"),
		})
		if err != nil {
			return err
		}
		b.add(0, "zip of "+name+" for linux/arm64, MB", float64(size)/1e6)
	}
	return nil
}

// fileSizes reports the sizes of the programs of both builds.
func (b *lambdaBench) fileSizes() error {
	for _, name := range timed {
		for i, f := range b.functions {
			info, err := os.Stat(f.programs(name)[0])
			if err != nil {
				return err
			}
			b.add(i, name+" for linux/"+runtime.GOARCH+", stripped, MB", float64(info.Size())/1e6)
		}
	}
	return nil
}

// counter is an io.Writer that counts the bytes and drops them.
type counter int64

// Write counts p.
func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// zipSize returns the size of a zip with the files, which are given as name -> path. AWS
// limits and loads the zip, so its size says more than that of the program. The zip itself
// is not kept.
func zipSize(files map[string]string) (int64, error) {
	// Deflate at Go's default level.
	var size counter
	z := zip.NewWriter(&size)
	for name, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		w, err := z.Create(name)
		if err != nil {
			return 0, err
		}
		if _, err := w.Write(data); err != nil {
			return 0, err
		}
	}
	err := z.Close()
	return int64(size), err
}

// starts measures cold starts: a new process for each request, the subjects in turn. The
// first round is not counted, since it creates the peer's tables and reads files from the
// disk.
func (b *lambdaBench) starts(ctx context.Context) error {
	for _, cpu := range []struct {
		name   string
		within *quota
	}{{"a whole CPU", nil}, {fmt.Sprintf("%g CPU", smallShare), b.small}} {
		if cpu.within == nil && cpu.name != "a whole CPU" {
			continue // open has reported that this machine has no quota
		}
		for n := range b.flags.starts + 1 {
			say("start %d of %d, %s", n, b.flags.starts, cpu.name)
			for _, r := range b.requests() {
				for i := range b.functions {
					if err := b.coldStart(ctx, i, r, cpu.name, cpu.within, n > 0); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// coldStart measures the time from exec to the end of the answer. Keyway's authorizer is
// started first and measured too, since API Gateway waits for it before it invokes the
// function. The peer verifies the token itself and has no authorizer. So the line "the
// same with the authorizer" compares the whole work of both for the first request with a
// token. If counts is false, nothing is reported.
func (b *lambdaBench) coldStart(ctx context.Context, i int, r request, cpu string, within *quota, counts bool) error {
	f := b.functions[i]
	before, err := f.authenticate(ctx, r.method, r.path, within)
	if err != nil {
		return err
	}
	init, err := f.launch(ctx, r.function, within)
	if err != nil {
		return err
	}
	defer f.end()
	err = r.ask(ctx, f.subject)
	took := time.Since(f.begun)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		f.wrong(err)
	case counts:
		b.add(i, fmt.Sprintf("%s: exec to the first GET of …/next, %s, ms", r.name, cpu), ms(init))
		b.add(i, fmt.Sprintf("%s: exec to the answer, %s, ms", r.name, cpu), ms(took))
		b.add(i, fmt.Sprintf("%s: the same with the authorizer, %s, ms", r.name, cpu), ms(before+took))
	}
	return nil
}

// warm measures functions that have answered before. It uses one caller, because Lambda
// gives each process one event at a time. More callers would mean more processes, each
// with the same cost.
func (b *lambdaBench) warm(ctx context.Context) error {
	for _, f := range b.functions {
		if _, err := f.authenticate(ctx, "GET", "/agents", nil); err != nil {
			return err
		}
	}
	b.nothing.caller = b.functions[0].caller
	for _, r := range b.requests() {
		say("warm: %s", r.name)
		if err := b.warmRequest(ctx, r); err != nil {
			return err
		}
	}
	return b.warmNothing(ctx)
}

// warmNothing measures the function that does nothing, with the events of GET /agents. Its figure is the same in each
// column.
func (b *lambdaBench) warmNothing(ctx context.Context) error {
	say("warm: a function that does nothing")
	f := b.nothing
	if _, err := f.launch(ctx, "nothing", nil); err != nil {
		return err
	}
	defer f.end()
	ask := func(ctx context.Context, s *subject) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/agents", http.NoBody)
		if err != nil {
			return err
		}
		r.Header = s.bearer()
		event, err := proxyEvent(r, f.caller)
		if err != nil {
			return err
		}
		body, err := f.api.invoke(ctx, event, f.done)
		if err == nil && string(body) != "null" {
			err = fmt.Errorf("the function that does nothing answered %.100q", body)
		}
		return err
	}
	for range b.rounds {
		before, err := f.usage()
		if err != nil {
			return err
		}
		right := f.load(ctx, cell{"nothing", 1, ask}, b.cell)
		after, err := f.usage()
		if err := cmp.Or(ctx.Err(), err); err != nil {
			return err
		}
		for i := range b.functions {
			b.add(i, "a function that does nothing: CPU, warm, ms", ms(after.cpu-before.cpu)/float64(max(right, 1)))
		}
	}
	return nil
}

// warmRequest measures one kind of request: CPU and time per right answer, and the peak of
// the memory after that. On Lambda the time is what AWS charges for, together with the
// configured memory, which must be larger than the peak.
func (b *lambdaBench) warmRequest(ctx context.Context, r request) error {
	// All subjects run during all rounds, as in the benchmark of the servers. The first
	// request connects to the database and is not counted.
	for _, f := range b.functions {
		if _, err := f.launch(ctx, r.function, nil); err != nil {
			return err
		}
		defer f.end()
		if err := r.ask(ctx, f.subject); err != nil {
			f.wrong(err)
		}
	}
	for range b.rounds {
		for i, f := range b.functions {
			before, err := f.usage()
			if err != nil {
				return err
			}
			begin := time.Now()
			right := f.load(ctx, cell{r.name, 1, r.ask}, b.cell)
			wall := time.Since(begin)
			after, err := f.usage()
			if err := cmp.Or(ctx.Err(), err); err != nil {
				return err
			}
			if right > 0 {
				b.add(i, r.name+": CPU, warm, ms", ms(after.cpu-before.cpu)/float64(right))
				b.add(i, r.name+": time, warm, ms", ms(wall)/float64(right))
			}
		}
	}
	// The peak belongs to the process, which has handled this kind of request only.
	for i, f := range b.functions {
		u, err := f.usage()
		if err != nil {
			return err
		}
		b.add(i, r.name+": memory at its peak, MiB", mib(u.peak))
	}
	return nil
}

// someSessions asks for the newest sessions and expects at least one.
func (s *subject) someSessions(ctx context.Context) error {
	body, err := s.get(ctx, "/sessions?type=agent&limit=20", s.bearer())
	if err == nil && !strings.Contains(string(body), `"session_id"`) {
		err = fmt.Errorf("GET /sessions lists nothing: %.200q", body)
	}
	return err
}

// print writes the figures to stdout, and the wrong answers to stderr.
func (b *lambdaBench) print() error {
	for _, f := range b.functions {
		b.Errors = append(b.Errors, f.failed)
		for _, text := range f.examples {
			say("%s answered wrongly: %s", f.name, text)
		}
	}
	if b.flags.json {
		return b.report.json(os.Stdout)
	}
	a := b.About
	fmt.Printf("%s. %s. PostgreSQL %s. %d × %s, Linux %s, load averages before: %s.\n"+
		"%d cold starts of each in turn, %d rounds of %g s warm. Median (least to greatest).\n\n",
		a.Time.Format("2006-01-02 15:04 MST"), a.Keyway, a.PostgreSQL, a.Cores, a.CPU, a.Kernel, a.Load,
		b.flags.starts, b.Rounds, b.Seconds)
	return b.table(os.Stdout)
}
