// Package lambdaruntime asks Lambda's Runtime API for events and posts a function's answers, whole or streamed.
// It decides nothing about either. ADR 0030 says why it is not aws-lambda-go, which still serves the functions that
// callers don't wait for.
package lambdaruntime

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
)

// Handler answers one event with Invocation.Answer or Invocation.Stream. If it returns without either, its error is
// what Lambda gets as the invocation's.
type Handler func(*Invocation) error

// Invocation is one event and the way to answer it. It is valid until the handler returns, and is for one goroutine at
// a time.
type Invocation struct {
	// ID is the id of the invocation, which AWS's own log lines have too.
	ID string
	// Event is the event's JSON. The next event overwrites it.
	Event []byte
	// Deadline is when Lambda ends the process. It is the zero time if the Runtime API names none.
	Deadline time.Time

	c        *connection
	answered bool // the head of a POST was sent
	open     bool // a stream that was not closed
}

// Start answers events with h until the Runtime API fails, and then ends the process: Lambda starts a new one. Lambda
// sends a process one event at a time, except to managed instances, which name another number.
func Start(log *slog.Logger, h Handler) {
	address := os.Getenv("AWS_LAMBDA_RUNTIME_API")
	if address == "" {
		logging.Exit(log, "the function", errors.New("AWS_LAMBDA_RUNTIME_API is not set: this program runs on AWS Lambda"))
	}
	Tune(os.LookupEnv)
	failed := make(chan error)
	loops := 1
	if n, err := strconv.Atoi(os.Getenv("AWS_LAMBDA_MAX_CONCURRENCY")); err == nil && n > 1 {
		loops = n
	}
	for range loops {
		go func() { failed <- serveAll(address, safe(log, h), loops == 1) }()
	}
	log.Error("Lambda's Runtime API failed", "err", <-failed)
	os.Exit(1)
}

// serveAll answers events on one connection after the other. A connection that served an event may be closed by the
// other side, as any idle connection of HTTP/1.1.
func serveAll(address string, h Handler, alone bool) error {
	for {
		conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		served, err := Serve(conn, address, h, alone)
		_ = conn.Close()
		if err != nil || served == 0 {
			return cmp.Or(err, errClosed)
		}
	}
}

// Serve answers the events of one connection to the Runtime API at host until the other side closes it, and returns
// their number. alone means that the process answers one event at a time, so that its environment can name the trace of
// that event.
func Serve(conn net.Conn, host string, h Handler, alone bool) (served int, err error) {
	c := newConnection(conn, host)
	for ; ; served++ {
		switch in, err := c.next(alone); {
		case errors.Is(err, errClosed):
			return served, nil
		case err != nil:
			return served, fmt.Errorf("asking for an event: %w", err)
		default:
			if err := c.answer(in, h); err != nil {
				return served, fmt.Errorf("answering an event: %w", err)
			}
		}
		if c.closing {
			return served + 1, nil
		}
	}
}

// answer calls the handler and waits until its answer is accepted.
func (c *connection) answer(in *Invocation, h Handler) error {
	err := h(in)
	switch {
	case in.open:
		err = in.Close(nil, cmp.Or(err, errors.New("the answer was not completed")))
	case !in.answered:
		err = in.refuse(cmp.Or(err, errors.New("the function has no answer")))
	case c.failed != nil:
		err = c.failed
	default:
		err = nil // an error beside a whole answer is the handler's own matter
	}
	if err != nil {
		return err
	}
	return c.accepted()
}

// safe makes a panic an error of the invocation, logs it and ends the process, because its state is unknown. The
// functions answer a panic of their handlers themselves; this one is of the code around them.
func safe(log *slog.Logger, h Handler) Handler {
	return func(in *Invocation) error {
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic", "panic", logging.Panicked(p), "stack", string(debug.Stack()))
				if in.refuse(errors.New("panic")) == nil {
					_ = in.c.accepted()
				}
				os.Exit(1)
			}
		}()
		return h(in)
	}
}

// Context returns a context that ends with the invocation.
func (in *Invocation) Context() (context.Context, context.CancelFunc) {
	if in.Deadline.IsZero() {
		return context.WithCancel(context.Background())
	}
	return context.WithDeadline(context.Background(), in.Deadline)
}

// Answer posts a whole answer, which is one JSON value.
func (in *Invocation) Answer(body []byte) error {
	in.answered = true
	return in.c.post(in.ID, "response", body)
}

// refuse posts the error of the invocation.
func (in *Invocation) refuse(cause error) error {
	if in.answered {
		return cause
	}
	in.answered = true
	return in.c.post(in.ID, "error", message(cause))
}

// message is an error in Lambda's form.
func message(err error) []byte {
	data, failed := json.Marshal(struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}{err.Error(), kind(err)})
	if failed != nil {
		panic(failed) // two strings always encode
	}
	return data
}

// kind is the name of an error's type, which Lambda shows as the type of the error.
func kind(err error) string {
	t := reflect.TypeOf(err)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// Stream begins a streamed answer of a media type and sends its first chunks.
func (in *Invocation) Stream(contentType string, chunks ...[]byte) error {
	in.answered, in.open = true, true
	return in.c.begin(in.ID, contentType, chunks)
}

// Send sends a chunk of a streamed answer.
func (in *Invocation) Send(chunk []byte) error { return in.c.chunk(chunk) }

// Close sends the last chunk of a streamed answer and ends it. With a cause, the trailer reports to Lambda that the
// answer is not complete, so that nobody takes the part that was sent for the whole.
func (in *Invocation) Close(chunk []byte, cause error) error {
	if !in.open {
		return in.c.failed
	}
	in.open = false
	if cause == nil {
		return in.c.last(chunk, "", "")
	}
	return in.c.last(chunk, kind(cause), base64.StdEncoding.EncodeToString(message(cause)))
}
