package wiretap

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Message is a message of a client.
type Message struct {
	// Kind is the type byte of PostgreSQL's manual, "Message Formats": 'P' is Parse, 'Q' is a simple query. It is 0 for
	// the StartupMessage, which has none.
	Kind byte
	// Name is the prepared statement of a Parse, Bind, Describe or Close. "" is the unnamed one.
	Name string
	// Text is the SQL of a Parse or a Query. For the StartupMessage it holds the parameters, each as name=value, with
	// spaces between them.
	Text string
}

// frames finds the messages in a stream that arrives in pieces.
type frames struct {
	rest    []byte
	started bool // the StartupMessage has been read
}

// add appends a piece of the stream and calls receive for each message that is complete now.
func (f *frames) add(piece []byte, receive func(Message)) {
	f.rest = append(f.rest, piece...)
	for {
		head := 5 // The kind, and a length that does not include the kind.
		if !f.started {
			head = 4 // The first message has no kind.
		}
		if len(f.rest) < head {
			return
		}
		size := head - 4 + int(binary.BigEndian.Uint32(f.rest[head-4:]))
		if size < head || len(f.rest) < size {
			return
		}
		if f.started {
			receive(message(f.rest[0], f.rest[head:size]))
		} else {
			receive(startup(f.rest[head:size]))
		}
		f.started, f.rest = true, f.rest[size:]
	}
}

// startup parses a StartupMessage: the version, then names and values.
func startup(body []byte) Message {
	var parameters []string
	fields := strings.Split(string(body[min(4, len(body)):]), "\x00")
	for i := 0; i+1 < len(fields) && fields[i] != ""; i += 2 {
		parameters = append(parameters, fields[i]+"="+fields[i+1])
	}
	return Message{Text: strings.Join(parameters, " ")}
}

// message parses the start of the body of a message of this kind.
func message(kind byte, body []byte) Message {
	next := func() string {
		text, rest, _ := bytes.Cut(body, []byte{0})
		body = rest
		return string(text)
	}
	m := Message{Kind: kind}
	switch kind {
	case 'P':
		m.Name, m.Text = next(), next()
	case 'B': // The name of the portal comes first.
		_, m.Name = next(), next()
	case 'D', 'C': // The name follows 'S' for a statement, or 'P' for a portal.
		if about := next(); strings.HasPrefix(about, "S") {
			m.Name = about[1:]
		}
	case 'Q':
		m.Text = next()
	}
	return m
}
