// Package builtin opens the tools that keyway.yaml names: the built-in ones, MCP
// servers, and the operator's own. It is the only package that imports all built-in
// tools, so that a Lambda function that runs no agent links none of them.
package builtin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/hackernews"
	"github.com/keyway-agents/keyway/shared/tool/mcp"
	"github.com/keyway-agents/keyway/shared/tool/websearch"
	"github.com/keyway-agents/keyway/shared/version"
)

// names holds the names of the built-in tools in keyway.yaml.
var names = []string{"hackernews", "websearch"}

// Options configure the tools of a server.
type Options struct {
	// Egress decides which addresses tools may connect to. Defaults to public ones.
	Egress tool.Egress
	// Lookup returns an environment variable, as os.LookupEnv does. The variables
	// HACKERNEWS_BASE_URL and WEBSEARCH_BASE_URL replace the addresses of the built-in
	// tools' services. Defaults to an empty environment.
	Lookup func(name string) (string, bool)
	// Own holds the operator's own tools. Defaults to none.
	Own []tool.Tool
}

// Names returns the names that keyway.yaml may list in tools: those of the built-in
// tools and then those of own. A name that is used twice, a name that models don't
// accept, or a tool without Call is a fault.Invalid error.
func Names(own []tool.Tool) ([]string, error) {
	all := slices.Clone(names)
	for _, t := range own {
		switch {
		case !tool.ValidName(t.Name) || t.Call == nil && !t.External:
			text := fmt.Sprintf("the tool %q needs a Call and a name of up to 64 letters, digits, - and _", t.Name)
			return nil, fault.Public(fault.Invalid, text, nil)
		case slices.Contains(all, t.Name):
			text := fmt.Sprintf("another tool already has the name %q; choose another name", t.Name)
			return nil, fault.Public(fault.Invalid, text, nil)
		}
		all = append(all, t.Name)
	}
	return all, nil
}

// Open returns the set for one entry of tools in keyway.yaml. It doesn't connect. A
// name that isn't one of Names is a fault.Invalid error.
func Open(t config.Tool, o Options) (tool.Set, error) {
	if t.MCP != nil {
		headers := make(map[string]string, len(t.MCP.Headers))
		for name, value := range t.MCP.Headers {
			headers[name] = string(value)
		}
		return asSet(mcp.New(mcp.Options{
			URL: string(t.MCP.URL), Headers: headers, Allow: t.MCP.Allow, Timeout: t.MCP.Timeout,
			Version: version.ThisBuild().Version, Egress: o.Egress,
		}))
	}
	if _, err := Names(o.Own); err != nil {
		return nil, err
	}
	for _, own := range o.Own {
		if own.Name == t.Name {
			return own, nil
		}
	}
	switch t.Name {
	case "hackernews":
		return asSet(hackernews.New(o.value("HACKERNEWS_BASE_URL"), o.Egress))
	case "websearch":
		return asSet(websearch.New(o.value("WEBSEARCH_BASE_URL"), o.Egress))
	}
	text := fmt.Sprintf("there is no tool %q; use %s, or add it to Tools of agents.Options",
		t.Name, strings.Join(names, " or "))
	return nil, fault.Public(fault.Invalid, text, nil)
}

// asSet returns s as a Set, and a nil Set on an error: a nil pointer in an interface
// would not compare equal to nil.
func asSet[S tool.Set](s S, err error) (tool.Set, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// value returns an environment variable, "" if it is unset.
func (o Options) value(name string) string {
	if o.Lookup == nil {
		return ""
	}
	v, _ := o.Lookup(name)
	return v
}
