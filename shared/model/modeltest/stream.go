package modeltest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// encoder writes a streamed answer in the form of one API.
type encoder interface {
	// open sends what comes before everything else. Further calls do nothing.
	open()
	// text sends a piece of text.
	text(piece string)
	// thoughts sends a piece of the model's thoughts.
	thoughts(piece string)
	// toolCalls sends calls that directly follow each other.
	toolCalls(group []callStep)
	// raw sends bytes of the script. If they are the first bytes, open sends nothing.
	raw(text string)
	// end sends what ends a complete answer.
	end()
}

// waiter waits at a step of Wait. It returns false when the client has closed the
// connection or the test has ended.
type waiter func(<-chan struct{}) bool

// perform sends an answer as the script says. It panics with http.ErrAbortHandler,
// which makes net/http close the connection, where the script drops it.
func perform(e encoder, s Script, wait waiter) {
	for i := 0; i < len(s.steps); i++ {
		switch p := s.steps[i].(type) {
		case waitStep:
			if !wait(p) {
				panic(http.ErrAbortHandler)
			}
		case callStep:
			group := callsFrom(s.steps[i:])
			e.toolCalls(group)
			i += len(group) - 1
		case textStep:
			e.text(string(p))
		case thoughtStep:
			e.thoughts(string(p))
		case hugeStep:
			e.text(strings.Repeat("x", int(p)))
		case rawStep:
			e.raw(string(p))
		}
	}
	e.open()
	switch s.ending {
	case whole:
		e.end()
	case dropped:
		panic(http.ErrAbortHandler)
	}
}

// callsFrom returns the calls at the start of steps.
func callsFrom(steps []step) []callStep {
	var group []callStep
	for _, p := range steps {
		call, ok := p.(callStep)
		if !ok {
			break
		}
		group = append(group, call)
	}
	return group
}

// stream is the part that the encoders of all APIs share.
type stream struct {
	out     io.Writer
	flush   func() error
	request Request
	script  Script
	opened  bool
}

// raw implements encoder.
func (s *stream) raw(text string) {
	s.opened = true
	s.write([]byte(text))
}

// write sends b in one write, or in two, cut within its first character outside ASCII.
func (s *stream) write(b []byte) {
	cut := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
	if cut >= 0 {
		s.put(b[:cut+1])
		b = b[cut+1:]
	}
	s.put(b)
}

// put writes and flushes b. If the client has closed the connection, the handler ends.
func (s *stream) put(b []byte) {
	if _, err := s.out.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
	if err := s.flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}
