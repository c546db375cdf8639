package api

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"strconv"

	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/wire"
)

// endpoint answers one route. What it takes and gives is kept as types, of which
// the OpenAPI document is made.
type endpoint struct {
	// serve answers. An error, before the first byte, becomes the answer.
	serve   func(http.ResponseWriter, *request) error
	in      reflect.Type
	out     []reflect.Type // one of them; none: there is no JSON
	status  int            // of success
	streams bool           // the answer comes as server-sent events when the caller asks for it, or always
	accepts reflect.Type   // what 202 says, if it is ever the answer
	media   string         // of a file
}

// either says which types an endpoint answers whose function returns any.
func (e endpoint) either(types ...reflect.Type) endpoint {
	e.out = types
	return e
}

// orAccepts says that the endpoint may answer 202 with a T.
func orAccepts[T any](e endpoint) endpoint {
	e.accepts = reflect.TypeFor[T]()
	return e
}

// nothing is the input of a route that takes none, and the answer {}.
type nothing struct{}

// answer makes an endpoint of a function that takes a checked input and returns
// what to say.
func answer[In, Out any](f func(context.Context, *request, In) (Out, error)) endpoint {
	return answerWith(http.StatusOK, f)
}

// answerWith is answer with another status of success.
func answerWith[In, Out any](status int, f func(context.Context, *request, In) (Out, error)) endpoint {
	serve := func(w http.ResponseWriter, r *request, in In) error {
		v, err := f(r.Context(), r, in)
		if err != nil {
			return err
		}
		return writeJSON(w, status, v)
	}
	return endpoint{serve: reading(serve), in: reflect.TypeFor[In](), out: []reflect.Type{reflect.TypeFor[Out]()}, status: status}
}

// done makes an endpoint whose success has nothing to say: 204.
func done[In any](f func(context.Context, *request, In) error) endpoint {
	serve := func(w http.ResponseWriter, r *request, in In) error {
		if err := f(r.Context(), r, in); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return endpoint{serve: reading(serve), in: reflect.TypeFor[In](), status: http.StatusNoContent}
}

// stream makes an endpoint that writes its own answer: events, or one of out.
func stream[In any](f func(http.ResponseWriter, *request, In) error, out ...reflect.Type) endpoint {
	return endpoint{serve: reading(f), in: reflect.TypeFor[In](), out: out, status: http.StatusOK, streams: true}
}

// file makes an endpoint that answers a document as it is.
func file(media string, content []byte, header http.Header) endpoint {
	serve := func(w http.ResponseWriter, _ *request, _ nothing) error {
		maps.Copy(w.Header(), header)
		w.Header().Set("Content-Type", media+"; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(content) // the client may be gone; there is nobody to tell
		return nil
	}
	return endpoint{serve: reading(serve), in: reflect.TypeFor[nothing](), status: http.StatusOK, media: media}
}

func reading[In any](f func(http.ResponseWriter, *request, In) error) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		var in In
		if err := input.Read(w, r.Request, &in); err != nil {
			return err
		}
		return f(w, r, in)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	parts, err := partsOf(v)
	if err != nil {
		return err
	}
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(length)) // else it goes out in chunks, a system call each
	w.WriteHeader(status)
	for _, p := range parts {
		_, _ = w.Write(p) // the client may be gone; there is nobody to tell
	}
	return nil
}

func partsOf(v any) ([][]byte, error) {
	if s, ok := v.(spliced); ok {
		return s.parts()
	}
	data, err := wire.Marshal(v)
	return [][]byte{data}, err
}
