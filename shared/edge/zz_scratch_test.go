package edge_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/token"
)

func TestScratch(t *testing.T) {
	c := &config.Config{Auth: config.Auth{Algorithms: []string{"HS256"}, AdminScope: "agent_os:admin", Keys: []config.Key{{Literal: "TEST KEY ONLY: thirty-two bytes at the least"}}}, Agents: []config.Agent{{ID: "a"}}}
	a, err := edge.New(c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := token.LoadSigner(token.SigningKey{HMAC: []byte("TEST KEY ONLY: thirty-two bytes at the least")})
	var scopes []string
	for i := range 2000 {
		scopes = append(scopes, fmt.Sprintf("agents:%d:read", i))
	}
	raw, err := s.Sign(token.Draft{Claims: token.Claims{Subject: "u", Scopes: scopes}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r, err := a.Authorize(t.Context(), events.APIGatewayCustomAuthorizerRequestTypeRequest{MethodArn: "arn:aws:x:y/z/GET/", Headers: map[string]string{"Authorization": raw}})
	t.Log(time.Since(start), err, len(r.PolicyDocument.Statement[0].Resource))
}
