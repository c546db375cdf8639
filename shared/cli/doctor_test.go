package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// healthy is an OS whose every part works, and the places where a test can break it.
type healthy struct {
	keys, model, tools, database string
	more                         string // entries of tools
	issuer                       http.HandlerFunc
	vars                         map[string]string
	data                         string
}

func newHealthy(t *testing.T) *healthy {
	t.Helper()
	h := &healthy{data: t.TempDir(), database: storetest.URL(t)}
	file := filepath.Join(h.data, "keys.json")
	if _, err := makeKeys("ES256", file); err != nil {
		t.Fatal(err)
	}
	set, err := publicKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	h.issuer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }
	serve := func(f http.HandlerFunc) string {
		s := httptest.NewServer(f)
		t.Cleanup(s.Close)
		return s.URL
	}
	h.keys = serve(func(w http.ResponseWriter, r *http.Request) { h.issuer(w, r) })
	h.model = serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.Header.Get("Authorization") != "" {
			t.Error("the key is sent although nobody asked the model")
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
			"finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}],
			"usage": {"prompt_tokens": 14, "completion_tokens": 2, "total_tokens": 16}}`))
	})
	server := sdk.NewServer(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	sdk.AddTool(server, &sdk.Tool{Name: "echo"}, func(context.Context, *sdk.CallToolRequest, struct{}) (
		*sdk.CallToolResult, any, error,
	) {
		return nil, nil, errors.New("nobody calls it")
	})
	h.tools = serve(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server },
		&sdk.StreamableHTTPOptions{Stateless: true}).ServeHTTP)
	h.vars = map[string]string{"MODEL_KEY": "sk-hunter2", "LOG_HASH_KEY": strings.Repeat("hunter2-", 8)}
	return h
}

// file returns the keyway.yaml.
func (h *healthy) file(t *testing.T) string {
	t.Helper()
	return writeConfig(t, fmt.Sprintf(`
id: test-os
auth: {algorithms: [ES256], keys: [{jwks_url: %q, issuer: "https://issuer.example.com", audience: [test-os]}],
  limits: {"*": {runs_per_minute: 60}}}
database: {url: %q}
cors: {origins: ["https://app.example.com"]}
retention: {runs: 90d}
egress: {allow: [127.0.0.0/8]}
agents:
  - id: a
    model: {provider: openai, id: gpt-test, base_url: %q, api_key: "${MODEL_KEY}"}
    tools: [{mcp: {url: %q}}%s]
