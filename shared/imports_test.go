package shared_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyway-agents/keyway/"

// rooms is the layout. It lists the packages of the project that each package is allowed to import
// (by their path) and the packages of other modules (by the beginning of their path). The standard
// library is always allowed. docs/design.md gives the reasons.
var rooms = map[string]string{
	"shared/fault":      "",
	"shared/bound":      "shared/fault",
	"shared/owner":      "shared/fault",
	"shared/wire":       "shared/strictjson",
	"shared/scope":      "",
	"shared/awsenv":     "github.com/aws/aws-sdk-go-v2/aws",
	"shared/strictjson": "",
	"shared/pgvalue":    "",
	"shared/limit":      "shared/fault shared/strictjson",
	"shared/input":      "shared/bound shared/fault shared/pgvalue shared/strictjson",
	"shared/route":      "shared/scope",
	"shared/token": "shared/awsenv shared/fault shared/limit shared/strictjson github.com/golang-jwt/jwt " +
		"github.com/go-jose/go-jose github.com/aws/aws-sdk-go-v2/aws",
	"shared/authz":            "shared/fault shared/limit shared/logging shared/route shared/scope",
	"shared/loghash":          "",
	"shared/audit":            "shared/logging shared/loghash",
	"shared/authz/authztest":  "", // an oracle that shares code with what it judges would be none
	"shared/config":           "shared/bound shared/owner shared/scope",
	"shared/config/yamlfile":  "shared/config github.com/goccy/go-yaml",
	"shared/config/deployed":  "shared/config",
	"shared/config/configdoc": "shared/config",
	"shared/edge": "shared/fault shared/limit shared/route shared/scope shared/authz shared/token " +
		"shared/config shared/logging shared/loghash shared/strictjson github.com/aws/aws-lambda-go/events",
	"shared/policycheck": "shared/fault shared/route shared/authz shared/config " +
		"shared/config/yamlfile shared/edge github.com/aws/aws-lambda-go/events",
	"shared/replay":           "shared/route shared/scope shared/authz",
	"shared/logging":          "shared/fault",
	"shared/trace":            "shared/logging go.opentelemetry.io/otel",
	"shared/trace/otlp":       "shared/trace go.opentelemetry.io/otel google.golang.org/protobuf/encoding/protowire",
	"shared/meter":            "shared/trace go.opentelemetry.io/otel",
	"shared/meter/prometheus": "shared/meter github.com/VictoriaMetrics/metrics",
	"shared/meter/emf":        "shared/meter",
	"shared/trace/tracetest":  "go.opentelemetry.io/proto/otlp google.golang.org/protobuf/proto",
	"shared/version":          "",
	"shared/model":            "",
	"shared/tool":             "shared/fault shared/strictjson github.com/google/jsonschema-go",
	"shared/tool/hackernews":  "shared/fault shared/tool",
	"shared/tool/websearch":   "shared/fault shared/tool golang.org/x/net/html",
	"shared/tool/mcp":         "shared/trace shared/fault shared/tool",
	"shared/tool/builtin": "shared/fault shared/config shared/tool shared/tool/hackernews " +
		"shared/tool/websearch shared/tool/mcp shared/version",
	"shared/tool/tooltest":   "shared/tool github.com/google/jsonschema-go",
	"shared/model/upstream":  "shared/trace shared/fault",
	"shared/model/names":     "shared/model",
	"shared/model/openai":    "shared/fault shared/model shared/model/names shared/model/upstream",
	"shared/model/anthropic": "shared/fault shared/model shared/model/names shared/model/upstream",
	"shared/model/bedrock": "shared/awsenv shared/fault shared/model shared/model/names " +
		"shared/model/upstream github.com/aws/aws-sdk-go-v2/aws github.com/aws/smithy-go/eventstream",
	"shared/model/demo": "shared/model",
	"shared/model/modeltest": "shared/fault shared/model github.com/google/go-cmp " +
		"github.com/aws/smithy-go/eventstream",
	"shared/model/providers": "shared/awsenv shared/fault shared/config shared/model " +
		"shared/model/openai shared/model/anthropic shared/model/bedrock shared/model/demo",
	"shared/store": "shared/bound shared/fault shared/limit shared/owner shared/pgvalue " +
		"github.com/jackc/pgx github.com/google/uuid",
	"shared/store/migrations": "shared/fault shared/owner shared/store github.com/jackc/pgx",
	"shared/store/devpg": "github.com/fergusstrange/embedded-postgres github.com/gofrs/flock " +
		"github.com/jackc/pgx",
	"shared/store/storetest": "shared/store shared/store/devpg shared/store/migrations github.com/jackc/pgx",
	"shared/store/wiretap":   "",
	"shared/queue":           "github.com/google/uuid",
	"shared/queue/local":     "shared/queue shared/store github.com/google/uuid",
	"shared/queue/sqs": "shared/awsenv shared/fault shared/queue github.com/aws/aws-sdk-go-v2 " +
		"github.com/google/uuid",
	"shared/queue/sqs/sqstest": "github.com/aws/aws-sdk-go-v2",
	"shared/queue/queuetest":   "shared/queue github.com/google/go-cmp github.com/google/uuid",
	"shared/follow":            "shared/bound shared/store github.com/google/uuid",
	"shared/notes":             "shared/fault shared/pgvalue shared/model",
	"shared/revoke":            "shared/config shared/fault shared/owner shared/store",
	"shared/run": "shared/trace shared/fault shared/limit shared/pgvalue shared/strictjson shared/config shared/model " +
		"shared/logging shared/tool shared/store shared/queue shared/wire github.com/google/uuid",
	"shared/door/mcp":   "shared/bound shared/fault shared/strictjson shared/wire",
	"shared/door/aisdk": "shared/door/agui shared/fault shared/run shared/strictjson shared/wire",
	"shared/door/agui":  "shared/fault shared/model shared/pgvalue shared/run shared/strictjson shared/wire",
	"shared/api": "shared/trace shared/bound shared/fault shared/limit shared/pgvalue shared/strictjson shared/wire " +
		"shared/input shared/route " +
		"shared/authz shared/config shared/owner shared/store shared/follow shared/notes shared/revoke shared/run " +
		"shared/audit shared/logging shared/door/mcp shared/door/openai shared/door/agui shared/door/aisdk shared/model " +
		"console " +
		"github.com/google/uuid github.com/rs/cors",
	"shared/door/openai": "shared/bound shared/fault shared/input shared/strictjson shared/wire",
	"shared/apidoc":      "shared/api shared/bound shared/input shared/route shared/wire",
	"shared/gateway": "shared/fault shared/route shared/authz shared/edge shared/token shared/logging " +
		"github.com/aws/aws-lambda-go/events",
	"shared/assemble": "shared/door/mcp shared/trace shared/audit shared/loghash shared/config shared/fault " +
		"shared/limit shared/model " +
		"shared/owner shared/api shared/authz shared/route " +
		"shared/store shared/follow shared/notes shared/queue shared/revoke shared/run shared/wire " +
		"github.com/google/uuid",
	"shared/notify": "shared/config shared/store shared/tool " +
		"github.com/standard-webhooks/standard-webhooks",
	"shared/lambdaruntime": "shared/logging",
	"shared/lambdahttp": "shared/fault shared/strictjson shared/authz shared/edge shared/logging " +
		"shared/lambdaruntime github.com/aws/aws-lambda-go github.com/awslabs/aws-lambda-go-api-proxy/core",
	"shared/lambdahttp/lambdatest": "",
	"shared/agents": "shared/config shared/model shared/model/providers shared/run shared/tool " +
		"shared/tool/builtin",
	"shared/lambdaboot": "shared/meter shared/meter/emf " +
		"shared/trace shared/audit shared/loghash shared/awsenv shared/fault shared/config " +
		"shared/config/deployed " +
		"shared/api shared/authz shared/edge shared/lambdahttp shared/logging shared/queue shared/revoke shared/route " +
		"shared/run shared/store shared/token shared/version shared/assemble " +
		"github.com/aws/aws-sdk-go-v2/feature/rds/auth " +
		"github.com/jackc/pgx",
	"authorizer": "shared/loghash shared/fault shared/authz shared/config shared/config/deployed " +
		"shared/edge shared/logging shared/lambdaruntime",
	"functions":          "", // tests only
	"functions/agents":   "shared/lambdaboot shared/config shared/route",
	"functions/config":   "shared/lambdaboot shared/config shared/route",
	"functions/memories": "shared/lambdaboot shared/config shared/route",
	"functions/sessions": "shared/lambdaboot shared/config shared/route",
	"functions/runs": "shared/trace/otlp shared/lambdaboot shared/config shared/queue/sqs " +
		"shared/agents shared/route",
	"functions/worker": "shared/trace/otlp shared/lambdaboot shared/config shared/logging shared/queue/sqs " +
		"shared/agents shared/notify shared/store github.com/aws/aws-lambda-go github.com/google/uuid",
	"functions/migrate": "shared/lambdaboot shared/config shared/config/deployed shared/fault " +
		"shared/logging shared/store shared/store/migrations github.com/aws/aws-lambda-go",
	"bench": "shared/lambdahttp/lambdatest shared/store/devpg shared/store/wiretap " +
		"github.com/aws/aws-lambda-go/events github.com/jackc/pgx github.com/modelcontextprotocol/go-sdk gonum.org/v1/plot",
	"bench/emptylambda": "github.com/aws/aws-lambda-go/lambda",
	"bench/floor":       "github.com/google/uuid github.com/jackc/pgx",
	"client":            "github.com/tmaxmax/go-sse",
	"shared/cli": "shared/ client github.com/google/uuid github.com/alecthomas/kong " +
		"github.com/fsnotify/fsnotify github.com/aws/aws-lambda-go/events",
	"console":               "",
	"cmd/keyway":            "shared/cli",
	"examples/deploy/tools": "shared/config shared/agents shared/run shared/tool",
	"acceptance":            "", // tests only
	"acceptance/process": "shared/config shared/model/modeltest shared/store/storetest " +
		"github.com/chromedp/chromedp",
	"acceptance/programs":  "", // tests only
	"acceptance/withtools": "shared/cli shared/store/devpg shared/tool go.uber.org/goleak",
	"acceptance/harness":   "shared/store/devpg github.com/jackc/pgx",
	"acceptance/hostile":   "shared/store/devpg github.com/golang-jwt/jwt github.com/jackc/pgx",
	"acceptance/chaos": "shared/lambdahttp/lambdatest shared/store/devpg " +
		"github.com/aws/aws-lambda-go/events github.com/golang-jwt/jwt github.com/jackc/pgx",
	"acceptance/chaos/program": "shared/cli shared/tool",
	"examples/own-tools":       "shared/cli shared/config shared/model shared/run shared/tool",
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestPackagesImportOnlyWhatTheLayoutAllows(t *testing.T) {
	t.Parallel()
	for _, complaint := range complaints(list(t), rooms) {
		t.Error(complaint)
	}
}

// This tests the rule: the test finds each forbidden import.
func TestForbiddenImportIsFound(t *testing.T) {
	t.Parallel()
	good := listed{
		module + "shared/authz",
		[]string{
			"fmt", module + "shared/scope", module + "shared/route", module + "shared/fault", module + "shared/limit",
			module + "shared/logging",
		},
	}
	importing := func(path string) listed { return listed{good.ImportPath, append(slices.Clone(good.Imports), path)} }
	rules := map[string]string{"shared/authz": rooms["shared/authz"]}
	if got := complaints([]listed{good}, rules); len(got) != 0 {
		t.Fatalf("the good package: %q", got)
	}
	for bad, pkg := range map[string]listed{
		"may not import shared/store":            importing(module + "shared/store"),
		"may not import shared/authzx":           importing(module + "shared/authzx"),
		"may not import shared/route/deeper":     importing(module + "shared/route/deeper"),
		"may not import github.com/jackc/pgx/v5": importing("github.com/jackc/pgx/v5"),
		"is not in the layout":                   {module + "shared/util", nil},
		"shared/authz may import shared/scope and d": {
			good.ImportPath, []string{module + "shared/route", module + "shared/fault", module + "shared/limit",
				module + "shared/logging"},
		},
	} {
		pkgs := []listed{pkg}
		if pkg.ImportPath != good.ImportPath {
			pkgs = append(pkgs, good)
		}
		if got := complaints(pkgs, rules); len(got) != 1 || !strings.Contains(got[0], bad) {
			t.Errorf("want one complaint %q, got %q", bad, got)
		}
	}
}

// complaints compares the packages with the rules. An allowed import that no code uses is an error
// too, so that the rules don't become wider than the code.
func complaints(pkgs []listed, rules map[string]string) (out []string) {
	seen := map[string]bool{}
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		rule, ok := rules[name]
		if !ok {
			out = append(out, name+" is not in the layout: give it a room, or put the code where its neighbours live")
			continue
		}
		seen[name] = true
		unused := strings.Fields(rule)
		for _, path := range p.Imports {
			path = strings.TrimPrefix(path, module)
			own := strings.HasPrefix(path, "shared/") || strings.HasPrefix(path, "cmd/") || path == "console" || path == "client"
			if !own && !strings.Contains(strings.Split(path, "/")[0], ".") {
				continue // the standard library
			}
			allowed := func(a string) bool {
				if own {
					return path == a || strings.HasSuffix(a, "/") && strings.HasPrefix(path, a)
				}
				return path == a || strings.HasPrefix(path, a+"/")
			}
			if !slices.ContainsFunc(strings.Fields(rule), allowed) {
				out = append(out, name+" may not import "+path)
			}
			unused = slices.DeleteFunc(unused, allowed)
		}
		for _, a := range unused {
			out = append(out, fmt.Sprintf("%s may import %s and does not: take it out of the rules", name, a))
		}
	}
	for name := range rules {
		if !seen[name] {
			out = append(out, name+" has a room and does not exist")
		}
	}
	return out
}

func list(t *testing.T) (pkgs []listed) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	data, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(data))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath+"/" != module+"shared/" { // this test's own package
			pkgs = append(pkgs, p)
		}
	}
}
