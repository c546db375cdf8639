package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Report is what a server reports in place of an answer, without the form in which it
// arrived. The zero Report reports nothing.
type Report struct {
	// Text is the server's explanation. It is not safe to show: it may contain secrets
	// and may have any length.
	Text string
	// Busy states that the same request may succeed later, as after status 429.
	Busy bool
}

// ReportIn finds the explanation in the body of an HTTP error, or in an event that
// reports an error. There are as many forms as servers, so it looks for the members that
// they use, at any depth, instead of knowing the servers:
//
//	{"error":{"message":"M","type":"…"}}       OpenAI, Anthropic, vLLM, LiteLLM
//	{"error":"M"}                              Ollama
//	[{"error":{"code":400,"message":"M"}}]     Gemini's endpoint for OpenAI's clients
//	{"detail":"M"}                             FastAPI
//	{"detail":[{"loc":["body","n"],"msg":"M"}]} FastAPI's validation: "M (body.n)"
//	{"errors":[{"message":"M"}]}               Cloudflare
//	{"message":"M"}                            AWS, API gateways
//	{"error":"Bad Request","message":"M"}      Spring Boot, NestJS
//	{"error":{"message":"N","metadata":{"raw":"M"}}} OpenRouter: "N: M"
//	{"code":500,"message":"M","type":"…"}      llama.cpp's /v1/messages
//	data: {"error":{…}}                        LiteLLM, which puts an event into an HTTP error
//	M                                          proxies
//
// A text in place of JSON is the explanation itself, unless it is markup or no text at
// all. The page of a web server explains nothing to a caller.
func ReportIn(body []byte) Report {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, byteOrderMark))
	if bytes.HasPrefix(body, []byte("data:")) || bytes.HasPrefix(body, []byte("event:")) {
		body = firstData(body)
	}
	if !json.Valid(body) {
		return Report{Text: plainText(body)}
	}
	var r Report
	r.read(body, 0)
	return r
}

// ReportInValue is ReportIn for a member of a larger value, such as "error" of a chunk.
// Its Report is zero for an absent member and null.
func ReportInValue(value json.RawMessage) (r Report) {
	if Present(value) {
		r.read(value, 0)
	}
	return r
}

// Present reports whether a member of a JSON object is there and isn't null.
func Present(value json.RawMessage) bool { return len(value) > 0 && string(value) != "null" }

// Failed reports whether a member such as "error" reports a failure. Some servers send an
// empty one in each event.
func Failed(value json.RawMessage) bool {
	if len(value) == 0 { // as in nearly every chunk of an answer
		return false
	}
	switch string(bytes.Join(bytes.Fields(value), nil)) {
	case "null", "false", "0", `""`, "{}", "[]":
		return false
	}
	return true
}

// firstData returns the data of the first event in a stream that is in memory.
func firstData(stream []byte) []byte {
	for line := range bytes.Lines(stream) {
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			return bytes.TrimSpace(data)
		}
	}
	return nil
}

// plainText returns a body that is a text of words, and "" for any other.
func plainText(body []byte) string {
	if bytes.HasPrefix(body, []byte("<")) || !utf8.Valid(body) {
		return ""
	}
	if bytes.IndexFunc(body, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) }) >= 0 {
		return ""
	}
	if first := body[:min(len(body), 1)]; bytes.ContainsAny(first, `{["`) {
		return "" // JSON that was cut
	}
	return string(body)
}

// maxDepth limits how deep reports may be nested, and maxReports how many of a list are
// shown.
const (
	maxDepth   = 6
	maxReports = 5
)

// reported holds the members that explain an error. encoding/json compares their names
// without case, so AWS's "Message" is one of them.
type reported struct {
	Error       json.RawMessage `json:"error"`
	Errors      json.RawMessage `json:"errors"`
	Detail      json.RawMessage `json:"detail"`
	Message     json.RawMessage `json:"message"`
	Msg         json.RawMessage `json:"msg"`
	Description json.RawMessage `json:"error_description"`

	Type   json.RawMessage `json:"type"`
	Code   json.RawMessage `json:"code"`
	Status json.RawMessage `json:"status"`
	Loc    []any           `json:"loc"`
	// Metadata of OpenRouter holds what the server behind it has sent.
	Metadata struct {
		Raw string `json:"raw"`
	} `json:"metadata"`
}

// read adds what value reports. A value of another form reports nothing.
func (r *Report) read(value json.RawMessage, depth int) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || depth > maxDepth {
		return
	}
	switch value[0] {
	case '"':
		_ = json.Unmarshal(value, &r.Text) // ReportIn has checked that it is JSON
	case '[':
		r.readList(value, depth)
	case '{':
		r.readObject(value, depth)
	}
}

// readList adds the texts of a list.
func (r *Report) readList(value json.RawMessage, depth int) {
	var list []json.RawMessage
	_ = json.Unmarshal(value, &list)
	var texts []string
	for _, v := range list[:min(len(list), maxReports)] {
		var one Report
		one.read(v, depth+1)
		r.Busy = r.Busy || one.Busy
		if one.Text != "" {
			texts = append(texts, one.Text)
		}
	}
	r.Text = strings.Join(texts, "; ")
}

// readObject adds the first explanation of an object.
func (r *Report) readObject(value json.RawMessage, depth int) {
	var o reported
	_ = json.Unmarshal(value, &o) // a member of another type than expected stays empty
	for _, name := range []json.RawMessage{o.Type, o.Code, o.Status} {
		r.Busy = r.Busy || busy[strings.ToLower(strings.Trim(string(name), `"`))]
	}
	explanations := []json.RawMessage{o.Error, o.Errors, o.Detail, o.Message, o.Msg, o.Description}
	if bytes.HasPrefix(bytes.TrimSpace(o.Error), []byte(`"`)) { // often only a name, such as "Bad Request"
		explanations = append(explanations[1:], o.Error)
	}
	for _, v := range explanations {
		if r.read(v, depth+1); r.Text != "" {
			break
		}
	}
	if raw := ReportIn([]byte(o.Metadata.Raw)).Text; raw != "" && depth < maxDepth {
		r.Text = strings.TrimPrefix(r.Text+": "+raw, ": ")
	}
	if r.Text != "" && len(o.Loc) > 0 {
		r.Text += " (" + path(o.Loc) + ")"
	}
}

// path returns FastAPI's place of an invalid value, such as body.messages.0.
func path(loc []any) string {
	names := make([]string, len(loc))
	for i, v := range loc {
		names[i] = fmt.Sprint(v)
	}
	return strings.Join(names, ".")
}

// busy holds the types and codes of requests that may be repeated later, in lower case:
// those of Anthropic, OpenAI, LiteLLM, Google and of HTTP itself (529 is Anthropic's own
// status for overloaded_error).
var busy = map[string]bool{
	"rate_limit_error": true, "overloaded_error": true, "rate_limit_exceeded": true, "throttling_error": true,
	"too_many_requests": true, "resource_exhausted": true, "429": true, "529": true,
}
