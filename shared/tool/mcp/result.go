package mcp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// callResult is the result of a call.
type callResult struct {
	Content    []content       `json:"content"`
	Structured json.RawMessage `json:"structuredContent"`
	IsError    bool            `json:"isError"`
	// Type is "input_required" if a person or the client must answer something first.
	Type string `json:"resultType"`
}

// content is one piece of a result, of any type.
type content struct {
	Type     string    `json:"type"`
	Text     string    `json:"text"`
	Data     string    `json:"data"` // base64
	MIMEType string    `json:"mimeType"`
	Name     string    `json:"name"`
	URI      string    `json:"uri"`
	Resource *resource `json:"resource"`
}

// resource is a resource in a result.
type resource struct {
	URI      string `json:"uri"`
	MIMEType string `json:"mimeType"`
	Text     string `json:"text"`
	Blob     string `json:"blob"` // base64
}

// resultText returns a result as text for the model, or as an error if the tool failed.
// Structured content follows the text, byte for byte as the server sent it, unless the
// text says the same: most servers send the same content in both forms.
func resultText(result json.RawMessage) (string, error) {
	var r callResult
	if err := json.Unmarshal(result, &r); err != nil {
		return "", fault.Public(fault.Upstream, "The tool server's result can't be read: it does not follow MCP", err)
	}
	if r.Type == "input_required" {
		return "", errors.New("the tool asks the client for input, which is not supported")
	}
	var parts, texts []string
	for _, c := range r.Content {
		if c.Type == "text" {
			texts = append(texts, c.Text)
		}
		parts = append(parts, describe(c))
	}
	if len(r.Structured) > 0 && string(r.Structured) != "null" && !says(texts, r.Structured) {
		parts = append(parts, string(r.Structured))
	}
	text := strings.Join(parts, "\n")
	if r.IsError {
		return "", errors.New(cmp.Or(text, "the tool gave no reason"))
	}
	return text, nil
}

// says reports whether texts contain what structured does. Servers write the same value
// as one text of JSON, in any layout, or put what they have as text into the member
// result, as a whole or one element for each text.
func says(texts []string, structured json.RawMessage) bool {
	if len(texts) == 0 {
		return false
	}
	if len(texts) == 1 && same(texts[0], structured) {
		return true
	}
	var wrapped map[string]json.RawMessage
	if json.Unmarshal(structured, &wrapped) != nil || len(wrapped) != 1 || wrapped["result"] == nil {
		return false
	}
	if len(texts) == 1 && same(texts[0], wrapped["result"]) {
		return true
	}
	var elements []json.RawMessage
	if json.Unmarshal(wrapped["result"], &elements) != nil || len(elements) != len(texts) {
		return false
	}
	for i, e := range elements {
		if !same(texts[i], e) {
			return false
		}
	}
	return true
}

// same reports whether text is value: the string itself, or JSON of the same value with
// the same digits.
func same(text string, value json.RawMessage) bool {
	decode := func(data []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	v, err := decode(value)
	if err != nil {
		return false
	}
	if v == any(text) {
		return true
	}
	t, err := decode([]byte(text))
	return err == nil && json.Valid([]byte(text)) && reflect.DeepEqual(t, v)
}

// describe returns a text, or what stands for a content of another kind.
func describe(c content) string {
	switch c.Type {
	case "text":
		return c.Text
	case "image", "audio":
		return fmt.Sprintf("[%s, %d bytes]", c.MIMEType, size(c.Data))
	case "resource_link":
		return fmt.Sprintf("[%s: %s]", c.Name, c.URI)
	case "resource":
		switch r := c.Resource; {
		case r == nil:
			return "[an empty resource]"
		case r.Text != "":
			return r.Text
		default:
			return fmt.Sprintf("[%s, %s, %d bytes]", r.URI, r.MIMEType, size(r.Blob))
		}
	}
	return "[content of an unknown kind]"
}

// size returns how many bytes a base64 text encodes.
func size(base64 string) int {
	return len(strings.TrimRight(base64, "=")) * 3 / 4
}
