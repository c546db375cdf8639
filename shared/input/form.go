package input

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"reflect"

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
		values, files, err = readMultipart(multipart.NewReader(r.Body, params["boundary"]))
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
	setFiles(v, files)
	return nil
}

// readMultipart collects texts and files. A body in which no part begins has no
// fields, as in AgentOS; one that breaks off inside a part is refused.
func readMultipart(body *multipart.Reader) (url.Values, map[string][]File, error) {
	values, files := url.Values{}, map[string][]File{}
	for {
		part, err := body.NextPart()
		if errors.Is(err, io.EOF) || err != nil && len(values)+len(files) == 0 && !tooLarge(err) {
			return values, files, nil
		}
		if err != nil {
			return nil, nil, err
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, err
		}
		if part.FileName() == "" {
			values.Add(part.FormName(), string(content))
			continue
		}
		media, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		files[part.FormName()] = append(files[part.FormName()], File{part.FileName(), media, content})
	}
}

// setFiles fills the fields of type []File.
func setFiles(v reflect.Value, files map[string][]File) {
	t := v.Type()
	for i := range t.NumField() {
		if list, ok := v.Field(i).Addr().Interface().(*[]File); ok {
			*list = files[t.Field(i).Tag.Get("form")]
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
	return fault.Public(fault.Invalid, "There was an error parsing the body", err)
}
