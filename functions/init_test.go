package functions_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// inits returns what the package initializers of a program allocate, as Go's runtime reports it (GODEBUG=inittrace=1).
// A line is "init PACKAGE @0.1 ms, 0.01 ms clock, 1024 bytes, 3 allocs".
func inits(t *testing.T, name string) (size, allocations int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, name)) // #nosec G204 -- built by this test
	cmd.Env = []string{"GODEBUG=inittrace=1"}                              // without a configuration it ends at once
	out, _ := cmd.CombinedOutput()
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 5 || f[0] != "init" {
			continue
		}
		bytes, err := strconv.Atoi(f[len(f)-4])
		if err != nil {
			t.Fatalf("%s: %s", name, s.Text())
		}
		allocs, err := strconv.Atoi(f[len(f)-2])
		if err != nil {
			t.Fatalf("%s: %s", name, s.Text())
		}
		size, allocations = size+bytes, allocations+allocs
	}
	if allocations == 0 {
		t.Fatalf("%s reports no init: %s", name, out)
	}
	return size, allocations
}

// Every new instance of a function loads its program and runs the initializers of all linked packages before it can
// answer. The bounds have some room; a library that doubles a figure must be worth it.
func TestProgramsAndTheirInitAreSmall(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]struct{ megabytes, initBytes, initAllocations int }{
		"agents":     {16, 300 << 10, 1800},
		"sessions":   {16, 300 << 10, 1800},
		"memories":   {16, 300 << 10, 1800},
		"config":     {16, 300 << 10, 1800},
		"runs":       {19, 760 << 10, 4200},
		"worker":     {19, 760 << 10, 4200},
		"migrate":    {13, 300 << 10, 1800},
		"authorizer": {8, 140 << 10, 1000},
	} {
		info, err := os.Stat(filepath.Join(programs, name))
		if err != nil {
			t.Fatal(err)
		}
		size, allocations := inits(t, name)
		t.Logf("%s: %.1f MB, init: %d bytes, %d allocations", name, float64(info.Size())/1e6, size, allocations)
		if info.Size() > int64(most.megabytes)*1e6 || size > most.initBytes || allocations > most.initAllocations {
			t.Errorf("%s has %d bytes, and its init makes %d allocations of %d bytes; the most are %+v", name, info.Size(),
				allocations, size, most)
		}
	}
}
