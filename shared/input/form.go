package input

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
)

// form reads a multipart or urlencoded body; AgentOS's clients send both. A body of another
// content type has no fields, as in Starlette. The whole body is held in memory, because
// it has at most bound.Body bytes, and a function's file system is not for uploads.
func (in *reader) form(w http.ResponseWriter, r *http.Request, v reflect.Value, fields []field) error {
	r.Body = http.MaxBytesReader(w, r.Body, int64(in.limits.Of(bound.Body)))
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var values url.Values
	var files map[string][]File
	var err error
	switch media {
	case "multipart/form-data":
		if params["boundary"] == "" {
			return fault.Public(fault.Invalid, "Missing boundary in multipart.", nil)
		}
		values, files, err = in.multipart(r.Body, params["boundary"])
	// Unlike in a query, a broken percent sign is an error here: a program wrote the body,
	// and the text that it meant is unknown.
	case "application/x-www-form-urlencoded":
		var body []byte
		broken := false
		if body, err = io.ReadAll(r.Body); err == nil {
			if in.exceeds(bound.Fields, countPairs(string(body)), "value_error", "body") {
				return nil
			}
			if values, broken = pairs(string(body)); broken {
				err = errors.New("a percent sign without two hex digits")
			}
		}
	}
	if err != nil {
		return unreadable(err)
	}
	in.values(v, fields, values, "body") // FastAPI's name for the place
	in.files(v, files, values)
	return nil
}

// multipart collects texts and files (RFC 7578). An incomplete body is an error: half of
// a message could mean something else than the whole. A body with too many parts is not read to its end.
func (in *reader) multipart(body io.Reader, boundary string) (url.Values, map[string][]File, error) {
	values, files := url.Values{}, map[string][]File{}
	first := make([]byte, 1)
	if _, err := io.ReadFull(body, first); errors.Is(err, io.EOF) { // an empty body has no fields
		return values, files, nil
	} else if err != nil {
		return nil, nil, multipartFault(err)
	}
	// If a body ends in the header of a part, package multipart reports the end of all
	// parts. cutOff turns the end of the body into another error, so that only the last
	// boundary ends the parts. The line break is for a last boundary without one.
	whole := io.MultiReader(bytes.NewReader(first), body, strings.NewReader("\r\n"), cutOff{})
	parts := multipart.NewReader(whole, boundary)
	for n := 1; ; n++ {
		part, err := parts.NextRawPart() // raw, because Content-Transfer-Encoding has no meaning in HTTP
		if errors.Is(err, io.EOF) {
			return values, files, nil
		}
		if err != nil {
			return nil, nil, multipartFault(err)
		}
		if in.exceeds(bound.Fields, n, "value_error", "body") {
			return nil, nil, in.err()
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, multipartFault(err)
		}
		// RFC 7578 section 4.2: each part has a name. A part with a filename is a file.
		_, about, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, ok := about["name"]
		if !ok {
			return nil, nil, fault.Public(fault.Invalid,
				`The Content-Disposition header field "name" must be provided.`, nil)
		}
		switch filename, isFile := about["filename"]; {
		case !isFile:
			values.Add(name, string(content))
		case filename != "" || len(content) > 0: // otherwise a browser's form without a chosen file
			media, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
			files[name] = append(files[name], File{filename, media, content})
		}
	}
}

// cutOff is a reader without content that ends with an error.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// multipartFault returns Starlette's error for a broken body, and leaves a body that is too
// large to unreadable. The cause is for the log only: it can contain text of the body.
func multipartFault(err error) error {
	if tooLarge(err) {
		return err
	}
	return fault.Public(fault.Invalid, "Invalid multipart data.", err)
}

// files fills the fields of type []File. A text in place of a file is an error, as in
// FastAPI.
func (in *reader) files(v reflect.Value, files map[string][]File, texts url.Values) {
	t := v.Type()
	for i := range t.NumField() {
		list, ok := v.Field(i).Addr().Interface().(*[]File)
		if !ok {
			continue
		}
		name := t.Field(i).Tag.Get("form")
		if *list = files[name]; in.exceeds(bound.Files, len(*list), "too_long", "body", name) {
			continue
		}
		in.sizes(*list, name)
		for n, text := range texts[name] {
			in.reject("value_error", "Value error, Expected UploadFile, received: <class 'str'>", short(text),
				fault.Members{{Name: "error", Value: struct{}{}}}, "body", name, n)
		}
	}
}

// sizes checks the sizes of files.
func (in *reader) sizes(files []File, name string) {
	total := 0
	for n, f := range files {
		in.exceeds(bound.FileSize, len(f.Content), "value_error", "body", name, n)
		total += len(f.Content)
	}
	in.exceeds(bound.FilesSize, total, "value_error", "body", name)
}

// tooLarge reports whether a body had more than bound.Body bytes. http.MaxBytesReader also
// closes the connection then.
func tooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}

// unreadable returns the error for a body that can't be read to its end.
func unreadable(err error) error {
	if tooLarge(err) {
		return fault.Public(bound.Body.Kind, bound.Body.Text, nil)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.Public(fault.Invalid, "The request body did not arrive in time; send it again, or a smaller one", err)
	}
	if _, public := errors.AsType[*fault.Error](err); public {
		return err
	}
	return fault.Public(fault.Invalid, "There was an error parsing the body", err)
}
