package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/replay"
)

// markdown is the report of keyway diff: a sentence, a table, and what was not
// compared. Callers are counted, never named.
func markdown(file string, log *replay.Log, r replay.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s %s.**\n\n", code(file), summary(r))
	if len(r.Changes) > 0 {
		rows := [][]string{{"verdict", "request", "callers", "requests", "first seen", "last seen", "why"}}
		for _, c := range r.Changes {
			rows = append(rows, []string{string(c.Verdict), code(strings.TrimSpace(c.Route + " " + c.Agent)), fmt.Sprint(c.Callers), fmt.Sprint(c.Requests),
				minute(c.First), minute(c.Last), why(c)})
		}
		b.WriteString(table(rows) + "\n")
	}
	for _, line := range footnotes(log, r) {
		b.WriteString("- " + line + "\n")
	}
	return b.String()
}

// summary is the report in half a sentence.
func summary(r replay.Report) string {
	var parts []string
	for _, s := range []struct {
		verdict replay.Verdict
		format  func(callers, requests string) string
	}{
		{replay.Allowed, func(c, r string) string { return "newly allows " + c + " (" + r + ")" }},
		{replay.Refused, func(c, r string) string { return "newly refuses " + r + " of " + c }},
		{replay.Unfiltered, func(c, r string) string { return "no longer filters the lists of " + c + " (" + r + ")" }},
		{replay.Filtered, func(c, r string) string { return "filters the lists of " + c + " (" + r + ")" }},
		{replay.Undeclared, func(c, r string) string { return "does not declare the agents of " + r + " of " + c }},
	} {
		if n := r.Counts[s.verdict]; n.Requests > 0 {
			parts = append(parts, s.format(counted(n.Callers, "caller"), counted(n.Requests, "request")))
		}
	}
	if len(parts) == 0 {
		return "changes nothing for " + counted(r.Replayed, "replayed request")
	}
	return strings.Join(parts, ", ")
}

// why tells what the new policy asks, and what was missing before or is now.
func why(c replay.Change) string {
	if c.Verdict == replay.Undeclared {
		return "answers 404; no agent of that id"
	}
	out := "needs " + codes(c.Need)
	if c.Mapping != "" {
		out += " by the mapping " + code(c.Mapping)
	}
	switch {
	case len(c.Missing) > 0:
		out += "; missing " + codes(c.Missing)
	case len(c.Was) > 0:
		out += "; was missing " + codes(c.Was)
	}
	return out
}

// footnotes tell what was read, what can't be replayed, and what no log can show.
func footnotes(log *replay.Log, r replay.Report) (out []string) {
	read := fmt.Sprintf("Replayed %d of %s", r.Replayed, counted(log.Decisions, "decision"))
	if !log.First.IsZero() {
		read += fmt.Sprintf(" from %s to %s UTC", minute(log.First), minute(log.Last))
	}
	if n := len(log.Configs); n > 0 {
		var digests []string
		for _, digest := range slices.Sorted(maps.Keys(log.Configs)) {
			digests = append(digests, fmt.Sprintf("%s: %d", code(digest), log.Configs[digest]))
		}
		shown := digests[:min(n, 5)]
		if read += fmt.Sprintf(", decided by %s (%s", counted(n, "configuration"), strings.Join(shown, ", ")); n > len(shown) {
			read += ", …"
		}
		read += ")"
	}
	out = append(out, read+".")
	if text := tally([]count{{log.Skipped.NoToken, "without a good token (401)"}, {log.Skipped.NoRoute, "of no route that is served"},
		{log.Skipped.NoScopes, "with scopes too long for the log"}, {log.Skipped.NoAgent, "of agents whose id the log leaves out"}}); text != "" {
		out = append(out, "Not replayable: "+text+".")
	}
	if text := tally([]count{{log.Passed, "without a decision"}, {log.Broken, "broken"}, {log.Old, "older"}}); text != "" {
		out = append(out, "Lines passed over: "+text+".")
	}
	if len(r.Mappings) > 0 {
		out = append(out, fmt.Sprintf("Not exact: %s may be decided otherwise for the ids of %s, since the log holds none.",
			counted(r.Unsure, "request"), codes(r.Mappings)))
	}
	return append(out, "Not compared: which tokens are believed (keys, algorithms, issuer, audience, leeway, claims) and whose data is shown (`user_isolation`).")
}

type count struct {
	n    int
	what string
}

// tally lists the counts that aren't zero.
func tally(counts []count) string {
	var parts []string
	for _, c := range counts {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// table is a Markdown table whose columns line up on a terminal, too.
func table(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			b.WriteString("| " + cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+1))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}

// code quotes text that may come from a log: nothing in it is Markdown, and a
// comment mentions nobody.
func code(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '`':
			return '\''
		case r < ' ' || r == 0x7f || r == utf8.RuneError:
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	return "`" + strings.ReplaceAll(cmp.Or(text, " "), "|", `\|`) + "`"
}

func codes(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = code(t)
	}
	return strings.Join(out, ", ")
}

func minute(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
