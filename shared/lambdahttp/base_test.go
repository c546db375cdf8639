package lambdahttp_test

import (
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

const (
	agent = "/agents/{agent_id}"
	runs  = "/agents/{agent_id}/runs/{run_id}"
)

// The route and parameters that API Gateway matched decide what is removed, and never the form
// of the path. So the authorizer and the function see the same path.
func TestOnlyTheMatchedBasePathIsRemoved(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	id := func(value string) map[string]string { return map[string]string{"agent_id": value} }
	for name, row := range map[string]struct {
		resource   string
		parameters map[string]string
		path, want string
	}{
		"no base":                       {agent, id("a"), "/agents/a", "/agents/a"},
		"a base":                        {agent, id("a"), "/os/agents/a", "/agents/a"},
		"one of two segments":           {"/agents", nil, "/team/os/agents", "/agents"},
		"before the stage":              {"/agents", nil, "/os/v1/agents", "/agents"},
		"that is called as a route":     {"/agents", nil, "/agents/agents", "/agents"},
		"that is called as a whole one": {agent, id("a"), "/agents/a/agents/a", "/agents/a"},
		"with a slash behind":           {"/agents", nil, "/os/agents/", "/agents/"},
		"of the root":                   {"/", nil, "/os", "/"},
		"of the root with a slash":      {"/", nil, "/os/", "/"},
		"no base of the root":           {"/", nil, "/", "/"},
		"two parameters": {runs, map[string]string{"agent_id": "a", "run_id": "r"}, "/os/agents/a/runs/r",
			"/agents/a/runs/r"},
		"a parameter that was decoded": {agent, id("a%20b"), "/os/agents/a b", "/agents/a b"},
		"one that was not":             {agent, id("a%20b"), "/os/agents/a%20b", "/agents/a%20b"},
		"one with a stray percent":     {agent, id("100%"), "/os/agents/100%", "/agents/100%"},
		"a route in a parameter":       {agent, id("x/agents/y"), "/agents/x/agents/y", "/agents/x/agents/y"},
		"an escaped route in one":      {agent, id("x%2Fagents%2Fy"), "/agents/x/agents/y", "/agents/x/agents/y"},
		"one below a base":             {agent, id("x/agents/y"), "/os/agents/x/agents/y", "/agents/x/agents/y"},
		"another agent's path behind": {agent, id("mine/agents/hers"), "/agents/mine/agents/hers",
			"/agents/mine/agents/hers"},
		"an empty segment":               {"/agents", nil, "//agents", "//agents"},
		"two of them":                    {"/agents", nil, "/os//agents", "/os//agents"},
		"a step upwards":                 {"/agents", nil, "/os/../agents", "/os/../agents"},
		"another parameter than matched": {agent, id("a"), "/os/agents/b", "/os/agents/b"},
		"part of a segment":              {"/agents", nil, "/osagents", "/osagents"},
		"a missing parameter":            {agent, nil, "/os/agents/a", "/os/agents/a"},
		"no resource":                    {"", nil, "/os/agents", "/os/agents"},
		"a resource that catches all": {"/{proxy+}", map[string]string{"proxy": "agents/a"}, "/os/agents/a",
			"/os/agents/a"},
	} {
		got := request(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Resource: row.resource,
			PathParameters: row.parameters, Path: row.path})
		if got.Path != row.want {
			t.Errorf("%s: %q of %s arrives as %q, want %q", name, row.path, row.resource, got.Path, row.want)
		}
	}
}

// The handler must be able to distinguish the parameter "abc/" from "abc".
func TestSlashesInsideAParameterStayEscaped(t *testing.T) {
	t.Parallel()
	f := start(t, "whole")
	const session = "/sessions/{session_id}"
	for name, row := range map[string]struct{ resource, id, path, want string }{
		"none":                           {session, "abc", "/sessions/abc", "/sessions/abc"},
		"a slash behind a path":          {session, "abc", "/sessions/abc/", "/sessions/abc/"},
		"one at the end":                 {session, "abc/", "/sessions/abc/", "/sessions/abc%2F"},
		"one that was not decoded":       {session, "abc%2F", "/sessions/abc/", "/sessions/abc%2F"},
		"in small letters":               {session, "abc%2f", "/sessions/abc/", "/sessions/abc%2F"},
		"one that the path lost":         {session, "abc%2F", "/sessions/abc", "/sessions/abc%2F"},
		"two that the path lost":         {session, "abc%2F%2F", "/sessions/abc", "/sessions/abc%2F"},
		"one in the middle":              {session, "a/b c", "/sessions/a/b c", "/sessions/a%2Fb%20c"},
		"one below a base path":          {session, "a/b", "/os/sessions/a/b", "/sessions/a%2Fb"},
		"before the rest of the path":    {session + "/runs", "a/", "/sessions/a//runs", "/sessions/a%2F/runs"},
		"a resource that takes all":      {"/{session_id+}", "a/b", "/a/b", "/a/b"},
		"a path that was never sent":     {session, "x/y", "/sessions/abc", "/sessions/abc%2F"},
		"the name of a route in the id":  {session, "abc/runs", "/sessions/abc/runs", "/sessions/abc%2Fruns"},
		"a percent sign in front of one": {session, "%252F", "/sessions/%2F", "/sessions/%252F"},
	} {
		got := request(t, f, events.APIGatewayProxyRequest{HTTPMethod: "GET", Resource: row.resource,
			PathParameters: map[string]string{"session_id": row.id}, Path: row.path})
		if got.Escaped != row.want {
			t.Errorf("%s: %q of %s arrives as %q, want %q", name, row.path, row.resource, got.Escaped, row.want)
		}
	}
}
