package acceptance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// devDir is a new user's project directory: keyway.yaml, and the data of --dev beside it.
type devDir string

// newDevDir makes a devDir with the keyway.yaml of an example. It does not use t.TempDir:
// when the tests run as root, PostgreSQL runs as another user, and that user can't enter
// the directories of t.TempDir.
func newDevDir(t *testing.T, example string) devDir {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyway-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "examples", example, "keyway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d := devDir(dir)
	d.write(t, string(text))
	return d
}

func (d devDir) config() string { return filepath.Join(string(d), "keyway.yaml") }
func (d devDir) data() string   { return filepath.Join(string(d), ".keyway") }

func (d devDir) read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{string(d)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (d devDir) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(d.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace renames a new file to keyway.yaml, as editors do when they save.
func (d devDir) replace(t *testing.T, text string) {
	t.Helper()
	aside := filepath.Join(string(d), ".keyway.yaml.swp")
	if err := os.WriteFile(aside, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, d.config()); err != nil {
		t.Fatal(err)
	}
}

// begin starts keyway serve --dev and does not wait for it.
func (d devDir) begin(t *testing.T, vars map[string]string) *server {
	t.Helper()
	return serve(t, process.Keyway, vars, "--dev", "--config", d.config(), "--data", d.data())
}

// serve starts keyway serve --dev and waits until it has printed its address and tokens.
func (d devDir) serve(t *testing.T, vars map[string]string) *server {
	t.Helper()
	r := d.begin(t, vars)
	r.readGreeting()
	return r
}

// The newer schema says that this version of Keyway works with it. The server prints a
// warning and starts.
func TestOlderServerWorksWithANewerSchema(t *testing.T) {
	t.Parallel()
	d, url := newDevDir(t, "quickstart"), storetest.EmptyURL(t)
	if _, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "keyway",
		OSID: "quickstart"}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "UPDATE keyway.schema_version SET version = 99"); err != nil {
		t.Fatal(err)
	}
	r := d.serve(t, map[string]string{"DATABASE_URL": url})
	r.AwaitLog("warning: a newer Keyway migrated the schema keyway to version 99; this one works with it\n")
}

// setLeases sets the leases of the two running runs to end this far from now.
func setLeases(t *testing.T, url, until string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tag, err := conn.Exec(t.Context(),
		"UPDATE keyway.runs SET lease_until = now() + $1::text::interval WHERE status = 'RUNNING'", until)
	if err != nil || tag.RowsAffected() != 2 {
		t.Fatalf("to set two leases: %v, %v", tag, err)
	}
}

// readGreeting waits for the last line of the greeting of --dev. It reads the server's
// address and the tokens from it.
func (r *server) readGreeting() {
	r.t.Helper()
	m := r.AwaitLog(`(?m)^keyway \S+ at (\S+) .*(?s:.*)^curl .*/agents$`)
	r.URL, r.Tokens = m[1], map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^export (\w+)=(\S+)$`).FindAllStringSubmatch(r.Stderr.String(), -1) {
		r.Tokens[map[string]string{"ADMIN_TOKEN": "admin", "TOKEN": "ann"}[m[1]]] = m[2]
	}
}

// stream is the event stream of a run that is in progress.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
	body  io.Closer
	runID string
	text  string
}

// startStream starts a streamed run for ann and reads events up to this content.
func (r *server) startStream(session, content string) *stream {
	r.t.Helper()
	body, kind := process.Form(r.t, "message", "hi", "session_id", session)
	resp := r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	r.t.Cleanup(func() { resp.Body.Close() })
	s := &stream{t: r.t, lines: bufio.NewScanner(resp.Body), body: resp.Body}
	for s.lines.Scan() {
		s.text += s.lines.Text() + "\n"
		if m := regexp.MustCompile(`"run_id":"([^"]+)"`).FindStringSubmatch(s.lines.Text()); m != nil {
			s.runID = m[1]
		}
		if strings.Contains(s.lines.Text(), `"content":"`+content+`"`) {
			return s
		}
	}
	r.t.Fatalf("%d %v: %s", resp.StatusCode, s.lines.Err(), s.text)
	return nil
}

