package shared_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/route"
)

// mayDo lists the IAM actions that the role of each function of template.yaml allows, besides adding to its own log.
// Lambda itself needs to receive the worker's messages.
var mayDo = map[string]string{
	"AuthorizerFunction": "secretsmanager:GetSecretValue",
	"ConfigFunction":     "",
	"AgentsFunction":     "",
	"RunsFunction": "bedrock:InvokeModel bedrock:InvokeModelWithResponseStream rds-db:connect " +
		"secretsmanager:GetSecretValue sqs:SendMessage",
	"WorkerFunction": "bedrock:InvokeModel bedrock:InvokeModelWithResponseStream rds-db:connect " +
		"secretsmanager:GetSecretValue sqs:DeleteMessage sqs:GetQueueAttributes sqs:ReceiveMessage sqs:SendMessage",
	"SessionsFunction": "rds-db:connect secretsmanager:GetSecretValue",
	"MemoriesFunction": "rds-db:connect secretsmanager:GetSecretValue",
	"MigrateFunction":  "rds-db:connect secretsmanager:GetSecretValue",
}

// logsInAs lists the database users of each function, in its URL and in its role. A function that
// serves requests is never the master user.
var logsInAs = map[string]string{
	"RunsFunction": "keyway_app", "WorkerFunction": "keyway_app", "SessionsFunction": "keyway_app",
	"MemoriesFunction": "keyway_app", "MigrateFunction": "keyway",
	"DbProxyRole": "keyway keyway_app",
}

// mustAnswer lists the responses of API Gateway that need a text in the template.
var mustAnswer = []string{
	"UNAUTHORIZED", "ACCESS_DENIED", "MISSING_AUTHENTICATION_TOKEN", "REQUEST_TOO_LARGE", "THROTTLED",
	"AUTHORIZER_FAILURE", "DEFAULT_4XX", "DEFAULT_5XX",
}

// A node is a mapping of the template. CloudFormation's tags are dropped, so the values below !If
// or !Sub are found by walking.
type node = map[string]any

func TestTemplateMatchesRouteTable(t *testing.T) {
	t.Parallel()
	for _, complaint := range faults(t, source(t)) {
		t.Error(complaint)
	}
}

