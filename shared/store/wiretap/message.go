package wiretap

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Message is what a client says.
type Message struct {
	Kind byte   // as PostgreSQL's documentation has it: 'P' is Parse, 'Q' a simple query; 0 begins a connection
	Name string // of the prepared statement that Parse, Bind, Describe or Close is about; "" is the unnamed one
	Text string // the SQL of Parse and Query; the parameters that begin a connection, each "name=value", with spaces between
}

// frames finds the messages in what arrives in pieces.
type frames struct {
	rest  []byte
	begun bool
}

func (f *frames) add(piece []byte, hear func(Message)) {
	f.rest = append(f.rest, piece...)
	for {
		head := 5 // the kind, and the length without it
		if !f.begun {
			head = 4 // the first message has no kind
		}
		if len(f.rest) < head {
			return
		}
		size := head - 4 + int(binary.BigEndian.Uint32(f.rest[head-4:]))
		if size < head || len(f.rest) < size {
			return
		}
		if f.begun {
			hear(message(f.rest[0], f.rest[head:size]))
		} else {
			hear(beginning(f.rest[head:size]))
		}
		f.begun, f.rest = true, f.rest[size:]
	}
}

// beginning reads a StartupMessage: the version, then names and values.
func beginning(body []byte) Message {
	var said []string
	fields := strings.Split(string(body[min(4, len(body)):]), "\x00")
	for i := 0; i+1 < len(fields) && fields[i] != ""; i += 2 {
		said = append(said, fields[i]+"="+fields[i+1])
	}
	return Message{Text: strings.Join(said, " ")}
}

// message reads what a kind's body begins with.
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
	case 'B': // the portal comes first
		_, m.Name = next(), next()
	case 'D', 'C': // 'S' is a statement, 'P' a portal
		if about := next(); strings.HasPrefix(about, "S") {
			m.Name = about[1:]
		}
	case 'Q':
		m.Text = next()
	}
	return m
}
