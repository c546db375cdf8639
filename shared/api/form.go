package api

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"

	"github.com/keyway-agents/keyway/shared/fault"
)

// maxBody is the largest request body that is read. API Gateway takes 10 MB and
// hands a function 6 MB; the local server is as strict as the outer of the two.
const maxBody = 10 << 20

// form reads the fields of a run's form: multipart or urlencoded, as AgentOS's
// clients send the one or the other. Another content type has no fields.
func (r *request) form(w http.ResponseWriter) (*inputs, error) {
	in := &inputs{place: "body", values: url.Values{}}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var err error
	switch media {
	case "multipart/form-data":
		if params["boundary"] == "" {
			return nil, fault.Public(fault.Invalid, "Missing boundary in multipart.", nil)
		}
		err = readMultipart(in.values, multipart.NewReader(r.Body, params["boundary"]))
	case "application/x-www-form-urlencoded":
		var body []byte
		if body, err = io.ReadAll(r.Body); err == nil {
			in.values, err = url.ParseQuery(string(body))
		}
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, fault.Public(fault.TooLarge, "The request body is larger than 10 MB", nil)
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return nil, e
	}
	if err != nil {
		return nil, fault.Public(fault.Invalid, "There was an error parsing the body", err)
	}
	return in, nil
}

// readMultipart collects the text fields. A body in which no part begins has no
// fields, as in AgentOS; one that breaks off inside a part is refused.
func readMultipart(into url.Values, body *multipart.Reader) error {
	for {
		part, err := body.NextPart()
		if errors.Is(err, io.EOF) || (err != nil && len(into) == 0 && !errors.As(err, new(*http.MaxBytesError))) {
			return nil
		}
		if err != nil {
			return err
		}
		if part.FileName() != "" {
			return fault.Public(fault.Invalid, "files: this server takes no files", nil)
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		into.Add(part.FormName(), string(value))
	}
}
