package api

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"sync"

	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Endpoint is a route with its handler and with the types of its input and its answer.
// The server mounts its routes from these values, and package apidoc generates the
// OpenAPI document from the same values. So the document can't describe a route that the
// server answers differently.
type Endpoint struct {
	// Route is the route of the table that the endpoint answers.
	Route route.Name
	// In is the struct that package input fills. Its tags declare the parameters and
	// the body.
	In reflect.Type
	// Out lists the types of the JSON body on success, of which one is sent. Empty
	// when the answer has no JSON body.
	Out []reflect.Type
	// Status is the HTTP status of success.
	Status int
	// Streams reports that the answer is a stream of server-sent events: always when
	// Out is empty, else when the caller asks for it.
	Streams bool
	// Accepts is the type of the JSON body of a 202. Nil when the endpoint never
	// answers 202.
	Accepts reflect.Type
	// Nothing says when the answer is a 204. Empty when it never is.
	Nothing string
	// Reads is the media type of a body that is no form and no JSON. Empty for all others.
	Reads string
	// Media is the media type of an endpoint that answers a fixed document or JSON Lines.
	// Empty for all others.
	Media string

	// serve answers the request. It returns an error only before the first byte of
	// the body; the server turns the error into the answer.
	serve func(http.ResponseWriter, *request) error
}

// Endpoints lists the endpoints of the resources, in the order of the arguments.
func Endpoints(resources ...Resource) (list []Endpoint) {
	for _, r := range resources {
		list = append(list, r.endpoints()...)
	}
	return list
}

// withoutBody is the endpoint for HEAD: the server sends the status and the headers, and
// drops the body.
func (e Endpoint) withoutBody() Endpoint {
	e.Out = nil
	return e
}

// returning sets the types of an endpoint whose function returns any.
func (e Endpoint) returning(types ...reflect.Type) Endpoint {
	e.Out = types
	return e
}

// whole declares that the endpoint never answers with a stream.
func whole(e Endpoint) Endpoint {
	e.Streams = false
	return e
}

// accepting declares that the endpoint may also answer 202 with a T.
func accepting[T any](e Endpoint) Endpoint {
	e.Accepts = reflect.TypeFor[T]()
	return e
}

// endingWith declares that the endpoint answers 204 when a client of its stream need not
// reconnect any more.
func (e Endpoint) endingWith(description string) Endpoint {
	e.Nothing = description
	return e
}

// nothing is the input of a route that reads no input, and the answer {}.
type nothing struct{}

// answer makes an endpoint of a function that gets the checked input and returns the
// JSON body of a 200.
func answer[In, Out any](name route.Name, f func(context.Context, *request, In) (Out, error)) Endpoint {
	return answerWith(name, http.StatusOK, f)
}

// answerWith is answer with another status of success.
func answerWith[In, Out any](
	name route.Name, status int, f func(context.Context, *request, In) (Out, error),
) Endpoint {
	serve := func(w http.ResponseWriter, r *request, in In) error {
		v, err := f(r.Context(), r, in)
		if err != nil {
			return err
		}
		return writeJSON(w, status, v)
	}
	return Endpoint{
		Route: name, In: reflect.TypeFor[In](), Out: []reflect.Type{reflect.TypeFor[Out]()}, Status: status,
		serve: reading(serve),
	}
}

