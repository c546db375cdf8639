package lambdahttp

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// full is an event as API Gateway sends it.
const full = `{"resource":"/agents/{agent_id}/runs/{run_id}","path":"/agents/a/runs/r","httpMethod":"GET",` +
	`"headers":{"Accept":"*/*","X":"last"},"multiValueHeaders":{"Accept":["*/*"],"X":["first","last"]},` +
	`"queryStringParameters":{"limit":"20"},"multiValueQueryStringParameters":{"limit":["20"],"a b":["\u00e4","&"]},` +
	`"pathParameters":{"run_id":"r","agent_id":"a"},"stageVariables":null,"requestContext":{"resourceId":"x",` +
	`"authorizer":{"sub":"ann","scopes":"[\"agents:read\"]","principalId":"x","integrationLatency":12},` +
	`"identity":{"cognitoIdentityPoolId":null,"sourceIp":"192.0.2.1","userAgent":"curl"},` +
	`"domainName":"api.example.com"},` +
	`"body":"{\"a\":1}","isBase64Encoded":false}`

// API Gateway's events are read in one pass; what quick can't read is left to encoding/json.
func TestAnEventOfAPIGatewayIsReadQuickly(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{
		"all members": full, "no headers": `{"headers":null,"multiValueHeaders":null}`, "nothing": `{}`,
		"only single values": `{"headers":{"A":"b"},"queryStringParameters":{"c":"d"}}`,
	} {
		if _, ok := quick([]byte(event)); !ok {
			t.Errorf("%s: left to encoding/json", name)
		}
	}
	for name, event := range map[string]string{
		"a name twice":         `{"path":"/a","path":"/b"}`,
		"another case":         `{"Path":"/a"}`,
		"a letter that folds":  `{"\u017fource":"/a","re\u017fource":"/a"}`,
		"a header twice":       `{"multiValueHeaders":{"A":["1"],"A":["2"]}}`,
		"a header in two ways": `{"multiValueHeaders":{"accept":["1"],"Accept":["2"]}}`,
		"a member twice":       `{"requestContext":{"authorizer":{"sub":"a","sub":"b"}}}`,
		"half a pair":          `{"path":"\ud800"}`,
		"an object as member":  `{"requestContext":{"authorizer":{"sub":{}}}}`,
		"a number as path":     `{"path":1}`,
		"no object":            `[]`,
		"an empty list":        `{"multiValueHeaders":{"A":[]}}`,
		"no JSON":              `{"path":`,
	} {
		if _, ok := quick([]byte(event)); ok {
			t.Errorf("%s: not left to encoding/json", name)
		}
	}
}

// Two readers must not see two events in one text.
func FuzzBothReadersSeeTheSameEvent(f *testing.F) {
	f.Add([]byte(full))
	for _, seed := range []string{
		`{"headers":{"a":"b","A":"c"}}`, `{"multiValueHeaders":{"A":["b",null]}}`, `{"multiValueHeaders":{"a":null}}`,
		`{"requestContext":{"authorizer":{"sub":1e999}}}`, `{"requestContext":null}`, `{"requestContext":{"identity":[]}}`,
		`{"requestContext":{"Identity":{"sourceIp":"a"}}}`, `{"isBase64Encoded":"true"}`, `{"isBase64Encoded":true}`,
		`{"pathParameters":{"a":"b","c":null}}`, `{"headers":5}`,
		`{"multiValueQueryStringParameters":{"a":[]},"queryStringParameters":{"b":"c"}}`,
		`{"requestContext":{"authorizer":{"exp":true,"sub":null}}}`, "{\"path\":\"\xff\"}", `{"\u0070ath":"/a"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := quick(data)
		if !ok {
			return
		}
		want, err := slow(data)
		if err != nil {
			t.Fatalf("%s: encoding/json refuses it: %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v", data, got, want)
		}
	})
}

// An answer has the bytes that encoding/json makes of AWS's type.
func FuzzAnAnswerIsThatOfEncodingJSON(f *testing.F) {
	f.Add(200, "Content-Type", "application/json", []byte(`{"a":"b<\u2028"}`))
	f.Add(404, "X-é", "\x00\x7f\"\\\n\t\b\f\r\x1b", []byte("\xff\x00"))
	f.Add(500, "a", "\xff\xed\xa0\x80\u2028\u2029", []byte(""))
	f.Fuzz(func(t *testing.T, status int, name, value string, body []byte) {
		w := newBuffer()
		w.header[name], w.header["A"] = []string{value, "second"}, []string{}
		if w.WriteHeader(status); status != 0 {
			w.body = body
		}
		got := w.marshal()
		var out strings.Builder
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		want := events.APIGatewayProxyResponse{StatusCode: w.status, MultiValueHeaders: w.header}
		var read events.APIGatewayProxyResponse
		if err := json.Unmarshal(got, &read); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		want.Body, want.IsBase64Encoded = read.Body, read.IsBase64Encoded
		if err := encoder.Encode(want); err != nil || out.String() != string(got)+"\n" {
			t.Errorf("%s\n%s %v", got, out.String(), err)
		}
	})
}
