package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/wire"
)

// endpoint answers one route. What it takes and gives is kept as types, of which
// the OpenAPI document is made.
type endpoint struct {
	// serve answers. An error, before the first byte, becomes the answer.
	serve   func(http.ResponseWriter, *request) error
	in, out reflect.Type // out is nil when there is no body
	status  int          // of success
	streams bool         // out comes as server-sent events when the caller asks for it
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
	return endpoint{serve: reading(serve), in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), status: status}
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

// stream makes an endpoint that writes its own answer, an Out or events.
func stream[In, Out any](f func(http.ResponseWriter, *request, In) error) endpoint {
	return endpoint{serve: reading(f), in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), status: http.StatusOK, streams: true}
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
	data, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client may be gone; there is nobody to tell
	return nil
}
