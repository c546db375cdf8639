package shared_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// inWords are the defaults that docs/deploy.md writes in words.
var inWords = map[string]string{
	"none": "", "–": "", "a new secret": "", "Nova Lite": "amazon.nova-lite-v1:0",
}

// tableOf returns the rows of the first table below a heading, by their first cell.
func tableOf(t *testing.T, document, heading string) map[string][]string {
	t.Helper()
	_, below, found := strings.Cut(document, "\n"+heading+"\n")
	rows := map[string][]string{}
	for line := range strings.Lines(below) {
		switch {
		case strings.HasPrefix(line, "|"):
			cells := cellsOf(strings.TrimSpace(line))
			rows[cells[0]] = cells
		case len(rows) > 0:
			return rows
		}
	}
	if !found || len(rows) == 0 {
		t.Fatalf("there is no table below %s", heading)
	}
	return rows
}

// docs/deploy.md states numbers of template.yaml and of samconfig.toml.
func TestTheGuideHasTheNumbersOfTheTemplate(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	guide, template := string(text), parsed(t, source(t))
	resources, name := get(template, "Resources"), regexp.MustCompile("`(\\w+)`")

	defaults := 0
	for _, row := range tableOf(t, guide, "### The other parameters") {
		names, values := name.FindAllStringSubmatch(row[0], -1), strings.Split(row[1], ", ")
		for i, n := range names {
			p, ok := get(template, "Parameters")[n[1]].(node)
			if !ok || n[1] == "Origin" { // its default is an address that no page has
				continue
			}
			want := strings.Trim(values[min(i, len(values)-1)], "`")
			if words, ok := inWords[want]; ok {
				want = words
			}
			if got := fmt.Sprint(p["Default"]); got != want {
				t.Errorf("the default of %s is %q, and %q in docs/deploy.md", n[1], got, want)
			}
			defaults++
		}
	}
	if defaults < 20 {
		t.Errorf("only %d defaults are compared", defaults)
	}

	rates := tableOf(t, guide, "## WAF, throttles and reserved concurrency")
	for _, s := range texts(get(resources, "Api", "Properties")["MethodSettings"]) {
		s := s.(node)
		path := fmt.Sprint(s["HttpMethod"], " ", pathOf(s["ResourcePath"]))
		row := rates["the other routes that need no token"]
		for cell, cells := range rates {
			if strings.Contains(cell, "`"+path+"`") {
				row = cells
			}
		}
		want := fmt.Sprintf("%v a second, %v in a burst", s["ThrottlingRateLimit"], s["ThrottlingBurstLimit"])
		if path != "* /*" && !strings.HasPrefix(row[1], want) {
			t.Errorf("%s has %s, and %q in docs/deploy.md", path, want, row[1])
		}
	}

	// What sentences say about other members of the template.
	for what, c := range map[string]struct {
		of        any
		key, want string
	}{
		"pauses after five minutes": {resources["Cluster"], "SecondsUntilAutoPause", "[Pausing 300 AWS::NoValue]"},
		"Aurora keeps seven days":   {resources["Cluster"], "BackupRetentionPeriod", "7"},
		"RDS keeps seven days":      {resources["Instance"], "BackupRetentionPeriod", "7"},
		"a last snapshot of Aurora": {resources["Cluster"], "DeletionPolicy", "Snapshot"},
		"a last snapshot of RDS":    {resources["Instance"], "DeletionPolicy", "Snapshot"},
		"the key's secret is kept":  {resources["JwtKey"], "DeletionPolicy", "Retain"},
		"a rate in five minutes":    {resources["WebAcl"], "EvaluationWindowSec", "300"},
		"once a minute, or a day": {
			resources["WorkerFunction"], "Schedule", "[Sleepy rate(1 day) rate(1 minute)]",
		},
		"logs are kept for LogRetention": {resources["AccessLogs"], "RetentionInDays", "LogRetention"},
		"background runs":                {resources["WorkerFunction"], "MaximumConcurrency", "BackgroundRuns"},
		"messages at 80 percent":         {resources["SpendBudget"], "Threshold", "100 80"},
		"Aurora can pause":               {get(template, "Conditions"), "Sleepy", "[Aurora Pausing]"},
	} {
		var got []string
		walk(c.of, func(key string, value any) {
			if key == c.key {
				got = append(got, fmt.Sprint(value))
			}
		})
		slices.Sort(got)
		if all := strings.Join(slices.Compact(got), " "); all != c.want {
			t.Errorf("%s: %s is %q, want %s", what, c.key, all, c.want)
		}
	}
	for name, r := range resources {
		switch r := r.(node); r["Type"] {
		case "AWS::Logs::LogGroup":
			if days := get(r, "Properties")["RetentionInDays"]; days != "LogRetention" {
				t.Errorf("%s keeps lines for %v", name, days)
			}
		case "AWS::CloudWatch::Alarm":
			walk(r, func(key string, value any) {
				if key == "Period" && fmt.Sprint(value) != "300" {
					t.Errorf("%s counts for %v s, and docs/deploy.md says five minutes", name, value)
				}
			})
		}
	}
	reservedBySAM(t, guide, template)
}

