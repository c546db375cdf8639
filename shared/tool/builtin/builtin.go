// Package builtin opens the tools that keyway.yaml names. It is the only importer
// of them all, so that a function that runs no agent links none.
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
)

var names = []string{"hackernews", "websearch"}

// Options are what an OS gives its tools.
type Options struct {
	Egress tool.Egress
	Lookup func(name string) (string, bool) // HACKERNEWS_BASE_URL, WEBSEARCH_BASE_URL; nil has neither
	Own    []tool.Tool                      // the operator's own, by name
}

// Names are what keyway.yaml may write in tools: the built-in names, then own's. A
// name that is taken, or that no model takes, is fault.Invalid.
func Names(own []tool.Tool) ([]string, error) {
	all := slices.Clone(names)
	for _, t := range own {
		switch {
		case !tool.ValidName(t.Name) || t.Call == nil && !t.External:
			return nil, fault.Public(fault.Invalid, fmt.Sprintf("the tool %q needs a Call and a name of up to 64 letters, digits, - and _", t.Name), nil)
		case slices.Contains(all, t.Name):
			return nil, fault.Public(fault.Invalid, fmt.Sprintf("the name of the tool %q is taken; give it another", t.Name), nil)
		}
		all = append(all, t.Name)
	}
	return all, nil
}

// Open makes the set that one entry of keyway.yaml names. A name that isn't among
// Names is fault.Invalid.
func Open(t config.Tool, o Options) (tool.Set, error) {
	if t.MCP != nil {
		headers := make(map[string]string, len(t.MCP.Headers))
		for name, value := range t.MCP.Headers {
			headers[name] = string(value)
		}
		return opened(mcp.New(mcp.Options{URL: string(t.MCP.URL), Headers: headers, Allow: t.MCP.Allow, Egress: o.Egress}))
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
		return opened(hackernews.New(o.value("HACKERNEWS_BASE_URL"), o.Egress))
	case "websearch":
		return opened(websearch.New(o.value("WEBSEARCH_BASE_URL"), o.Egress))
	}
	return nil, fault.Public(fault.Invalid, fmt.Sprintf("there is no tool %q; use %s, or give it to agents.Options", t.Name, strings.Join(names, " or ")), nil)
}

// opened keeps a nil pointer from becoming a Set.
func opened[S tool.Set](s S, err error) (tool.Set, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (o Options) value(name string) string {
	if o.Lookup == nil {
		return ""
	}
	v, _ := o.Lookup(name)
	return v
}
