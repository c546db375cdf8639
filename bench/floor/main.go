// Command floor is a server that answers some of the benchmark's requests with nearly no work of its own: net/http
// reads the request, bare statements of pgconn read and write the rows, and the answer has the size of Keyway's. It
// writes the same number of lines of log. What it costs is the lower bound of what Keyway can cost with net/http and
// pgx. Build it and compare: go build -o bin/floor ./bench/floor && go run ./bench --base bin/floor --only "GET
// /agents".
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
)

// conns is the number of connections to PostgreSQL, as many as Keyway's.
const conns = 16

// server is the floor.
type server struct {
	idle chan *pgconn.PgConn
	// file is the log of decisions.
	file *os.File
	// list is the answer of GET /sessions, and agents that of GET /agents.
	list, agents []byte
}

func main() {
	// The arguments are those of "keyway serve --config FILE --addr HOST:PORT".
	addr := os.Args[len(os.Args)-1]
	debug.SetGCPercent(400) // 16 MB of room, as Keyway has
	if err := serve(context.Background(), addr); err != nil {
		log.Fatal(err)
	}
}

// schema has the columns that a list and a run of Keyway have.
const schema = `CREATE TABLE IF NOT EXISTS sessions (
		owner text NOT NULL, session_id text NOT NULL, session_type text NOT NULL DEFAULT 'agent', agent_id text,
		team_id text, workflow_id text, name text, state jsonb DEFAULT '{}', metadata jsonb, summary jsonb,
		created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, usage text, PRIMARY KEY (owner, session_id));
	CREATE INDEX IF NOT EXISTS newest ON sessions (created_at DESC);
	CREATE TABLE IF NOT EXISTS runs (
		run_id uuid PRIMARY KEY, owner text, session_id text, agent_id text, status text, input text, content text,
		messages json, metrics json, created_at timestamptz, finished_at timestamptz)`

// statements are prepared on each connection, by their names.
var statements = map[string]string{
	"list": `SELECT s.*, (SELECT count(*) FROM sessions WHERE session_type = $1) FROM sessions s WHERE session_type = $1
		ORDER BY created_at DESC, session_id LIMIT $2`,
	"begin": `WITH s AS (INSERT INTO sessions (owner, session_id, agent_id, name, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $5))
		INSERT INTO runs (run_id, owner, session_id, agent_id, status, input, created_at)
			VALUES ($6, $1, $2, $3, 'RUNNING', $4, $5)`,
	"end": `WITH s AS (UPDATE sessions SET updated_at = $3, usage = $4 WHERE owner = $1 AND session_id = $2)
		UPDATE runs SET status = 'COMPLETED', content = $5, messages = $6, metrics = $7, finished_at = $3
		WHERE run_id = $8`,
}

func serve(ctx context.Context, addr string) (err error) {
	s := &server{idle: make(chan *pgconn.PgConn, conns)}
	for range conns {
		conn, err := pgconn.Connect(ctx, os.Getenv("DATABASE_URL"))
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, schema).ReadAll(); err != nil {
			return err
		}
		for name, sql := range statements {
			if _, err := conn.Prepare(ctx, name, sql, nil); err != nil {
				return err
			}
		}
		s.idle <- conn
	}
	dir, err := os.MkdirTemp("", "floor")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if s.file, err = os.Create(filepath.Join(dir, "decisions.jsonl")); err != nil { // #nosec G304 -- a new directory
		return err
	}
	const agent = `{"id":"%s","name":"Benchmark Agent","db_id":"keyway","description":"","model":` +
		`{"name":"OpenAIChat","model":"gpt-4o","provider":"OpenAI"},"sessions":` +
		`{"session_table":"sessions","add_history_to_context":false}}`
	s.agents = fmt.Appendf(nil, "["+agent+","+agent+"]", "bench-agent", "bench-agent-hist")
	session := `{"session_id":"` + strings.Repeat("x", 26) + `","session_name":"Say the words.","session_state":{},` +
		`"created_at":"2026-11-30T08:22:36Z","updated_at":"2026-11-30T08:22:36Z","session_type":"agent",` +
		`"user_id":"bench","agent_id":"bench-agent","metrics":{"details":{"model":[{"id":"gpt-4o",` +
		`"provider":"OpenAI Chat","input_tokens":10,"total_tokens":210,"output_tokens":200}]},` +
		`"input_tokens":10,"total_tokens":210,"output_tokens":200},"total_tokens":210},`
	s.list = []byte(`{"data":[` + strings.TrimSuffix(strings.Repeat(session, 20), ",") +
		`],"meta":{"page":1,"limit":20,"total_pages":99,"total_count":1999,"search_time_ms":0}}`)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, []byte("{}")) })
	mux.HandleFunc("GET /agents", s.listAgents)
	mux.HandleFunc("GET /sessions", s.listSessions)
	mux.HandleFunc("POST /agents/{agent}/runs", s.run)
	return (&http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

// lines are a line of a decision, of the audit log and of a request.
var lines = [3][]byte{
	[]byte(strings.Repeat("d", 480) + "\n"), []byte(strings.Repeat("a", 300) + "\n"),
	[]byte(strings.Repeat("r", 240) + "\n"),
}

// decide writes the line of a decision as Keyway does: to a file and to the server's log.
func (s *server) decide() {
	_, _ = s.file.Write(lines[0])
	_, _ = os.Stderr.Write(lines[0])
}

// audit writes the line of a request that the audit log has.
func (s *server) audit() {
	_, _ = s.file.Write(lines[1])
	_, _ = os.Stderr.Write(lines[1])
}

// answer sends a body.
func answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // JSON; an error means that the client has gone
}