// reservedBySAM compares the sentence about the instances that the environment prod reserves.
func reservedBySAM(t *testing.T, guide string, template node) {
	t.Helper()
	config, err := os.ReadFile("../samconfig.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, prod, _ := strings.Cut(string(config), "[prod.deploy.parameters]")
	n := func(parameter string) int {
		text := fmt.Sprint(get(template, "Parameters", parameter)["Default"])
		if m := regexp.MustCompile(parameter + `=(\d+)`).FindStringSubmatch(prod); m != nil {
			text = m[1]
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", parameter, err)
		}
		return n
	}
	authorizer, runs, worker, others := n("AuthorizerConcurrency"), n("RunsConcurrency"), n("BackgroundRuns"),
		n("OtherConcurrency")
	want := fmt.Sprintf("reserves %d: %d for the authorizer, %d for runs, %d for the worker (`BackgroundRuns`), "+
		"%d each for config, agents, sessions and memories, and 1 for migrate.",
		authorizer+runs+worker+4*others+1, authorizer, runs, worker, others)
	if !strings.Contains(strings.Join(strings.Fields(guide), " "), want) {
		t.Errorf("docs/deploy.md doesn't say that the environment prod %s", want)
	}
}

// API Gateway's access log is the only one that shows what no function has seen. It has no path, because a path can
// have an id, and no subject.
func TestTheAccessLogHasWhatTheGuideSays(t *testing.T) {
	t.Parallel()
	resources := get(parsed(t, source(t)), "Resources")
	log := get(resources, "Api", "Properties", "AccessLogSetting")
	format := fmt.Sprint(log["Format"])
	for _, has := range []string{
		"$context.httpMethod", "$context.resourcePath", "$context.status", "$context.requestTime", "latency",
		"$context.identity.sourceIp", "$context.authorizer.subHash", "$context.authorizer.digest",
	} {
		if !strings.Contains(format, has) {
			t.Errorf("the access log lacks %s: %s", has, format)
		}
	}
	known := []string{
		"requestTime", "requestId", "identity.sourceIp", "httpMethod", "resourcePath", "status", "error.responseType",
		"authorizer.subHash", "authorizer.digest", "responseLatency", "integration.latency", "authorizer.latency",
		"responseLength",
	}
	for _, m := range regexp.MustCompile(`\$context\.([\w.]+)`).FindAllStringSubmatch(format, -1) {
		if !slices.Contains(known, m[1]) {
			t.Errorf("the access log has $context.%s; may it have what a caller sent?", m[1])
		}
	}
	kind := get(resources, "AccessLogs")["Type"]
	if fmt.Sprint(log["DestinationArn"]) != "AccessLogs.Arn" || kind != "AWS::Logs::LogGroup" {
		t.Errorf("it is written to %v", log["DestinationArn"])
	}
	for _, s := range texts(get(resources, "Api", "Properties")["MethodSettings"]) {
		if s := s.(node); s["DataTraceEnabled"] != false || s["LoggingLevel"] != "OFF" {
			t.Errorf("%v logs bodies and tokens", s["ResourcePath"])
		}
	}
}

// Without a NAT gateway and without IPv6, the network has no way out but the endpoints.
func TestWithoutANATNothingLeavesTheNetwork(t *testing.T) {
	t.Parallel()
	template := parsed(t, source(t))
	for name, want := range map[string]string{
		"Ipv6": "[Network [Egress ipv6]]", "Nat": "[Network [Egress nat]]",
		"BedrockEndpoint": "[Network [Egress bedrock-endpoint]]", "QueueEndpoint": "[Network [Ipv6] [Nat]]",
	} {
		if got := fmt.Sprint(get(template, "Conditions")[name]); got != want {
			t.Errorf("the condition %s is %s, want %s", name, got, want)
		}
	}
	ways, endpoints := 0, map[string]string{}
	for name, r := range get(template, "Resources") {
		r := r.(node)
		condition := fmt.Sprint(r["Condition"])
		switch kind := fmt.Sprint(r["Type"]); kind {
		case "AWS::EC2::Route", "AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::EIP",
			"AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::VPCGatewayAttachment":
			if ways++; condition != "Nat" && condition != "Ipv6" {
				t.Errorf("%s, a %s, exists with the condition %s", name, kind, condition)
			}
		case "AWS::EC2::VPCEndpoint":
			endpoints[name] = condition
			if p := get(r, "Properties"); p["VpcEndpointType"] == "Interface" &&
				fmt.Sprint(p["SubnetIds"]) != "[SubnetA SubnetB]" {
				t.Errorf("%s is in %v, and not in two zones", name, p["SubnetIds"])
			}
		case "AWS::EC2::VPCPeeringConnection", "AWS::EC2::TransitGatewayAttachment", "AWS::EC2::VPNGateway":
			t.Errorf("%s leads out of the network", name)
		}
	}
	const want = "map[BedrockInterface:BedrockEndpoint QueueInterface:QueueEndpoint S3Endpoint:Network]"
	if fmt.Sprint(endpoints) != want || ways < 5 {
		t.Errorf("the endpoints are %v, want %s; %d ways out", endpoints, want, ways)
	}
}
