package openai

import (
	"encoding/base64"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// The senders of messages. A run distinguishes the agent and the caller, and the result of a tool that the client
// claims is the caller's text.
const (
	user      = "user"
	assistant = "assistant"
)

// messages reads the conversation of a chat completion.
func (d *decoder) messages(v strictjson.Value) {
	if v.Raw[0] != '[' {
		d.wrong("messages", "a list")
	}
	i := 0
	for element := range v.Elements() {
		if d.over(bound.Turns, i+1, "messages") || d.err != nil {
			return
		}
		d.message(fmt.Sprintf("messages[%d]", i), element)
		i++
	}
}

// input reads the conversation of a response: a text, or a list of items.
func (d *decoder) input(v strictjson.Value) {
	if text, ok := v.Text(); ok {
		d.list = append(d.list, message{role: user, text: text})
		return
	}
	if v.Raw[0] != '[' {
		d.wrong("input", "a text or a list")
	}
	i := 0
	for item := range v.Elements() {
		if d.over(bound.Turns, i+1, "input") || d.err != nil {
			return
		}
		param := fmt.Sprintf("input[%d]", i)
		i++
		kind := "message"
		if raw := member(item, "type"); raw.Raw != "" {
			kind, _ = raw.Text()
		}
		switch kind {
		case "message":
			d.message(param, item)
		case "reasoning", "function_call": // they have no text for the conversation
		case "item_reference":
			d.reference(param, member(item, "id"))
		case "function_call_output":
			d.add(user, member(item, "output"), param+".output")
		default:
			d.refuse(param+".type", "unsupported_value", param+": not supported: agents read messages of the types message, "+
				"item_reference, function_call_output and reasoning")
		}
	}
}

// reference adds a message of an earlier run, which the client names by its id. Several messages of a run stand for its
// whole answer, and thoughts have no text for the conversation.
func (d *decoder) reference(param string, id value) {
	text, _ := id.text()
	if strings.HasPrefix(text, thoughtsPrefix) {
		return
	}
	if first := min(len(messagePrefix)+32, len(text)); strings.HasPrefix(text[first:], "_") {
		text = text[:first]
	}
	run := runOf(messagePrefix, text)
	if run != "" && slices.ContainsFunc(d.list, func(m message) bool { return m.run == run }) {
		return
	}
	if run == "" {
		d.refuse(param+".id", "invalid_value", param+".id: it must be the id of a message of a response")
	}
	if d.references++; d.over(bound.References, d.references, param) {
		return
	}
	d.list = append(d.list, message{role: assistant, run: run, param: param + ".id"})
}

// message reads one message. Those of the system and the developer are left out: the agent has its own instructions.
func (d *decoder) message(param string, v strictjson.Value) {
	if v.Raw[0] != '{' {
		d.wrong(param, "an object")
		return
	}
	role, _ := member(v, "role").text()
	content := member(v, "content")
	switch role {
	case "system", "developer":
	case user, "tool", "function":
		d.add(user, content, param+".content")
	case assistant:
		d.add(assistant, content, param+".content")
	default:
		d.wrong(param+".role", "user, assistant, system, developer or tool")
	}
}

// value is a member that may be absent: then Raw is "".
type value struct{ strictjson.Value }

// text is Text for a value that may be absent.
func (v value) text() (string, bool) {
	if v.Raw == "" {
		return "", false
	}
	return v.Text()
}

// member returns the member of an object. Of two members of one name the last one counts.
func member(object strictjson.Value, name string) (out value) {
	for n, v := range object.Members() {
		if n == name {
			out = value{v}
		}
	}
	return out
}

// add adds a message with this content: a text, a list of parts, or nothing. where is its name in errors.
func (d *decoder) add(role string, content value, where string) {
	m := message{role: role}
	switch {
	case content.Raw == "" || content.Raw == "null":
		if role == user {
			d.wrong(where, "a text or a list of parts")
		}
	case content.Raw[0] == '"':
		m.text, _ = content.Text()
	case content.Raw[0] == '[':
		d.partsOf(&m, content.Value, where)
	default:
		d.wrong(where, "a text or a list of parts")
	}
	d.list = append(d.list, m)
}

// partsOf reads the parts of a message.
func (d *decoder) partsOf(m *message, list strictjson.Value, where string) {
	var texts []string
	i := 0
	for part := range list.Elements() {
		param := fmt.Sprintf("%s[%d]", where, i)
		i++
		if d.parts++; d.over(bound.Parts, d.parts, param) {
			return
		}
		kind, _ := member(part, "type").text()
		switch kind {
		case "text", "input_text", "output_text":
			text, ok := member(part, "text").text()
			if !ok {
				d.wrong(param+".text", "a text")
			}
			texts = append(texts, text)
		case "refusal":
			text, _ := member(part, "refusal").text()
			texts = append(texts, text)
		case "file":
			d.file(m, member(part, "file"), param+".file")
		case "input_file":
			d.file(m, value{part}, param)
		default:
			d.refuse(param, "unsupported_value",
				param+": not supported. Agents of this server read only text and text files")
			return
		}
	}
	m.text = strings.Join(texts, between)
}

// file reads the content of a file, as a data URL or in base64.
func (d *decoder) file(m *message, v value, param string) {
	data, ok := "", false
	if v.Raw != "" {
		data, ok = member(v.Value, "file_data").text()
	}
	if !ok {
		d.refuse(param, "unsupported_value", param+": not supported: send the content of the file in file_data")
		return
	}
	if d.files++; d.over(bound.Files, d.files, param) {
		return
	}
	f := File{Param: param}
	f.Name, _ = member(v.Value, "filename").text()
	if rest, is := strings.CutPrefix(data, "data:"); is {
		var head string
		head, data, _ = strings.Cut(rest, ",")
		kind, encoded := strings.CutSuffix(head, ";base64")
		if !encoded {
			d.wrong(param+".file_data", "in base64")
		}
		f.Type, _, _ = mime.ParseMediaType(kind)
	}
	content, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		d.wrong(param+".file_data", "in base64")
		return
	}
	d.fileBytes += len(content)
	if d.over(bound.FileSize, len(content), param) || d.over(bound.FilesSize, d.fileBytes, param) {
		return
	}
	f.Content = content
	m.files = append(m.files, f)
}
