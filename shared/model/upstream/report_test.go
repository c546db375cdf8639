package upstream_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// bodies are errors as servers really send them, with what they report.
var bodies = []struct {
	name, body string
	want       upstream.Report
}{
	{"OpenAI", `{"error":{"message":"M","type":"invalid_request_error","param":null,"code":null}}`, text("M")},
	{"Anthropic", `{"type":"error","error":{"type":"not_found_error","message":"M"},"request_id":"req_1"}`, text("M")},
	{"Ollama", `{"error":"M"}`, text("M")},
	{"Gemini for OpenAI's clients", `[{"error":{"code":400,"message":"M","status":"INVALID_ARGUMENT"}}]`, text("M")},
	{"FastAPI", `{"detail":"M"}`, text("M")},
	{"FastAPI's validation", `{"detail":[{"type":"missing","loc":["body","messages",0],"msg":"M"}]}`,
		text("M (body.messages.0)")},
	{"several of FastAPI's", `{"detail":[{"loc":["body","a"],"msg":"M"},{"loc":["body","b"],"msg":"N"}]}`,
		text("M (body.a); N (body.b)")},
	{"FastAPI with an object", `{"detail":{"error":"M"}}`, text("M")},
	{"an API gateway", `{"message":"M"}`, text("M")},
	{"AWS", `{"Message":"M"}`, text("M")},
	{"Cloudflare", `{"success":false,"errors":[{"code":7000,"message":"M"}],"result":null}`, text("M")},
	{"an error within an error", `{"error":{"error":{"message":"M"}}}`, text("M")},
	{"a proxy's copy of an error", `{"error":{"message":{"error":{"message":"M"}}}}`, text("M")},
	{"OAuth's second member", `{"error":"","error_description":"M"}`, text("M")},
	{"Spring Boot", `{"status":400,"error":"Bad Request","message":"M"}`, text("M")},
	{"OAuth", `{"error":"invalid_request","error_description":"M"}`, text("M")},
	{"OpenRouter", `{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"detail\":\"M\"}"}}}`,
		text("Provider returned error: M")},
	{"a byte order mark", "\ufeff" + `{"error":{"message":"M"}}`, text("M")},
	{"vLLM of 2023", `{"object":"error","message":"M","type":"BadRequestError","param":null,"code":400}`, text("M")},
	{"llama.cpp's Messages", `{"code":500,"message":"M","type":"server_error"}`, text("M")},
	{"Portkey", `{"status":"failure","message":"M"}`, text("M")},
	{"LiteLLM's event in an HTTP error", "data: {\"error\": {\"message\": \"M\", \"code\": \"500\"}}\n\n", text("M")},
	{"an event with a name", "event: error\r\ndata: {\"message\": \"M\"}\r\n\r\n", text("M")},
	{"a text", "upstream connect error: M\n", text("upstream connect error: M")},
	{"a text as JSON", `"M"`, text("M")},
	{"a page", "<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", upstream.Report{}},
	{"XML", `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`, upstream.Report{}},
	{"bytes", "\x1f\x8b\x08\x00\x00", upstream.Report{}},
	{"JSON that was cut", `{"error":{"message":"M`, upstream.Report{}},
	{"nothing", "", upstream.Report{}},
	{"null", "null", upstream.Report{}},
	{"an answer", `{"id":"1","choices":[{"message":{"content":"hi"}}]}`, upstream.Report{}},
	{"a rate limit of Anthropic", `{"type":"error","error":{"type":"rate_limit_error","message":"M"}}`, busy("M")},
	{"an overload of Anthropic", `{"type":"error","error":{"type":"overloaded_error","message":"M"}}`, busy("M")},
	{"a rate limit of OpenAI", `{"error":{"message":"M","type":"tokens","code":"rate_limit_exceeded"}}`, busy("M")},
	{"a rate limit of LiteLLM", `{"error":{"message":"M","type":"throttling_error","code":"429"}}`, busy("M")},
	{"a quota of Gemini", `[{"error":{"code":429,"message":"M","status":"RESOURCE_EXHAUSTED"}}]`, busy("M")},
	{"nesting without end", strings.Repeat(`{"error":`, 1000) + `"M"` + strings.Repeat("}", 1000), upstream.Report{}},
}

func text(t string) upstream.Report { return upstream.Report{Text: t} }

func busy(t string) upstream.Report { return upstream.Report{Text: t, Busy: true} }

