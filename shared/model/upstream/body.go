package upstream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
)

// ReadWhole decodes an answer in one piece, of at most MaxEvent bytes, as JSON. Its
// errors are fault.Upstream with one of this package's texts.
func ReadWhole(body io.Reader, into any) error {
	data, err := io.ReadAll(io.LimitReader(body, MaxEvent+1))
	switch {
	case len(data) > MaxEvent:
		return fault.Public(fault.Upstream, TooLong, bufio.ErrTooLong)
	case err != nil:
		return ConnectionError(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.Public(fault.Upstream, DecodeFailureText(data, err), fmt.Errorf("answer: %w", err))
	}
	return nil
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

// LimitErrorBody limits the body of an HTTP error to 64 KiB. The SDKs of OpenAI and
// Anthropic read the whole body into memory. Without the limit, a server that sends an
// endless error page could use up all memory.
func LimitErrorBody(resp *http.Response) {
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
}
