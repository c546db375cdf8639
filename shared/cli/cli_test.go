package cli

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// suite lets testscript run the tests with a PostgreSQL for their databases.
type suite struct{ *testing.M }

func (s suite) Run() int { return storetest.Main(s.M) }

// TestMain also makes this program the keyway command for the scripts in testdata/script.
func TestMain(m *testing.M) {
	devpg.HoldIfAsked()
	testscript.Main(suite{m}, map[string]func(){"keyway": func() { Main(Options{}) }})
}

func testEnv(vars map[string]string) env {
	return env{out: io.Discard, err: io.Discard, in: strings.NewReader(""), now: time.Now,
		lookup: func(name string) (string, bool) {
			v, ok := vars[name]
			return v, ok
		}}
}

// command runs a keyway command that must succeed, and returns what it printed.
func command(t *testing.T, vars map[string]string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	e := testEnv(vars)
	e.out, e.err = &out, &complaints
	if code := execute(t.Context(), args, e); code != 0 {
		t.Fatalf("keyway %s: exit %d, %s", strings.Join(args, " "), code, &complaints)
	}
	return strings.TrimSpace(out.String())
}

// writeConfig writes a keyway.yaml and returns its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pyjwt returns the tokens for an example by subject. PyJWT made them.
func pyjwt(t *testing.T, example string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../../acceptance/testdata/pyjwt.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all[example]
}

var update = flag.Bool("update", false, "rewrite what the scripts in testdata/script expect")

// Each script in testdata/script runs keyway commands and checks their output and exit
// status.
func TestScripts(t *testing.T) {
	t.Parallel()
	database, newer, tokens := storetest.EmptyURL(t), storetest.URL(t), pyjwt(t, "quickstart")
	fresh, blank := storetest.EmptyURL(t), storetest.EmptyURL(t)
	conn, err := pgx.Connect(t.Context(), newer)
	if err == nil {
		_, err = conn.Exec(t.Context(), "UPDATE keyway.schema_version SET version = 99")
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	users, running, aged := usersDatabase(t), usersDatabase(t), usersDatabase(t)
	owners, spent, busy := ownersDatabase(t), spentDatabase(t), busyDatabase(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", cmp.Or(os.Getenv("GORACE"), "atexit_sleep_ms=0"))
			e.Setenv("PUBLISHED", config.PublishedSecret)
			e.Setenv("EMPTY_DATABASE", database)
			e.Setenv("EMPTY_DATABASE_PYTHON", "postgresql+psycopg"+database[strings.Index(database, "://"):])
			e.Setenv("NEWER_DATABASE", newer)
			e.Setenv("NEW_DATABASE", fresh)
			e.Setenv("BLANK_DATABASE", blank) // no script migrates it
			e.Setenv("OWNERS_DATABASE", owners)
			// A script that changes a database has it for itself, because they run at the same time.
			e.Setenv("USERS_DATABASE", users)
			e.Setenv("RUNNING_DATABASE", running)
			e.Setenv("AGED_DATABASE", aged)
			e.Setenv("SPENT_DATABASE", spent)
			e.Setenv("BUSY_DATABASE", busy)
			e.Setenv("CONTROL", "ann\x1b[2J")
			e.Setenv("A", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf")
			for sub, token := range tokens {
				e.Setenv("TOKEN_"+sub, token)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "mode": mode, "claims": claims, "setenv": setenv, "savetoken": saveToken,
			"occupy": occupy, "madekeys": madeKeys, "signed": signed, "yesterday": yesterday,
		},
	})
}

// ownersDatabase makes a database of users of two issuers that a Keyway without the record has written.
func ownersDatabase(t *testing.T) (url string) {
	t.Helper()
	url = storetest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err == nil {
		_, err = conn.Exec(t.Context(), `UPDATE keyway.os SET owners = NULL;
			INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at) VALUES ('https://a#ann', 's0', now(), now()),
				('https://a#ann', 's1', now(), now()), ('https://a#bob', 's0', now(), now()),
				('https://b#ann', 's0', now(), now()), ('x#y', 's0', now(), now()),
				(E'z\x1b#y', 's0', now(), now());
			INSERT INTO keyway.memories (memory_id, owner, memory, topics, created_at, updated_at)
				VALUES ('6b0dcb0e-3f1c-4a0e-9f0e-0a4d0c1f7a11', 'https://a#ann', 'tea', '{}', now(), now())`)
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// usersDatabase makes a database of users of the same subject and two issuers. One of them has a run in progress.
func usersDatabase(t *testing.T) (url string) {
	t.Helper()
	url = storetest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err == nil {
		_, err = conn.Exec(t.Context(), `UPDATE keyway.os SET owners = NULL;
			INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at) VALUES ('https://a#ann', 's0', now(), now()),
				('https://b#ann', 's0', now(), now()), ('https://b#ann', 's1', now(), now());
			INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
				lease_until, input, created_at) VALUES ('6b0dcb0e-3f1c-4a0e-9f0e-0a4d0c1f7a13', 'https://a#ann', 's0', 'a', 'A',
				'm', 'P', 'RUNNING', now() + interval '1 hour', 'hi', now());
			INSERT INTO keyway.memories (memory_id, owner, memory, topics, created_at, updated_at)
				VALUES ('6b0dcb0e-3f1c-4a0e-9f0e-0a4d0c1f7a12', 'https://b#ann', 'tea & milk', '{}', now(), now())`)
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// spentDatabase makes a database in which ann has begun 40 runs today, and all callers have used 12.5 US dollars. The
// next day is the same, so that a test at midnight finds it.
func spentDatabase(t *testing.T) (url string) {
	t.Helper()
	url = storetest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err == nil {
		_, err = conn.Exec(t.Context(), `INSERT INTO keyway.spending (whose, key, day, runs, tokens, micro_usd)
			SELECT s.whose, s.key, (now() AT TIME ZONE 'UTC')::date + d, 40, 6000, 12500000
			FROM (VALUES ('caller', 'ann'), ('os', '')) AS s (whose, key), generate_series(0, 1) AS d`)
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// exits CODE COMMAND… runs a command and checks its exit status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

// yesterday FILE sets the day of each line of a log to yesterday, so that an age before now selects it in any year.
func yesterday(ts *testscript.TestScript, _ bool, args []string) {
	day := `"time":"` + time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	text := regexp.MustCompile(`"time":"\d{4}-\d{2}-\d{2}`).ReplaceAllString(ts.ReadFile(args[0]), day)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// mode FILE PERM checks the permissions of a file.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// claims FILE decodes the token in the file and writes its header and claims to
// claims.json. ttl, the difference of exp and iat, replaces those two.
func claims(ts *testscript.TestScript, _ bool, args []string) {
	parts := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), ".")
	var out bytes.Buffer
	for _, part := range parts[:2] {
		text, err := base64.RawURLEncoding.DecodeString(part)
		ts.Check(err)
		var object map[string]any
		ts.Check(json.Unmarshal(text, &object))
		if exp, ok := object["exp"].(float64); ok {
			object["ttl"] = (time.Duration(exp-object["iat"].(float64)) * time.Second).String()
			delete(object, "exp")
			delete(object, "iat")
		}
		ts.Check(json.NewEncoder(&out).Encode(object))
	}
	ts.Check(os.WriteFile(ts.MkAbs("claims.json"), out.Bytes(), 0o600))
}

// setenv NAME FILE MEMBER sets a variable to a member of a JSON file.
func setenv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], fmt.Sprint(object(ts, args[1])[args[2]]))
}

func object(ts *testscript.TestScript, file string) (out map[string]any) {
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &out))
	return out
}

// savetoken VARIABLE FILE writes a variable to a file, like keyway token > FILE.
func saveToken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(ts.Getenv(args[0])+"\n"), 0o600))
}

