package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// issuer is a server that publishes the public keys of files made by keyway keys generate.
type issuer struct {
	*httptest.Server
	set atomic.Value
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.set.Store("")
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i.set.Load() == "" {
			w.WriteHeader(http.StatusBadGateway)
		}
		fmt.Fprint(w, i.set.Load())
	}))
	t.Cleanup(i.Close)
	return i
}

// publish generates a key, publishes only that key and returns a token signed with it.
func (i *issuer) publish(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	command(t, nil, "keys", "generate", "--alg", "ES256", "--out", file)
	var made map[string]json.RawMessage
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	i.set.Store(`{"keys":` + string(made["keys"]) + `}`)
	return command(t, nil, "--config", writeConfig(t, configWithKeys("ES256", "{jwks_file: "+file+"}")), "token", "--sub",
		"ann", "--scopes", "agents:read")
}

// configWithKeys returns a keyway.yaml with one algorithm and one entry in auth.keys.
func configWithKeys(algorithm, source string) string {
	return "id: os\nauth: {algorithms: [" + algorithm + "], keys: [" + source +
		"]}\nagents: [{id: assistant, model: 'demo:x'}]\n"
}

func TestServeFetchesRotatedKeys(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	var passed atomic.Int64
	out := serveAt(t, func() time.Time { return time.Now().Add(time.Duration(passed.Load())) },
		writeConfig(t,
			configWithKeys("ES256",
				"{jwks_url: '"+i.URL+"/jwks?hunter2'}")), map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	out.await(t,
		`warning: auth\.keys\[0\]: http://127.0.0.1:\d+: answered with status 502; until it can be fetched, its tokens `+
			`are answered 503`)
	agents := out.await(t, `(?m)^keyway \S+ at (\S+) `)[1] + "/agents"
	out.await(t, `(?s)no tokens to try: .*auth.keys\[0\] is fetched`)
	older := i.publish(t)
	down := get(t, agents, older)
	if want := `{"detail":"The signing keys can't be fetched, try again"}`; down.Code != 503 ||
		!strings.Contains(down.Body.String(), want) {
		t.Errorf("while the keys can't be fetched: %d %s, want 503 %s", down.Code, down.Body, want)
	}
	if after := down.Header().Get("Retry-After"); after != "10" {
		t.Errorf("Retry-After is %q", after)
	}
	passed.Add(int64(11 * time.Second))
	if got := get(t, agents, older); got.Code != 200 || !strings.Contains(got.Body.String(), `"assistant"`) {
		t.Errorf("with the published key: %d %s", got.Code, got.Body)
	}
	newer := i.publish(t)
	passed.Add(int64(11 * time.Second))
	if got := get(t, agents, newer); got.Code != 200 || !strings.Contains(got.Body.String(), `"assistant"`) {
		t.Errorf("with the key after a rotation: %d %s", got.Code, got.Body)
	}
	out.await(t, `(?s)("msg":"request".*){3}`)
	if strings.Contains(out.all.String(), "hunter2") {
		t.Errorf("the output shows the query of the address:\n%s", out.all.String())
	}
}

func TestServeRejectsSecretThatIsNoKey(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt"
	var answer atomic.Value
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		_ *http.Request) {
		fmt.Fprint(w, answer.Load())
	}))
	t.Cleanup(aws.Close)
	vars := map[string]string{"AWS_ENDPOINT_URL": aws.URL}
	for _, row := range []struct{ text, want string }{
		{"", `auth.keys[0]: AWS Secrets Manager in eu-central-1: there are no AWS credentials in the environment; run: ` +
			`eval "$(aws configure`},
		{"hunter2", "auth.keys[0]: AWS Secrets Manager in eu-central-1: the text of the secret is not a verification " +
			"key: the HMAC secret has 7 bytes"},
		{config.PublishedSecret, "the secret printed in the Agno documents"},
	} {
		if row.text != "" {
			vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"] = "AKIDEXAMPLE", "hunter2"
			answer.Store(`{"SecretString":"` + row.text + `"}`)
		}
		file := writeConfig(t, configWithKeys("HS256", "{secret: '"+arn+"'}"))
		var output bytes.Buffer
		e := testEnv(vars)
		e.err = &output
		if code := execute(t.Context(), []string{"--config", file, "--data", t.TempDir(), "serve", "--addr",
			"127.0.0.1:0"}, e); code != exitUsage {
			t.Errorf("%q: exit %d, want %d", row.want, code, exitUsage)
		}
		if !strings.Contains(output.String(), row.want) || strings.Contains(output.String(), "hunter2") {
			t.Errorf("serve prints %s, want %q", &output, row.want)
		}
	}
}

