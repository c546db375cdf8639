package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// authorizerConfig is a configuration in the form that "keyway build" writes. Its key is an
// RSA key, because parsing one takes longer than parsing a key of the other kinds. So the
// measured start is the slow case.
const authorizerConfig = `{"agents":[{"id":"web-search-agent","model":"openai:gpt-4o"},` +
	`{"id":"finance-agent","model":"openai:gpt-4o"}],` +
	`"auth":{"algorithms":["RS256"],"keys":["${JWT_VERIFICATION_KEY}"]},"id":"bench-os"}`

// authorizerBench compares the Lambda authorizer with two lower bounds: a function that
// does nothing, for size and start, and the check of a signature alone, for CPU. Absolute
// figures depend on the machine. The distance from a lower bound is what our own code
// adds, and only that can be improved.
type authorizerBench struct {
	flags
	report
	// dir holds the programs that are built.
	dir string
}

// The indexes of report.Subjects.
const (
	beside = iota // the lower bound, or the other build
	ours          // the authorizer
)

// benchAuthorizer measures the authorizer and prints the figures.
func benchAuthorizer(ctx context.Context, f flags) (err error) {
	// bin/keyway is not measured here and may be missing or old; the compiler's version is
	// what matters for the two programs.
	about := machine(ctx)
	about.Keyway = runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	b := authorizerBench{flags: f, report: report{
		About: about, Rounds: f.rounds, Subjects: []string{"beside", "authorizer"},
	}}
	if f.base != "" {
		b.Subjects = []string{"before", "after"}
	}
	if b.dir, err = os.MkdirTemp("", "keyway-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.sizes(ctx); err != nil {
		return err
	}
	if err := b.starts(ctx); err != nil {
		return err
	}
	if err := b.cpu(ctx); err != nil {
		return err
	}
	if f.json {
		return b.report.json(os.Stdout)
	}
	fmt.Printf("%s. %s. %d × %s, Linux %s, load averages before: %s.\n"+
		"%d starts of each in turn, %d rounds of CPU. Median (least to greatest).\n\n",
		about.Time.Format("2006-01-02 15:04 MST"), about.Keyway, about.Cores, about.CPU, about.Kernel, about.Load,
		f.starts, f.rounds)
	return b.report.table(os.Stdout)
}

// sizes builds both programs and reports the sizes of the files. Both use the flags of a
// deployment, so the difference is the code that the authorizer links.
func (b *authorizerBench) sizes(ctx context.Context) error {
	// arm64 is what the template deploys. amd64 is measured for those who deploy that.
	for _, arch := range []string{"arm64", "amd64"} {
		if b.base != "" && arch != runtime.GOARCH {
			continue // the other build is there for this machine only
		}
		say("building for linux/%s", arch)
		for i, pkg := range []string{beside: "./bench/emptylambda", ours: "./authorizer"} {
			file := b.program(i, arch)
			if i == ours || b.base == "" {
				if err := lambdatest.Build(ctx, pkg, file, "GOOS=linux", "GOARCH="+arch); err != nil {
					return err
				}
			}
			info, err := os.Stat(file)
			if err != nil {
				return err
			}
			b.add(i, "size for linux/"+arch+", stripped, MB", float64(info.Size())/1e6)
		}
	}
	return nil
}

// program returns the path of a subject's program.
func (b *authorizerBench) program(subject int, arch string) string {
	if subject == beside && b.base != "" {
		return filepath.Join(b.base, "authorizer")
	}
	return filepath.Join(b.dir, b.Subjects[subject]+"-"+arch)
}

// starts measures the time from exec until a program asks for its first event. Lambda
// calls this the init phase. The part of a cold start before exec (AWS prepares a machine
// and loads the zip) can't be measured here. The two programs take turns, so that a change
// of the machine's load affects both.
func (b *authorizerBench) starts(ctx context.Context) error {
	// A real deployment would set the variable to a key of this form and size.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(b.dir, "keyway.json"), []byte(authorizerConfig), 0o600); err != nil {
		return err
	}
	api, err := serveRuntimeAPI(ctx)
	if err != nil {
		return err
	}
	defer api.close()
	// LAMBDA_TASK_ROOT is the directory of the deployed files, with keyway.json in it.
	env := []string{
		"LAMBDA_TASK_ROOT=" + b.dir, "JWT_VERIFICATION_KEY=" + string(public), "AWS_LAMBDA_RUNTIME_API=" + api.address,
	}
	say("starting each %d times", b.flags.starts)
	for n := range b.flags.starts + 1 {
		for i := range b.Subjects {
			took, err := api.start(ctx, b.program(i, runtime.GOARCH), env)
			if err != nil {
				return fmt.Errorf("%s: %w", b.Subjects[i], err)
			}
			// The first start reads the program from the disk, and later ones read it from the
			// page cache. So the first is not counted.
			if n > 0 {
				b.add(i, "exec to the first GET of …/next, ms", took.Seconds()*1000)
			}
		}
	}
	return nil
}

// benchmarkLine matches a result of BenchmarkAuthorize: algorithm, number of scopes, part,
// and CPU time in nanoseconds.
var benchmarkLine = regexp.MustCompile(`^BenchmarkAuthorize/(\w+)/(\d+)/(\w+)\s.*\s([\d.]+) cpu-ns/op`)

// rolesLine matches a result of BenchmarkRoles for an event.
var rolesLine = regexp.MustCompile(`^BenchmarkRoles/(\S+)/event\s.*\s([\d.]+) cpu-ns/op`)