// signed FILE… signs a token for each file with the claims in it, with the published secret. The token of ann.json
// is in ann.jwt. A member "header" holds members of the token's header.
func signed(ts *testscript.TestScript, _ bool, files []string) {
	encode := func(v any) string {
		text, err := json.Marshal(v)
		ts.Check(err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	for _, file := range files {
		payload := object(ts, file)
		header := map[string]any{"alg": "HS256"}
		if own, ok := payload["header"].(map[string]any); ok {
			maps.Copy(header, own)
			delete(payload, "header")
		}
		payload["exp"] = 4102444800 // in the year 2100
		raw := encode(header) + "." + encode(payload)
		mac := hmac.New(sha256.New, []byte(config.PublishedSecret))
		mac.Write([]byte(raw))
		raw += "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		ts.Check(os.WriteFile(ts.MkAbs(strings.TrimSuffix(file, "json")+"jwt"), []byte(raw+"\n"), 0o600))
	}
}

// occupy VARIABLE listens on a free port while the script runs, and sets the variable to
// its address.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// madekeys ALG… generates a key for each algorithm. It checks that an OS which has only the
// public key accepts a token signed with the file.
func madeKeys(ts *testscript.TestScript, _ bool, algorithms []string) {
	for _, alg := range algorithms {
		file, yaml := alg+".json", alg+".yaml"
		ts.Check(ts.Exec("keyway", "keys", "generate", "--alg", alg, "--out", file))
		mode(ts, false, []string{file, "0600"})
		made := object(ts, file)
		for member, want := range map[string]string{"private_key": "-----BEGIN PRIVATE KEY-----\n",
			"public_key": "-----BEGIN PUBLIC KEY-----\n"} {
			if text, _ := made[member].(string); !strings.HasPrefix(text, want) {
				ts.Fatalf("%s: %s is %.20q", file, member, text)
			}
		}
		jwk := made["keys"].([]any)[0].(map[string]any)
		if jwk["alg"] != alg || jwk["use"] != "sig" || jwk["d"] != nil || jwk["kid"] == "" {
			ts.Fatalf("%s: %v", file, jwk)
		}
		ts.Setenv("PUBLIC_KEY", made["public_key"].(string))
		ts.Setenv("JWT_SIGNING_KEY", made["private_key"].(string))
		ts.Check(os.WriteFile(ts.MkAbs(yaml), fmt.Appendf(nil,
			"id: os\nauth: {algorithms: [%s], keys: [\"${PUBLIC_KEY}\"]}\nagents: [{id: a, model: \"demo:x\"}]\n", alg), 0o600))
		ts.Check(ts.Exec("keyway", "-c", yaml, "token", "--sub", "ann", "--scopes", "agents:read"))
		ts.Setenv("KEYWAY_TOKEN", strings.TrimSpace(ts.ReadFile("stdout")))
		ts.Check(ts.Exec("keyway", "-c", yaml, "can", "GET", "/agents"))
	}
}

// No command prints a secret, whatever the user types. Only the command token prints a
// token.
func TestNoCommandPrintsASecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.json")
	if code := execute(t.Context(), []string{"keys", "generate", "--out", keys}, testEnv(nil)); code != 0 {
		t.Fatalf("keys generate exits %d", code)
	}
	file, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	var made map[string]any
	if err := json.Unmarshal(file, &made); err != nil {
		t.Fatal(err)
	}
	private := strings.Split(made["private_key"].(string), "\n")[1]
	ann := pyjwt(t, "quickstart")["ann"]
	secrets := []string{"hunter2", ann, strings.Split(ann, ".")[2], private, "PRIVATE KEY-----\n"}
	configs := map[string]string{
		"good.yaml": "id: os\nauth: {keys: ['${KEY}']}\ndatabase: {url: '${DB}'}\nagents: [{id: a, model: {provider: " +
			"openai, id: m, api_key: '${API}'}}]\n",
		"pem.yaml": "id: os\nauth: {algorithms: [RS256], keys: ['${PRIVATE}', '${KEY}', hunter2]}\nagents: [{id: a, " +
			"model: 'demo:x'}]\n",
		"file.yaml": "id: os\nauth: {algorithms: [RS256], keys: [{jwks_file: keys.json}]}\ndatabase: {url: '${DB}'}\n" +
			"agents: [{id: a, model: 'demo:x'}]\n",
		"wrong.yaml": "id: os\nauth: {keys: '${KEY}', hmac: '${KEY}'}\ndatabase: '${DB}'\nagents: [{id: a, model: " +
			"{provider: openai, id: m, api_key: ['${API}'], base_url: 'https://u:hunter2@h'}}]\n",
	}
	for name, text := range configs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vars := map[string]string{
		"KEY": "hunter2-hunter2-hunter2-hunter2-hunter2", "DB": "postgres://u:hunter2@127.0.0.1:1/db", "API": "sk-hunter2",
		"PRIVATE": made["private_key"].(string), "JWT_SIGNING_KEY": "hunter2", "KEYWAY_TOKEN": ann,
		"OPENAI_API_KEY": "sk-hunter2",
	}
	commands := []string{
		"config check", "config check --json", "serve --addr 127.0.0.1:0", "serve --dev --addr 127.0.0.1:0",
		"serve --addr 0.0.0.0:0",
		"token --sub ann", "can GET /agents", "can GET /agents --token " + ann + "x", "can " + ann, "policy " + ann,
		"policy --json", "policy --token " + ann,
		"doctor", "doctor --json",
		"migrate", "migrate --json", "keys generate --out " + keys, "keys generate --json --alg ES256 --out " + keys,
		"routes " + ann, "version --" + ann,
		"test " + ann, "test " + keys, "test " + keys + " --json", "diff " + ann + " --since 1h",
		"diff " + keys + " --since 1h", "diff " + keys + " --log " + ann, "diff " + keys + " --since " + ann,
	}
	for name := range configs {
		for _, command := range commands {
			var output bytes.Buffer
			e := testEnv(vars)
			e.out, e.err = &output, &output
			code := execute(t.Context(), append([]string{"--config", filepath.Join(dir, name), "--data", dir},
				strings.Fields(command)...), e)
			for _, secret := range secrets {
				if strings.Contains(output.String(), secret) {
					t.Errorf("%s: keyway %.30s… (exit %d) prints %q:\n%s", name, command, code, secret, output.String())
				}
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pg")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a command started PostgreSQL: %v", err)
	}
}
