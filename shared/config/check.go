package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/scope"
)

// checkCORS rejects every origin that no browser would send in the header Origin (RFC 6454, section
// 7), since it would never match. It rejects "*" as well: any web page could then use a token that a
// user has entered there.
func (d *decoder) checkCORS() {
	for i, o := range d.c.CORS.Origins {
		path := Element("cors.origins", i)
		u, err := url.Parse(o)
		switch {
		case o == "" || !d.clean(path):
		case strings.Contains(o, "*"):
			d.fault(path, "is a wildcard", "list each origin, as scheme://host[:port]")
		case err != nil || u.Scheme == "" || u.Hostname() == "":
			d.fault(path, "is not an origin", "write scheme://host[:port]")
		case o != strings.ToLower(u.Scheme+"://"+u.Host):
			d.fault(path, "is not in the form that browsers send",
				"write "+d.c.AsWritten(strings.ToLower(u.Scheme+"://"+u.Host)))
		case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
			d.fault(path, "names the default port, which browsers leave out", "write "+u.Scheme+"://"+u.Hostname())
		}
	}
}

// databaseSchemes are the schemes of a PostgreSQL address that are accepted. The first three are
// SQLAlchemy's, which AgentOS uses; libpq and pgx know the last two only.
var databaseSchemes = []string{
	"postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg", "postgres", "postgresql",
}

// checkDatabase completes database.url from $DATABASE_URL and gives every address the scheme
// postgresql. No message quotes any part of the address, because in a malformed one the password can
// be anywhere.
func (d *decoder) checkDatabase(db *Database) {
	const path = "database.url"
	from := ""
	if db.URL == "" && d.clean(path) {
		value, _ := d.Lookup("DATABASE_URL")
		db.URL, from = URL(value), "from $DATABASE_URL "
	}
	scheme, rest, ok := strings.Cut(string(db.URL), "://")
	if db.URL != "" {
		db.Secret = "" // an address that is set has precedence over a secret that holds one
	}
	switch {
	case db.URL == "":
	case !ok || !slices.Contains(databaseSchemes, scheme):
		d.fault(path, from+"is not a PostgreSQL address", "write postgresql://user:password@host:5432/database")
	default:
		db.URL = URL("postgresql://" + rest)
		if _, err := url.Parse(string(db.URL)); err != nil {
			d.fault(path, from+"is not a valid address", "percent-encode the special characters of user and password")
		}
	}
	if strings.HasPrefix(db.Schema, "pg_") { // see CREATE SCHEMA in PostgreSQL's manual
		d.fault("database.schema", "begins with pg_, which PostgreSQL reserves", "use another name")
	}
}

// secretARN is the form of the ARN of a Secrets Manager secret.
var secretARN = onFirstUse(secretPattern)

// databaseRole is the form of a role name that needs no quotes in PostgreSQL.
var databaseRole = onFirstUse("^[a-z_][a-z0-9_]{0,62}$")

// readDatabaseVariables reads the settings of the database that have no field in the file, because
// only the template of the Lambda functions sets them: the secret that holds the address, whether
// tokens of AWS replace the password, and the role that the other functions use.
func (d *decoder) readDatabaseVariables(db *Database) {
	db.Secret, _ = d.Lookup("DATABASE_SECRET")
	if db.Secret != "" && !secretARN().MatchString(db.Secret) {
		d.fault("database.url", "is to be read from $DATABASE_SECRET, which is not the ARN of a secret",
			"set it to an ARN such as arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-AbCdEf")
	}
	switch iam, _ := d.Lookup("DATABASE_IAM"); iam {
	case "true":
		db.IAM = true
	case "", "false":
	default:
		d.fault("database", fmt.Sprintf("$DATABASE_IAM is %q", iam), "set it to true or false")
	}
	db.Role, _ = d.Lookup("DATABASE_ROLE")
	if db.Role != "" && (!databaseRole().MatchString(db.Role) || strings.HasPrefix(db.Role, "pg_")) {
		d.fault("database", fmt.Sprintf("$DATABASE_ROLE is %q, which is not a plain role name", db.Role),
			"use a-z, 0-9 and _, such as keyway_app")
	}
}

// checkEgress warns of a network that contains every address. The operator may have a reason, so it
// is no error.
func (d *decoder) checkEgress() {
	for i, p := range d.c.Egress.Allow {
		if p.IsValid() && p.Bits() == 0 {
			d.warn(Element("egress.allow", i),
				"allows a model to reach every private network and the cloud's metadata service",
				"list the networks that tools need")
		}
	}
}

// ValidAgentID reports whether an agent declared in Go can have this id. The rules are those for
// agents in the file: see scope.AgentIDPattern. "." and ".." are excluded, because HTTP clients
// remove such segments from a path (RFC 3986, section 5.2.4).
func ValidAgentID(id string) bool {
	return scope.IsAgentID(id) && id != "." && id != ".."
}

