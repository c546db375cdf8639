package functions_test

import (
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// reasonable is more time than anything here takes.
const reasonable = time.Minute

// postgresAskingForAPassword speaks PostgreSQL's protocol until a client has sent its
// password, which it hands on and refuses.
func postgresAskingForAPassword(t *testing.T, password chan<- string) (host string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			ask(conn, password)
		}
	}()
	return l.Addr().String()
}

func ask(conn net.Conn, password chan<- string) {
	defer conn.Close()
	server := pgproto3.NewBackend(conn, conn)
	if _, err := server.ReceiveStartupMessage(); err != nil {
		return
	}
	server.Send(&pgproto3.AuthenticationCleartextPassword{})
	if server.Flush() != nil || server.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	if m, err := server.Receive(); err == nil {
		if p, ok := m.(*pgproto3.PasswordMessage); ok {
			select {
			case password <- p.Password:
			default:
			}
		}
	}
	server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no"})
	_ = server.Flush()
}
