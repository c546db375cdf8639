package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

// canCmd prints the decision that the server would make about a request.
type canCmd struct {
	// Token is in the form that readToken takes. It is verified as the server would.
	Token string `placeholder:"TOKEN" help:"${help_token}"`
	// Scopes replace a token. If the list is nil, the token is used; if it is empty, the
	// caller has no scope.
	Scopes []string `placeholder:"SCOPE" help:"Decide for these scopes, without a token."`
	// Audience is the aud claim of the token that --scopes replaces. Without it, the token is for the API.
	Audience []string `placeholder:"AUDIENCE" help:"With --scopes: what the token is meant for (its aud claim)."`
	// Method and Path are the request.
	Method string `arg:"" help:"GET, POST, …"`
	Path   string `arg:"" help:"/agents/web-search-agent/runs, or the whole URL."`
}

// Help adds examples to the command's --help.
func (canCmd) Help() string {
	return `Exit status 0: allowed, 3: denied. For a request that begins a run it also prints the limits
that apply, and what is used of them if keyway.yaml or DATABASE_URL names a database. The
limits of the caller need a token.

  keyway can --scopes agents:web-search-agent:run POST /agents/finance-agent/runs
  keyway can --scopes agents:run --audience https://agents.example.com/mcp POST /mcp
  keyway can --token @alice.jwt GET /sessions`
}

// Run prints whether the request is allowed, and the reasons.
func (c canCmd) Run(ctx context.Context, e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	// A principal made from --scopes has no subject. The decision needs none: a subject only
	// selects whose rows a caller sees.
	p := &authz.Principal{Scopes: c.Scopes}
	switch {
	case c.Scopes != nil && c.Token != "":
		return usage("--token and --scopes exclude each other; give one of them")
	case c.Scopes == nil && c.Audience != nil:
		return usage("--audience belongs to --scopes; a token has its own audience")
	case c.Scopes == nil:
		p, err = e.principal(cfg, c.Token)
	default:
		p.Audience, err = audienceOf(cfg, c.Audience)
	}
	if err != nil {
		return err
	}
	d, err := policy.DecideAt(p, strings.ToUpper(c.Method), c.Path)
	if err != nil {
		return usage("PATH is no path of a request; write it as in /agents/web-search-agent/runs")
	}
	limits := e.limitsOf(ctx, cfg, p, d)
	if e.cli.JSON {
		// Route and Need are absent if no route serves the path.
		answer := struct {
			Allow   bool     `json:"allow"`
			Route   string   `json:"route,omitempty"`
			Need    []string `json:"need,omitempty"`
			Missing []string `json:"missing,omitempty"`
			Reasons []string `json:"reasons"`
			// Scopes are those of the token with their origins, if these are not all the same claim.
			Scopes []originOf `json:"scopes,omitempty"`
			// Limits are those that apply to what the request begins.
			Limits []limitLine `json:"limits,omitempty"`
		}{d.Allow, routeName(d.Route), scopeNames(d.Need), scopeNames(d.Missing), d.Reasons(cfg.AsWritten),
			originsOf(p.Scopes, p.Origins), limits}
		asWritten(cfg, &answer)
		err = printJSON(e.out, answer)
	} else {
		verdict := map[bool]string{true: "allowed", false: "denied"}[d.Allow]
		fmt.Fprintf(e.out, "%s: %s\n", verdict, inLine(strings.Join(d.Reasons(cfg.AsWritten), "; ")))
		for _, l := range limits {
			fmt.Fprintln(e.out, l)
		}
	}
	if err == nil && !d.Allow {
		err = silent(exitDenied)
	}
	return err
}

// audienceOf returns what a token with these audiences is accepted for, if its other claims are in order.
func audienceOf(cfg *config.Config, given []string) (authz.Audience, error) {
	if given == nil {
		return authz.ForAPI, nil
	}
	named := func(list []string) bool {
		return slices.ContainsFunc(list, func(aud string) bool { return slices.Contains(given, aud) })
	}
	api := (!cfg.Auth.VerifyAudience || named(cfg.Auth.Audience)) &&
		slices.ContainsFunc(cfg.Auth.Keys, func(k config.Key) bool { return len(k.Audience) == 0 || named(k.Audience) })
	mcp := named(cfg.MCPAudience())
	switch {
	case api && mcp:
		return authz.ForBoth, nil
	case mcp:
		return authz.ForMCP, nil
	case api:
		return authz.ForAPI, nil
	}
	return 0, usage("--audience: no token with it is accepted: neither auth.audience, auth.keys[].audience nor the door " +
		"for MCP has it, so the answer is 401")
}

// originOf is a scope, and the claim or role that it is from.
type originOf struct {
	Scope  string `json:"scope"`
	Origin string `json:"origin"`
}

// originsOf returns the scopes with their origins, and nil without origins.
func originsOf(scopes, origins []string) (all []originOf) {
	for i, origin := range origins {
		all = append(all, originOf{scopes[i], origin})
	}
	return all
}

// routeName returns the route as "GET /agents", or "" if no route serves the path.
func routeName(r *route.Route) string {
	if r == nil {
		return ""
	}
	return r.String()
}

// scopeNames returns scopes, or needed scopes, as they are written in a token.
func scopeNames[T fmt.Stringer](scopes []T) []string {
	var names []string
	for _, s := range scopes {
		names = append(names, s.String())
	}
	return names
}

// policyCmd prints the authorizer's answer for a token.
type policyCmd struct {
	Token string `placeholder:"TOKEN" help:"${help_token}"`
}

