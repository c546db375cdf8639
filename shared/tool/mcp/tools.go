package mcp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

// maxListed is how many listed tools are read.
const maxListed = 1000

// listedTool is a tool in a server's list.
type listedTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"inputSchema"`
	Execution   struct {
		// TaskSupport is "required" if each call of the tool must be a task (version
		// 2025-11-25, "Tasks").
		TaskSupport string `json:"taskSupport"`
	} `json:"execution"`
}

// nameOf returns the name of a listed tool, or "".
func nameOf(listed json.RawMessage) string {
	var t struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(listed, &t) // what can't be decoded has no name
	return t.Name
}

// offer returns the Tools for what the server lists. A tool that models can't call has
// the reason in Unfit: a provider would refuse the whole request for one such tool. If
// Allow names a tool that is missing or unfit, that is an error, so that the operator
// notices.
func (s *Server) offer(listed []json.RawMessage) (tools []tool.Tool, err error) {
	wanted := map[string]string{}
	for _, name := range s.o.Allow {
		wanted[name] = "does not exist there"
	}
	for _, l := range listed {
		if _, allowed := wanted[nameOf(l)]; len(s.o.Allow) > 0 && !allowed {
			continue
		}
		t, unfit := s.toolOf(l)
		if slices.ContainsFunc(tools, func(other tool.Tool) bool { return other.Name == t.Name && other.Unfit == "" }) {
			unfit = "is listed twice by its server"
		} else if wanted[t.Name] = unfit; unfit == "" {
			delete(wanted, t.Name)
		}
		t.Unfit = unfit
		tools = append(tools, t)
	}
	for _, name := range s.o.Allow {
		if why, bad := wanted[name]; bad {
			text := fmt.Sprintf("The tool server's tool %q %s; correct mcp.allow", name, why)
			return nil, fault.Public(fault.Upstream, text, nil)
		}
	}
	return tools, nil
}

// toolOf returns the Tool for a listed one, and why models can't call it, if so.
func (s *Server) toolOf(listed json.RawMessage) (t tool.Tool, unfit string) {
	var l listedTool
	if err := json.Unmarshal(listed, &l); err != nil || l.Name == "" {
		return tool.Tool{Name: s.safe(nameOf(listed), 60)}, "has no entry that can be read in its server's list"
	}
	headers, err := paramHeaders(l.InputSchema)
	parameters, bad := tool.FitSchema(l.InputSchema)
	switch {
	case !tool.ValidName(l.Name):
		unfit = "has a name that models do not accept"
	case l.Execution.TaskSupport == "required":
		unfit = "must be called as a task of MCP, which is not supported"
	case bad != nil:
		unfit = "has parameters that can't be used: " + bad.Error()
	case err != nil:
		unfit = "has an " + err.Error()
	}
	return tool.Tool{
		Name: l.Name, Description: l.Description, Parameters: parameters, Call: s.caller(l.Name, headers),
	}, unfit
}

// paramHeader is an argument that is sent in a header too, so that a proxy can read it
// without the body (SEP-2243).
type paramHeader struct {
	path []string // names of properties, from the outside in
	name string
}

// paramHeaders returns the arguments of a tool whose schema has x-mcp-header. An invalid
// one is an error, as the specification demands.
func paramHeaders(schema json.RawMessage) ([]paramHeader, error) {
	if !strings.Contains(string(schema), "x-mcp-header") {
		return nil, nil
	}
	var all []paramHeader
	err := collectHeaders(schema, nil, &all)
	return all, err
}

// collectHeaders appends the headers of the properties in a schema.
func collectHeaders(schema json.RawMessage, path []string, all *[]paramHeader) error {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return nil // not the schema of an object
	}
	for name, property := range s.Properties {
		at := append(slices.Clone(path), name)
		var p struct {
			Type   json.RawMessage `json:"type"`
			Header json.RawMessage `json:"x-mcp-header"`
		}
		if json.Unmarshal(property, &p) == nil && p.Header != nil {
			var header string
			primitive := slices.Contains([]string{`"string"`, `"integer"`, `"boolean"`}, string(p.Type))
			taken := func(h paramHeader) bool { return strings.EqualFold(h.name, header) }
			if json.Unmarshal(p.Header, &header) != nil || !isToken(header) || !primitive || slices.ContainsFunc(*all, taken) {
				return errors.New("x-mcp-header that is not valid")
			}
			*all = append(*all, paramHeader{at, header})
		}
		if err := collectHeaders(property, at, all); err != nil {
			return err
		}
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80
		return !letter && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}

// argumentHeaders returns the headers for a call with these arguments. A value that a
// header can't hold is left out.
func argumentHeaders(headers []paramHeader, arguments map[string]json.RawMessage) http.Header {
	h := http.Header{}
	for _, p := range headers {
		at := arguments
		for _, name := range p.path[:len(p.path)-1] {
			var next map[string]json.RawMessage
			_ = json.Unmarshal(at[name], &next) // what is no object has no members
			at = next
		}
		raw := at[p.path[len(p.path)-1]]
		var text string
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n > -1<<53 && n < 1<<53 {
			text = string(raw)
		} else if string(raw) == "true" || string(raw) == "false" {
			text = string(raw)
		} else if json.Unmarshal(raw, &text) != nil || string(raw) == "null" {
			continue
		}
		h.Set("Mcp-Param-"+p.name, headerValue(text))
	}
	return h
}

// headerValue returns the form in which a text is sent in a header of MCP: as it is, or
// in base64 if a header could not carry it unchanged.
func headerValue(s string) string {
	const start, end = "=?base64?", "?="
	unsafe := strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
	if !unsafe && strings.TrimSpace(s) == s && (!strings.HasPrefix(s, start) || !strings.HasSuffix(s, end)) {
		return s
	}
	return start + base64.StdEncoding.EncodeToString([]byte(s)) + end
}