// checkAgents checks the rules that involve several agents, and those that depend on Options.
func (d *decoder) checkAgents() {
	first := map[string]string{} // where each id is declared first
	for _, a := range d.Agents {
		first[a.ID] = "an agent declared in Go"
	}
	for i := range d.c.Agents {
		a, path := &d.c.Agents[i], Element("agents", i)
		if a.ID == "" && d.clean(path) { // the whole element is an unset variable, which Dev allows
			d.fault(path, "is not an agent", "write its id and model")
		}
		if a.ID != "" && !ValidAgentID(a.ID) { // any other form was reported before, and left no id
			d.fault(path+".id", fmt.Sprintf("is %q, which HTTP clients remove from a path", d.c.AsWritten(a.ID)),
				"use another name")
		}
		if other, taken := first[a.ID]; taken && a.ID != "" {
			d.fault(path+".id", fmt.Sprintf("is %q, which %s already has", d.c.AsWritten(a.ID), other),
				"give each agent its own id")
		} else {
			first[a.ID] = path
		}
		d.checkURL(path+".model.base_url", string(a.Model.BaseURL))
		d.checkHeaders(path+".model.headers", a.Model.Headers)
		d.checkTools(path+".tools", a.Tools)
	}
}

// checkTools checks names of tools against Options.Tools. A program that does not run agents, or that
// opens the tools itself, does not know all names, and skips that check.
func (d *decoder) checkTools(path string, tools []Tool) {
	for i, t := range tools {
		at := Element(path, i)
		switch {
		case t.MCP != nil:
			d.checkURL(at+".mcp.url", string(t.MCP.URL))
			d.checkHeaders(at+".mcp.headers", t.MCP.Headers)
		case t.Name != "" && !slices.Contains(d.Tools, t.Name) && !d.without(Runs) && !d.without(ToolNames):
			name := d.c.AsWritten(t.Name)
			d.fault(at, fmt.Sprintf("is not a built-in tool: %q", name), suggest(name, d.Tools))
		case t.Name != "" && slices.Contains(tools[:i], t):
			d.fault(at, fmt.Sprintf("is listed twice: %q", d.c.AsWritten(t.Name)), "keep one of them")
		}
	}
}

// The names and values of headers that RFC 9110 allows (sections 5.1 and 5.5). net/http would reject
// others too, but only when the first run calls the server.
var (
	headerName  = onFirstUse("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	headerValue = onFirstUse(`^[^\x00-\x08\x0a-\x1f\x7f]+$`)
)

// The limits of headers. Servers limit the header of a request as a whole, nginx for example to 32 KB
// and 8 KB a line.
const (
	maxHeaders      = 32
	maxHeaderLength = 8192 // bytes of a name and its value
)

// ownHeaders are set by the protocols themselves: HTTP (RFC 9110 and 9112), the APIs of models, which
// are JSON and server-sent events, and MCP. With another value the server or Keyway would misread the
// message. Written in lower case.
var ownHeaders = []string{
	"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
	"keep-alive", "last-event-id", "mcp-protocol-version", "mcp-session-id", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade",
}

// checkHeaders checks the headers of an MCP server or a model. No message quotes a value.
func (d *decoder) checkHeaders(path string, headers map[string]Secret) {
	if len(headers) > maxHeaders {
		d.fault(path, fmt.Sprintf("has %d headers", len(headers)), fmt.Sprintf("write at most %d", maxHeaders))
	}
	first := map[string]string{} // the spelling of each name that comes first
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at, value := Member(path, name), string(headers[name])
		lower := strings.ToLower(name)
		switch other, taken := first[lower]; {
		case !headerName().MatchString(name):
			d.fault(at, "is not a header name", "use letters, digits and hyphens")
		case slices.Contains(ownHeaders, lower):
			d.fault(at, "is a header that Keyway sets itself", "leave it out")
		case taken:
			d.fault(at, fmt.Sprintf("is the same header as %s", other), "keep one of them")
		case len(name)+len(value) > maxHeaderLength:
			d.fault(at, "is too long", fmt.Sprintf("use at most %d bytes, the name included", maxHeaderLength))
		case !headerValue().MatchString(value) && d.clean(at):
			d.fault(at, "is empty or has a control character", "write it on one line, without a line break at its end")
		}
		first[lower] = name
	}
}

// checkURL accepts an http or https address without credentials, and the empty text. Credentials
// belong in fields that are masked everywhere.
func (d *decoder) checkURL(path, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		d.fault(path, "is not an http or https address", "write https://host/path")
	case u.User != nil:
		d.fault(path, "contains credentials", "move them to headers or api_key")
	}
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