// readToEnd reads the stream to its end and returns the names of all its events.
func (s *stream) readToEnd() string {
	s.t.Helper()
	for s.lines.Scan() {
		s.text += s.lines.Text() + "\n"
	}
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^event: (\w+)$`).FindAllStringSubmatch(s.text, -1) {
		list = append(list, m[1])
	}
	return strings.Join(list, " ")
}

const allEvents = "RunStarted ModelRequestStarted RunContent RunContent RunContent ModelRequestCompleted " +
	"RunContentCompleted RunCompleted"

// heldModel is a model that answers "first", waits for a value from the channel, and
// answers " second".
func heldModel(t *testing.T) (*modeltest.Server, chan struct{}) {
	t.Helper()
	release := make(chan struct{})
	return modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		return modeltest.Text("first").Wait(release).Text(" second")
	}), release
}

func TestDevPrintsTokensAndCommandsThatWork(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	// JWT_SIGNING_KEY may be meant for another OS. --dev must not sign its tokens with it.
	r := d.serve(t, map[string]string{"JWT_SIGNING_KEY": strings.Repeat("another ", 8)})
	greeting := r.Stderr.String()
	if n := strings.Count(greeting,
		"no OPENAI_API_KEY: the offline demo model answers for assistant, finance-agent\n"); n != 1 {
		t.Errorf("the demo model is announced %d times:\n%s", n, greeting)
	}
	if first := regexp.MustCompile(`export (\w+)=`).FindStringSubmatch(greeting); first[1] != "ADMIN_TOKEN" {
		t.Errorf("the first variable is %s, want ADMIN_TOKEN", first[1])
	}
	d.postgres(t) // fails if the database isn't below --data, which must hold for root too
	var commands []string
	for line := range strings.SplitSeq(greeting, "\n") {
		if strings.HasPrefix(line, "curl ") {
			commands = append(commands, line)
		}
	}
	if len(commands) != 4 {
		t.Fatalf("%d commands are printed, want 4:\n%s", len(commands), greeting)
	}
	senders := map[string]func(string) process.Reply{"net/http": r.sendWithoutCurl}
	if curl, err := exec.LookPath("curl"); err == nil {
		senders["curl"] = func(command string) process.Reply { return r.sendByCurl(curl, command) }
	}
	for name, send := range senders {
		send(commands[0]).Want(t, name+": ann runs the agent", 200, "event: RunCompleted", "demo model", "You said: Hello")
		send(commands[1]).Want(t, name+": ann lists her sessions", 200, `"session_name":"Hello"`, `"user_id":"ann"`)
		send(commands[2]).Want(t, name+": ann runs the other", 403, `"missing":["agents:finance-agent:run"]`)
		send(commands[3]).Want(t, name+": the administrator lists agents", 200, `"id":"assistant"`, `"id":"finance-agent"`)
	}
	r.Get("admin", "/config").Want(t, "the first token is an administrator's", 200)
	r.Get("ann", "/config").Want(t, "the second token is not", 403)
	r.refusesOtherHosts()
	page := r.Call("admin", "GET", "/agents", nil, "Origin", "https://os.agno.com")
	if got := page.Header.Get("Access-Control-Allow-Origin"); got != "https://os.agno.com" {
		t.Errorf("AgentOS's web interface may not read the answer: %q", got)
	}

	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	key := d.read(t, ".keyway", "dev-HS256.json")
	again := d.serve(t, nil)
	if d.read(t, ".keyway", "dev-HS256.json") != key {
		t.Error("the second start generated another key")
	}
	again.Tokens = r.Tokens
	again.Get("ann", "/sessions").Want(t, "after the second start the old token lists the old session", 200,
		`"session_name":"Hello"`)
	again.Get("admin", "/config").Want(t, "and the administrator's token is still valid", 200)
}

// refusesOtherHosts checks the protection against DNS rebinding: a web page can make its
// own host name resolve to this machine, so the Host header must name a loopback address.
func (r *server) refusesOtherHosts() {
	r.t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	for host, status := range map[string]int{
		"localhost:" + port: 200, "LOCALHOST": 200, "[::1]:" + port: 200, "127.0.0.1": 200,
		"evil.example": 403, "localhost.evil.example:" + port: 403, "127.0.0.1.evil.example": 403,
		"192.0.2.1:" + port: 403, "0.0.0.0:" + port: 403,
	} {
		req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.URL+"/agents", nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+r.Tokens["admin"])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			r.t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, status)
		}
	}
}

// sendByCurl runs a printed command in /bin/sh, after the printed exports.
func (r *server) sendByCurl(curl, command string) process.Reply {
	r.t.Helper()
	script := fmt.Sprintf("export ADMIN_TOKEN=%s TOKEN=%s\ncurl() { %q -sS -w '\\n%%{http_code}' \"$@\"; }\n%s\n",
		r.Tokens["admin"], r.Tokens["ann"], curl, command)
	out, err := exec.CommandContext(r.t.Context(), "/bin/sh", "-c", script).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	i := strings.LastIndexByte(string(out), '\n')
	status, err := strconv.Atoi(string(out[i+1:]))
	if err != nil {
		r.t.Fatalf("%s: %s", command, out)
	}
	return process.Reply{Status: status, Body: string(out[:i])}
}

// sendWithoutCurl sends the request of a printed command, for machines without curl.
func (r *server) sendWithoutCurl(command string) process.Reply {
	r.t.Helper()
	command = os.Expand(command, func(name string) string {
		return r.Tokens[map[string]string{"ADMIN_TOKEN": "admin", "TOKEN": "ann"}[name]]
	})
	method, path, headers := "GET", strings.TrimPrefix(command[strings.LastIndexByte(command,
		' ')+1:], r.URL), []string(nil)
	var body io.Reader
	for _, m := range regexp.MustCompile(`-([HF]) "([^"]*)"`).FindAllStringSubmatch(command, -1) {
		if m[1] == "H" {
			name, value, _ := strings.Cut(m[2], ": ")
			headers = append(headers, name, value)
			continue
		}
		name, value, _ := strings.Cut(m[2], "=")
		var kind string
		body, kind = process.Form(r.t, name, value)
		method, headers = "POST", append(headers, "Content-Type", kind)
	}
	return r.Call("-", method, path, body, headers...)
}