func TestTheReasonIsFoundInEveryFormOfAnError(t *testing.T) {
	t.Parallel()
	for _, c := range bodies {
		if got := upstream.ReportIn([]byte(c.body)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func FuzzReport(f *testing.F) {
	for _, c := range bodies {
		f.Add([]byte(c.body))
	}
	p := upstream.KeyedProvider{Key: "sk-secret-of-the-server"}
	f.Fuzz(func(t *testing.T, body []byte) {
		shown := fault.Detail(p.ReportError(upstream.ReportIn(body)))
		if strings.Contains(shown, p.Key) || shown == "" || utf8.RuneCountInString(shown) > 500 {
			t.Errorf("shown: %q", shown)
		}
	})
}

// People configure a placeholder for servers that need no key. Masking it would garble
// every text.
func TestOnlyKeysThatAreLongEnoughToBeSecretAreMasked(t *testing.T) {
	t.Parallel()
	none := regexp.MustCompile(`sk-\w+`)
	for key, want := range map[string]string{
		"x": "exceeds the context", "none": "exceeds the context", "context": "exceeds the context",
		"exceeds the": "*** context", "": "exceeds the context",
	} {
		if got := upstream.SafeText("exceeds the context", none, key); got != want {
			t.Errorf("with the key %q: %q, want %q", key, got, want)
		}
	}
}

func TestAnErrorEventEndsTheStreamWithItsReason(t *testing.T) {
	t.Parallel()
	p := upstream.KeyedProvider{Name: "vendor"}
	for name, c := range map[string]struct {
		stream, want string
		kind         fault.Kind
	}{
		"JSON": {"event: error\ndata: {\"code\":500,\"message\":\"M\",\"type\":\"server_error\"}\n\n", "M", fault.Upstream},
		"on several lines": {
			"event: error\r\ndata: {\"message\":\r\ndata: \"M\"}\r\n\r\ndata: {}\r\n\r\n", "M", fault.Upstream},
		"without a space":  {"event:error\ndata:{\"error\":\"M\"}\n\n", "M", fault.Upstream},
		"a text":           {"event: error\ndata: out of memory\n\n", "out of memory", fault.Upstream},
		"no data":          {"event: error\n\n", upstream.NoAnswer, fault.Upstream},
		"cut":              {"event: error", upstream.NoAnswer, fault.Upstream},
		"a field":          {"error: {\"code\":500,\"message\":\"M\"}\n\n", "M", fault.Upstream},
		"an overload":      {"event: error\ndata: {\"error\":{\"code\":429,\"message\":\"M\"}}\n\n", "M", fault.Unavailable},
		"a list as data":   {"data: [{\"error\":{\"message\":\"M\"}}]\n\n", "M", fault.Upstream},
		"no event of ours": {"data: [1]\n\n", upstream.NoAnswer, fault.Upstream},
	} {
		events := upstream.NewEvents(strings.NewReader(c.stream))
		err := json.NewDecoder(events).Decode(&struct{ X int }{})
		got := p.StreamError(events, err, "text/event-stream", "end")
		if events.Ended() || fault.Detail(got) != c.want || fault.KindOf(got) != c.kind {
			t.Errorf("%s: ended %v, error %v, want %q", name, events.Ended(), got, c.want)
		}
	}
}

func TestTheDelayOfABusyServerIsFoundInEveryHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		headers string
		want    time.Duration
	}{
		{"Retry-After: 7", 7 * time.Second},
		{"Retry-After-Ms: 250|Retry-After: 7", 250 * time.Millisecond},
		{"X-Amz-Retry-After: 1500", 1500 * time.Millisecond},
		{"llm_provider-retry-after: 7", 7 * time.Second},
		{"llm_provider-retry-after-ms: 250", 250 * time.Millisecond},
		{"Retry-After: 3|llm_provider-retry-after: 7", 3 * time.Second},
		{"Retry-After: soon|llm_provider-retry-after: 7", 7 * time.Second},
		{"x-ratelimit-remaining-requests: 0|x-ratelimit-reset-requests: 6m0s", 6 * time.Minute},
		{"x-ratelimit-remaining-tokens: 0|x-ratelimit-reset-tokens: 7.66s", 7660 * time.Millisecond},
		{"x-ratelimit-remaining-tokens: 12|x-ratelimit-reset-tokens: 7.66s", 0},
		{"x-ratelimit-remaining-tokens: 0|x-ratelimit-reset-tokens: never", 0},
		{"Retry-After: 99999999", 24 * time.Hour},
		{"Retry-After: -1", 0},
		{"", 0},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(c.headers, "|") {
			name, value, _ := strings.Cut(line, ": ")
			h.Set(name, value)
		}
		if got := upstream.RetryAfter(h); got != c.want {
			t.Errorf("%s: %v, want %v", c.headers, got, c.want)
		}
	}
}
