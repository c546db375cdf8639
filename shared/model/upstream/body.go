package upstream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

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

// MaxRetryDelay is the longest delay that an SDK may wait before it repeats a request. If
// the provider asks for a longer one, the caller gets the error with that delay as
// Retry-After: a run that only waits would hold its lease, a connection and, on Lambda,
// paid time.
const MaxRetryDelay = 10 * time.Second

// LimitError is for the middleware of the SDKs of OpenAI (openai-go v3) and Anthropic
// (anthropic-sdk-go v1), which come from one generator. It limits what they do with the
// response of an HTTP error:
//
//   - They read the whole body into memory. Without a limit of 64 KiB, a server that sends
//     an endless error page could use up all memory.
//   - They repeat the request after the delay that RetryAfter finds, and not at all if that
//     is longer than MaxRetryDelay. The SDKs know fewer headers than RetryAfter, and accept
//     values that it rejects: for them, "9e9" is a delay of 285 years.
func LimitError(resp *http.Response) {
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
	switch wait := RetryAfter(resp.Header); {
	case wait > MaxRetryDelay:
		resp.Header.Set("X-Should-Retry", "false")
	case wait > 0:
		resp.Header.Set("Retry-After-Ms", strconv.FormatInt(wait.Milliseconds(), 10))
	default:
		resp.Header.Del("Retry-After")
		resp.Header.Del("Retry-After-Ms")
	}
}
