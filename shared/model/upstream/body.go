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

// ReadWhole decodes an answer in one piece, of MaxEvent bytes at most.
func ReadWhole(body io.Reader, into any) error {
	data, err := io.ReadAll(io.LimitReader(body, MaxEvent+1))
	switch {
	case len(data) > MaxEvent:
		return fault.Public(fault.Upstream, TooLong, bufio.ErrTooLong)
	case err != nil:
		return Lost(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.Public(fault.Upstream, CutOrJunk(data, err), fmt.Errorf("answer: %w", err))
	}
	return nil
}

// CutOrJunk tells an answer that broke off from one that never was. err is why data
// is not JSON.
func CutOrJunk(data []byte, err error) string {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && syntax.Offset >= int64(len(data)) {
		return CutShort
	}
	return NoAnswer
}

// maxErrorBody bounds the SDKs, which read the whole body of an HTTP error.
const maxErrorBody = 64 << 10

// CapError cuts the body of an HTTP error.
func CapError(resp *http.Response) {
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
}
