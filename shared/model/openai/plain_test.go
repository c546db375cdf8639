package openai

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// tokens are chunks of real servers that add a text.
var tokens = []string{
	`{"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o","service_tier":"default",` +
		`"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,` +
		`"finish_reason":null}],"usage":null,"obfuscation":"a8J2"}`, // OpenAI
	`{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"日本 \"x\"\n\ud83c\udf89"}}]}`,
	`{"choices": [{"delta": {"content": "", "reasoning_content": null, "tool_calls": null}, "index": 0}]}`, // vLLM
	`{"id":"gen","provider":"P","model":"m","object":"o","created":1,"choices":[{"index":0,"delta":{"role":"assistant",` +
		`"content":"a","reasoning":null},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}`, // OpenRouter
}

func TestChunksOfTextAreReadWithoutTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, text := range tokens {
		if !readPlain([]byte(text), new(chunk)) {
			t.Errorf("not read: %s", text)
		}
	}
}

// Whatever is not a text alone is left to encoding/json, which reads all forms.
func TestOtherChunksAreLeftToTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "{}", "null", "[1]", `{"choices":[]}`, `{"choices":null}`, `{"error":{"message":"M"}}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`,
		`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}`,
		`{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0}]}}]}`,
		`{"choices":[{"delta":{"content":"a","reasoning":"thought"}}]}`,
		`{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}`,
		`{"choices":[{"delta":{"content":"a","content":"b"}}]}`,
		`{"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"b"}}]}`,
		`{"choices":[{"delta":{"content":["a"]}}]}`, `{"choices":[{"delta":{"Content":"a"}}]}`,
		`{"choices":[{"delta":{"content":"a"}}]} {}`, `{"choices":[{"delta":{"content":"a"}}]`,
		`{"created":01,"choices":[{"delta":{"content":"a"}}]}`, `{"id":{},"choices":[{"delta":{"content":"a"}}]}`,
		`{"choices":[{"delta":{"content":"a` + "\n" + `"}}]}`, `{"choices":[{"delta":{"content":"\x"}}]}`,
	} {
		c := chunk{Usage: &usage{}}
		if readPlain([]byte(text), &c) {
			t.Errorf("read: %s", text)
		} else if !reflect.DeepEqual(c, chunk{}) {
			t.Errorf("left in the chunk: %+v", c)
		}
	}
}

func FuzzPlainChunks(f *testing.F) {
	for _, text := range tokens {
		f.Add(text)
		for i := range len(text) / 8 {
			f.Add(text[:8*i] + text[8*i+1:])
		}
	}
	f.Add(`{"choices":[{"delta":{"content":"` + "\xff\u2028" + `"}}]}`)
	f.Add("\t" + strings.ReplaceAll(tokens[0], ":", " : ") + " ")
	f.Fuzz(func(t *testing.T, text string) {
		var got, want chunk
		if !readPlain([]byte(text), &got) {
			return
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("read, although it is not valid: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// A token must not cost an allocation more than its text: a long answer has thousands.
func TestATokenIsReadWithOneAllocation(t *testing.T) { //nolint:paralleltest // others would allocate meanwhile
	var c chunk
	data := []byte(tokens[0])
	if n := testing.AllocsPerRun(100, func() {
		if !readPlain(data, &c) {
			t.Error("not read")
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