// Help adds examples to the command's --help.
func (policyCmd) Help() string {
	return `Prints the JSON that API Gateway gets from the Lambda authorizer: the IAM policy, and the
context that the functions read.

  keyway policy --token @alice.jwt
  keyway token --sub ann --scopes agents:read | keyway policy --token -`
}

// sampleARN is the method ARN of a made-up API. The authorizer copies its region,
// account, API and stage into the policy; their values do not affect the decision.
const sampleARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod/GET/"

// Run prints what the deployed authorizer would return.
func (c policyCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	answer, err := e.authorize(cfg, c.Token)
	if err != nil {
		return err
	}
	asWritten(cfg, &answer)
	return printJSON(e.out, answer)
}

// authorize sends a token through the code of the Lambda authorizer, as API Gateway
// does. The answer is therefore the one that the deployed authorizer would give. given
// is the value of the --token flag.
func (e env) authorize(cfg *config.Config, given string) (events.APIGatewayCustomAuthorizerResponse, error) {
	var none events.APIGatewayCustomAuthorizerResponse
	raw, err := e.readToken(given)
	if err != nil {
		return none, err
	}
	// With --dev's key, the tokens that serve --dev printed can be explained.
	if err := e.addDevKey(cfg, false); err != nil {
		return none, err
	}
	// A new authorizer has no cached keys: keys at a URL are fetched now.
	a, err := e.authorizer(cfg)
	if err != nil {
		return none, err
	}
	if a.Hash, err = e.readKeys(); err != nil {
		return none, err
	}
	answer, err := a.Authorize(context.Background(), events.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type: "REQUEST", MethodArn: sampleARN, Headers: map[string]string{"Authorization": "Bearer " + raw},
	})
	switch {
	case errors.Is(err, fault.Unavailable):
		// A caller of the API is not shown which key server failed, and why. The
		// operator who runs this command needs exactly that.
		return none, err
	case err != nil:
		return none, fmt.Errorf("the token is refused: %s%s\nhint: %s",
			fault.Detail(err), causeOf(err, "\ncause: "), fault.Hint(fault.Detail(err)))
	}
	return answer, nil
}

// causeOf returns what was expected of a refused token with a good signature, with a text before it, or "". Only the
// operator sees it.
func causeOf(err error, before string) string {
	if m, ok := errors.AsType[token.Cause](err); ok {
		return before + m.Error()
	}
	return ""
}

// principal verifies a token and returns the identity in it.
func (e env) principal(cfg *config.Config, given string) (*authz.Principal, error) {
	answer, err := e.authorize(cfg, given)
	if err != nil {
		return nil, err
	}
	return edge.Principal(answer.Context)
}

// readToken returns the token that the --token flag gives: itself, - for standard
// input, @FILE, or empty for $KEYWAY_TOKEN. A file or a variable keeps the token out
// of the shell's history and of the list of processes.
func (e env) readToken(given string) (string, error) {
	var text []byte
	var err error
	switch {
	case given == "-":
		// A token is some kilobytes. The limit is for a pipe that never ends.
		text, err = io.ReadAll(io.LimitReader(e.in, 1<<20))
	case strings.HasPrefix(given, "@"):
		if text, err = os.ReadFile(given[1:]); err != nil {
			return "", usageError{err}
		}
	default:
		// The flag comes before the variable, as everywhere.
		fromEnv, _ := e.lookup("KEYWAY_TOKEN")
		text = []byte(cmp.Or(given, fromEnv))
	}
	if err != nil {
		return "", err
	}
	// A file and a pipe usually end with a newline.
	if s := strings.TrimSpace(string(text)); s != "" {
		return s, nil
	}
	return "", usage("no token: give --token TOKEN, --token - or --token @FILE, or set KEYWAY_TOKEN")
}

// routesCmd prints the route table.
type routesCmd struct{}

// Help adds examples to the command's --help.
func (routesCmd) Help() string {
	return `Prints method, path, scopes and the Lambda function of every route. The scopes are the
defaults: auth.scope_mappings in keyway.yaml may replace them, except (admin_scope), where only
the administrator's scope opens the route, and (any token), where every valid token does.

  keyway routes
  keyway routes --json`
}

// Run prints the table; it reads no keyway.yaml.
func (routesCmd) Run(e env) error {
	// line is one route. Its member names are part of the output of --json.
	type line struct {
		Method   string   `json:"method"`
		Path     string   `json:"path"`
		Needs    []string `json:"needs"`
		Public   bool     `json:"public"`
		Admin    bool     `json:"admin,omitempty"`     // only admin_scope opens it
		AnyToken bool     `json:"any_token,omitempty"` // every valid token opens it
		Audience bool     `json:"audience,omitempty"`  // every valid token opens it whose audience names the door
		Function string   `json:"function"`
	}
	var lines []line
	for r := range route.Table.All() {
		needs := append([]string{}, scopeNames(r.Decides().Needs)...) // [] and not null in JSON
		lines = append(lines, line{
			r.Method, r.Pattern, needs, r.Public, r.Admin, r.AnyToken, r.Addressed, string(r.Function),
		})
	}
	if e.cli.JSON {
		return printJSON(e.out, lines)
	}
	// Columns are aligned with spaces, so that the table can be copied into a document.
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		needs := strings.Join(l.Needs, ", ")
		switch {
		case l.Public:
			needs = "(public)"
		case l.Admin:
			needs = "(admin_scope)"
		case l.AnyToken:
			needs = "(any token)"
		case l.Audience:
			needs = "(any token for it)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Method, l.Path, needs, l.Function)
	}
	return w.Flush()
}

// printJSON writes indented JSON. It does not escape <, > and &, which a person reads
// in a terminal and no browser interprets.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