`, h.keys+"/jwks?key=hunter2", h.database, h.model+"/v1", h.tools, h.more))
}

// doctor runs the command, and returns its exit code and findings.
func (h *healthy) doctor(t *testing.T, flags ...string) (int, []finding) {
	t.Helper()
	args := append([]string{"-c", h.file(t), "--data", h.data, "doctor", "--json"}, flags...)
	var out, complaints bytes.Buffer
	e := testEnv(h.vars)
	e.out, e.err = &out, &complaints
	code := execute(t.Context(), args, e)
	if text := out.String() + complaints.String(); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is printed: %s", text)
	}
	var list []finding
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatalf("%v: %s %s", err, &out, &complaints)
	}
	for _, f := range list {
		if (f.Remedy == "") != (f.Status == statusOK) {
			t.Errorf("%+v: a remedy is for warnings and faults", f)
		}
	}
	return code, list
}

// of returns the findings with a status, as "area check: detail".
func of(list []finding, status string) (lines []string) {
	for _, f := range list {
		if f.Status == status {
			lines = append(lines, f.Area+" "+f.Check+": "+f.Detail)
		}
	}
	return lines
}

func execSQL(t *testing.T, address, text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err == nil {
		_, err = conn.Exec(t.Context(), text)
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDoctorFindsNothingWrongWithAHealthyOS(t *testing.T) {
	t.Parallel()
	h := newHealthy(t)
	code, list := h.doctor(t, "--ask-models")
	if bad := of(list, statusFault); code != 0 || len(bad) > 0 {
		t.Errorf("exit %d: %q", code, bad)
	}
	fine := strings.Join(of(list, statusOK), "\n")
	for _, want := range []string{
		"config file: ", "keys auth.keys[0]: fetched from 127.0.0.1:", "keys clock: the clock of auth.keys[0] agrees",
		"database server: PostgreSQL 1", "database rights: the role can read and write all tables",
		"database schema: keyway fits this Keyway", "database connections: ",
		"database waiting: waiting for a process: 0 runs",
		"database orphaned: ", "models openai:gpt-test: has what it needs, and http://127.0.0.1:",
		"with 14 input and 2 output",
		"mcp agents[0].tools[0]: 1 tool in ", "cors https://app.example.com: ", "doors http: ", "doors limits: ",
		"doors retention: ", "doors log_key: ", "logs data: ", "logs modes: ",
	} {
		if !strings.Contains(fine, want) {
			t.Errorf("%q is missing:\n%s", want, fine)
		}
	}
	// The only warning is for what a test needs: an issuer without TLS.
	if warnings := of(list, statusWarning); len(warnings) != 1 || !strings.Contains(warnings[0], "jwks_url") {
		t.Errorf("%q", warnings)
	}
}

func TestDoctorNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	const warning, fault = statusWarning, statusFault
	for name, c := range map[string]struct {
		harm   func(t *testing.T, h *healthy)
		status string
		want   string
		flags  []string
	}{
		"the address of the keys": {func(_ *testing.T, h *healthy) { h.issuer = http.NotFound }, fault,
			"keys auth.keys[0]: http://127.0.0.1", nil},
		"a key that nobody can use": {func(_ *testing.T, h *healthy) {
			good := h.issuer
			h.issuer = func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				good(rec, r)
				_, _ = w.Write(bytes.Replace(rec.Body.Bytes(), []byte(`"keys":[`), []byte(`"keys":[{"kty":"XYZ","kid":"old"},`), 1))
			}
		}, warning, `keys auth.keys[0]: passes over key "old"`, nil},
		"a clock that is an hour behind": {func(_ *testing.T, h *healthy) { h.issuer = dated(h.issuer, -time.Hour) }, fault,
			"keys clock: the clock of auth.keys[0] is ", nil},
		"a clock that is a bit ahead": {func(_ *testing.T, h *healthy) { h.issuer = dated(h.issuer, 9*time.Second) }, warning,
			"keys clock: the clock of auth.keys[0] is ", nil},
		"the database": {func(_ *testing.T, h *healthy) { h.database = "postgres://u:hunter2@127.0.0.1:1/db" }, fault,
			"database server: the database can't be reached", nil},
		"the password of the database": {func(_ *testing.T, h *healthy) {
			h.database = strings.Replace(h.database, "@", "x@", 1)
		}, fault, "database server: The database rejects this server's user", nil},
		"a schema that nobody has made": {func(t *testing.T, h *healthy) { h.database = storetest.EmptyURL(t) }, fault,
			"database schema: The database schema is missing", nil},
		"an old schema": {func(t *testing.T, h *healthy) {
			execSQL(t, h.database, "UPDATE keyway.schema_version SET version = 3")
		}, fault, "database schema: the database schema is at version 3, this Keyway needs ", nil},
		"a role without rights": {func(t *testing.T, h *healthy) {
			role := ordinaryRole(t, h)
			execSQL(t, h.database, "GRANT USAGE ON SCHEMA keyway TO "+role+
				"; GRANT SELECT ON ALL TABLES IN SCHEMA keyway TO "+role+
				"; GRANT INSERT, UPDATE, DELETE ON keyway.sessions TO "+role)
			h.as(t, role)
		}, fault, "database rights: the role lacks rights: continuations: DELETE, INSERT", nil},
		"a role outside of the schema": {func(t *testing.T, h *healthy) { h.as(t, ordinaryRole(t, h)) }, fault,
			"database rights: the role may not use the schema keyway", nil},
		"runs without a process": {func(t *testing.T, h *healthy) {
			execSQL(t, h.database, waitingRuns)
		}, warning, "database orphaned: without their process: 1 run, the oldest for 1h", nil},
		"nobody who executes runs": {func(t *testing.T, h *healthy) {
			execSQL(t, h.database, waitingRuns)
		}, warning, "database waiting: waiting for a process: 1 run, the oldest for 2h", nil},
		"the key of a model": {func(_ *testing.T, h *healthy) { delete(h.vars, "MODEL_KEY") }, fault,
			"models openai:gpt-test: openai:gpt-test needs an API key", nil},
		"the server of a model": {func(_ *testing.T, h *healthy) { h.model = "http://127.0.0.1:1" }, fault,
			"models openai:gpt-test: http://127.0.0.1:1/v1 can't be reached: dial tcp", nil},
		"a model that nobody has": {func(t *testing.T, h *healthy) {
			s := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			h.model = s.URL
		}, fault, "models openai:gpt-test: ", []string{"--ask-models"}},
		"an MCP server": {func(_ *testing.T, h *healthy) { h.tools = "http://127.0.0.1:1" }, fault,
			"mcp agents[0].tools[0]: ", nil},
		"two tools of one name": {func(_ *testing.T, h *healthy) {
			h.more = fmt.Sprintf(", {mcp: {url: %q}}", h.tools+"/other")
		}, warning, "mcp agents[0].tools[1]: the tool echo of agent a is left out: agents[0].tools[0] has one", nil},
		"a file that others can read": {func(t *testing.T, h *healthy) {
			if err := os.WriteFile(filepath.Join(h.data, "audit.jsonl"), nil, 0o644); err != nil { // #nosec G306
				t.Fatal(err)
			}
		}, warning, "logs audit.jsonl: other users can read or write it", nil},
		"tokens in clear text": {func(*testing.T, *healthy) {}, warning, "doors http: 0.0.0.0:80 is plain HTTP",
			[]string{"--addr", "0.0.0.0:80"}},
		"a certificate for an hour": {func(t *testing.T, h *healthy) {
			writeCertificate(t, filepath.Join(h.data, "tls.crt"), filepath.Join(h.data, "tls.key"), 1)
		}, warning, "doors tls: the certificate expires on",
			[]string{"--tls-cert", "DATA/tls.crt", "--tls-key", "DATA/tls.key"}},
		"no log key": {func(_ *testing.T, h *healthy) { delete(h.vars, "LOG_HASH_KEY") }, warning, "doors log_key: ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHealthy(t)
			c.harm(t, h)
			var flags []string
			for _, flag := range c.flags {
				flags = append(flags, strings.ReplaceAll(flag, "DATA", h.data))
			}
			code, list := h.doctor(t, flags...)
			found := of(list, c.status)
			if !slices.ContainsFunc(found, func(line string) bool { return strings.HasPrefix(line, c.want) }) {
				t.Errorf("%q is not in %q", c.want, found)
			}
			if want := map[string]int{warning: 0, fault: 1}[c.status]; code != want {
				t.Errorf("exit %d, want %d: %q", code, want, of(list, fault))
			}
		})
	}
}

// Not parallel: PATH belongs to the process.
func TestDoctorWithoutTheCommandOfAWSSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	code, list := newHealthy(t).doctor(t, "--stack", "keyway")
	found := of(list, statusWarning)
	if last := found[len(found)-1]; code != 0 || !strings.HasPrefix(last, "stack aws: the command aws is not installed") {
		t.Errorf("exit %d, %q", code, found)
	}
}

// waitingRuns inserts a run that has lost its process, and one that waits.
const waitingRuns = `
	INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at) VALUES ('ann', 's', now(), now());
	INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
		lease_until, input, created_at) VALUES
		(gen_random_uuid(), 'ann', 's', 'a', 'A', 'm', 'P', 'RUNNING', now() - interval '1 hour', 'hi', now()),
		(gen_random_uuid(), 'ann', 's', 'a', 'A', 'm', 'P', 'PENDING', now() - interval '2 hours', 'hi', now())`

// dated returns an issuer whose clock is off.
func dated(next http.HandlerFunc, by time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
		next(w, r)
	}
}

// ordinaryRole makes a role without rights, which ends with the test.
func ordinaryRole(t *testing.T, h *healthy) (role string) {
	t.Helper()
	u, err := url.Parse(h.database)
	if err != nil {
		t.Fatal(err)
	}
	role, admin := "doctor_of_"+strings.TrimPrefix(u.Path, "/"), h.database
	execSQL(t, admin, "CREATE ROLE "+role+" LOGIN PASSWORD 'hunter2'")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), admin)
		if err == nil {
			_, err = conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
			err = errors.Join(err, conn.Close(context.Background()))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return role
}

// as lets the OS log in as a role.
func (h *healthy) as(t *testing.T, role string) {
	t.Helper()
	u, err := url.Parse(h.database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "hunter2")
	h.database = u.String()
}

// The test lasts as long as a check may take: 10 seconds.
func TestADoctorDoesNotWaitForAServerThatHangs(t *testing.T) {
	t.Parallel()
	h := newHealthy(t)
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(release) })
	h.model, h.tools = hangs.URL, hangs.URL+"/mcp"
	h.issuer = func(w http.ResponseWriter, r *http.Request) { hangs.Config.Handler.ServeHTTP(w, r) }
	began := time.Now()
	code, list := h.doctor(t)
	if took := time.Since(began); code != 1 || took > 20*time.Second {
		t.Errorf("exit %d after %s", code, took)
	}
	found := strings.Join(of(list, statusFault), "\n")
	for _, want := range []string{"models openai:gpt-test: ", "mcp agents[0].tools[0]: ", "keys auth.keys[0]: "} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is missing:\n%s", want, found)
		}
	}
}

// awsCommand is a stand-in for AWS's command. It notes what it is asked for.
const awsCommand = `#!/bin/sh
echo "$*" >> "$0.asked"
case "$2" in
describe-stacks) echo '{"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Outputs": [
	{"OutputKey": "Url", "OutputValue": "https://x.example"},
	{"OutputKey": "LogGroups", "OutputValue": "one,two"}]}]}' ;;
