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

// markdown renders the report of keyway diff: one sentence, a table of the changes,
// and footnotes on what was not compared. It counts callers and never names one, since
// a comment on a pull request is read by more people than a server's log.
func markdown(file string, log *replay.Log, r replay.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s %s.**\n\n", code(file), summary(r))
	if len(r.Changes) > 0 {
		rows := [][]string{{"verdict", "request", "callers", "requests", "first seen", "last seen", "why"}}
		for _, c := range r.Changes {
			rows = append(rows, []string{
				string(c.Verdict), code(strings.TrimSpace(c.Route + " " + c.Agent)),
				fmt.Sprint(c.Callers), fmt.Sprint(c.Requests), minute(c.First), minute(c.Last), reason(c),
			})
		}
		b.WriteString(table(rows) + "\n")
	}
	for _, line := range footnotes(log, r) {
		b.WriteString("- " + line + "\n")
	}
	return b.String()
}

// summary returns the predicate of the report's first sentence, such as "newly allows
// 2 callers (3 requests)". The verdicts come in the order in which a reviewer should
// read them: new access first.
func summary(r replay.Report) string {
	var parts []string
	// Each verdict has a sentence of its own, since some verdicts are about callers and
	// others about requests.
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

// reason returns which scopes the new file needs, by which mapping, and which of them
// the caller lacks now or lacked before.
func reason(c replay.Change) string {
	// An agent that is not declared has no scopes to compare.
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

// footnotes returns the limits of the report, one a line: which decisions were read,
// which of them could not be replayed, and what a log cannot show at all.
func footnotes(log *replay.Log, r replay.Report) (lines []string) {
	// A report without these lines would look complete, whatever was left out.
	lines = append(lines, coverage(log, r))
	if skipped := tally([]count{
		{log.Skipped.NoToken, "without a valid token (401)"},
		{log.Skipped.NoRoute, "of no route that is served"},
		{log.Skipped.NoScopes, "with scopes too long for the log"},
		{log.Skipped.NoAgent, "of agents whose id the log leaves out"},
	}); skipped != "" {
		lines = append(lines, "Not replayable: "+skipped+".")
	}
	if passed := tally([]count{
		{log.Passed, "without a decision"}, {log.Broken, "broken"}, {log.Old, "older"},
	}); passed != "" {
		lines = append(lines, "Lines skipped: "+passed+".")
	}
	if len(r.Mappings) > 0 {
		lines = append(lines, fmt.Sprintf("Not exact: %s may be decided otherwise for the ids of %s, "+
			"since the log holds none.", counted(r.Unsure, "request"), codes(r.Mappings)))
	}
	if r.NoGrants > 0 {
		lines = append(lines, fmt.Sprintf("Not replayable: %s of issuers for which the new file has no grants, or several "+
			"that differ.", counted(r.NoGrants, "request")))
	}
	if r.Granted > 0 {
		lines = append(lines, fmt.Sprintf("Grants were compared for %s. A log holds the roles that granted a scope, and of "+
			"several that granted one scope only the first: the effect of a grant for another role is not shown.",
			counted(r.Granted, "request")))
	}
	return append(lines, "Not compared: which tokens are accepted (keys, algorithms, issuer, audience, leeway, claims) "+
		"and whose data is shown (`user_isolation`).")
}

// maxDigests is how many configurations the report names. A busy week of edits would
// otherwise fill it with digests.
const maxDigests = 5

// coverage returns how many decisions were replayed, from when, and which
// configurations had made them.
func coverage(log *replay.Log, r replay.Report) string {
	out := fmt.Sprintf("Replayed %d of %s", r.Replayed, counted(log.Decisions, "decision"))
	if !log.First.IsZero() {
		out += fmt.Sprintf(" from %s to %s UTC", minute(log.First), minute(log.Last))
	}
	if n := len(log.Configs); n > 0 {
		var digests []string
		for _, digest := range slices.Sorted(maps.Keys(log.Configs)) {
			digests = append(digests, fmt.Sprintf("%s: %d", code(digest), log.Configs[digest]))
		}
		// More than one configuration means that keyway.yaml changed within the log's time.
		shown := digests[:min(n, maxDigests)]
		out += fmt.Sprintf(", decided by %s (%s", counted(n, "configuration"), strings.Join(shown, ", "))
		if n > len(shown) {
			out += ", …"
		}
		out += ")"
	}
	return out + "."
}

// count is a number with what it counts.
type count struct {
	n int
	// what completes the sentence "n decisions are …".
	what string
}

// tally joins the counts that aren't zero: "2 without a decision, 1 broken".
func tally(counts []count) string {
	var parts []string
	for _, c := range counts {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// table renders a Markdown table with cells padded to equal width, since the report is
// read in a terminal as often as on a web page.
func table(rows [][]string) string {
	// Width in characters; only ASCII is common here, so wide characters don't matter.
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	// Markdown needs a line of dashes after the first row, which makes that row the header.
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

// maxCode is the longest text that code shows whole, in characters.
const maxCode = 200

// code returns text as a Markdown code span inside a table cell. The text may come
// from a log and therefore from a caller, so it must not be able to end the span or
// the cell: backquotes and control characters are replaced and | is escaped. Inside a
// code span, GitHub makes neither links nor mentions (@name).
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
	// Cut by characters and not by bytes, which would leave half of one.
	if runes := []rune(text); len(runes) > maxCode {
		text = string(runes[:maxCode]) + "…"
	}
	return "`" + strings.ReplaceAll(cmp.Or(text, " "), "|", `\|`) + "`"
}

// codes returns each text as code, with commas between them.
func codes(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = code(t)
	}
	return strings.Join(out, ", ")
}

// minute formats a time in UTC to the minute, or – if it is unknown.
func minute(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
