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

// authorizerConfig is in the form that a deployment packs, with the key that is
// the most work to read.
const authorizerConfig = `{"agents":[{"id":"web-search-agent","model":"openai:gpt-4o"},{"id":"finance-agent","model":"openai:gpt-4o"}],` +
	`"auth":{"algorithms":["RS256"],"keys":["${JWT_VERIFICATION_KEY}"]},"id":"bench-os"}`

// authorizerBench compares the Lambda authorizer with what it can't be below: an
// empty function, and the bare check of a signature.
type authorizerBench struct {
	flags
	report
	dir string // what is built
}

// The order of report.Subjects.
const (
	beside = iota
	ours
)

func benchAuthorizer(ctx context.Context, f flags) (err error) {
	about := machine(ctx)
	about.Keyway = runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	b := authorizerBench{flags: f, report: report{About: about, Rounds: f.rounds, Subjects: []string{"beside", "authorizer"}}}
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
	fmt.Printf("%s. %s. %d × %s, Linux %s, load averages before: %s.\n%d starts of each in turn, %d rounds of CPU. Median (least to greatest).\n\n",
		about.Time.Format("2006-01-02 15:04 MST"), about.Keyway, about.Cores, about.CPU, about.Kernel, about.Load, f.starts, f.rounds)
	return b.report.table(os.Stdout)
}

// sizes builds both programs as make build-authorizer does, and weighs them.
func (b *authorizerBench) sizes(ctx context.Context) error {
	for _, arch := range []string{"arm64", "amd64"} {
		say("building for linux/%s", arch)
		for i, pkg := range []string{beside: "./bench/emptylambda", ours: "./authorizer"} {
			file := b.program(i, arch)
			if err := lambdatest.Build(ctx, pkg, file, "GOOS=linux", "GOARCH="+arch); err != nil {
				return err
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

func (b *authorizerBench) program(subject int, arch string) string {
	return filepath.Join(b.dir, b.Subjects[subject]+"-"+arch)
}

// starts runs the two in turn, so that both see the same moods of the machine.
func (b *authorizerBench) starts(ctx context.Context) error {
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
	env := []string{"LAMBDA_TASK_ROOT=" + b.dir, "JWT_VERIFICATION_KEY=" + string(public), "AWS_LAMBDA_RUNTIME_API=" + api.address}
	say("starting each %d times", b.flags.starts)
	for n := range b.flags.starts + 1 {
		for i := range b.Subjects {
			took, err := api.start(ctx, b.program(i, runtime.GOARCH), env)
			if err != nil {
				return fmt.Errorf("%s: %w", b.Subjects[i], err)
			}
			if n > 0 { // the first reads the file from the disk
				b.add(i, "exec to the first GET of …/next, ms", took.Seconds()*1000)
			}
		}
	}
	return nil
}

// benchmarkLine is a result of BenchmarkAuthorize: algorithm, scopes, part, CPU ns.
var benchmarkLine = regexp.MustCompile(`^BenchmarkAuthorize/(\w+)/(\d+)/(\w+)\s.*\s([\d.]+) cpu-ns/op`)

// cpu runs shared/edge's benchmark, on one processor so that the collector's work
// counts where it arises. Each round is a process of its own.
func (b *authorizerBench) cpu(ctx context.Context) error {
	test := filepath.Join(b.dir, "edge.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", test, "./shared/edge") // #nosec G204 -- constants
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c ./shared/edge: %w\n%s", err, out)
	}
	for n := range b.Rounds {
		say("CPU, round %d of %d", n+1, b.Rounds)
		cmd := exec.CommandContext(ctx, test, "-test.run", "^$", "-test.bench", "Authorize", "-test.cpu", "1", "-test.benchtime", "0.3s") // #nosec G204 -- built above
		cmd.Dir = filepath.Join("shared", "edge")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("BenchmarkAuthorize: %w\n%s", err, out)
		}
		if err := b.addCPU(out); err != nil {
			return err
		}
	}
	return nil
}

// addCPU reads one round. The bare signature stands beside both what Authorize
// costs and what a whole event does.
func (b *authorizerBench) addCPU(out []byte) error {
	µs := map[string]float64{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if m := benchmarkLine.FindStringSubmatch(s.Text()); m != nil {
			ns, err := strconv.ParseFloat(m[4], 64)
			if err != nil {
				return err
			}
			µs[strings.Join(m[1:4], " ")] = ns / 1000
		}
	}
	for _, part := range []struct{ name, title string }{{"whole", "Authorize"}, {"event", "an event, JSON in and out"}} {
		for _, alg := range []string{"HS256", "RS256", "ES256"} {
			for _, scopes := range []string{"1", "100"} {
				cell := alg + " " + scopes + " "
				if µs[cell+part.name] == 0 || µs[cell+"signature"] == 0 {
					return fmt.Errorf("BenchmarkAuthorize has no %s:\n%s", cell+part.name, out)
				}
				name := fmt.Sprintf("%s, %s, scopes: %s, µs", part.title, alg, scopes)
				b.add(beside, name, µs[cell+"signature"])
				b.add(ours, name, µs[cell+part.name])
			}
		}
	}
	b.add(beside, "RS256, 100 scopes more than 1, µs", µs["RS256 100 signature"]-µs["RS256 1 signature"])
	b.add(ours, "RS256, 100 scopes more than 1, µs", µs["RS256 100 whole"]-µs["RS256 1 whole"])
	return nil
}