func TestFetchedSecretVerifiesButDoesNotSign(t *testing.T) {
	t.Parallel()
	const secret = "test key only: forty-four bytes of no secret"
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"SecretString":"`+secret+`"}`)
	}))
	t.Cleanup(aws.Close)
	vars := map[string]string{"AWS_ENDPOINT_URL": aws.URL, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
		"AWS_SECRET_ACCESS_KEY": "hunter2", "JWT_SIGNING_KEY": secret}
	file, data := writeConfig(t,
		configWithKeys("HS256", "{secret: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt'}")), t.TempDir()
	vars["KEYWAY_TOKEN"] = command(t, vars, "--config", file, "token", "--sub", "ann", "--scopes", "agents:read")
	command(t, vars, "--config", file, "can", "GET", "/agents")
	delete(vars, "AWS_ACCESS_KEY_ID")
	delete(vars, "JWT_SIGNING_KEY")
	for args, want := range map[string]string{
		"can GET /agents": "auth.keys[0]: AWS Secrets Manager in eu-central-1: there are no AWS credentials",
		"token --sub ann": "auth.keys[0] is fetched from elsewhere and can't sign here",
	} {
		var output bytes.Buffer
		e := testEnv(vars)
		e.err = &output
		if code := execute(t.Context(), append([]string{"--config", file, "--data", data}, strings.Fields(args)...),
			e); code == 0 || !strings.Contains(output.String(), strings.TrimPrefix(want, "auth.")) {
			t.Errorf("%s: exit %d, %s; want %q", args, code, &output, want)
		}
	}
}

// config check connects to nothing unless it is asked to, so that it works in CI.
func TestUnusableKeysAreWarnedOf(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	sets := map[string]string{
		"/none":  `{"keys":[]}`,
		"/other": `{"keys":[{"kty":"RSA","kid":"e","use":"enc"},{"kty":"EC","crv":"secp256k1"}]}`,
		"/many":  `{"keys":[{}` + strings.Repeat(",{}", 11) + `]}`,
	}
	i := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, sets[r.URL.Path])
	}))
	t.Cleanup(i.Close)
	for path, want := range map[string][]string{
		"/none": {"warning: auth.keys[0]: its set has no usable key, so all its tokens are refused"},
		"/other": {
			"warning: auth.keys[0]: its set has no usable key",
			`warning: auth.keys[0]: passes over key "e": it is for another use than signatures, "enc"`,
			`warning: auth.keys[0]: passes over key 1: its curve "secp256k1" is not supported`,
		},
		"/many": {`key 8: its kind (kty) "" is not supported`, "auth.keys[0]: passes over 3 more keys"},
		"/down": {"warning: auth.keys[0]: http://127.0.0.1:", "is not a JSON object; until it can be fetched"},
	} {
		file := writeConfig(t, configWithKeys("ES256", "{jwks_url: '"+i.URL+path+"', audience: [os], http: true}"))
		asked.Store(0)
		for _, flag := range []string{"", "--fetch"} {
			var output bytes.Buffer
			e := testEnv(nil)
			e.err = &output
			args := append([]string{"--config", file, "config", "check"}, strings.Fields(flag)...)
			if code := execute(t.Context(), args, e); code != 0 {
				t.Errorf("%s: exit %d: %s", path, code, &output)
			}
			for _, text := range want {
				if strings.Contains(output.String(), text) != (flag != "") {
					t.Errorf("%s %s prints %s, want %q with --fetch only", path, flag, &output, text)
				}
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%s: %d requests, want 1 by --fetch", path, n)
		}
	}
}

// A key that can't be read is reported with its place in the file, as an error of the file itself is.
func TestAKeyThatCannotBeReadHasItsPlace(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{
		{"serve", "--addr", "127.0.0.1:0"}, {"can", "GET", "/agents", "--token", "a.b.c"}, {"whoami", "--token", "a.b.c"},
		{"config", "check", "--fetch"},
	} {
		var output bytes.Buffer
		e := testEnv(nil)
		e.err = &output
		file := writeConfig(t, configWithKeys("ES256", "{jwks_file: nowhere.json, audience: [x]}, {jwks_file: none.json, "+
			"issuer: i, audience: [x]}"))
		code := execute(t.Context(), append([]string{"--config", file, "--data", t.TempDir()}, command...), e)
		for _, want := range []string{"auth.keys[0]: open ", "nowhere.json", "auth.keys[1]: open ", "none.json"} {
			if code != exitUsage || !strings.Contains(output.String(), want) {
				t.Errorf("%s: exit %d, without %q: %s", command, code, want, &output)
			}
		}
		if !regexp.MustCompile(regexp.QuoteMeta(file) + `:[0-9]+:[0-9]+: auth\.keys\[1\]: `).MatchString(output.String()) {
			t.Errorf("%s: no place: %s", command, &output)
		}
	}
}

// A name in a compose network has no certificate. The remedy fits, and is not how to get a key.
func TestServeNamesTheRemedyForHTTP(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"{jwks_url: 'http://keycloak:8080/certs'}":                "add http: true to this key",
		"{discovery: 'http://127.0.0.1:9/realms/acme'}":           "add http: true to this key",
		"{jwks_url: 'http://8.8.8.8/certs', http: true}":          "http: true is for private addresses only",
		"{jwks_url: 'https://i.example/k', ca: nowhere.pem}":      "nowhere.pem: no such file or directory; give",
		"{discovery: 'https://login.example/{tenantid}/v2.0'}":    "name or id of one tenant",
		"{discovery: 'https://i.example', jwks_url: 'https://i'}": "needs exactly one source of keys",
	} {
		var output bytes.Buffer
		e := testEnv(nil)
		e.err = &output
		file := writeConfig(t, configWithKeys("ES256", entry))
		code := execute(t.Context(), []string{"--config", file, "--data", t.TempDir(), "serve", "--addr", "127.0.0.1:0"}, e)
		isKey := strings.Contains(output.String(), "The key comes from the service") // for the last one only
		if code != exitUsage || !strings.Contains(output.String(), want) || isKey != strings.Contains(want, "source") {
			t.Errorf("%s: exit %d: %s", entry, code, &output)
		}
	}
}

// It runs in CI, where a proposed file must not lead anywhere.
func TestConfigCheckConnectsToNothingUnlessAsked(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{"keys":[]}`)
	}))
	t.Cleanup(s.Close)
	file := writeConfig(t, `id: os
auth:
  algorithms: [ES256]
  keys:
    - {jwks_url: '`+s.URL+`/jwks', issuer: 'https://a.example', audience: [os], http: true}
    - {discovery: '`+s.URL+`', issuer: '`+s.URL+`', audience: [os], http: true}
notify: {url: '`+s.URL+`/hook', secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'}
database: {url: 'postgres://u@`+strings.TrimPrefix(s.URL, "http://")+`/db'}
agents:
  - {id: a, model: {provider: openai, id: x, base_url: '`+s.URL+`', api_key: k}, tools: [{mcp: {url: '`+s.URL+`/mcp'}}]}
`)
	command(t, nil, "--config", file, "config", "check")
	if n := asked.Load(); n != 0 {
		t.Errorf("keyway config check sends %d requests", n)
	}
	command(t, nil, "--config", file, "config", "check", "--fetch")
	if n := asked.Load(); n == 0 {
		t.Error("keyway config check --fetch sends no request")
	}
}
