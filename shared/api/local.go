package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Local answers the routes that only keyway serve has, and no function.
type Local struct {
	// Decisions returns at most limit lines of the log of decisions: those after a cursor, or the newest ones without one.
	// Required.
	Decisions func(limit int, after string) wire.DecisionLog
	// Diff compares what a keyway.yaml decides with the log of decisions. The error is fault.Invalid for a wrong file.
	// Required.
	Diff func(file []byte) (wire.Diff, error)
}

// endpoints implements Resource.
func (l Local) endpoints() []Endpoint {
	diff := stream(route.Diff, l.diff, reflect.TypeFor[wire.Diff]())
	diff.Streams, diff.Reads = false, "application/yaml"
	return []Endpoint{answer(route.Decisions, l.decisions), diff}
}

// decisions is the input of GET /decisions.
type decisions struct {
	Limit int    `query:"limit" default:"100" min:"1" max:"1000" doc:"Lines, at most 1,000."`
	After string `query:"after" bound:"short_text" doc:"next of an earlier answer. Defaults to the newest lines."`
}

func (l Local) decisions(_ context.Context, _ *request, in decisions) (wire.DecisionLog, error) {
	return l.Decisions(in.Limit, in.After), nil
}

// diff reads a keyway.yaml from the body. It is a text and never the name of a file.
func (l Local) diff(w http.ResponseWriter, r *request, _ nothing) error {
	most := r.bounds.Of(bound.File)
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return bound.File.Fault(most, most+1)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", fault.Invalid, err)
	}
	if !utf8.Valid(file) {
		return fault.Public(fault.Invalid, "The file is no valid UTF-8", nil)
	}
	out, err := l.Diff(file)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// Dev answers the routes that only keyway serve --dev has. The server must refuse requests of other origins before they
// reach it: see gateway.SameOrigin.
type Dev struct {
	// Mint signs a token. Required.
	Mint func(sub string, scopes []string, lifetime time.Duration) (string, error)
	// SignIn returns a token of an administrator for the code that the server has printed. The error is
	// fault.Unauthenticated for any other code. Required.
	SignIn func(code string) (string, error)
}

// endpoints implements Resource.
func (d Dev) endpoints() []Endpoint {
	return []Endpoint{answer(route.DevToken, d.token), answer(route.DevSignIn, d.signIn)}
}

// devToken is the input of POST /dev/token.
type devToken struct {
	Body struct {
		Scopes  []string `json:"scopes" required:"true" bound:"elements" each:"short_text" doc:"The scopes of the token."`
		Sub     string   `json:"sub" bound:"short_text" doc:"The user. Defaults to none."`
		Expires int64    `json:"expires_in" default:"3600" min:"1" max:"86400" doc:"Seconds, at most a day."`
	} `body:"json"`
}

func (d Dev) token(_ context.Context, _ *request, in devToken) (out wire.DevToken, err error) {
	out.Token, err = d.Mint(in.Body.Sub, in.Body.Scopes, time.Duration(in.Body.Expires)*time.Second)
	return out, err
}

// devSignIn is the input of POST /dev/sign-in.
type devSignIn struct {
	Body struct {
		Code string `json:"code" required:"true" bound:"short_text" doc:"The code that keyway serve --dev has printed."`
	} `body:"json"`
}

func (d Dev) signIn(_ context.Context, _ *request, in devSignIn) (out wire.DevToken, err error) {
	out.Token, err = d.SignIn(in.Body.Code)
	return out, err
}