// The printed tokens have the scopes, the audience and the algorithm that keyway.yaml needs.
func TestDevPrintsTokensThatMatchTheConfiguration(t *testing.T) {
	t.Parallel()
	mapped := newDevDir(t, "custom-scope-mappings").serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	mapped.Run("ann", "research-agent", "message", "hi").Want(t, "ann runs the agent", 200, "event: RunCompleted")
	mapped.Get("ann", "/sessions").Want(t, "and lists sessions", 200, `"user_id":"ann"`)
	mapped.Get("admin", "/config").Want(t, "the administrator reads the configuration", 200)

	d := newDevDir(t, "quickstart")
	d.write(t, "id: os\nauth: {algorithms: [ES256], verify_audience: true, audience: [here], issuer: me}\nagents: "+
		"[{id: a, model: 'demo:x'}]\n")
	strict := d.serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	strict.Run("ann", "a", "message", "hi").Want(t, "with an audience, an issuer and ES256", 200, "event: RunCompleted")
	if log := strict.Stderr.String(); strings.Contains(log, "ann may not run") ||
		strings.Contains(log, "no OPENAI_API_KEY") {
		t.Errorf("with one agent on the demo model the greeting is %s", log)
	}
}

func TestDevServesWithoutTokensIfNoKeyCanSign(t *testing.T) {
	t.Parallel()
	pair := filepath.Join(t.TempDir(), "keys.json")
	process.Keyway.Prints(t, nil, "keys", "generate", "--alg", "ES256", "--out", pair)
	var made struct {
		Public string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(devDir("").read(t, pair)), &made); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ alg, verifies, signs, says string }{
		"nothing to sign with": {"ES256", made.Public, "", `no key to sign with: set JWT_SIGNING_KEY`},
		"a key of something else": {"HS256", strings.Repeat("this one ", 8), strings.Repeat("another ", 8),
			`the available key signs tokens that auth in keyway.yaml refuses \(.*Signature verification failed\)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDevDir(t, "quickstart")
			d.write(t, "id: os\nauth: {algorithms: ["+row.alg+"], keys: ['${KEY}']}\nagents: [{id: a, model: 'demo:x'}]\n")
			r := d.begin(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t), "KEY": row.verifies,
				"JWT_SIGNING_KEY": row.signs})
			r.URL = r.AwaitLog(`(?s)keyway \S+ at (\S+) .*# no tokens to try: ` + row.says)[1]
			r.Call("-", "GET", "/health", nil).Want(t, "the server works without tokens", 200)
		})
	}
}

