package wiretap_test

import (
	"bufio"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// tapped returns a connection through a tap to a server with this behaviour.
func tapped(t *testing.T, receive func(wiretap.Message), serve func(net.Conn)) (*wiretap.Tap, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			serve(conn)
			conn.Close()
		}
	}()
	tap, err := wiretap.Open(t.Context(), "postgresql://ann:x@"+l.Addr().String()+"/db?sslmode=disable", receive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tap.Close)
	u, err := url.Parse(tap.URL)
	if err != nil || u.User.String() != "ann:x" || u.RequestURI() != "/db?sslmode=disable" {
		t.Fatalf("the address is %s, %v", tap.URL, err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return tap, conn
}

func TestOnlyAnsweredRequestsAreRoundTripsAndAllBytesCount(t *testing.T) {
	t.Parallel()
	tap, conn := tapped(t, nil, func(conn net.Conn) { // It answers each line that ends with a question mark.
		for s := bufio.NewScanner(conn); s.Scan(); {
			if strings.HasSuffix(s.Text(), "?") {
				_, _ = io.WriteString(conn, "yes\n")
			}
		}
	})
	answers := bufio.NewReader(conn)
	sent := int64(0)
	for _, question := range []string{"one?\n", "a part\nand its end?\n", "three?\n"} {
		if _, err := io.WriteString(conn, question); err != nil {
			t.Fatal(err)
		}
		sent += int64(len(question))
		if _, err := answers.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	// Bytes are counted before they are forwarded, so all of an answered request count.
	if tap.Sent.Load() != sent || tap.Received.Load() != 3*int64(len("yes\n")) {
		t.Errorf("%d bytes were sent, %d received", tap.Sent.Load(), tap.Received.Load())
	}
	_, _ = io.WriteString(conn, "goodbye\n")
	conn.Close()
	if tap.Trips.Load() != 3 || tap.Opened.Load() != 1 {
		t.Errorf("%d round trips over %d connections", tap.Trips.Load(), tap.Opened.Load())
	}
}

func TestMessagesAreParsedHoweverTheyArrive(t *testing.T) {
	t.Parallel()
	var sent []byte
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "ann"}},
		&pgproto3.Parse{Name: "stmt", Query: "SELECT $1"},
		&pgproto3.Bind{DestinationPortal: "portal", PreparedStatement: "stmt", Parameters: [][]byte{{0, 1, 0}}},
		&pgproto3.Describe{ObjectType: 'S', Name: "stmt"},
		&pgproto3.Describe{ObjectType: 'P', Name: "portal"},
		&pgproto3.Execute{Portal: "portal"},
		&pgproto3.Sync{},
		&pgproto3.Close{ObjectType: 'S', Name: "stmt"},
		&pgproto3.Query{String: "SELECT 1"},
		&pgproto3.Terminate{},
	} {
		var err error
		if sent, err = m.Encode(sent); err != nil {
			t.Fatal(err)
		}
	}
	want := []wiretap.Message{
		{Text: "user=ann"}, {Kind: 'P', Name: "stmt", Text: "SELECT $1"}, {Kind: 'B', Name: "stmt"}, {Kind: 'D',
			Name: "stmt"}, {Kind: 'D'},
		{Kind: 'E'}, {Kind: 'S'}, {Kind: 'C', Name: "stmt"}, {Kind: 'Q', Text: "SELECT 1"}, {Kind: 'X'},
	}
	for name, size := range map[string]int{"byte by byte": 1, "in pieces": 7, "all together": len(sent)} {
		received := make(chan wiretap.Message, len(want))
		_, conn := tapped(t, func(m wiretap.Message) { received <- m },
			func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		for rest := sent; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := conn.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		var got []wiretap.Message
		for range want {
			select {
			case m := <-received:
				got = append(got, m)
			case <-time.After(time.Minute):
				t.Fatalf("%s: only %+v", name, got)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// asks sends a message of a client and returns the next byte of the answer.
func asks(conn net.Conn, m pgproto3.FrontendMessage) (byte, error) {
	sent, err := m.Encode(nil)
	if err == nil {
		_, err = conn.Write(sent)
	}
	if err != nil {
		return 0, err
	}
	answer := make([]byte, 1)
	_, err = io.ReadFull(conn, answer)
	return answer[0], err
}

// answersAll answers everything with ReadyForQuery, in two pieces.
func answersAll(answered chan<- struct{}) func(net.Conn) {
	return func(conn net.Conn) {
		for b := make([]byte, 1<<10); ; {
			if _, err := conn.Read(b); err != nil {
				return
			}
			_, _ = conn.Write([]byte("Z\x00\x00"))
			_, _ = conn.Write([]byte("\x00\x05I"))
			answered <- struct{}{}
		}
	}
}

func TestOnlyTheAnswerOfAStatementIsLost(t *testing.T) {
	t.Parallel()
	answered := make(chan struct{}, 10)
	tap, conn := tapped(t, nil, answersAll(answered))
	start := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30}
	if got, err := asks(conn, start); err != nil || got != 'Z' {
		t.Fatal(got, err)
	}
	tap.LoseAnswer()
	if _, err := io.CopyN(io.Discard, conn, 5); err != nil { // the rest of the first answer
		t.Fatal(err)
	}
	for _, m := range []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Query{String: "-- ping"}} {
		if got, err := asks(conn, m); err != nil || got != 'Z' {
			t.Errorf("the answer to %T is %q, %v", m, got, err)
		}
		if _, err := io.CopyN(io.Discard, conn, 5); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := asks(conn, &pgproto3.Execute{}); err == nil {
		t.Error("the answer of a statement is not lost")
	}
	for range 4 {
		<-answered // The server has received the statement too.
	}
}

func TestAFrozenTapForwardsLater(t *testing.T) {
	t.Parallel()
	tap, conn := tapped(t, nil, answersAll(make(chan struct{}, 10)))
	tap.Freeze()
	answer := make(chan byte)
	go func() {
		got, _ := asks(conn, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30})
		answer <- got
	}()
	select {
	case got := <-answer:
		t.Errorf("a frozen tap forwards %q", got)
	case <-time.After(50 * time.Millisecond):
		tap.Thaw()
		if got := <-answer; got != 'Z' {
			t.Errorf("the answer is %q", got)
		}
	}
}