// This tests the rules: the test finds the error in each bad template.
func TestBadTemplateIsFound(t *testing.T) {
	t.Parallel()
	const agents = "Method: GET, Path: /agents}"
	for _, tt := range []struct{ before, after, complaint string }{
		{agents, "Method: GET, Path: /bots}", "GET /agents has no event"},
		{agents, "Method: GET, Path: /bots}", "GET /bots of AgentsFunction is not in the table"},
		{"Path: /teams}", "Path: /agents}", "GET /agents has 2 events"},
		{"Method: DELETE, Path: /memories}", "Method: PUT, Path: /memories}",
			"PUT /memories of MemoriesFunction is not in the table"},
		{"  MemoriesFunction:\n", "  OtherFunction:\n", "GET /memories is served by OtherFunction"},
		{"Path: /health, Auth: {Authorizer: NONE}}", "Path: /health}", "GET /health is public and needs a token"},
		{agents, "Method: GET, Path: /agents, Auth: {Authorizer: NONE}}", "GET /agents needs no token"},
		{"ResponseTransferMode: RESPONSE_STREAM", "ResponseTransferMode: STREAM", "is not streamed"},
		{", TimeoutInMillis: 900000", "", "ends after 29 s"},
		{agents, "Method: GET, Path: /agents, ResponseTransferMode: RESPONSE_STREAM}", "GET /agents is streamed"},
		{"Action: rds-db:connect", "Action: [rds-db:connect, s3:GetObject]",
			"rds-db:connect s3:GetObject secretsmanager:GetSecretValue"},
		{"Action: rds-db:connect", "Action: rds-db:*", "rds-db:* secretsmanager:GetSecretValue"},
		{"dbuser:${Server}/keyway_app", "dbuser:${Server}/keyway", "RunsRole may log in as keyway, want keyway_app"},
		{"dbuser:${Server}/keyway\n                    - Server: !If\n                        - Proxy",
			"dbuser:${Server}/keyway_app\n                    - Server: !If\n                        - Proxy",
			"MigrateRole may log in as keyway_app, want keyway"},
		{"dbuser:${Server}/keyway_app", "dbuser:${Server}/*", "RunsRole may log in as *, want keyway_app"},
		{"                  - !Sub\n                    - arn:${AWS::Partition}:rds-db:" +
			"${AWS::Region}:${AWS::AccountId}:dbuser:" +
			"${Server}/keyway_app", "                  - !Sub\n                    - arn",
			"DbProxyRole may log in as keyway, want keyway keyway_app"},
		{"postgres://keyway_app@", "postgres://keyway@", "SessionsFunction logs in as keyway, want keyway_app"},
		{"            - postgres://keyway@", "            - postgres://keyway_app@",
			"MigrateFunction logs in as keyway_app, want keyway"},
		{"keyway?sslmode=verify-full", "keyway?sslmode=require", "a URL of the database has no sslmode=verify-full"},
		{"DATABASE_ROLE: !If [Url, '', keyway_app]", "DATABASE_ROLE: ''", "MigrateFunction does not create the user"},
		{"                - !If [MakeJwtKey, !Ref JwtKey, !Ref JwtKeySecret]", "                - '*'",
			"AuthorizerFunction may act on everything"},
		{"Resource: !GetAtt RunsLogs.Arn", "Resource: !GetAtt SessionsLogs.Arn",
			"RunsFunction may write to SessionsLogs.Arn"},
		{"[logs:CreateLogStream, logs:PutLogEvents]", "[logs:CreateLogStream, logs:DeleteLogStream]", "logs:DeleteLogStream"},
		{"LoggingConfig: {LogGroup: !Ref RunsLogs}", "LoggingConfig: {LogGroup: !Ref WorkerLogs}",
			"RunsFunction logs to WorkerLogs"},
		{"      Role: !GetAtt RunsRole.Arn\n", "", "RunsFunction has not the role RunsRole"},
		{"  RunsLogs:\n    Type: AWS::Logs::LogGroup\n    DeletionPolicy: Retain",
			"  RunsLogs:\n    Type: AWS::Logs::LogGroup\n    DeletionPolicy: Delete", "RunsLogs is not kept"},
		{"  RunsLogs:\n    Type: AWS::Logs::LogGroup\n    DeletionPolicy: Retain\n    UpdateReplacePolicy: Retain\n" +
			"    Properties: {", "  RunsLogs:\n    Type: AWS::Logs::LogGroup\n    DeletionPolicy: Retain\n" +
			"    UpdateReplacePolicy: Retain\n    Properties: {LogGroupName: keyway, ", "RunsLogs has a fixed name"},
		{"ManagedPolicyArns: !If [Network, [!Ref NetworkPolicy]", "ManagedPolicyArns: !If [Network, " +
			"['arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole']", "has the policy"},
		{"Action: ['ec2:*']", "Action: ['ec2:RunInstances']", "the functions' code can manage network interfaces"},
		{"ReservedConcurrentExecutions: !If [ReserveRuns, !Ref RunsConcurrency, !Ref AWS::NoValue]\n", "\n",
			"RunsFunction has no ReservedConcurrentExecutions"},
		{"SecurityPolicy: SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09", "SecurityPolicy: TLS_1_0", "Api accepts old TLS"},
		{"        - ResourcePath: /~1docs\n", "        - ResourcePath: /~1other\n",
			"GET /docs is public and has no throttle"},
		{"Resource: !Sub arn:${AWS::Partition}:s3:::cloudformation-custom-resource-response-*/*", "Resource: '*'",
			"S3Endpoint allows everything"},
		{"      PolicyDocument: # Lambda itself receives", "      Extra: # Lambda itself receives",
			"QueueInterface has no policy"},
		{"      MaxAllocatedStorage: !Ref RdsMaxStorage\n", "", "the storage of Instance has no maximum"},
		{"      EnableCloudwatchLogsExports: [postgresql]\n", "", "doesn't export its log"},
		{"AlarmActions: [!Ref AlarmTopic]", "AlarmActions: []", "Alarm informs nobody"},
		{"MetricName: RunErrors", "MetricName: Runs", "no alarm for RunErrors"},
		{"MetricName: ApproximateNumberOfMessagesVisible", "MetricName: NumberOfMessagesSent", "no alarm for"},
		{"Condition: UseWaf\n    Properties:\n      ResourceArn", "Condition: UseWaf\n    Properties:\n      Other",
			"WebAclOfApi protects nothing"},
		{"Access-Control-Allow-Origin: !Sub \"'${Origin}'\", Retry-After: \"'1'\"", "Retry-After: \"'1'\"",
			"a web page can't read the answer THROTTLED"},
		{"resource_metadata=\\\"${PublicUrl}/.well-known", "resource_metadata=\\\"${Origin}/.well-known",
			"UNAUTHORIZED does not say where clients of MCP get a token"},
		{"        THROTTLED:", "        QUOTA_EXCEEDED:", "THROTTLED has AWS's text"},
		{`'{"detail":"Request body is too large",`, `'{"message":"too large",`, "REQUEST_TOO_LARGE has no detail"},
		{`"error":{"message":"Request body is too large"`, `"error":{"text":""`,
			"REQUEST_TOO_LARGE has no error for clients"},
		{"    Metadata: {BuildMethod: makefile}\n", "", "is not built by the Makefile"},
		{"    Type: AWS::Serverless::Function\n",
			"    Type: AWS::Serverless::Function\n    Extra: {FunctionUrlConfig: {AuthType: NONE}}\n", "has its own URL"},
	} {
		text := source(t)
		bad := strings.Replace(text, tt.before, tt.after, 1)
		if bad == text {
			t.Errorf("the template no longer contains %q", tt.before)
			continue
		}
		if got := faults(t, bad); !slices.ContainsFunc(got,
			func(s string) bool { return strings.Contains(s, tt.complaint) }) {
			t.Errorf("%q instead of %q: want %q, got %q", tt.after, tt.before, tt.complaint, got)
		}
	}
}

