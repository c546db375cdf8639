package edge

import (
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// Evaluate reports whether the policy allows the method ARN. It follows IAM's policy
// evaluation: an explicit Deny wins over every Allow, and what no statement allows is
// denied. In a Resource, * matches any text, slashes and the empty text included, and
// ? matches any one character. Conditions and policy variables are not evaluated,
// since the authorizer's policies hold none.
// A test compares the verdicts with those of an independent IAM evaluator.
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

// MethodARN returns the ARN that API Gateway gives a request. api ends with the stage
// and has no slash after it ("arn:…:id/stage"); path is the request's own path, with
// its leading slash.
func MethodARN(api, method, path string) string {
	return api + "/" + method + "/" + strings.TrimPrefix(path, "/")
}

// iamMatch reports whether the whole text matches the pattern. The part before the first wildcard is compared at once:
// a policy has a resource for each route, and most of them differ from the request there. The rest is walked from the
// left. On a mismatch it returns to the last star and lets that star match one more character. Earlier stars never
// need to be tried again, so the time is at most the product of the two lengths; a hostile path can't make it
// exponential.
func iamMatch(pattern, text string) bool {
	plain := pattern
	if i := strings.IndexByte(plain, '*'); i >= 0 {
		plain = plain[:i]
	}
	if i := strings.IndexByte(plain, '?'); i >= 0 {
		plain = plain[:i]
	}
	if !strings.HasPrefix(text, plain) {
		return false
	}
	p, t, star, mark := len(plain), len(plain), -1, 0
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