// done makes an endpoint that answers 204, without a body, when f returns no error.
func done[In any](name route.Name, f func(context.Context, *request, In) error) Endpoint {
	serve := func(w http.ResponseWriter, r *request, in In) error {
		if err := f(r.Context(), r, in); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return Endpoint{Route: name, In: reflect.TypeFor[In](), Status: http.StatusNoContent, serve: reading(serve)}
}

// stream makes an endpoint whose function writes the answer itself: server-sent
// events, or one of the types out as JSON. f returns an error only before it has
// written anything.
func stream[In any](
	name route.Name, f func(http.ResponseWriter, *request, In) error, out ...reflect.Type,
) Endpoint {
	return longStream(name, func(w http.ResponseWriter, r *request, in *In) error { return f(w, r, *in) }, out...)
}

// longStream is stream for a function below which a run is executed. It gets a pointer, because a large input would
// stay on the stack of each open stream.
func longStream[In any](
	name route.Name, f func(http.ResponseWriter, *request, *In) error, out ...reflect.Type,
) Endpoint {
	return Endpoint{
		Route: name, In: reflect.TypeFor[In](), Out: out, Status: http.StatusOK, Streams: true, serve: readingInto(f),
	}
}

// file makes an endpoint that answers fixed bytes with the given headers. They are the same for every
// caller, so a cache may store them.
func file(name route.Name, media string, content []byte, header http.Header) Endpoint {
	serve := func(w http.ResponseWriter, _ *request, _ nothing) error {
		maps.Copy(w.Header(), header)
		w.Header().Set("Content-Type", media+"; charset=utf-8")
		w.Header().Del("Cache-Control")
		_, _ = w.Write(content) // an error means that the client has gone
		return nil
	}
	return Endpoint{
		Route: name, In: reflect.TypeFor[nothing](), Status: http.StatusOK, Media: media, serve: reading(serve),
	}
}

// lines makes an endpoint that answers JSON Lines: each value that f returns is one line.
func lines[In any](name route.Name, f func(context.Context, *request, In) ([]any, error)) Endpoint {
	serve := func(w http.ResponseWriter, r *request, in In) error {
		values, err := f(r.Context(), r, in)
		if err != nil {
			return err
		}
		var body bytes.Buffer
		for _, v := range values {
			data, err := wire.Marshal(v)
			if err != nil {
				return err
			}
			body.Write(data)
			body.WriteByte('\n')
		}
		w.Header().Set("Content-Type", jsonLines)
		w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
		_, _ = body.WriteTo(w) // an error means that the client has gone
		return nil
	}
	return Endpoint{
		Route: name, In: reflect.TypeFor[In](), Status: http.StatusOK, Media: jsonLines, serve: reading(serve),
	}
}

// jsonLines is the media type of JSON Lines.
const jsonLines = "application/jsonl"

// reading wraps f with the reader of its input. In declares the input by its tags; see
// package input. If the input is invalid, the answer lists all of its errors, and f isn't
// called.
func reading[In any](f func(http.ResponseWriter, *request, In) error) func(http.ResponseWriter, *request) error {
	return readingInto(func(w http.ResponseWriter, r *request, in *In) error { return f(w, r, *in) })
}

// readingInto is reading for a function that gets a pointer.
func readingInto[In any](f func(http.ResponseWriter, *request, *In) error) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		in := new(In)
		if err := input.Read(w, r.Request, in, r.bounds); err != nil {
			return err
		}
		return f(w, r, in)
	}
}

// writeJSON sends v as the whole body. It sets Content-Length: without it net/http
// sends the body in chunks, which costs a system call each.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	parts, err := partsOf(v)
	if err != nil {
		return err
	}
	// From here on the status can't change: an error would be too late.
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	w.Header()["Content-Type"] = jsonMedia
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(status)
	for _, p := range parts {
		_, failed := w.Write(p) // an error means that the client has gone
		err = errors.Join(err, failed)
	}
	if b, ok := v.(*borrowed); ok && err == nil { // after an error, net/http's HTTP/2 may still read what was written
		b.giveBack()
	}
	return nil
}

// encoded is an answer that is JSON already.
type encoded []byte

// borrowed is an answer that is JSON already, in a buffer that other answers use when it was sent. It is for runs and
// lists, whose answers have up to some 10 KB.
type borrowed struct{ text []byte }

var answers = sync.Pool{New: func() any { return new(borrowed) }}

// maxBorrowed is the size of the largest buffer that is kept for other answers.
const maxBorrowed = 64 << 10

// borrow returns an empty buffer.
func borrow() *borrowed {
	b := answers.Get().(*borrowed) //nolint:forcetypeassert // the pool has nothing else
	b.text = b.text[:0]
	return b
}

// giveBack leaves the buffer to other answers. An answer that is not sent may be left to the garbage collector.
func (b *borrowed) giveBack() {
	if cap(b.text) <= maxBorrowed {
		answers.Put(b)
	}
}

// partsOf returns the JSON of v in consecutive parts: several for a spliced document,
// otherwise one. It encodes v in full before the first byte is sent, so that an error of
// the encoder can still be answered with 500.
func partsOf(v any) ([][]byte, error) {
	switch v := v.(type) {
	case spliced:
		return v.parts()
	case encoded:
		return [][]byte{v}, nil
	case *borrowed:
		return [][]byte{v.text}, nil
	}
	data, err := wire.Marshal(v)
	return [][]byte{data}, err
}