// docs/deploy.md describes every parameter and every output.
func TestGuideNamesEveryParameterAndOutput(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Parameters", "Outputs"} {
		names := get(parsed(t, source(t)), part)
		if len(names) == 0 {
			t.Errorf("the template has no %s", part)
		}
		for name := range names {
			if !strings.Contains(string(guide), "`"+name+"`") {
				t.Errorf("docs/deploy.md doesn't name %s, one of the %s", name, part)
			}
		}
	}
}

// sam build calls make for each function. Two functions are never built from the same
// directory, and all are built with the flags that the tests and the benchmarks use.
func TestEachFunctionIsBuiltFromItsOwnDirectory(t *testing.T) {
	t.Parallel()
	from := map[string]string{}
	for name := range functions(get(parsed(t, source(t)), "Resources")) {
		cmd := exec.CommandContext(t.Context(), "make", "-n", "build-"+name, "ARTIFACTS_DIR=artifacts")
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		compiled := regexp.MustCompile(`(?m) go build (.*) -o artifacts/bootstrap \./(\S+)$`).FindStringSubmatch(string(out))
		if err != nil || compiled == nil || !strings.Contains(string(out), "keyway build") {
			t.Errorf("make build-%s: %v\n%s", name, err, out)
			continue
		}
		if flags := strings.ReplaceAll(compiled[1], "'", ""); flags != strings.Join(lambdatest.BuildFlags, " ") {
			t.Errorf("make build-%s compiles with %s, and the tests and benchmarks with %q", name, flags, lambdatest.BuildFlags)
		}
		dir := compiled[2]
		if other, taken := from[dir]; taken {
			t.Errorf("%s and %s are both built from %s", name, other, dir)
		}
		from[dir] = name
	}
}

func source(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func parsed(t *testing.T, text string) (template node) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &template); err != nil {
		t.Fatal(err)
	}
	return template
}

func functions(resources node) map[string]node {
	out := map[string]node{}
	for name, r := range resources {
		if r := r.(node); r["Type"] == "AWS::Serverless::Function" {
			out[name] = r
		}
	}
	return out
}

// faults returns the differences between a template and the route table and the lists above.
func faults(t *testing.T, text string) (out []string) {
	t.Helper()
	template := parsed(t, text)
	resources := get(template, "Resources")
	all := functions(resources)
	out = append(out, badEvents(all)...)
	for name, f := range all {
		out = append(out, badFunction(name, f, resources)...)
	}
	out = append(out, badLogGroups(resources)...)
	out = append(out, badProtection(resources)...)
	out = append(out, badLogins(text, resources, get(template, "Globals"))...)
	for name := range mayDo {
		if all[name] == nil {
			out = append(out, name+" is in the list of this test and is not a function")
		}
	}
	return append(out, badAnswers(get(resources, "Api", "Properties", "GatewayResponses"))...)
}

