package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkCORS refuses what no browser would send as Origin, "*" above all: it
// would let every page use a token that its visitor pastes.
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
			d.fault(path, "is not as browsers send it", "write "+strings.ToLower(u.Scheme+"://"+u.Host))
		case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
			d.fault(path, "names the default port, which browsers leave out", "write "+u.Scheme+"://"+u.Hostname())
		}
	}
}

// pythonSchemes are SQLAlchemy's spellings; libpq and pgx know the last two only.
var pythonSchemes = []string{"postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg", "postgres", "postgresql"}

// checkDatabase gives the address one scheme. No fault repeats any of it: the
// password may stand anywhere in a broken one.
func (d *decoder) checkDatabase(db *Database) {
	const path = "database.url"
	from := ""
	if db.URL == "" && d.clean(path) {
		value, _ := d.Lookup("DATABASE_URL")
		db.URL, from = URL(value), "from $DATABASE_URL "
	}
	scheme, rest, ok := strings.Cut(string(db.URL), "://")
	if db.URL != "" {
		db.Secret = "" // the nearer one counts
	}
	switch {
	case db.URL == "":
	case !ok || !slices.Contains(pythonSchemes, scheme):
		d.fault(path, from+"is not a PostgreSQL address", "write postgresql://user:password@host:5432/database")
	default:
		db.URL = URL("postgresql://" + rest)
		if _, err := url.Parse(string(db.URL)); err != nil {
			d.fault(path, from+"is not a valid address", "percent-encode the special characters of user and password")
		}
	}
	if strings.HasPrefix(db.Schema, "pg_") {
		d.fault("database.schema", "begins with pg_, which PostgreSQL keeps for itself", "use another name")
	}
}

// secretARN is the form of a secret's ARN.
var secretARN = onFirstUse(secretPattern)

// databaseRole is a name that needs no quotes in PostgreSQL.
var databaseRole = onFirstUse("^[a-z_][a-z0-9_]{0,62}$")

// surroundings reads what only a function's environment says: where the address is
// kept, that AWS's tokens stand in for a password, and as whom the other functions log in.
func (d *decoder) surroundings(db *Database) {
	db.Secret, _ = d.Lookup("DATABASE_SECRET")
	if db.Secret != "" && !secretARN().MatchString(db.Secret) {
		d.fault("database.url", "waits for $DATABASE_SECRET, which is not the ARN of a secret", "set it to one like arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-AbCdEf")
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
		d.fault("database", fmt.Sprintf("$DATABASE_ROLE is %q, which is no plain name of a role", db.Role), "use a-z, 0-9 and _, such as keyway_app")
	}
}

// checkEgress warns only: the operator's word stands.
func (d *decoder) checkEgress() {
	for i, p := range d.c.Egress.Allow {
		if p.IsValid() && p.Bits() == 0 {
			d.warn(Element("egress.allow", i), "lets model-chosen addresses reach every private network and the cloud's metadata", "list the networks that tools need")
		}
	}
}

// ValidAgentID reports whether an agent declared outside the file may have the id:
// the rules are those of the file's.
func ValidAgentID(id string) bool {
	return isAgentID(id) && id != "." && id != ".."
}

// checkAgents holds the rules between agents, and those that need Options.
func (d *decoder) checkAgents() {
	first := map[string]string{}
	for _, a := range d.Agents {
		first[a.ID] = "an agent declared outside the file"
	}
	for i := range d.c.Agents {
		a, path := &d.c.Agents[i], Element("agents", i)
		if a.ID == "" && d.clean(path) { // it waits for a variable
			d.fault(path, "is not an agent", "write its id and model")
		}
		if a.ID == "." || a.ID == ".." { // no client would send such a path
			d.fault(path+".id", fmt.Sprintf("is %q", a.ID), "use a name")
		}
		if other, taken := first[a.ID]; taken && a.ID != "" {
			d.fault(path+".id", fmt.Sprintf("is %q, as %s already is", a.ID, other), "give each agent its own id")
		} else {
			first[a.ID] = path
		}
		d.checkURL(path+".model.base_url", string(a.Model.BaseURL))
		d.checkTools(path+".tools", a.Tools)
	}
}

func (d *decoder) checkTools(path string, tools []Tool) {
	for i, t := range tools {
		at := Element(path, i)
		switch {
		case t.MCP != nil:
			d.checkURL(at+".mcp.url", string(t.MCP.URL))
			d.checkHeaders(at+".mcp.headers", t.MCP.Headers)
		case t.Name != "" && !slices.Contains(d.Tools, t.Name) && !d.without(Runs) && !d.without(ToolNames):
			d.fault(at, fmt.Sprintf("is not a built-in tool: %q", t.Name), suggest(t.Name, d.Tools))
		case t.Name != "" && slices.Contains(tools[:i], t):
			d.fault(at, fmt.Sprintf("is listed twice: %q", t.Name), "keep one of them")
		}
	}
}

// What RFC 9110 5.1 and 5.5 allow; net/http would refuse the rest only when the
// first run calls the server.
var (
	headerName  = onFirstUse("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	headerValue = onFirstUse(`^[^\x00-\x08\x0a-\x1f\x7f]+$`)
)

func (d *decoder) checkHeaders(path string, headers map[string]Secret) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at, value := Member(path, name), string(headers[name])
		switch {
		case !headerName().MatchString(name):
			d.fault(at, "is not a header name", "use letters, digits and hyphens")
		case !headerValue().MatchString(value) && d.clean(at):
			d.fault(at, "is empty or has a control character", "write it on one line, without a line break at its end")
		}
	}
}

// checkURL wants an http(s) address without credentials; empty is fine.
func (d *decoder) checkURL(path, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		d.fault(path, "is not an http or https address", "write https://host/path")
	case u.User != nil:
		d.fault(path, "holds credentials", "move them to headers or api_key")
	}
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