filter-log-events) case "$*" in
	*" one "*) echo '{"events": [{"timestamp": 1000, "message": "e1"}, {"timestamp": 3000, "message": "e3"},
		{"timestamp": 5000, "message": "e5"}, {"timestamp": 7000, "message": "e7"}]}' ;;
	*) echo '{"events": [{"timestamp": 2000, "message": "e2"}, {"timestamp": 4000, "message": "e4"},
		{"timestamp": 6000, "message": "e6"}]}' ;;
	esac ;;
*) exit 9 ;;
esac
`

// Not parallel: PATH belongs to the process.
func TestDoctorPrintsTheLastErrorsOfAStack(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "aws")
	if err := os.WriteFile(name, []byte(awsCommand), 0o700); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	since := time.Now().Add(-time.Hour).UnixMilli()
	_, list := newHealthy(t).doctor(t, "--stack", "keyway")
	fine, errs := strings.Join(of(list, statusOK), "\n"), strings.Join(of(list, statusWarning), "\n")
	for _, want := range []string{
		"stack status: UPDATE_COMPLETE", "stack Url: https://x.example", "stack LogGroups: one,two",
	} {
		if !strings.Contains(fine, want) {
			t.Errorf("%q is missing:\n%s", want, fine)
		}
	}
	for n := 1; n <= 7; n++ {
		if has := strings.Contains(errs, fmt.Sprintf(": e%d", n)); has != (n > 2) {
			t.Errorf("the error %d of 7 is printed: %t\n%s", n, has, errs)
		}
	}
	asked, err := os.ReadFile(name + ".asked")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(asked)) {
		words := strings.Fields(line)
		switch right := words[0] + " " + words[1]; right {
		case "cloudformation describe-stacks":
		case "logs filter-log-events":
			i := slices.Index(words, "--start-time")
			if from, err := strconv.ParseInt(words[i+1], 10, 64); err != nil || from < since || from > since+60_000 {
				t.Errorf("it asks for the lines since %d, and an hour ago is %d", from, since)
			}
		default:
			t.Errorf("it needs the right for %s", right)
		}
	}
}

func TestDoctorComparesThePublicURLWithTheStacksParameter(t *testing.T) {
	t.Parallel()
	const own = "https://agents.example.com/v1"
	for parameter, want := range map[string]string{own: "", "": statusWarning, "https://agents.example.com": statusFault} {
		x, f := examination{cfg: &config.Config{PublicURL: own}}, &findings{area: "stack"}
		x.publicURL(parameter, f)
		if got := fmt.Sprint(f.list); len(f.list) != min(1, len(want)) || !strings.Contains(got, want) {
			t.Errorf("%q: %s", parameter, got)
		}
		x.cfg.PublicURL = ""
		if x.publicURL(parameter, f); len(f.list) > 1 {
			t.Errorf("without public_url: %v", f.list)
		}
	}
}