// event is an entry of a function's Events with the type Api.
type event struct {
	function string
	public   bool
	streamed bool
	long     bool
}

func badEvents(all map[string]node) (out []string) {
	events := map[string][]event{}
	for name, f := range all {
		for _, e := range get(f, "Properties", "Events") {
			p := get(e.(node), "Properties")
			if e.(node)["Type"] != "Api" {
				continue
			}
			key := fmt.Sprint(p["Method"], " ", p["Path"])
			events[key] = append(events[key], event{
				function: name, public: get(p, "Auth")["Authorizer"] == "NONE",
				streamed: p["ResponseTransferMode"] == "RESPONSE_STREAM", long: fmt.Sprint(p["TimeoutInMillis"]) == "900000",
			})
		}
	}
	for r := range route.Table.All() {
		if !r.Function.OnAWS() {
			continue
		}
		key := r.Method + " " + r.Pattern
		switch n := len(events[key]); n {
		case 0:
			out = append(out, key+" has no event")
		case 1:
			out = append(out, badEvent(r, events[key][0])...)
		default:
			out = append(out, fmt.Sprintf("%s has %d events", key, n))
		}
		delete(events, key)
	}
	for key, es := range events {
		out = append(out, key+" of "+es[0].function+" is not in the table")
	}
	return out
}

func badEvent(r *route.Route, e event) (out []string) {
	key := r.Method + " " + r.Pattern
	if want := strings.ToUpper(string(r.Function[:1])) + string(r.Function[1:]) + "Function"; e.function != want {
		out = append(out, key+" is served by "+e.function+", not by "+want)
	}
	if r.Public && !e.public {
		out = append(out, key+" is public and needs a token")
	}
	if !r.Public && e.public {
		out = append(out, key+" needs no token")
	}
	runs := r.Function == route.Runs
	if runs && !e.streamed {
		out = append(out, key+" is not streamed")
	}
	if runs && !e.long {
		out = append(out, key+" ends after 29 s")
	}
	if !runs && e.streamed {
		out = append(out, key+" is streamed, which its function does not expect")
	}
	return out
}

func badFunction(name string, f node, all node) (out []string) {
	if get(f, "Metadata")["BuildMethod"] != "makefile" {
		out = append(out, name+" is not built by the Makefile")
	}
	p, own := get(f, "Properties"), strings.TrimSuffix(name, "Function")
	if p["Role"] != own+"Role.Arn" || p["Policies"] != nil { // SAM would add AWS's managed policies
		out = append(out, name+" has not the role "+own+"Role alone")
	}
	if group := get(p, "LoggingConfig")["LogGroup"]; group != own+"Logs" {
		out = append(out, fmt.Sprintf("%s logs to %v", name, group))
	}
	if p["ReservedConcurrentExecutions"] == nil {
		out = append(out, name+" has no ReservedConcurrentExecutions")
	}
	role := get(all, own+"Role", "Properties")
	for _, text := range deep(role["ManagedPolicyArns"]) {
		if text != "Network" && text != "NetworkPolicy" && text != "AWS::NoValue" {
			out = append(out, name+" has the policy "+text)
		}
	}
	actions := map[string]bool{}
	for _, s := range statements(role["Policies"]) {
		for _, a := range texts(s["Action"]) {
			switch action := fmt.Sprint(a); {
			case s["Effect"] != "Allow":
			case action == "logs:CreateLogStream" || action == "logs:PutLogEvents":
				if s["Resource"] != own+"Logs.Arn" {
					out = append(out, fmt.Sprintf("%s may write to %v", name, s["Resource"]))
				}
			default:
				actions[action] = true
			}
		}
		if slices.Contains(texts(s["Resource"]), any("*")) {
			out = append(out, name+" may act on everything")
		}
	}
	walk(f, func(key string, _ any) {
		if key == "FunctionUrlConfig" {
			out = append(out, name+" has its own URL, without the authorizer")
		}
	})
	if got := strings.Join(slices.Sorted(maps.Keys(actions)), " "); got != mayDo[name] {
		out = append(out, fmt.Sprintf("%s may %s, want %s", name, got, mayDo[name]))
	}
	return out
}