// cpu runs BenchmarkAuthorize of shared/edge. Each round is a new process, since the
// layout of the memory differs between processes and can make one of them slower for its
// whole life. The benchmark reports CPU time, which other programs on the machine disturb
// less than the clock. It uses one processor: with more, the garbage collector would run
// in parallel and its time would be attributed to another operation.
func (b *authorizerBench) cpu(ctx context.Context) error {
	// The test binary is built once, so that the rounds measure and do not compile.
	test := filepath.Join(b.dir, "edge.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", test, "./shared/edge") // #nosec G204 -- constants
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c ./shared/edge: %w\n%s", err, out)
	}
	base := filepath.Join(b.base, "edge.test")
	for n := range b.Rounds {
		say("CPU, round %d of %d", n+1, b.Rounds)
		if b.base == "" {
			µs, err := b.benchmark(ctx, test)
			if err != nil {
				return err
			}
			b.addCPU(µs)
			continue
		}
		for i, program := range []string{beside: base, ours: test} {
			µs, err := b.benchmark(ctx, program)
			if err != nil {
				return err
			}
			b.addBuild(i, µs)
		}
	}
	return nil
}

// benchmark runs BenchmarkAuthorize and BenchmarkRoles once. The result holds the CPU time of each "algorithm scopes
// part" in microseconds.
func (b *authorizerBench) benchmark(ctx context.Context, test string) (map[string]float64, error) {
	test, err := filepath.Abs(test)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, test, "-test.run", "^$", "-test.cpu", "1", // #nosec G204 -- a test binary
		"-test.bench", "Authorize|Roles", "-test.benchtime", "0.3s")
	cmd.Dir = filepath.Join("shared", "edge")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("BenchmarkAuthorize: %w\n%s", err, out)
	}
	return timesIn(out)
}

// timesIn reads the output of the benchmark. It must have all times.
func timesIn(out []byte) (map[string]float64, error) {
	µs := map[string]float64{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if m := benchmarkLine.FindStringSubmatch(s.Text()); m != nil {
			ns, err := strconv.ParseFloat(m[4], 64)
			if err != nil {
				return nil, err
			}
			µs[strings.Join(m[1:4], " ")] = ns / 1000
		}
		if m := rolesLine.FindStringSubmatch(s.Text()); m != nil {
			ns, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return nil, err
			}
			µs[m[1]] = ns / 1000
		}
	}
	for _, alg := range algorithms {
		for _, scopes := range numbers {
			for _, part := range []string{"whole", "event", "signature"} {
				if cell := alg + " " + scopes + " " + part; µs[cell] == 0 {
					return nil, fmt.Errorf("BenchmarkAuthorize has no %s:\n%s", cell, out)
				}
			}
		}
	}
	return µs, nil
}

// algorithms and numbers of scopes that BenchmarkAuthorize measures.
var (
	algorithms = []string{"HS256", "RS256", "ES256"}
	numbers    = []string{"1", "100"}
)

// addBuild adds the figures of one round of one build. Each build has its own lower bound, measured in the same
// process.
func (b *authorizerBench) addBuild(subject int, µs map[string]float64) {
	for _, alg := range algorithms {
		for _, scopes := range numbers {
			cell := alg + " " + scopes + " "
			signature := µs[cell+"signature"]
			for _, part := range parts {
				name := fmt.Sprintf("%s, %s, scopes: %s", part.title, alg, scopes)
				b.add(subject, name+", µs", µs[cell+part.name])
				if part.name != "signature" {
					b.add(subject, name+", × the signature", µs[cell+part.name]/signature)
				}
			}
		}
	}
	if one, roles := µs["one_scope"], µs["20_roles"]; one > 0 && roles > 0 {
		b.add(subject, "an event of 20 roles, more than of one scope, RS256, µs", roles-one)
	}
	if first := µs["RS256 1 first"]; first > 0 {
		b.add(subject, "an event of new scopes, RS256, scopes: 1, × the signature", first/µs["RS256 1 signature"])
	}
}

// parts are what BenchmarkAuthorize measures of a token.
var parts = []struct{ name, title string }{
	{"signature", "the signature alone"}, {"whole", "Authorize"}, {"event", "an event, JSON in and out"},
}

// addCPU adds the figures of one round. The check of the signature alone is the lower
// bound for two parts: Authorize, and a whole event with its JSON.
func (b *authorizerBench) addCPU(µs map[string]float64) {
	for _, part := range parts[1:] {
		for _, alg := range algorithms {
			for _, scopes := range numbers {
				cell := alg + " " + scopes + " "
				name := fmt.Sprintf("%s, %s, scopes: %s, µs", part.title, alg, scopes)
				b.add(beside, name, µs[cell+"signature"])
				b.add(ours, name, µs[cell+part.name])
			}
		}
	}
	if first := µs["RS256 1 first"]; first > 0 {
		b.add(beside, "an event of new scopes, RS256, scopes: 1, µs", µs["RS256 1 signature"])
		b.add(ours, "an event of new scopes, RS256, scopes: 1, µs", first)
	}
	// What 99 more scopes cost: the signature covers a longer token, and Authorize makes a
	// larger policy.
	b.add(beside, "RS256, 100 scopes more than 1, µs", µs["RS256 100 signature"]-µs["RS256 1 signature"])
	b.add(ours, "RS256, 100 scopes more than 1, µs", µs["RS256 100 whole"]-µs["RS256 1 whole"])
	if one, roles := µs["one_scope"], µs["20_roles"]; one > 0 && roles > 0 {
		b.add(beside, "an event of one scope, and one of 20 roles, RS256, µs", one)
		b.add(ours, "an event of one scope, and one of 20 roles, RS256, µs", roles)
	}
}
