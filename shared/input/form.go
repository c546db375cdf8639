package input

import (
	"bufio"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// form reads a multipart or urlencoded body, as AgentOS's clients send the one or
// the other. Another content type has no fields.
func (in *reader) form(w http.ResponseWriter, r *http.Request, v reflect.Value) error {
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var values url.Values
	var files map[string][]File
	var err error
	switch media {
	case "multipart/form-data":
		if params["boundary"] == "" {
			return fault.Public(fault.Invalid, "Missing boundary in multipart.", nil)
		}
		values, files, err = readMultipart(r.Body, params["boundary"])
	case "application/x-www-form-urlencoded":
		var body []byte
		broken := false
		if body, err = io.ReadAll(r.Body); err == nil {
			if values, broken = pairs(string(body)); broken {
				err = errors.New("a percent sign escapes nothing")
			}
		}
	}
	if err != nil {
		return unreadable(err)
	}
	in.values(v, "form", values)
	in.files(v, files, values)
	return nil
}

// readMultipart collects texts and files. A body that breaks off is refused: half a
// message is no message.
func readMultipart(body io.Reader, boundary string) (url.Values, map[string][]File, error) {
	values, files := url.Values{}, map[string][]File{}
	buffered := bufio.NewReader(body)
	if _, err := buffered.Peek(1); errors.Is(err, io.EOF) { // no body at all has no fields
		return values, files, nil
	}
	// multipart takes an end within a part's header for the end of all parts. So that
	// only the last boundary is one, the body ends in another error, after a line
	// break that the boundary may lack.
	parts := multipart.NewReader(io.MultiReader(buffered, strings.NewReader("\r\n"), cutOff{}), boundary)
	for {
		part, err := parts.NextRawPart() // no Content-Transfer-Encoding: HTTP has none
		if errors.Is(err, io.EOF) {
			return values, files, nil
		}
		if err != nil {
			return nil, nil, multipartFault(err)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, multipartFault(err)
		}
		_, about, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, ok := about["name"]
		if !ok {
			return nil, nil, fault.Public(fault.Invalid, `The Content-Disposition header field "name" must be provided.`, nil)
		}
		switch filename, isFile := about["filename"]; {
		case !isFile:
			values.Add(name, string(content))
		case filename != "" || len(content) > 0: // else a browser's form in which none was chosen
			media, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
			files[name] = append(files[name], File{filename, media, content})
		}
	}
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func multipartFault(err error) error {
	if tooLarge(err) {
		return err
	}
	return fault.Public(fault.Invalid, "Invalid multipart data.", err)
}

// files fills the fields of type []File. A text in the place of a file is named
// rather than left out.
func (in *reader) files(v reflect.Value, files map[string][]File, texts url.Values) {
	t := v.Type()
	for i := range t.NumField() {
		list, ok := v.Field(i).Addr().Interface().(*[]File)
		if !ok {
			continue
		}
		name := t.Field(i).Tag.Get("form")
		*list = files[name]
		for n, text := range texts[name] {
			in.complain("value_error", "Value error, Expected UploadFile, received: <class 'str'>", short(text),
				fault.Members{{Name: "error", Value: struct{}{}}}, "body", name, n)
		}
	}
}

func tooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}

// unreadable is the answer to a body that can't be read to its end.
func unreadable(err error) error {
	if tooLarge(err) {
		return fault.Public(fault.TooLarge, "The request body is larger than 10 MB", nil)
	}
	if _, told := errors.AsType[*fault.Error](err); told {
		return err
	}
	return fault.Public(fault.Invalid, "There was an error parsing the body", err)
}
