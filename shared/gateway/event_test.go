package gateway

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/route"
)

func TestAuthorizerEventMatchesAPIGateway(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "http://localhost/agents/a%20b/runs/r/cancel/?x=1", nil)
	r.Header.Add("authorization", "one")
	r.Header.Add("Authorization", "two")
	r.Header.Set("Accept", "*/*")
	got := event(r, route.Table.Match(r.Method, r.URL.Path))
	want := events.APIGatewayCustomAuthorizerRequestTypeRequest{
		Type:      "REQUEST",
		MethodArn: "arn:aws:execute-api:local:000000000000:keyway/local/POST/agents/a b/runs/r/cancel",
		Resource:  "/agents/{agent_id}/runs/{run_id}/cancel", Path: "/agents/a b/runs/r/cancel/", HTTPMethod: "POST",
		Headers:           map[string]string{"Authorization": "two", "Accept": "*/*"}, // the last, as API Gateway has it
		MultiValueHeaders: map[string][]string{"Authorization": {"one", "two"}, "Accept": {"*/*"}},
		PathParameters:    map[string]string{"agent_id": "a b", "run_id": "r"},
		RequestContext: events.APIGatewayCustomAuthorizerRequestTypeRequestContext{
			Path: "/agents/a b/runs/r/cancel/", Stage: "local", ResourcePath: "/agents/{agent_id}/runs/{run_id}/cancel",
			HTTPMethod: "POST",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
	unknown := event(httptest.NewRequest("GET", "http://localhost/nope", nil), route.Match{})
	if unknown.Resource != "" || unknown.MethodArn != "arn:aws:execute-api:local:000000000000:keyway/local/GET/nope" {
		t.Errorf("%+v", unknown)
	}
}
