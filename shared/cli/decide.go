package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// canCmd prints the decision that the server would make.
type canCmd struct {
	Token  string   `placeholder:"TOKEN" help:"The caller's token: itself, - for standard input, @FILE, or nothing for $KEYWAY_TOKEN."`
	Scopes []string `placeholder:"SCOPE" help:"Decide for these scopes instead of a token's."`
	Method string   `arg:"" help:"GET, POST, …"`
	Path   string   `arg:"" help:"/agents/web-search-agent/runs, or the whole address."`
}

// Help shows what to type.
func (canCmd) Help() string {
	return `Exit status 0: allowed, 3: denied.

  keyway can --scopes agents:web-search-agent:run POST /agents/finance-agent/runs
  keyway can --token @alice.jwt GET /sessions`
}

// Run decides and explains.
func (c canCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	p := &authz.Principal{Scopes: c.Scopes}
	if c.Scopes == nil {
		if p, err = e.principal(cfg, c.Token); err != nil {
			return err
		}
	} else if c.Token != "" {
		return usage("--token and --scopes exclude each other")
	}
	address, err := url.ParseRequestURI(c.Path)
	if err != nil {
		return usage("PATH is no path of a request; write it as in /agents/web-search-agent/runs")
	}
	d := policy.Decide(p, strings.ToUpper(c.Method), address.Path) // decoded and without a query, as the server has it
	if e.cli.JSON {
		err = printJSON(e.out, struct {
			Allow   bool     `json:"allow"`
			Route   string   `json:"route,omitempty"`
			Need    []string `json:"need,omitempty"`
			Missing []string `json:"missing,omitempty"`
			Reasons []string `json:"reasons"`
		}{d.Allow, routeName(d.Route), texts(d.Need), texts(d.Missing), d.Reasons()})
	} else {
		verdict := map[bool]string{true: "allowed", false: "denied"}[d.Allow]
		fmt.Fprintf(e.out, "%s: %s\n", verdict, strings.Join(d.Reasons(), "; "))
	}
	if err == nil && !d.Allow {
		err = silent(exitDenied)
	}
	return err
}

func routeName(r *route.Route) string {
	if r == nil {
		return ""
	}
	return r.String()
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// policyCmd prints the authorizer's answer.
type policyCmd struct {
	Token string `placeholder:"TOKEN" help:"The caller's token: itself, - for standard input, @FILE, or nothing for $KEYWAY_TOKEN."`
}

// Help shows what to type.
func (policyCmd) Help() string {
	return `Examples:

  keyway policy --token @alice.jwt
  keyway token --sub ann --scopes agents:read | keyway policy --token -`
}

// sampleARN stands for a deployed API: only its shape matters.
const sampleARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod/GET/"

// Run asks the real authorizer.
func (c policyCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	answer, err := e.authorize(cfg, c.Token)
	if err != nil {
		return err
	}
	return printJSON(e.out, answer)
}

// authorize sends a token through the authorizer as API Gateway would.
func (e env) authorize(cfg *config.Config, given string) (events.APIGatewayCustomAuthorizerResponse, error) {
	var none events.APIGatewayCustomAuthorizerResponse
	text, err := e.readToken(given)
	if err != nil {
		return none, err
	}
	if err := e.devKey(cfg, false); err != nil {
		return none, err
	}
	a, err := edge.New(cfg, e.outside())
	if err != nil {
		return none, usageError{err}
	}
	answer, err := a.Authorize(context.Background(), events.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type: "REQUEST", MethodArn: sampleARN, Headers: map[string]string{"Authorization": "Bearer " + text},
	})
	switch {
	case errors.Is(err, fault.Unavailable):
		return none, err // whoever types this may know which source, and why
	case err != nil:
		return none, fmt.Errorf("the token is refused: %s\nhint: %s", fault.Detail(err), fault.Hint(fault.Detail(err)))
	}
	return answer, nil
}

func (e env) principal(cfg *config.Config, given string) (*authz.Principal, error) {
	answer, err := e.authorize(cfg, given)
	if err != nil {
		return nil, err
	}
	return edge.Principal(answer.Context)
}

// readToken takes a token from where the user says it is.
func (e env) readToken(given string) (string, error) {
	var text []byte
	var err error
	switch {
	case given == "-":
		text, err = io.ReadAll(io.LimitReader(e.in, 1<<20))
	case strings.HasPrefix(given, "@"):
		if text, err = os.ReadFile(given[1:]); err != nil {
			return "", usageError{err}
		}
	default:
		fromEnv, _ := e.lookup("KEYWAY_TOKEN")
		text = []byte(cmp.Or(given, fromEnv))
	}
	if err != nil {
		return "", err
	}
	if s := strings.TrimSpace(string(text)); s != "" {
		return s, nil
	}
	return "", usage("no token: give --token TOKEN, --token - or --token @FILE, or set KEYWAY_TOKEN")
}

// routesCmd lists the table.
type routesCmd struct{}

// Help shows what to type.
func (routesCmd) Help() string {
	return `Examples:

  keyway routes
  keyway routes --json`
}

// Run prints method, path, scopes and function of every route.
func (routesCmd) Run(e env) error {
	type line struct {
		Method   string   `json:"method"`
		Path     string   `json:"path"`
		Needs    []string `json:"needs"`
		Public   bool     `json:"public"`
		Function string   `json:"function"`
	}
	var lines []line
	for r := range route.Table.All() {
		lines = append(lines, line{r.Method, r.Pattern, append([]string{}, texts(r.Needs)...), r.Public, string(r.Function)})
	}
	if e.cli.JSON {
		return printJSON(e.out, lines)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		needs := strings.Join(l.Needs, ", ")
		if l.Public {
			needs = "(public)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Method, l.Path, needs, l.Function)
	}
	return w.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
