package openai

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// The types of this file read members of an answer in each form in which servers send them. OpenAI's own form is read
// without a second pass over the bytes, since a long answer has many chunks.

// text is a string. It is "" for null, and the JSON itself for any other value: some servers send a tool's
// arguments as an object.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(data []byte) error {
	switch {
	case data[0] == '"':
		s, err := unquote(data)
		*t = text(s)
		return err
	case string(data) == "null":
		*t = ""
	default:
		var compact bytes.Buffer
		err := json.Compact(&compact, data)
		*t = text(compact.String())
		return err
	}
	return nil
}

// unquote returns the value of a JSON string.
func unquote(data []byte) (s string, err error) {
	if inner := data[1 : len(data)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner), nil
	}
	err = json.Unmarshal(data, &s)
	return s, err
}

// content is the text of an answer or of a chunk of it. OpenAI sends a string. Mistral's reasoning models send a list
// of parts, among them the model's thoughts.
type content struct {
	text     string
	thoughts string
	present  bool // not null and not absent
}

// part is an element of a list of content. A thinking part holds its thoughts as a list of text parts (Mistral) or
// as a string. Some servers send a text itself in place of a text part.
type part struct {
	Type     string          `json:"type"`
	Text     text            `json:"text"`
	Refusal  text            `json:"refusal"`
	Thinking json.RawMessage `json:"thinking"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *part) UnmarshalJSON(data []byte) error {
	if *p = (part{}); data[0] == '"' {
		return p.Text.UnmarshalJSON(data)
	}
	type plain part
	return json.Unmarshal(data, (*plain)(p))
}

// UnmarshalJSON implements json.Unmarshaler. Parts of other types than text, refusal and thinking, such as references,
// are left out.
func (c *content) UnmarshalJSON(data []byte) (err error) {
	switch data[0] {
	case '"':
		c.present = true
		c.text, err = unquote(data)
	case '[':
		c.present = true
		var parts []part
		err = json.Unmarshal(data, &parts)
		for _, p := range parts {
			c.text += string(p.Text + p.Refusal)
			c.thoughts += thoughtsOf(p.Thinking)
		}
	case '{':
		c.present = true
		var one part
		err = json.Unmarshal(data, &one)
		c.text, c.thoughts = string(one.Text+one.Refusal), thoughtsOf(one.Thinking)
	}
	return err
}

// thoughtsOf returns the text of a thinking part.
func thoughtsOf(raw json.RawMessage) (out string) {
	var list []part
	if json.Unmarshal(raw, &list) == nil {
		for _, p := range list {
			out += string(p.Text)
		}
		return out
	}
	_ = json.Unmarshal(raw, &out) // any other form has no text
	return out
}
