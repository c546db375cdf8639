// Package names makes the names of tools and the IDs of tool calls acceptable for every
// provider. Map maps the names of tools to [a-zA-Z0-9_-]{1,64} and back, because the
// tools of an MCP server may have dots in their names. Calls gives each call in a
// conversation an ID of its own, because the calls may come from another provider's
// model.
package names

import (
	"cmp"
	"strconv"
	"strings"
)

// Map holds the names of one request. Different names map to different names, and the
// same name always maps to the same one within a Map. It is not safe for concurrent
// use.
type Map struct {
	fitted   map[string]string // by original name
	original map[string]string // by fitted name
}

// New returns an empty Map.
func New() *Map { return &Map{fitted: map[string]string{}, original: map[string]string{}} }

// maxName is the limit of Anthropic for a tool's name and of Amazon Bedrock for a
// tool's name and a call's ID
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html).
const maxName = 64

// Fit returns the name to send in place of name: name itself where the pattern accepts
// it. Otherwise each character outside the pattern becomes "_" and the result is cut at
// 64 characters. If another name already has the same result, a number is appended. An
// empty name becomes "_".
func (m *Map) Fit(name string) string {
	if known, ok := m.fitted[name]; ok {
		return known
	}
	base := cmp.Or(strings.Map(replaceInvalid, name), "_")
	base = base[:min(len(base), maxName)]
	fit := base
	for i := 2; m.original[fit] != ""; i++ {
		end := "_" + strconv.Itoa(i)
		fit = base[:min(len(base), maxName-len(end))] + end
	}
	m.fitted[name] = fit
	m.original[fit] = cmp.Or(name, fit)
	return fit
}

// replaceInvalid is the mapping for strings.Map that replaces each character outside
// the pattern.
func replaceInvalid(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		return r
	}
	return '_'
}

// Has reports whether Fit was called with name.
func (m *Map) Has(name string) bool {
	_, ok := m.fitted[name]
	return ok
}

// Original returns the name for which Fit returned fit. A name that Fit never returned
// is returned unchanged: a model may call a tool that was never offered, and the run
// loop then reports that name to it.
func (m *Map) Original(fit string) string { return cmp.Or(m.original[fit], fit) }