func TestDevReloadsTheConfigurationDuringRuns(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	model, release := heldModel(t)
	r := d.serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t), "OPENAI_BASE_URL": model.URL,
		"OPENAI_API_KEY": "sk-test"})
	original := d.read(t, "keyway.yaml")
	inForce := func(n int) string { return fmt.Sprintf(`(?s)(keyway.yaml changed and is in force.*){%d}`, n) }

	during, cancelled := r.startStream("during", "first"), r.startStream("cancelled", "first")
	d.replace(t, original+"\n  - {id: newcomer, model: 'demo:x'}\n")
	r.AwaitLog(inForce(1))
	if got := r.Get("admin", "/agents").IDs(t); got != "assistant finance-agent newcomer" {
		t.Errorf("after the change the agents are %s", got)
	}
	r.Run("admin", "newcomer", "message", "hi").Want(t, "the new agent runs", 200, "event: RunCompleted")

	// A run that started before the change keeps its stream, and other requests find it.
	r.Call("ann", "POST", "/agents/assistant/runs/"+cancelled.runID+"/cancel", nil).
		Want(t, "a run that started before the change is cancelled", 200)
	if got := cancelled.readToEnd(); !strings.HasSuffix(got, "RunContent RunCancelled") {
		t.Errorf("the cancelled run sent %s", got)
	}
	release <- struct{}{}
	if got := during.readToEnd(); got != allEvents {
		t.Errorf("the run during which the file changed sent %s", got)
	}
	r.Get("ann", "/sessions/during/runs").Want(t, "the run is stored completely", 200, `"status":"COMPLETED"`,
		`"content":"first second"`)

	// A file with errors changes nothing. All its errors are reported.
	d.write(t, strings.Replace(original, "id: assistant", "idd: assistant", 1)+"\nverion: 1\n")
	before, _, _ := strings.Cut(original, "id: assistant")
	r.AwaitLog(fmt.Sprintf(`(?s)keyway.yaml:%d:5: agents\[0\].idd: unknown field.*verion: unknown field.*`+
		`keyway.yaml is not put in force; the previous configuration stays in force`, strings.Count(before, "\n")+1))
	d.write(t, strings.Replace(original, "id: quickstart", "id: another", 1))
	r.AwaitLog(`id and database can't change while the server runs; restart it`)
	d.write(t, original+"\ndatabase: {schema: another}\n")
	r.AwaitLog(`(?s)(id and database can't change while the server runs; restart it.*){2}`)
	if err := os.Remove(d.config()); err != nil {
		t.Fatal(err)
	}
	r.AwaitLog(`there is no \S+keyway.yaml: name your file`)
	if got := r.Get("admin", "/agents").IDs(t); got != "assistant finance-agent newcomer" {
		t.Errorf("after files with errors the agents are %s", got)
	}

	d.write(t, original)
	r.AwaitLog(inForce(2))
	if got := r.Get("admin", "/agents").IDs(t); got != "assistant finance-agent" {
		t.Errorf("with the original file the agents are %s", got)
	}
}

// start starts keyway serve --dev for a test that stops the process itself and checks how
// it ends.
func (d devDir) start(t *testing.T, model *modeltest.Server) *server {
	t.Helper()
	r := d.begin(t, map[string]string{"OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test"})
	r.Judged.Store(true)
	r.readGreeting()
	return r
}

func (r *server) signal(s os.Signal) {
	r.t.Helper()
	if err := r.Cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("%v: %v", s, err)
	}
}

// postgres returns the URL of the PostgreSQL that runs for the directory.
func (d devDir) postgres(t *testing.T) string {
	t.Helper()
	var published struct{ URL string }
	if err := json.Unmarshal([]byte(d.read(t, ".keyway", "pg", "pg.json")), &published); err != nil {
		t.Fatal(err)
	}
	return published.URL
}