// statements returns every statement below v.
func statements(v any) (all []node) {
	walk(v, func(_ string, value any) {
		for _, member := range texts(value) {
			if s, ok := member.(node); ok && s["Effect"] != nil {
				all = append(all, s)
			} else if branches, ok := member.([]any); ok { // of !If
				for _, branch := range branches {
					if s, ok := branch.(node); ok && s["Effect"] != nil {
						all = append(all, s)
					}
				}
			}
		}
	})
	return all
}

// badLogGroups checks that every log stays when the stack is deleted, and has no name that a new stack would need.
func badLogGroups(all node) (out []string) {
	for name, r := range all {
		if r := r.(node); r["Type"] == "AWS::Logs::LogGroup" {
			if r["DeletionPolicy"] != "Retain" || r["UpdateReplacePolicy"] != "Retain" {
				out = append(out, name+" is not kept")
			}
			if get(r, "Properties")["LogGroupName"] != nil {
				out = append(out, name+" has a fixed name")
			}
		}
	}
	return out
}

// alarmed are the metrics that have an alarm.
var alarmed = []string{
	"Unauthenticated", "Forbidden", "RunErrors", "ApproximateNumberOfMessagesVisible", "Throttles",
}

// pathOf returns the path of a method setting, in which each slash after the first one is ~1. The path "/~1x" is /x.
func pathOf(setting any) string {
	return "/" + strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(fmt.Sprint(setting), "/"), "~1"), "~1", "/")
}

// badProtection checks what bounds callers, code in the functions, and cost.
func badProtection(all node) (out []string) {
	api := get(all, "Api", "Properties")
	if policy := fmt.Sprint(api["SecurityPolicy"]); !strings.HasPrefix(policy, "SecurityPolicy_TLS13_1_") ||
		api["EndpointAccessMode"] == nil {
		out = append(out, "Api accepts old TLS")
	}
	limited := map[string]bool{}
	for _, m := range texts(api["MethodSettings"]) {
		m, _ := m.(node)
		if m["ThrottlingRateLimit"] != nil && m["ThrottlingBurstLimit"] != nil {
			limited[fmt.Sprint(m["HttpMethod"], " ", pathOf(m["ResourcePath"]))] = true
		}
	}
	for r := range route.Table.All() {
		if r.Public && r.Function.OnAWS() && !limited[r.Method+" "+r.Pattern] {
			out = append(out, r.Method+" "+r.Pattern+" is public and has no throttle of its own")
		}
	}
	denied := false
	for _, s := range statements(get(all, "NetworkPolicy", "Properties")) {
		byCode := get(s, "Condition", "ArnLike")["lambda:SourceFunctionArn"] != nil
		denied = denied || s["Effect"] == "Deny" && byCode && slices.Contains(texts(s["Action"]), any("ec2:*"))
	}
	if !denied {
		out = append(out, "the functions' code can manage network interfaces")
	}
	for _, name := range []string{"S3Endpoint", "QueueInterface", "BedrockInterface"} {
		found := statements(get(all, name, "Properties", "PolicyDocument"))
		if len(found) == 0 {
			out = append(out, name+" has no policy")
		}
		for _, s := range found {
			account := get(s, "Condition", "StringEquals")["aws:PrincipalAccount"] != nil
			if slices.Contains(texts(s["Resource"]), any("*")) || !account && name != "S3Endpoint" {
				out = append(out, name+" allows everything, or every account")
			}
		}
	}
	if get(all, "Instance", "Properties")["MaxAllocatedStorage"] == nil {
		out = append(out, "the storage of Instance has no maximum")
	}
	for _, name := range []string{"Instance", "Cluster"} {
		if get(all, name, "Properties")["EnableCloudwatchLogsExports"] == nil {
			out = append(out, name+" doesn't export its log")
		}
	}
	return append(out, badAlarms(all)...)
}

func badAlarms(all node) (out []string) {
	if get(all, "WebAclOfApi", "Properties")["ResourceArn"] == nil {
		out = append(out, "WebAclOfApi protects nothing")
	}
	metrics := map[string]bool{}
	for name, r := range all {
		if r := r.(node); r["Type"] == "AWS::CloudWatch::Alarm" {
			walk(r, func(key string, value any) {
				if key == "MetricName" {
					metrics[fmt.Sprint(value)] = true
				}
			})
			if !slices.Contains(texts(get(r, "Properties")["AlarmActions"]), any("AlarmTopic")) {
				out = append(out, name+" informs nobody")
			}
		}
	}
	for _, metric := range alarmed {
		if !metrics[metric] {
			out = append(out, "no alarm for "+metric)
		}
	}
	return out
}

