package edge

import (
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// Evaluate reads a policy as API Gateway does: an Allow must match and no Deny
// may. In a Resource, * is any text and ? any one character.
func Evaluate(policy events.APIGatewayCustomAuthorizerPolicy, methodARN string) bool {
	allowed := false
	for _, s := range policy.Statement {
		for _, resource := range s.Resource {
			if !iamMatch(resource, methodARN) {
				continue
			}
			if s.Effect != "Allow" {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// MethodARN names a request the way API Gateway does. api ends after the stage
// ("arn:…:id/stage"); path is the request's own, with its leading slash.
func MethodARN(api, method, path string) string {
	return api + "/" + method + "/" + strings.TrimPrefix(path, "/")
}

// iamMatch walks both texts, and on a mismatch lets the last star take one more.
func iamMatch(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
