package edge_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/edge"
)

// casesDigest is the SHA-256 of the 5,000 cases: agents, mappings, scopes, request. It
// changes with the generator and with the route table. After such a change check the counts
// that the test logs, and write the new digest here.
const casesDigest = "d53678224d448abdfed36199a833ca46d0426cd26c6b8c27c64070e5cc0e1529"

// foreign is the input of testdata/iam/simulate.mjs.
type foreign struct {
	Policies []events.APIGatewayCustomAuthorizerPolicy `json:"policies"`
	Cases    [][2]any                                  `json:"cases"` // the index of a policy, and a method ARN
}

// An independent evaluator of IAM policies gives the same verdicts on the authorizer's
// policies as edge.Evaluate.
func TestIndependentEvaluatorAgreesWithEvaluate(t *testing.T) {
	t.Parallel()
	asked, digest := foreignCases(t)
	if len(asked.Cases) != 5000 || digest != casesDigest {
		t.Fatalf("%d cases with the digest %s", len(asked.Cases), digest)
	}
	installed := os.Getenv("KEYWAY_IAM_SIMULATE")
	if installed == "" {
		missing(t, "KEYWAY_IAM_SIMULATE names no directory with @cloud-copilot/iam-simulate; run make iam, and set the "+
			"variable that it prints")
	}
	input, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/iam/simulate.mjs")
	cmd.Stdin = bytes.NewReader(input)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	var verdicts []string
	if err := json.Unmarshal(output, &verdicts); err != nil || len(verdicts) != len(asked.Cases) {
		t.Fatalf("%d verdicts, %v", len(verdicts), err)
	}
	tally := map[string]int{}
	for i, c := range asked.Cases {
		policy, arn := asked.Policies[c[0].(int)], c[1].(string)
		tally[verdicts[i]]++
		if got := edge.Evaluate(policy, arn); got != (verdicts[i] == "Allowed") {
			t.Errorf("%s: Evaluate gives %t, the independent evaluator %s, for\n%s", arn, got, verdicts[i],
				strings.Join(lines(policy), "\n"))
		}
	}
	t.Logf("the same verdict: %v", tally)
	if len(tally) != 3 || min(tally["Allowed"], tally["ImplicitlyDenied"], tally["ExplicitlyDenied"]) < 300 {
		t.Errorf("%v: too few cases of one verdict to test the evaluator", tally)
	}
}

// foreignCases makes 4,000 cases with policies of the authorizer, and 1,000 with policies
// that it never makes: question marks, stars in the middle, several statements.
func foreignCases(t *testing.T) (f foreign, digest string) {
	t.Helper()
	g := generator{rand.New(rand.NewPCG(20_26, 11_25))}
	sum := sha256.New()
	for len(f.Policies) < 1000 {
		w := g.world(t)
		f.Policies = append(f.Policies, w.policy)
		fmt.Fprintf(sum, "%q %q %q\n", w.authorizer.Agents, w.oracle.Mappings, w.scopes)
		for n := 0; n < 4; {
			method, path := g.request(w.authorizer.Agents)
			if strings.Contains(path, "*") || strings.Trim(path, "/") == "" {
				continue // the evaluator reads a star in a request as several resources, and rejects an empty path
			}
			n++
			f.Cases = append(f.Cases, [2]any{len(f.Policies) - 1, edge.MethodARN(api, method, path)})
			fmt.Fprintf(sum, "%s %q\n", method, path)
		}
	}
	for len(f.Policies) < 2000 {
		policy, path := g.anyPolicy(), "a"+g.anyText("ab/.")
		f.Policies = append(f.Policies, policy)
		f.Cases = append(f.Cases, [2]any{len(f.Policies) - 1, edge.MethodARN(api, "GET", path)})
		fmt.Fprintf(sum, "%q %q\n", lines(policy), path)
	}
	return f, hex.EncodeToString(sum.Sum(nil))
}

// anyText returns a text of 1 to 5 of these characters.
func (g generator) anyText(of string) string {
	out := make([]byte, 1+g.IntN(5))
	for i := range out {
		out[i] = of[g.IntN(len(of))]
	}
	return string(out)
}

func (g generator) anyPolicy() events.APIGatewayCustomAuthorizerPolicy {
	p := events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17"}
	for range 1 + g.IntN(4) {
		p.Statement = append(p.Statement, events.IAMPolicyStatement{
			Action: []string{"execute-api:Invoke"}, Effect: pick(g, "Allow", "Allow", "Deny"),
			Resource: []string{edge.MethodARN(api, "GET", g.anyText("ab/.**?")),
				edge.MethodARN(api, pick(g, "GET", "*", "G?T"), g.anyText("ab*?"))},
		})
	}
	return p
}

// missing skips a test because another program is missing. In CI it fails the test.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
