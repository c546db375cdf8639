package shared_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exemptFiles are tracked text files that the list of banned phrases does not apply to, each with its reason.
// A pattern is one of path.Match, against the path from the top of the repository.
var exemptFiles = map[string]string{
	"LICENSE":          "a legal text, not ours to change",
	"go.sum":           "a lock file",
	"console/vendor/*": "libraries of other people, unchanged, with their licences",
	"shared/edge/testdata/iam/package-lock.json": "a lock file",
	"acceptance/testdata/axe/package-lock.json":  "a lock file",
	"shared/testdata/banned_phrases.txt":         "the list itself",
	"acceptance/testdata/agentos/*.jsonl":        "exchanges recorded from AgentOS",
	"shared/input/testdata/fastapi.json":         "answers recorded from FastAPI",
	"shared/token/testdata/pyjwt.json":           "tokens recorded from PyJWT",
}

// exemptSections are parts of a file, from a heading to the next one of the same level.
var exemptSections = map[string]string{
	"CONTRIBUTING.md": "## Glossary", // it names the words to avoid
}

// allowedPhrases are single uses, as "path: phrase", each with its reason. One that is not used is an error.
var allowedPhrases = map[string]string{}

// bannedPhrases is the list: one pattern with a group for each line, and what to write instead of each.
type bannedPhrases struct {
	pattern *regexp.Regexp
	instead []string
}

func TestTextsUseNoBannedPhrase(t *testing.T) {
	t.Parallel()
	phrases := readBannedPhrases(t)
	used := map[string]bool{}
	for _, path := range trackedFiles(t) {
		if exempt(path) {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue // not a text
		}
		for _, use := range bannedIn(withoutSection(string(text), exemptSections[path]), phrases) {
			key := path + ": " + use.phrase
			if _, allowed := allowedPhrases[key]; allowed {
				used[key] = true
				continue
			}
			t.Errorf("%s:%d: %q is a banned phrase; instead: %s", path, use.line, use.phrase, use.instead)
		}
	}
	for key := range allowedPhrases {
		if !used[key] {
			t.Errorf("allowedPhrases has %q, which no file uses: remove it", key)
		}
	}
}

// The rule itself: planted phrases are found, and words that merely look like them are not. A dot divides each
// phrase here, so that the test above does not find it in this file.
func TestAPlantedBannedPhraseIsFound(t *testing.T) {
	t.Parallel()
	phrases := readBannedPhrases(t)
	plain := func(text string) string { return strings.ReplaceAll(text, "·", "") }
	for text, want := range map[string]string{
		"the server wh·om it trusts":                  "1: wh·om",
		"A run\n// go·es\n// on elsewhere":            "2: go·es on",
		"It Te·lls nothing":                           "1: Te·lls",
		"the process di·es\n  of it":                  "1: di·es of",
		"# the user is to·ld\n":                       "1: to·ld",
		"which is s·o.":                               "1: is s·o.",
		"teller, storytelling, foretold, goes ongoes": "",
		"tell_all and tells2":                         "",
		"this is so slow that":                        "",
	} {
		var got []string
		for _, use := range bannedIn(plain(text), phrases) {
			got = append(got, fmt.Sprintf("%d: %s", use.line, use.phrase))
		}
		if strings.Join(got, " ") != plain(want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// The exempt section ends at the next heading of its level, so that the rest of the file is read.
func TestOnlyTheExemptSectionIsLeftOut(t *testing.T) {
	t.Parallel()
	got := withoutSection("# A\none\n## Glossary\ntwo\n### B\nthree\n## C\nfour\n", "## Glossary")
	if want := "# A\none\n\n\n\n\n## C\nfour\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// readBannedPhrases reads the list. A space in a pattern also matches a line break with the marks of a comment.
func readBannedPhrases(t *testing.T) (phrases bannedPhrases) {
	t.Helper()
	text, err := os.ReadFile("testdata/banned_phrases.txt")
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, instead, ok := strings.Cut(line, "\t")
		if !ok {
			t.Fatalf("banned_phrases.txt: %q names no replacement after a tab", line)
		}
		pattern = strings.ReplaceAll(pattern, " ", `[ \t]*(?:[ \t]|\n[ \t]*(?://|#|--|\*|>)?[ \t]*)`)
		patterns, phrases.instead = append(patterns, "("+pattern+")"), append(phrases.instead, instead)
	}
	if len(patterns) < 10 {
		t.Fatalf("banned_phrases.txt has only %d phrases", len(patterns))
	}
	phrases.pattern = regexp.MustCompile(`(?im)\b(?:` + strings.Join(patterns, "|") + `)(?:$|[^\pL\pN_])`)
	return phrases
}

// use is a place where a text uses a banned phrase.
type use struct {
	line            int
	phrase, instead string
}

func bannedIn(text string, phrases bannedPhrases) (uses []use) {
	for _, groups := range phrases.pattern.FindAllStringSubmatchIndex(text, -1) {
		for i, instead := range phrases.instead {
			from, to := groups[2+2*i], groups[3+2*i]
			if from < 0 {
				continue
			}
			isMark := func(r rune) bool { return strings.ContainsRune(" \t\n/#*>", r) }
			phrase := strings.Join(strings.FieldsFunc(text[from:to], isMark), " ")
			uses = append(uses, use{1 + strings.Count(text[:from], "\n"), phrase, instead})
		}
	}
	return uses
}

// withoutSection blanks the section that begins with heading, so that line numbers stay.
func withoutSection(text, heading string) string {
	if heading == "" {
		return text
	}
	level, _, _ := strings.Cut(heading, " ")
	lines, inside := strings.Split(text, "\n"), false
	for i, line := range lines {
		if line == heading {
			inside = true
		} else if strings.HasPrefix(line, level+" ") {
			inside = false
		}
		if inside {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

func exempt(path string) bool {
	for pattern := range exemptFiles {
		if ok, _ := filepath.Match(pattern, path); ok {
			return true
		}
	}
	return false
}

// trackedFiles are the files that git tracks, so that what a build or an editor leaves in the folder is not read.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v; this test reads the list of tracked files, so run it in a clone", err)
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	return slices.DeleteFunc(files, func(path string) bool {
		info, err := os.Lstat(filepath.Join("..", path))
		return err != nil || !info.Mode().IsRegular() // removed in the work tree, or a link
	})
}
