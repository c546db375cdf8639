package upstream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/keyway-agents/keyway/shared/fault"
)

// ReadWhole decodes an answer in one piece, of at most MaxEvent bytes, as JSON. Its
// errors are what the server reported in place of an answer, or fault.Upstream with one
// of this package's texts. It returns the answer's bytes too, for NoAnswerError.
func (p KeyedProvider) ReadWhole(body io.Reader, into any) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, MaxEvent+1))
	switch {
	case len(data) > MaxEvent:
		return nil, fault.Public(fault.Upstream, TooLong, bufio.ErrTooLong)
	case err != nil:
		return nil, ConnectionError(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return nil, p.decodeError(data, fmt.Errorf("answer: %w", err), DecodeFailureText(data, err))
	}
	return data, nil
}

// NoAnswerError returns the error for a JSON value that isn't what the API promises:
// what the value reports, or an error with the text NoAnswer. why is for the log.
func (p KeyedProvider) NoAnswerError(data []byte, why string) error {
	return p.decodeError(data, errors.New(p.Name+": "+why), NoAnswer)
}

// decodeError returns what data reports. If it reports nothing, the error is err with the
// public text.
func (p KeyedProvider) decodeError(data []byte, err error, text string) error {
	if json.Valid(data) {
		if r := ReportIn(data); r != (Report{}) {
			return p.ReportError(r)
		}
	}
	return fault.Public(fault.Upstream, text, err)
}

// DecodeFailureText returns a text that is safe to show to the caller, for data that
// json.Unmarshal rejected with err. It is CutShort if data is the beginning of a JSON
// value and stops before the value's end, as empty data does, and NoAnswer otherwise.
func DecodeFailureText(data []byte, err error) string {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && syntax.Offset >= int64(len(data)) {
		return CutShort
	}
	return NoAnswer
}

// maxErrorBody is how much of an HTTP error's body is read.
const maxErrorBody = 64 << 10
