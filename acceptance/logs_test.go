package acceptance

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// planted is a word in every text that the callers of this test choose.
const planted = "oleander"

// loggedOS is a server whose logs a test reads: its own, those below --data, and PostgreSQL's, which has all that
// PostgreSQL can log of a failed statement.
type loggedOS struct {
	*server
	db *pgx.Conn
}

func startLogged(t *testing.T, file string, model *modeltest.Server) *loggedOS {
	t.Helper()
	url := storetest.EmptyURL(t)
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	for _, setting := range []string{"log_error_verbosity = verbose", "log_min_error_statement = error"} {
		_, err := db.Exec(t.Context(), "ALTER DATABASE "+pgx.Identifier{db.Config().Database}.Sanitize()+" SET "+setting)
		if err != nil {
			t.Fatal(err)
		}
	}
	o := &loggedOS{startWith(t, process.WithTools, file, model, "DATABASE_URL", url), db}
	o.DB = url
	return o
}

// logs returns all logs by their names.
func (o *loggedOS) logs() map[string]string {
	o.t.Helper()
	out := map[string]string{"the log of keyway serve": o.Stderr.String()}
	files, err := filepath.Glob(filepath.Join(o.Data, "*.jsonl"))
	if err != nil {
		o.t.Fatal(err)
	}
	for _, name := range files {
		out[filepath.Base(name)] = readFile(o.t, name)
	}
	out["pg.log"] = o.postgres()
	return out
}

