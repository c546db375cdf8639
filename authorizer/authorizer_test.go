package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/token"
)

const key = "TEST KEY ONLY: thirty-two bytes at the very least"

// bootstrap is the path of the program, built as for a deployment, for this machine.
var bootstrap string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "authorizer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	bootstrap = filepath.Join(dir, "bootstrap")
	if err := lambdatest.Build(context.Background(), ".", bootstrap); err != nil {
		panic(err)
	}
	return m.Run()
}

// document returns the canonical JSON of the per-agent-permissions document.
func document(t *testing.T) string {
	t.Helper()
	const name = "../examples/per-agent-permissions/keyway.yaml"
	data, err := os.ReadFile(name)
	if err == nil {
		data, err = yamlfile.Canonical(name, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// artifact returns a directory with this keyway.json.
func artifact(t *testing.T, keyway string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keyway.json"), []byte(keyway), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sign signs a token of the first agent's user that expires after ttl.
func sign(t *testing.T, ttl time.Duration, scopes ...string) string {
	t.Helper()
	return signWith(t, key, ttl, scopes...)
}

func signWith(t *testing.T, secret string, ttl time.Duration, scopes ...string) string {
	t.Helper()
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(secret)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Draft{Claims: token.Claims{Subject: "ann", Scopes: scopes, ExpiresAt: time.Now().Add(ttl)}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// request returns a REQUEST event of API Gateway with this Authorization header.
func request(t *testing.T, authorization string) []byte {
	t.Helper()
	data, err := os.ReadFile("../shared/edge/testdata/request.json")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(data, []byte("TOKEN"), []byte(authorization))
}

// The authorizer names a caller in logs by a hash of the OS's key. Without one it names nobody, and warns.
func TestCallersAreNamedByAKeyedHashOrNotAtAll(t *testing.T) {
	t.Parallel()
	event := request(t, "Bearer "+sign(t, time.Hour, "agents:web-search-agent:run"))
	hash := func(env ...string) (string, function) {
		l := start(t, artifact(t, document(t)), append(env, "JWT_VERIFICATION_KEY="+key)...)
		p, err := edge.Principal(l.policy(event).Context)
		if err != nil {
			t.Fatal(err)
		}
		return p.Hash, l
	}
	keys := loghash.Keys{"a-key-of-the-tests-of-at-least-32-characters"}
	named, l := hash(loghash.Variable + "=" + keys[0])
	if want := keys.Subject("", "ann"); named != want {
		t.Errorf("the hash is %q, want %q", named, want)
	}
	if strings.Contains(l.Stderr.String(), loghash.Warning) {
		t.Error("the authorizer warns of a key that it has")
	}
	unnamed, l := hash()
	if l.WaitForLog(loghash.Warning); unnamed != "" {
		t.Errorf("without a key the hash is %q", unnamed)
	}
}

func TestValidTokenGetsPolicyAndContext(t *testing.T) {
	t.Parallel()
	l := start(t, artifact(t, document(t)), "JWT_VERIFICATION_KEY="+key)
	answer := l.policy(request(t, "Bearer "+sign(t, time.Hour, "agents:web-search-agent:run")))
	const api = "arn:aws:execute-api:us-east-1:123456789012:s4x3opwd6i/test/"
	want := []events.IAMPolicyStatement{{Action: []string{"execute-api:Invoke"}, Effect: "Allow", Resource: []string{
		api + "GET/whoami", api + "POST/can", api + "POST/agents/web-search-agent/runs",
		api + "POST/agents/web-search-agent/runs/*/cancel",
		api + "POST/agents/web-search-agent/runs/*/continue", api + "POST/agents/web-search-agent/runs/*/resume",
		// Of the doors, only AG-UI's is open on AWS by default.
		api + "POST/agents/web-search-agent/agui", api + "POST/agents/web-search-agent/ai-sdk",
		api + "GET/agents/web-search-agent/ai-sdk/*/stream",
	}}}
	if diff := cmp.Diff(want, answer.PolicyDocument.Statement); diff != "" {
		t.Error(diff)
	}
	p, err := edge.Principal(answer.Context)
	if err != nil || p.Subject != "ann" || len(p.Scopes) != 1 || p.Scopes[0] != "agents:web-search-agent:run" ||
		time.Until(p.ExpiresAt) > time.Hour {
		t.Errorf("the function behind would see %+v, %v", p, err)
	}
	if answer.PrincipalID != "caller" || p.Hash != "" || answer.UsageIdentifierKey != "" {
		t.Errorf("%+v", answer)
	}
}

func TestTokenWithoutScopesOpensOnlyTheRoutesAboutItself(t *testing.T) {
	t.Parallel()
	l := start(t, artifact(t, document(t)), "JWT_VERIFICATION_KEY="+key)
	statements := l.policy(request(t, sign(t, time.Hour))).PolicyDocument.Statement
	const api = "arn:aws:execute-api:us-east-1:123456789012:s4x3opwd6i/test/"
	want := []events.IAMPolicyStatement{{Action: []string{"execute-api:Invoke"}, Effect: "Allow", Resource: []string{
		api + "GET/whoami", api + "POST/can",
	}}}
	if diff := cmp.Diff(want, statements); diff != "" {
		t.Error(diff)
	}
}

// The authorizer starts although variables are missing that only runs and the store need, and
// although a tool is named that only the operator's own program has.
func TestUnusedVariablesMayBeUnset(t *testing.T) {
	t.Parallel()
	dir := artifact(t, `{"agents":[{"id":"a","instructions":"${GREETING}","model":{"api_key":"${OPENAI_API_KEY}",`+
		`"base_url":"${BASE}","id":"${MODEL}","provider":"openai"},`+
		`"tools":["of_our_own",{"mcp":{"headers":{"X-Key":"${TOKEN}"},"url":"${MCP}"}}]}],`+
		`"auth":{"keys":["${JWT_VERIFICATION_KEY}"]},`+
		`"database":{"url":"${DATABASE_URL}"},"id":"os","name":"${NAME}"}`)
	l := start(t, dir, "JWT_VERIFICATION_KEY="+key)
	if s := l.policy(request(t, sign(t, time.Hour, "agents:a:run"))).PolicyDocument.Statement; len(s) != 1 ||
		s[0].Effect != "Allow" {
		t.Errorf("%+v", s)
	}
}

// API Gateway answers 401 for this error text only, and 500 for any other.
func TestRejectedTokenIsUnauthorizedAndFunctionContinues(t *testing.T) {
	t.Parallel()
	l := start(t, artifact(t, document(t)), "JWT_VERIFICATION_KEY="+key)
	raw := sign(t, time.Hour, "agent_os:admin")
	for name, event := range map[string][]byte{
		"expired":       request(t, "Bearer "+sign(t, -time.Hour, "agent_os:admin")),
		"another's key": request(t, "Bearer "+raw[:len(raw)-6]+"AAAAAA"),
		"no token":      request(t, ""),
		"no headers":    []byte(`{"type":"REQUEST","methodArn":"arn:aws:execute-api:us-east-1:1:a/test/GET/agents"}`),
		"not an event":  []byte(`null`),
	} {
		if got := l.refusal(event); got != "Unauthorized" {
			t.Errorf("%s: errorMessage %q", name, got)
		}
	}
	if got := l.refusal(bytes.ReplaceAll(request(t, raw), []byte("arn:aws"), []byte("urn:aws"))); got == "Unauthorized" ||
		got == "" {
		t.Errorf("a method ARN that is none: errorMessage %q, and API Gateway would blame the caller", got)
	}
	if got := l.policy(request(t, raw)); len(got.PolicyDocument.Statement[0].Resource) < 15 {
		t.Errorf("afterwards an administrator gets %+v", got.PolicyDocument)
	}
	if strings.Contains(l.Stderr.String(), raw) {
		t.Error("a token is in the log")
	}
}

func TestConfigurationIsBesideTheProgram(t *testing.T) {
	t.Parallel()
	dir := artifact(t, document(t))
	program := filepath.Join(dir, "bootstrap")
	// a copy could still be open for writing in a process that was just forked
	if err := os.Link(bootstrap, program); err != nil {
		t.Fatal(err)
	}
	l := startProgram(t, program, "JWT_VERIFICATION_KEY="+key)
	if got := l.refusal(request(t, "nonsense")); got != "Unauthorized" {
		t.Errorf("errorMessage %q", got)
	}
}

func TestKeyFileIsBesideTheProgram(t *testing.T) {
	t.Parallel()
	dir := artifact(t, `{"id":"os","auth":{"algorithms":["ES256"],"keys":[{"jwks_file":"keys.json"}]},`+
		`"agents":[{"id":"a","model":"demo:x"}]}`)
	keys, err := token.GenerateKeys("ES256", rand.Reader)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "keys.json"), keys, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, dir)
	if got := l.refusal(request(t, sign(t, time.Hour))); got != "Unauthorized" {
		t.Errorf("errorMessage %q", got)
	}
}

// The certificate of a private CA is beside the program, as keyway build puts it there.
func TestKeysAreFoundByDiscoveryWithTheCAOfTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.json")
	data, err := token.GenerateKeys("ES256", rand.Reader)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	var made struct{ Keys json.RawMessage }
	if err == nil {
		err = json.Unmarshal(data, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	var issuer *httptest.Server
	issuer = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/acme/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":"%s/acme","jwks_uri":"%s/keys"}`, issuer.URL, issuer.URL)
		case "/keys":
			fmt.Fprintf(w, `{"keys":%s}`, made.Keys)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(issuer.Close)
	signer, err := token.LoadSigner(token.SigningKey{File: file})
	if err != nil {
		t.Fatal(err)
	}
	signed := func(iss string) []byte {
		raw, err := signer.Sign(token.Draft{Claims: token.Claims{
			Subject: "ann", Issuer: iss, Scopes: []string{"agents:read"}, ExpiresAt: time.Now().Add(time.Hour),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return request(t, raw)
	}
	const format = `{"id":"os","auth":{"algorithms":["ES256"],"keys":[{"discovery":"%s/acme"%s}]},` +
		`"agents":[{"id":"a","model":"demo:x"}]}`
	dir := artifact(t, fmt.Sprintf(format, issuer.URL, `,"ca":"certs/ca.pem"`))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw})
	if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "certs", "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, dir)
	if s := l.policy(signed(issuer.URL + "/acme")).PolicyDocument.Statement; len(s) == 0 || s[0].Effect != "Allow" {
		t.Errorf("%+v", s)
	}
	if got := l.refusal(signed(issuer.URL + "/other")); got != "Unauthorized" {
		t.Errorf("another issuer: errorMessage %q", got)
	}
	l = start(t, artifact(t, fmt.Sprintf(format, issuer.URL, "")))
	if got := l.refusal(signed(issuer.URL + "/acme")); got == "Unauthorized" {
		t.Error("without the CA, the keys can't be fetched, and the token may be valid")
	}
}

// A function that can't start logs one line with every error, and no secret.
func TestFailedStartLogsEveryReason(t *testing.T) {
	t.Parallel()
	const agents = `"agents":[{"id":"a","model":"demo:x"}]`
	for name, row := range map[string]struct {
		keyway string
		env    []string
		want   []string
	}{
		"a variable that is not set": {document(t), nil,
			[]string{"auth.keys[0]: ${JWT_VERIFICATION_KEY} is unset or empty; set JWT_VERIFICATION_KEY, or write $${ for " +
				"a literal ${"}},
		"no JSON": {`{"id": `, nil, []string{"is not JSON: unexpected end of JSON input; run keyway config check on the " +
			"keyway.yaml that it was built from"}},
		"several": {`{"id":"os","auth":{"leeway":"soon"},"agent":1,` + agents + `}`, nil, []string{
			"agent: unknown field; did you mean agents?",
			`auth.leeway: is "soon"; write a duration with its unit, such as 10s or 5m`,
			`auth.keys: is missing; add keys: ["${JWT_VERIFICATION_KEY}"]`}},
		"the secret that everybody knows": {document(t), []string{"JWT_VERIFICATION_KEY=" + config.PublishedSecret},
			[]string{"auth.keys[0]: is the secret printed in the Agno documents, so anyone can sign tokens with it; make " +
				"one with: openssl rand -hex 32"}},
		"a key that is too short": {document(t), []string{"JWT_VERIFICATION_KEY=short-secret"}, []string{"32 bytes"}},
		"a mapping to nowhere": {`{"id":"os","auth":{"keys":["` + key + `"],"scope_mappings":{"GET /nope":["a:b"]}},` +
			agents + `}`, nil, []string{`mapping "GET /nope" matches no route`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults, stderr := refusedStart(t, artifact(t, row.keyway), row.env...)
			if len(faults) != len(row.want) {
				t.Fatalf("%q, want %q", faults, row.want)
			}
			for i, want := range row.want {
				if !strings.Contains(faults[i], want) {
					t.Errorf("error %d is\n%s\nwant\n%s", i, faults[i], want)
				}
			}
			if strings.Contains(stderr, "short-secret") || strings.Contains(stderr, config.PublishedSecret) ||
				strings.Contains(stderr, "goroutine") {
				t.Errorf("the log contains a secret or a stack: %s", stderr)
			}
		})
	}
	faults, _ := refusedStart(t, t.TempDir())
	if len(faults) != 1 || !strings.HasSuffix(faults[0],
		"keyway.json: no such file or directory; run keyway build, which writes it into the directory of the program") {
		t.Errorf("without keyway.json: %q", faults)
	}
}

// refusedStart runs the program until it ends, and returns the errors of the one line that it
// logged.
func refusedStart(t *testing.T, dir string, env ...string) (faults []string, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bootstrap)
	cmd.Env = append(env, "LAMBDA_TASK_ROOT="+dir, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1")
	var log bytes.Buffer
	cmd.Stderr = &log
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Fatalf("it ended with %v:\n%s", err, &log)
	}
	var line struct {
		Level, Msg string
		Faults     []string
	}
	if err := json.Unmarshal(log.Bytes(), &line); err != nil || line.Level != "ERROR" ||
		line.Msg != "the authorizer can't start" {
		t.Fatalf("%v: %s", err, &log)
	}
	return line.Faults, log.String()
}

func TestAuthorizerIsSmallAndLinksNothingHeavy(t *testing.T) {
	t.Parallel()
	const most = 7_100_000
	file := filepath.Join(t.TempDir(), "bootstrap")
	if err := lambdatest.Build(t.Context(), ".", file, "GOOS=linux", "GOARCH=arm64"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("linux/arm64: %d bytes", info.Size()); info.Size() > most {
		t.Errorf("%d bytes, %d more than allowed for a quick start", info.Size(), info.Size()-most)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", lambdatest.Tags, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := regexp.MustCompile(`(?m)^(.*(yaml|jackc/|openai|kong|aws-sdk-go-v2/service|shared/(store|assemble|api|` +
		`run|model|tool|cli)).*|net/rpc)$`)
	if got := heavy.FindAllString(string(out), -1); len(got) > 0 ||
		!strings.Contains(string(out), "keyway/shared/edge\n") {
		t.Errorf("it links %q", got)
	}
}

// One file serves AWS and sam local. With the variables as the template sets them, tokens
// signed with sam local's key are rejected. Without any variable the function doesn't start.
func TestDeployedFileTrustsOnlyTheTemplatesSecret(t *testing.T) {
	t.Parallel()
	const name, local = "../examples/deploy/keyway.yaml", "for-sam-local-only-and-never-in-the-cloud"
	data, err := os.ReadFile(name)
	if err == nil {
		data, err = yamlfile.Canonical(name, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": key})
	}))
	t.Cleanup(vault.Close)
	onAWS := []string{
		"JWT_KEY_SECRET=arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + vault.URL, "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b",
	}
	ofLaptop := signWith(t, local, time.Hour, "agents:read")
	for name, env := range map[string][]string{
		"empty": append(onAWS, "JWT_VERIFICATION_KEY="), "not handed on": onAWS,
	} {
		l := start(t, artifact(t, string(data)), env...)
		if got := l.policy(request(t, sign(t, time.Hour, "agents:read"))).PolicyDocument.Statement[0]; got.Effect != "Allow" {
			t.Errorf("%s: a token of the secret's key: %+v", name, got)
		}
		if got := l.refusal(request(t, ofLaptop)); got != "Unauthorized" {
			t.Errorf("%s: a token of sam local's key: errorMessage %q", name, got)
		}
	}
	locally := start(t, artifact(t, string(data)), "JWT_KEY_SECRET=", "JWT_VERIFICATION_KEY="+local)
	if got := locally.policy(request(t, ofLaptop)).PolicyDocument.Statement[0]; got.Effect != "Allow" {
		t.Errorf("under sam local: %+v", got)
	}
	for name, env := range map[string][]string{"unset": nil, "empty": {"JWT_KEY_SECRET=", "JWT_VERIFICATION_KEY="}} {
		if faults, _ := refusedStart(t, artifact(t, string(data)), env...); len(faults) != 2 ||
			!strings.Contains(faults[0], "${JWT_VERIFICATION_KEY}") || !strings.Contains(faults[1], "${JWT_KEY_SECRET}") {
			t.Errorf("%s: %q", name, faults)
		}
	}
}
