package emf_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/emf"
)

func TestEachMetricIsALineForCloudWatch(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := &emf.Metrics{Namespace: "Keyway/test", To: &out, Now: func() time.Time { return time.UnixMilli(1795953607000) }}
	m.Run(meter.Run{
		Agent: "a", Model: "m", Status: "ERROR", Input: 100, Output: 20, USD: 0.25, Took: 1500 * time.Millisecond,
	})
	m.Request(meter.Request{Route: "GET /agents", Status: 200})
	m.Request(meter.Request{Route: "GET /agents", Status: 429})
	m.ModelCall(meter.ModelCall{})
	m.ToolCall(meter.ToolCall{})
	m.Executing(1)
	want := []string{`{"_aws":{"Timestamp":1795953607000,"CloudWatchMetrics":[{"Namespace":"Keyway/test",
		"Dimensions":[[]],"Metrics":[{"Name":"Runs","Unit":"Count"},{"Name":"RunErrors","Unit":"Count"},
		{"Name":"InputTokens","Unit":"Count"},{"Name":"OutputTokens","Unit":"Count"},{"Name":"CostUSD","Unit":"None"},
		{"Name":"RunTime","Unit":"Milliseconds"}]}]},"Runs":1,"RunErrors":1,"InputTokens":100,"OutputTokens":20,
		"CostUSD":0.25,"RunTime":1500,"Agent":"a","Model":"m","RunStatus":"ERROR"}`,
		`{"_aws":{"Timestamp":1795953607000,"CloudWatchMetrics":[{"Namespace":"Keyway/test","Dimensions":[["Status"]],
		"Metrics":[{"Name":"Refusals","Unit":"Count"}]}]},"Refusals":1,"Status":"429","Route":"GET /agents"}`}
	lines := bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n"))
	if len(lines) != len(want) {
		t.Fatalf("%s", &out)
	}
	for i, line := range lines {
		var got, expected any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(want[i]), &expected); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Error(diff)
		}
	}
}