func (s *server) listAgents(w http.ResponseWriter, _ *http.Request) {
	s.decide()
	answer(w, s.agents)
	_, _ = os.Stderr.Write(lines[2])
}

// execute executes a prepared statement and reads its rows, but not their columns.
func (s *server) execute(ctx context.Context, name string, args ...string) error {
	conn := <-s.idle
	defer func() { s.idle <- conn }()
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	rows := conn.ExecPrepared(ctx, name, values, nil, nil)
	for rows.NextRow() {
		_ = rows.Values()
	}
	_, err := rows.Close()
	return err
}

func (s *server) listSessions(w http.ResponseWriter, r *http.Request) {
	s.decide()
	if err := s.execute(r.Context(), "list", r.FormValue("type"), r.FormValue("limit")); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.audit()
	answer(w, s.list)
	_, _ = os.Stderr.Write(lines[2])
}

func (s *server) run(w http.ResponseWriter, r *http.Request) {
	s.decide()
	out, err := s.execution(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.audit()
	answer(w, out)
	_, _ = os.Stderr.Write(lines[2])
}

// question is the request to the model.
const question = `{"model":"gpt-4o","messages":[{"role":"user","content":"Say the words."}]}`

// execution begins a run, asks the model, ends the run, and returns the answer.
func (s *server) execution(r *http.Request) ([]byte, error) {
	message, session, id := r.FormValue("message"), r.FormValue("session_id"), uuid.NewString()
	now := time.Now().Format(time.RFC3339Nano)
	if err := s.execute(r.Context(), "begin", "bench", session, r.PathValue("agent"), message, now, id); err != nil {
		return nil, err
	}
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodPost, //nolint:gosec // the benchmark sets the address
		os.Getenv("OPENAI_BASE_URL")+"/chat/completions", strings.NewReader(question))
	if err != nil {
		return nil, err
	}
	ask.Header.Set("Content-Type", "application/json")
	got, err := model.Do(ask) // #nosec G704 -- the model of the benchmark
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(got.Body)
	_ = got.Body.Close()
	// The content is copied as it is in JSON: the model writes no escape into it.
	_, rest, _ := bytes.Cut(body, []byte(`"content":"`))
	content, _, ok := bytes.Cut(rest, []byte(`"`))
	if err != nil || !ok {
		return nil, errors.Join(err, errors.New("the model's answer has no content"))
	}
	messages := fmt.Sprintf(`[{"id":"%[1]s","role":"user","content":"%[2]s"},`+
		`{"id":"%[1]s","role":"assistant","content":"%[3]s"}]`, id, message, content)
	const metrics = `{"input_tokens":10,"output_tokens":200,"total_tokens":210,"duration":0.0123}`
	now = time.Now().Format(time.RFC3339Nano)
	err = s.execute(r.Context(), "end", "bench", session, now, "gpt-4o\tOpenAI\t10\t200\t210", string(content),
		messages, metrics, id)
	return fmt.Appendf(nil, `{"run_id":"%s","session_id":"%s","content":"%s","status":"COMPLETED","metrics":%s,`+
		`"messages":%s}`, id, session, content, metrics, messages), err
}

// model is the client of the model, which keeps a connection for each caller.
var model = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
