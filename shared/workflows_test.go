package shared_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A tag can be moved to other code, which would run with the permissions of the workflow.
func TestWorkflowsNameActionsByCommit(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../.github/workflows/*.yml", "../examples/*/*.yml", "../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	used := 0
	for _, file := range files {
		data, err := os.ReadFile(file) // #nosec G304 -- a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		n, complaints := badWorkflow(string(data))
		used += n
		for _, complaint := range complaints {
			t.Errorf("%s: %s", file, complaint)
		}
	}
	if used < 8 {
		t.Errorf("only %d actions were found", used)
	}
	for _, bad := range []string{
		"- uses: actions/checkout@v4", "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
		"id-token: write\n- run: go install x@latest", "- run: keyway diff keyway.yaml",
	} {
		if _, complaints := badWorkflow("steps:\n" + bad); complaints == nil {
			t.Errorf("%q has no complaint", bad)
		}
	}
}

var (
	action = regexp.MustCompile(`(?m)^\s*-?\s*uses: (.*)$`)
	pinned = regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$`)
	judges = regexp.MustCompile(`(?m)^.*\bkeyway"? (?:diff|test|config check) .*$`)
)

// badWorkflow returns the number of actions in a text, and what is wrong with them.
func badWorkflow(text string) (used int, complaints []string) {
	for _, m := range action.FindAllStringSubmatch(text, -1) {
		used++
		if !pinned.MatchString(m[1]) {
			complaints = append(complaints, m[1]+" is not named by a commit with its version behind it")
		}
	}
	if strings.Contains(text, "id-token: write") && strings.Contains(text, "@latest") {
		complaints = append(complaints, "latest stands beside the permission to get a role")
	}
	// Of a document only the workflow counts, which begins at its steps.
	if _, steps, found := strings.Cut(text, "steps:\n"); found && !strings.Contains(text, "push: {branches: [main]}") {
		steps, _, _ = strings.Cut(steps, "```")
		for _, line := range judges.FindAllString(steps, -1) {
			if !strings.Contains(line, "env -i") {
				complaints = append(complaints, "a proposed file is checked with the environment:"+line)
			}
		}
	}
	return used, complaints
}