// postgres returns PostgreSQL's log. All statements so far are in it: PostgreSQL writes lines in their order, and this
// waits for one of its own.
func (o *loggedOS) postgres() (log string) {
	o.t.Helper()
	conn, err := pgx.Connect(o.t.Context(), o.DB) // which has the settings of startLogged
	if err != nil {
		o.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	last := fmt.Sprintf("the last line of %s at %d", o.t.Name(), time.Now().UnixNano())
	if _, err := conn.Exec(o.t.Context(), "SELECT CAST('"+last+"' AS integer)"); err == nil {
		o.t.Fatal("PostgreSQL accepts a text as a number")
	}
	ctx, cancel := context.WithTimeout(o.t.Context(), process.Patience)
	defer cancel()
	for !strings.Contains(log, "SELECT CAST('"+last) {
		if err := conn.QueryRow(ctx, "SELECT pg_read_file(pg_current_logfile())").Scan(&log); err != nil {
			o.t.Fatalf("pg.log has not the line of this test: %v", err)
		}
	}
	return log
}

// Every route is called with a word in each value that a caller chooses, with permission and without. No log has
// the word, a token, or the id of a memory.
func TestNoLogHasWhatACallerSent(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch said := lastMessage(r); {
		case strings.HasPrefix(said, "pay"):
			return modeltest.ToolCall("pay", `{"for":"`+planted+`"}`)
		case strings.HasPrefix(said, "fail"):
			return modeltest.Fail(400, planted)
		default:
			return modeltest.Text("you said ", said)
		}
	})
	o := startLogged(t, writeConfig(t, "user_isolation: true"), model)
	issuer := hmacForge("HS256", config.PublishedSecret)
	const ann, bob = planted + "-ann", planted + "-bob"
	const every = "agents:read agents:run teams:read workflows:read config:read sessions:read sessions:write " +
		"sessions:delete memories:read memories:write memories:delete"
	token := func(sub, scopes string) string {
		return issuer.token(payload("sub", `"`+sub+`"`, "jti", `"`+planted+sub+`"`,
			"scopes", `["`+strings.ReplaceAll(scopes, " ", `","`)+`"]`))
	}
	o.Tokens = map[string]string{
		"ann": token(ann, every), "bob": token(bob, every), "admin": token(planted+"-root", "agent_os:admin"),
		"nothing": token(planted+"-nobody", "x"), "forged": attacker("HS256").token(payload("sub", `"`+planted+`"`)),
		"garbage": planted + ".y.z",
	}
	call := func(sub, method, path string, body io.Reader, kind, key string) process.Reply {
		t.Helper()
		header := []string{
			"Content-Type", kind, "X-Request-Id", planted + "@x", "User-Agent", planted, "Cookie", "a=" + planted, "Referer",
			"https://" + planted + "/", "Origin", "https://" + planted, "X-" + planted, planted, "Last-Event-Id", planted,
		}
		if key != "" {
			header = append(header, "Idempotency-Key", key)
		}
		return o.Call(sub, method, path, body, header...)
	}
	const form = "application/x-www-form-urlencoded"

	// ann's data. The second run repeats the first one's key, and the third one uses it for another request.
	for _, want := range []struct {
		message string
		status  int
	}{{planted, 200}, {planted, 200}, {planted + " again", 409}} {
		body, kind := upload(t, "message", want.message, "session_id", planted+"-s", "stream", "false",
			"session_state", `{"`+planted+`":"`+planted+`"}`, "file:"+planted+".txt", planted)
		call("ann", "POST", "/agents/assistant/runs", body, kind, planted+"-key").Want(t, "a run", want.status)
	}
	send := func(message string) string {
		r := call("ann", "POST", "/agents/assistant/runs", strings.NewReader("message="+message+"&stream=false&session_id="+
			planted+"-s"), form, "")
		return field(t, r, "run_id")
	}
	run, paused := send(planted), send("pay")
	call("ann", "POST", "/agents/assistant/runs", strings.NewReader("message=fail&stream=false"), form, "")
	memory := field(t, call("ann", "POST", "/memories", strings.NewReader(`{"memory":"`+planted+`","topics":["`+planted+
		`"]}`), "application/json", ""), "memory_id")
	names := strings.NewReplacer("HERS", planted+"-s", "ANN", ann, "RUNNING", run, "RUN", run, "PAUSED", paused,
		"MEMORY", memory, private, planted)

	requests := slices.Clone(attempts)
	for rt := range route.Table.All() { // also the routes without data, with a path and a query of the caller
		path := rt.Path(func(name string) string {
			return cmp.Or(map[string]string{"agent_id": "assistant", "memory_id": memory, "run_id": run}[name], planted+"-s")
		})
		requests = append(requests,
			attempt{route: rt.Name, request: rt.Method + " " + path + "?" + planted + "=" + planted},
			attempt{route: rt.Name, request: rt.Method + " " + path + "?limit=" + planted, body: `{"` + planted + `":`},
			attempt{route: rt.Name, request: rt.Method + " " + path, body: `{"memory":{"` + planted + `":"` + planted + `"},` +
				`"user_id":["` + planted + `"],"session_name":{"` + planted + `":1},"sub":"` + planted + `",` +
				`"jti":"` + planted + `"}`},
			attempt{route: rt.Name, request: strings.ToUpper(planted) + " " + path},
			attempt{route: rt.Name, request: rt.Method + " /" + planted + path},
			attempt{route: rt.Name, request: rt.Method + " " + rt.Path(func(string) string { return planted + "%20" })})
	}
	sent := 0
	for _, who := range []string{"-", "garbage", "forged", "nothing", "bob", "ann", "admin"} {
		for _, a := range requests {
			method, path, _ := strings.Cut(names.Replace(a.request), " ")
			body, kind := names.Replace(a.body), form
			if strings.HasPrefix(body, "{") {
				kind = "application/json"
			}
			if got := call(who, method, path, strings.NewReader(body), kind, ""); got.Status >= 500 {
				t.Errorf("%s: %s: %d %s", who, a.request, got.Status, got.Body)
			}
			sent++
		}
	}
	if err := o.Stop(); err != nil { // all lines are written then
		t.Error(err)
	}
	logs := o.logs()
	for _, name := range []string{"decisions.jsonl", "refusals.jsonl", "audit.jsonl"} {
		if strings.Count(logs[name], "\n") < 40 {
			t.Errorf("%s has %d lines", name, strings.Count(logs[name], "\n"))
		}
	}
	if n := strings.Count(o.Stderr.String(), `"msg":"request"`); n < sent {
		t.Errorf("the log has %d requests of %d", n, sent)
	}
	for name, log := range logs {
		for text := range strings.Lines(log) {
			if name == "pg.log" && strings.Contains(text, t.Name()) {
				continue
			}
			has := func(s string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(s)) }
			for _, secret := range append([]string{planted, memory, "sk-test"}, segments(o.Tokens)...) {
				if has(secret) {
					t.Errorf("%s has %s: %s", name, secret, text)
				}
			}
		}
	}
}

// segments returns the signatures of tokens, and their bodies.
func segments(tokens map[string]string) (out []string) {
	for _, t := range tokens {
		for p := range strings.SplitSeq(t, ".") {
			if len(p) > 20 && !strings.HasPrefix(p, b64(`{"alg":`)[:8]) {
				out = append(out, p)
			}
		}
	}
	return out
}
