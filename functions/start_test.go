package functions_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// A function that can't start logs one line with the error and the setting to change.
func TestFailedStartNamesSettingToChange(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	withTool := strings.Replace(keyway, "hackernews", "of_our_own", 1)
	for name, row := range map[string]struct {
		function, configuration string
		env                     []string
		want                    string
	}{
		"no database": {"sessions", keyway, nil,
			"database.url: ${DATABASE_URL} is unset or empty; set the template's parameter Database, or DATABASE_URL in " +
				"the function's environment"},
		"no secret's ARN": {"memories", keyway, []string{"DATABASE_SECRET=mine"},
			"database.url: is to be read from $DATABASE_SECRET, which is not the ARN of a secret; set it to an ARN such as " +
				"arn:aws:"},
		"no proof": {"sessions", keyway,
			[]string{"DATABASE_URL=postgres://keyway_app@h/db?sslmode=require", "DATABASE_IAM=true"},
			"DATABASE_URL needs sslmode=verify-full, as the template's parameter Database sets it"},
		"no such choice": {"memories", keyway, []string{"DATABASE_URL=postgres://keyway_app@h/db", "DATABASE_IAM=yes"},
			`database: $DATABASE_IAM is "yes"; set it to true or false`},
		"no name of a role": {"sessions", keyway, []string{"DATABASE_URL=" + d.db, "DATABASE_ROLE=Keyway App"},
			`database: $DATABASE_ROLE is "Keyway App", which is not a plain role name`},
		"no model's key": {"runs", keyway, []string{"DATABASE_URL=" + d.db},
			"agents[0].model: openai:gpt-4o needs an API key: set OPENAI_API_KEY"},
		"an unknown tool": {"runs", withTool, []string{"DATABASE_URL=" + d.db, "OPENAI_API_KEY=k"},
			`agents[0].tools[0]: there is no tool "of_our_own"; use hackernews or websearch, or add it to ` +
				"Tools of agents.Options"},
		"no key's ARN": {"authorizer", keyway, nil,
			"auth.keys[0].secret: ${JWT_KEY_SECRET} is unset or empty; set the template's parameter JwtKeySecret, or " +
				"JWT_KEY_SECRET in the function's environment"},
		"no configuration": {"agents", "", nil,
			"keyway.json: no such file or directory; run keyway build, which writes it into the directory of the program"},
		"a key for anybody": {"agents",
			`{"agents":[{"id":"a","model":"demo:x"}],"auth":{"keys":["your-secret-key-at-least-256-bits-long"]},"id":"os"}`,
			nil, "so anyone can sign tokens with it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if row.configuration != "" {
				if err := os.WriteFile(filepath.Join(dir, "keyway.json"), []byte(row.configuration), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(programs, row.function))
			cmd.Env = append(row.env, "LAMBDA_TASK_ROOT="+dir, "AWS_LAMBDA_FUNCTION_NAME=f",
				"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1",
				"LOG_HASH_KEY="+strings.Repeat("h", 32))
			var log bytes.Buffer
			cmd.Stderr = &log
			err := cmd.Run()
			var line struct{ Faults []string }
			if cmd.ProcessState.ExitCode() != 1 || json.Unmarshal(log.Bytes(), &line) != nil || len(line.Faults) != 1 ||
				!strings.Contains(line.Faults[0], row.want) {
				t.Errorf("%v: %s\nwant %s", err, &log, row.want)
			}
		})
	}
}

// secrets starts a stand-in for AWS Secrets Manager with one secret, and returns the environment
// of a function that uses it.
func secrets(t *testing.T, text string) (env []string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" ||
			!strings.Contains(string(body), databaseSecret) {
			t.Errorf("%v %s", r.Header, body)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": text})
	}))
	t.Cleanup(s.Close)
	return []string{
		"DATABASE_SECRET=" + databaseSecret, "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + s.URL, "AWS_ACCESS_KEY_ID=a",
		"AWS_SECRET_ACCESS_KEY=b", "AWS_REGION=eu-central-1",
		"LAMBDA_TASK_ROOT=", "AWS_LAMBDA_FUNCTION_NAME=f",
	}
}

const databaseSecret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-AbCdEf"

func TestDatabaseURLIsReadFromSecret(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	list := request{method: "GET", path: "/sessions?type=agent", scopes: everything}
	run := func(env []string) function {
		return function{lambdatest.Start(t, filepath.Join(programs, "sessions"), append(env, "LAMBDA_TASK_ROOT="+d.dir)...),
			t}
	}
	certificate, file := authority(t, "127.0.0.1")
	over := func(address string) []string {
		return append(secrets(t, behindTLS(t, address, certificate)+"?sslmode=verify-full"), "SSL_CERT_FILE="+file,
			"SSL_CERT_DIR=/none")
	}
	f := run(over(d.db))
	f.ask(list).want(t, "the sessions", 200)
	f.freeze(t, d.db)
	f.ask(list).want(t, "with a new connection", 200)
	// The caller sees neither the secret nor the error in it; the log has the error.
	broken := run(secrets(t, "postgres://ann:hunter2@[/db"))
	broken.ask(list).want(t, "with a text that is no address", 503)
	broken.WaitForLog("the database URL can't be parsed")
	if log := broken.Stderr.String(); strings.Contains(log, "hunter2") {
		t.Errorf("%s", log)
	}
	open := run(secrets(t, d.db))
	open.ask(list).want(t, "with an address that needs no TLS", 503)
	open.WaitForLog("the template's parameter DatabaseUrlSecret allows a connection without TLS; end it with " +
		"?sslmode=verify-full")
	m := function{lambdatest.Start(t, filepath.Join(programs, "migrate"),
		append(over(d.owner), "LAMBDA_TASK_ROOT="+d.dir)...), t}
	a := m.Invoke([]byte("{}"), reasonable)
	if body := a.Body(); a.Kind != "response" {
		t.Errorf("migrate: %s", body)
	}
}

// The programs stay small, since a cold start loads them. Only runs and worker link a model
// provider.
func TestFunctionsAreSmallAndLinkNothingHeavy(t *testing.T) {
	t.Parallel()
	heavy := regexp.MustCompile(`(?m)^(.*(goccy/go-yaml|alecthomas|openai-go|modelcontextprotocol|aws-sdk-go-v2/service|` +
		`shared/(cli|agents|tool/builtin|model/providers)).*|net/rpc)$`)
	for _, name := range names {
		if name == "authorizer" { // has its own test
			continue
		}
		most := 5_000_000
		if name == "runs" || name == "worker" {
			most = 12_000_000
		}
		file := filepath.Join(t.TempDir(), name)
		if err := lambdatest.Build(t.Context(), source(name), file, "GOOS=linux", "GOARCH=arm64"); err != nil {
			t.Fatal(err)
		}
		size := zipped(t, file)
		if t.Logf("%s: %d bytes zipped, linux/arm64", name, size); size > most {
			t.Errorf("%s: %d bytes zipped, %d more than allowed", name, size, size-most)
		}
		deps, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", lambdatest.Tags,
			source(name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := heavy.FindAllString(string(deps), -1)
		if linksMuch := name == "runs" || name == "worker"; len(got) > 0 != linksMuch {
			t.Errorf("%s links %q", name, got)
		}
	}
}

func zipped(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("bootstrap")
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Len()
}
