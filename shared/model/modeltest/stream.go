package modeltest

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// speaker is a vendor's way to stream an answer.
type speaker interface {
	open() // sends what comes before everything else, once
	text(piece string)
	toolCalls(group []callStep) // that follow one another
	raw(text string)            // the script's own bytes, which open the answer too
	end()                       // of a whole answer
}

// holder is asked at each Wait and says false when there is nobody to go on for.
type holder func(<-chan struct{}) bool

// perform has a vendor carry out the script.
func perform(v speaker, s Script, hold holder) {
	for i := 0; i < len(s.steps); i++ {
		switch p := s.steps[i].(type) {
		case waitStep:
			if !hold(p) {
				panic(http.ErrAbortHandler)
			}
		case callStep:
			group := callsFrom(s.steps[i:])
			v.toolCalls(group)
			i += len(group) - 1
		case textStep:
			v.text(string(p))
		case hugeStep:
			v.text(strings.Repeat("x", int(p)))
		case rawStep:
			v.raw(string(p))
		}
	}
	v.open()
	switch s.ending {
	case whole:
		v.end()
	case dropped:
		panic(http.ErrAbortHandler)
	}
}

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

// inTurns hands the arguments of all calls to send, a piece of each at a time.
func inTurns(group []callStep, send func(call int, piece string)) {
	pieces := make([][]string, len(group))
	longest := 0
	for i, call := range group {
		for piece := range slices.Chunk([]rune(call.arguments), 3) {
			pieces[i] = append(pieces[i], string(piece))
		}
		longest = max(longest, len(pieces[i]))
	}
	for turn := range longest {
		for i := range group {
			if turn < len(pieces[i]) {
				send(i, pieces[i][turn])
			}
		}
	}
}

// stream is what every vendor's answer is written to.
type stream struct {
	out     io.Writer
	flush   func() error
	request Request
	script  Script
	opened  bool
}

func (s *stream) raw(text string) {
	s.opened = true
	s.write([]byte(text))
}

// write sends b at once, or in two writes cut within its first character outside
// ASCII. A client that has gone is nobody's fault.
func (s *stream) write(b []byte) {
	cut := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
	if cut >= 0 {
		s.put(b[:cut+1])
		b = b[cut+1:]
	}
	s.put(b)
}

func (s *stream) put(b []byte) {
	if _, err := s.out.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
	if err := s.flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}
