package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestStartMeasuresUntilTheFunctionAsksForAnEvent(t *testing.T) {
	t.Parallel()
	api, err := serveRuntimeAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.close)
	program := filepath.Join(t.TempDir(), "empty")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./emptylambda")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env := []string{"AWS_LAMBDA_RUNTIME_API=" + api.address}
	for range 2 {
		if took, err := api.start(t.Context(), program, env); err != nil || took <= 0 || took > stopPatience {
			t.Errorf("%s, %v", took, err)
		}
	}
	_, err = api.start(t.Context(), program, nil)
	if err == nil || !strings.Contains(err.Error(), "AWS_LAMBDA_RUNTIME_API") {
		t.Errorf("a function that ends: %v", err)
	}
}

func TestResultsOfTheCPUBenchmarkAreParsed(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	for alg, ns := range map[string]string{"HS256": "1000", "RS256": "30000", "ES256": "70000.5"} {
		for _, line := range []string{"1/whole", "1/event", "1/signature", "100/whole", "100/event", "100/signature"} {
			cpu := ns
			if line == "100/whole" {
				cpu = "90000"
			}
			out.WriteString("BenchmarkAuthorize/" + alg + "/" + line + "         \t   28608\t     99999 ns/op\t      " + cpu +
				" cpu-ns/op\t    3960 B/op\t      54 allocs/op\n")
		}
	}
	b := authorizerBench{report: report{Subjects: []string{"beside", "authorizer"}}}
	out.WriteString("BenchmarkRoles/one_scope/event \t 20 \t 9 ns/op\t 40000 cpu-ns/op\n" +
		"BenchmarkRoles/20_roles/event \t 20 \t 9 ns/op\t 45000 cpu-ns/op\n")
	µs, err := timesIn([]byte("goos: linux\n" + out.String() + "PASS\n"))
	if err != nil {
		t.Fatal(err)
	}
	b.addCPU(µs)
	want := map[string][2]float64{
		"Authorize, ES256, scopes: 1, µs": {70.0005, 70.0005}, "Authorize, HS256, scopes: 100, µs": {1, 90},
		"an event, JSON in and out, RS256, scopes: 1, µs": {30, 30}, "RS256, 100 scopes more than 1, µs": {0, 60},
		"an event of one scope, and one of 20 roles, RS256, µs": {40, 45},
	}
	found := 0
	for _, f := range b.Figures {
		if w, ok := want[f.Name]; ok {
			if found++; f.Samples[beside][0] != w[0] || f.Samples[ours][0] != w[1] {
				t.Errorf("%s: %v, want %v", f.Name, f.Samples, w)
			}
		}
	}
	if found != len(want) || len(b.Figures) != 14 {
		t.Errorf("%d of %d figures: %+v", found, len(b.Figures), b.Figures)
	}
	build := authorizerBench{report: report{Subjects: []string{"before", "after"}}}
	build.addBuild(ours, µs)
	for _, f := range build.Figures {
		if f.Name == "an event, JSON in and out, RS256, scopes: 1, × the signature" && f.Samples[ours][0] != 1 ||
			f.Name == "an event of 20 roles, more than of one scope, RS256, µs" && f.Samples[ours][0] != 5 {
			t.Errorf("%s: %v", f.Name, f.Samples)
		}
	}
	if _, err := timesIn([]byte("PASS\n")); err == nil {
		t.Error("a round without results is accepted")
	}
}
