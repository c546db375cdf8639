package edge

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
)

// whole is an event as API Gateway sends it.
const whole = `{"type":"REQUEST","methodArn":"arn:aws:execute-api:eu-central-1:1:api/v1/GET/agents",` +
	`"resource":"/agents","path":"/agents","httpMethod":"GET","headers":{"Accept":"*/*","authorization":"Bearer a.b.c"},` +
	`"multiValueHeaders":{"Accept":["*/*"],"authorization":["Bearer a.b.c"]},"queryStringParameters":{},` +
	`"pathParameters":null,"stageVariables":{},"requestContext":{"requestId":"r","identity":{"sourceIp":"192.0.2.1",` +
	`"userAgent":null},"requestTimeEpoch":1.5e12}}`

func TestAnEventOfAPIGatewayIsReadQuickly(t *testing.T) {
	t.Parallel()
	e, ok := quick([]byte(whole))
	want := event{
		methodARN: "arn:aws:execute-api:eu-central-1:1:api/v1/GET/agents", method: "GET", path: "/agents",
		sent: []string{"Bearer a.b.c"}, requestID: "r", source: "192.0.2.1",
	}
	if !ok || !reflect.DeepEqual(e, want) {
		t.Errorf("%+v %t", e, ok)
	}
	for _, text := range []string{
		`null`, `{"path":"/a","path":"/b"}`, `{"Path":"/a"}`, `{"headers":{"authorization":1}}`, `{"headers":[]}`, `{"path":`,
		`{"multiValueHeaders":{"authorization":"x"}}`, `{"path":"\ud800"}`, `{"requestContext":[]}`,
	} {
		if _, ok := quick([]byte(text)); ok {
			t.Errorf("%s is not left to encoding/json", text)
		}
	}
}

// Two readers must not see two tokens in one event.
func FuzzBothReadersSeeTheSameEvent(f *testing.F) {
	for _, seed := range []string{
		whole, `{"headers":{"AUTHORIZATION":"a","authorization":"b"}}`, `{"multiValueHeaders":{"authorization":[]},` +
			`"headers":{"Authorization":"x"}}`, `{"multiValueHeaders":{"authorization":["a",null]}}`, `{"headers":{"a":5}}`,
		`{"headers":{"\u0061uthorization":"\u0078"}}`, `{"requestContext":{"identity":null,"requestId":null}}`,
		"{\"headers\":{\"authorization\":\"\xff\"}}", `{"multiValueHeaders":null}`, `{"headers":{"authorization":null}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := quick(data)
		if !ok {
			return
		}
		if want, err := slow(data); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v %v", data, got, want, err)
		}
	})
}

// An answer has the bytes that encoding/json makes of AWS's type.
func FuzzAnAnswerIsThatOfEncodingJSON(f *testing.F) {
	f.Add("ann", "https://issuer", "agents:read", "scp=a", "x", int64(1_900_000_000))
	f.Add("", "<&>", "\"\\\u2028", "", "\x00\xff", int64(0))
	f.Fuzz(func(t *testing.T, subject, issuer, scope, origin, text string, at int64) {
		p := &authz.Principal{
			Subject: subject, Issuer: issuer, Scopes: []string{scope, text}, Origins: []string{origin, text}, Realm: text,
			SessionID: text, TokenID: subject, Absent: text, Unread: issuer, SubjectClaim: text, ScopesClaim: origin,
			IssuedAt: time.Unix(at, 0), TokenHash: text, Hash: subject,
		}
		policy := events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17", Statement: []events.IAMPolicyStatement{
			{Action: []string{"execute-api:Invoke"}, Effect: "Allow", Resource: []string{text, issuer}},
			{Action: []string{}, Effect: subject, Resource: []string{scope}},
		}}
		v := verdict{principal: subject, policy: &document{policy, appendPolicy(nil, policy)}, context: membersOf(p, text)}
		var want strings.Builder
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		err := encoder.Encode(Response{PrincipalID: subject, PolicyDocument: policy, Context: contextOf(v.context)})
		if got := string(v.json()) + "\n"; err != nil || got != want.String() {
			t.Errorf("%s\n%s %v", got, want.String(), err)
		}
	})
}

// Tokens with the same scopes and the same audience have the same policy, and no others have it. What is kept is
// bounded.
func TestPoliciesAreKeptByScopesAudienceAndStage(t *testing.T) {
	t.Parallel()
	var d documents
	keyOf := func(scopes []string, audience authz.Audience, arn string) string {
		return string(documentKey(nil, &authz.Principal{Scopes: scopes, Audience: audience}, arn))
	}
	keys := map[string]bool{}
	for _, scopes := range [][]string{
		nil, {""}, {"a"}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a,b"}, {"a", ""}, {"", "a"}, {"a\x01b"},
	} {
		for _, arn := range []string{"arn:x/v1/", "arn:x/v2/", "arn:x/v1/a"} {
			for _, audience := range []authz.Audience{authz.ForAPI, authz.ForBoth, authz.ForMCP} {
				keys[keyOf(scopes, audience, arn)] = true
			}
		}
	}
	if len(keys) != 90 {
		t.Errorf("%d keys", len(keys))
	}
	for i := range 3 * maxDocuments {
		d.keep(strings.Repeat("x", i), &document{json: []byte("{}")})
		if len(d.made) > maxDocuments || d.made[strings.Repeat("x", i)] == nil {
			t.Fatalf("after %d: %d", i, len(d.made))
		}
	}
	for i := range 100 {
		d.keep(string(rune('a'+i)), &document{json: []byte(strings.Repeat("x", maxDocumentBytes/10))})
		if d.size > maxDocumentBytes {
			t.Fatalf("%d bytes", d.size)
		}
	}
	d.keep("huge", &document{json: []byte(strings.Repeat("x", maxDocumentBytes))})
	if d.made["huge"] != nil {
		t.Error("a policy over the bound is kept")
	}
	huge := &authz.Principal{Scopes: []string{strings.Repeat("s", 2*maxKey), "more"}}
	if key := documentKey(nil, huge, "arn"); len(key) > 3*maxKey {
		t.Errorf("a key of %d bytes", len(key))
	}
}