// checkPostgresStopped fails unless the PostgreSQL at url has shut down: it closes its
// port, then removes postmaster.pid.
func (d devDir) checkPostgresStopped(t *testing.T, when, url string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(d.data(), "pg", "data", "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: postmaster.pid still exists (%v)", when, err)
	}
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Errorf("%s: PostgreSQL still answers", when)
	}
}

func TestServerRecoversFromKillsAndStopsCleanly(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	model, release := heldModel(t)

	// kill -9 during a streamed run and a background run. The client's stream breaks off
	// without a final event.
	r := d.start(t, model)
	tokens := r.Tokens
	s := r.startStream("s", "first")
	release <- struct{}{}
	if got := s.readToEnd(); got != allEvents {
		t.Fatal(got)
	}
	s = r.startStream("s", "first")
	background := r.startInBackground("s")
	r.awaitStatus("ann", background, "RUNNING")
	url := d.postgres(t)
	setLeases(t, url, "10 minutes") // longer than the next start takes
	r.signal(os.Kill)
	if got := s.readToEnd(); !strings.HasSuffix(got, "RunContent") {
		t.Errorf("the stream of the killed server sent %s", got)
	}
	if err := r.Ended(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the killed server ended with %v", err)
	}
	d.checkPostgresStopped(t, "after kill -9", url)

	// The next server finds the rows. The interrupted runs still have their leases.
	r = d.start(t, model)
	r.Tokens = tokens
	r.Get("ann", "/sessions/s/runs").Want(t, "after kill -9", 200, `"content":"first second"`,
		`"status":"COMPLETED"`, `"status":"RUNNING"`)
	setLeases(t, d.postgres(t), "-1 second")

	// The leases have expired: the server claims both runs and completes them.
	r.AwaitLog(`"msg":"recovered orphaned runs","runs":2`)
	release <- struct{}{}
	release <- struct{}{}
	for _, id := range []string{s.runID, background} {
		r.awaitStatus("ann", id, "COMPLETED").Want(t, "the claimed run", 200, `"content":"first second"`)
	}
	// Event 2 was of the first attempt, so the stream replays all events of the next one.
	body, kind := process.Form(t, "last_event_index", "2")
	resumed := process.Frames(t, r.Call("ann", "POST", "/agents/assistant/runs/"+s.runID+"/resume", body,
		"Content-Type", kind).Body)
	if got := process.Names(resumed); got != "replay "+allEvents || resumed[1].Data["event_index"].(float64) <= 2 {
		t.Errorf("resume after the kill sent %s", got)
	}

	// After SIGTERM a stream may continue to its end.
	s = r.startStream("s", "first")
	r.signal(syscall.SIGTERM)
	r.AwaitLog(`keyway stops; runs in progress have 20s to end`)
	release <- struct{}{}
	if got := s.readToEnd(); got != allEvents {
		t.Errorf("the stream during SIGTERM sent %s", got)
	}
	if err := r.Ended(); err != nil {
		t.Errorf("after SIGTERM the server ended with %v", err)
	}

	// At the next start no run is in progress, and none was lost.
	r = d.start(t, model)
	r.Tokens = tokens
	runs := r.Get("ann", "/sessions/s/runs")
	if got := strings.Count(runs.Body, `"status":"COMPLETED"`); got != 4 || strings.Count(runs.Body, `"status":"`) != got {
		t.Errorf("%d runs are COMPLETED: %s", got, runs.Body)
	}

	// A second SIGINT ends the server without waiting for the stream. PostgreSQL stops too.
	url = d.postgres(t)
	s = r.startStream("s", "first")
	r.signal(os.Interrupt)
	r.AwaitLog(`keyway stops`)
	r.signal(os.Interrupt)
	if got := s.readToEnd(); !strings.HasSuffix(got, "RunContent") {
		t.Errorf("the interrupted stream sent %s", got)
	}
	if err := r.Ended(); err == nil || err.Error() != "signal: interrupt" {
		t.Errorf("after two SIGINTs the server ended with %v", err)
	}
	d.checkPostgresStopped(t, "after SIGINT twice", url)

	// One SIGINT stops the server cleanly.
	r = d.start(t, model)
	url = d.postgres(t)
	r.signal(os.Interrupt)
	if err := r.Ended(); err != nil {
		t.Errorf("after SIGINT the server ended with %v", err)
	}
	d.checkPostgresStopped(t, "after SIGINT", url)
}
