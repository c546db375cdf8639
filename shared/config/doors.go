package config

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// Open reports whether callers can use the door. The zero value is closed.
func (d Door) Open() bool { return d.Enabled != nil && *d.Enabled }

// Open reports whether callers can use the door. The zero value is closed.
func (d MCPDoor) Open() bool { return Door{d.Enabled}.Open() }

// Origin returns the origin of the pages at public_url (RFC 6454), or "" without a public_url.
func (c *Config) Origin() string {
	scheme, rest, _ := strings.Cut(strings.ToLower(c.PublicURL), "://")
	host, _, _ := strings.Cut(rest, "/")
	if host == "" {
		return ""
	}
	return scheme + "://" + host
}

// MCPPath is the path of the door for MCP, below public_url, and MCPResourcePath that of its description for OAuth
// clients. They are those of the route table.
const (
	MCPPath         = "/mcp"
	MCPResourcePath = "/.well-known/oauth-protected-resource" + MCPPath
)

// MCPMetadata returns the address that a refused client of the door for MCP reads: it says where to get a token. It is
// "" if the door is closed, or if nothing says by which address callers reach it.
func (c *Config) MCPMetadata() string {
	if !c.Doors.MCP.Open() || c.PublicURL == "" {
		return ""
	}
	return c.PublicURL + MCPResourcePath
}

// MCPAudience returns the audiences of which tokens have one at the door for MCP, that of public_url first. It is
// empty if the door is closed.
func (c *Config) MCPAudience() []string {
	if !c.Doors.MCP.Open() {
		return nil
	}
	all := c.Doors.MCP.Audience
	if c.PublicURL != "" {
		all = append([]string{c.PublicURL + MCPPath}, all...)
	}
	return all
}

// AuthorizationServers returns the issuers of auth.keys that OAuth clients can ask for tokens: those at an https
// address, or at an http address on this machine.
func (c *Config) AuthorizationServers() []string {
	all := []string{}
	add := func(spellings ...string) {
		for _, issuer := range spellings {
			u, err := url.Parse(issuer)
			local := err == nil && u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
			if err == nil && u.Host != "" && (u.Scheme == "https" || local) {
				if !slices.Contains(all, issuer) {
					all = append(all, issuer)
				}
				return // the others are spellings of the same
			}
		}
	}
	for _, k := range c.Auth.Keys {
		add(k.Issuers()...)
	}
	add(c.Auth.Issuer)
	return all
}

// complete opens the doors that the file doesn't mention. On AWS an API is often public, so that the operator names
// the protocols there that have clients of their own.
func (d *Doors) complete(onAWS bool) {
	for enabled, open := range map[**bool]bool{
		&d.MCP.Enabled: !onAWS, &d.OpenAI.Enabled: !onAWS, &d.AGUI.Enabled: true,
	} {
		if *enabled == nil {
			*enabled = &open
		}
	}
}