var (
	loginRight   = regexp.MustCompile(`:dbuser:[^/]*/(.*)$`)
	loginAddress = regexp.MustCompile(`^postgres://([^@]*)@`)
)

// badLogins compares logsInAs with the users in the policies and in the URLs.
func badLogins(text string, resources, globals node) (out []string) {
	usual := found(globals, loginAddress)
	if strings.Count(text, "postgres://keyway") != strings.Count(text, "keyway?sslmode=verify-full") {
		out = append(out, "a URL of the database has no sslmode=verify-full")
	}
	for name, r := range resources {
		function := strings.TrimSuffix(name, "Role") + "Function"
		if want, may := cmp.Or(logsInAs[name], logsInAs[function]), found(r,
			loginRight); r.(node)["Type"] == "AWS::IAM::Role" &&
			may != want {
			out = append(out, fmt.Sprintf("%s may log in as %s, want %s", name, may, want))
		}
		does := cmp.Or(found(r, loginAddress), usual)
		if want := logsInAs[name]; want != "" && name != "DbProxyRole" && does != want {
			out = append(out, fmt.Sprintf("%s logs in as %s, want %s", name, does, want))
		}
	}
	if role := get(resources, "MigrateFunction", "Properties", "Environment",
		"Variables")["DATABASE_ROLE"]; !slices.Contains(texts(role), any(usual)) {
		out = append(out, fmt.Sprintf("MigrateFunction does not create the user of the functions, but %v", role))
	}
	return out
}

// found returns the first group of each match of the pattern in the strings below v, sorted and
// without repetition.
func found(v any, pattern *regexp.Regexp) string {
	all := map[string]bool{}
	walk(v, func(_ string, value any) {
		for _, text := range deep(value) {
			if m := pattern.FindStringSubmatch(text); m != nil {
				all[m[1]] = true
			}
		}
	})
	return strings.Join(slices.Sorted(maps.Keys(all)), " ")
}

// deep returns the strings of nested lists.
func deep(v any) (out []string) {
	switch v := v.(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, member := range v {
			out = append(out, deep(member)...)
		}
	}
	return out
}

func badAnswers(answers node) (out []string) {
	for _, name := range mustAnswer {
		if answers[name] == nil {
			out = append(out, name+" has AWS's text")
		}
	}
	for name, a := range answers {
		if get(a.(node), "ResponseParameters", "Headers")["Access-Control-Allow-Origin"] == nil {
			out = append(out, "a web page can't read the answer "+name)
		}
		if body := fmt.Sprint(get(a.(node), "ResponseTemplates")["application/json"]); !strings.HasPrefix(body,
			`{"detail":`) {
			out = append(out, name+" has no detail")
		}
		if body := fmt.Sprint(get(a.(node), "ResponseTemplates")["application/json"]); !strings.Contains(body,
			`,"error":{"message":`+strings.TrimPrefix(strings.Split(body, ",")[0], `{"detail":`)) {
			out = append(out, name+" has no error for clients of OpenAI's API")
		}
	}
	challenge := fmt.Sprint(get(answers, "UNAUTHORIZED", "ResponseParameters", "Headers")["WWW-Authenticate"])
	if !strings.Contains(challenge, `'Bearer realm="agentos"'`) {
		out = append(out, "UNAUTHORIZED has no challenge")
	}
	if !strings.Contains(challenge, `, resource_metadata="${PublicUrl}`+config.MCPResourcePath+`"'`) {
		out = append(out, "UNAUTHORIZED does not say where clients of MCP get a token")
	}
	return out
}

// get returns the node at the path of names, or an empty node if it is missing.
func get(n node, names ...string) node {
	for _, name := range names {
		n, _ = n[name].(node)
	}
	return n
}

// walk calls see for every member below v.
func walk(v any, see func(key string, value any)) {
	switch v := v.(type) {
	case node:
		for key, value := range v {
			see(key, value)
			walk(value, see)
		}
	case []any:
		for _, value := range v {
			walk(value, see)
		}
	}
}

func texts(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}
