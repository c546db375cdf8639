package shared_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/emf"
)

// ofAWS lists the metrics of AWS that the template reads, with their dimensions. The sources are the pages "metrics" of
// AWS's guides to Lambda and to SQS: docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html and
// docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html.
var ofAWS = []string{
	"AWS/Lambda Errors FunctionName", "AWS/Lambda Throttles FunctionName", "AWS/Lambda ConcurrentExecutions FunctionName",
	"AWS/SQS ApproximateNumberOfMessagesVisible QueueName",
}

const ownNamespace = "Keyway/${AWS::StackName}"

// emitted returns the metrics that the functions write, as "namespace name dimension", and the ends of runs and the
// refusals that make them.
func emitted(t *testing.T) (all []string) {
	t.Helper()
	var out bytes.Buffer
	m := &emf.Metrics{Namespace: ownNamespace, To: &out, Now: time.Now}
	m.Run(meter.Run{Agent: "a", Model: "m", Status: "COMPLETED"})
	m.Request(meter.Request{Status: 429})
	for line := range bytes.Lines(out.Bytes()) {
		var read struct {
			AWS struct {
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name string }
				}
			} `json:"_aws"`
		}
		if err := json.Unmarshal(line, &read); err != nil {
			t.Fatal(err)
		}
		for _, d := range read.AWS.CloudWatchMetrics {
			for _, metric := range d.Metrics {
				for _, dimensions := range d.Dimensions {
					parts := append([]string{d.Namespace, metric.Name}, dimensions...)
					all = append(all, strings.Join(parts, " "))
				}
			}
		}
	}
	return all
}

// elements returns the elements of a list, none for another value.
func elements(v any) []any {
	list, _ := v.([]any)
	return list
}

// filtered returns the metrics that CloudWatch makes of the lines of a log group.
func filtered(resources node) (all []string) {
	for _, r := range resources {
		if r := r.(node); r["Type"] == "AWS::Logs::MetricFilter" {
			for _, m := range elements(get(r, "Properties")["MetricTransformations"]) {
				all = append(all, fmt.Sprint(m.(node)["MetricNamespace"], " ", m.(node)["MetricName"]))
			}
		}
	}
	return all
}

// cells returns the metrics of the dashboard.
func cells(t *testing.T, resources node) (all []string) {
	t.Helper()
	var body struct {
		Widgets []struct{ Properties struct{ Metrics [][]any } }
	}
	text := fmt.Sprint(get(resources, "Dashboard", "Properties")["DashboardBody"])
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	for _, w := range body.Widgets {
		for _, m := range w.Properties.Metrics {
			parts := []string{m[0].(string), m[1].(string)}
			for i := 2; i+1 < len(m); i += 2 { // The last element may be options.
				parts = append(parts, m[i].(string))
			}
			all = append(all, strings.Join(parts, " "))
		}
	}
	return all
}

// watched returns the metrics of the alarms.
func watched(resources node) (all []string) {
	of := func(m node) {
		parts := []string{fmt.Sprint(m["Namespace"]), fmt.Sprint(m["MetricName"])}
		for _, d := range elements(m["Dimensions"]) {
			parts = append(parts, fmt.Sprint(d.(node)["Name"]))
		}
		all = append(all, strings.Join(parts, " "))
	}
	for _, r := range resources {
		r := r.(node)
		if r["Type"] != "AWS::CloudWatch::Alarm" {
			continue
		}
		properties := get(r, "Properties")
		if properties["MetricName"] != nil {
			of(properties)
		}
		for _, m := range elements(properties["Metrics"]) {
			if metric := get(m.(node), "MetricStat", "Metric"); len(metric) > 0 {
				of(metric)
			}
		}
	}
	return all
}

func TestEachCellOfTheDashboardAndEachAlarmHasAMetricThatIsEmitted(t *testing.T) {
	t.Parallel()
	template := parsed(t, source(t))
	resources := get(template, "Resources")
	if got := get(template, "Globals", "Function", "Environment", "Variables")[emf.Variable]; got != ownNamespace {
		t.Errorf("%s is %v", emf.Variable, got)
	}
	own, made := emitted(t), filtered(resources)
	seen := cells(t, resources)
	for _, metric := range append(slices.Clone(seen), watched(resources)...) {
		if !slices.Contains(own, metric) && !slices.Contains(made, metric) && !slices.Contains(ofAWS, metric) {
			t.Errorf("nobody emits %s", metric)
		}
	}
	// Nor does a function write what nobody looks at: each metric is paid for.
	for _, metric := range own {
		if !slices.Contains(seen, metric) {
			t.Errorf("no cell shows %s", metric)
		}
	}
	reference := regexp.MustCompile(`\$\{(\w+)`)
	text := fmt.Sprint(get(resources, "Dashboard", "Properties")["DashboardBody"])
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		if m[1] != "AWS" && resources[m[1]] == nil {
			t.Errorf("the dashboard names %s, which the template doesn't have", m[1])
		}
	}
}
