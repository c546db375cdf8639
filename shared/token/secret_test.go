package token_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

const thirdSecret = "test key only: forty-four bytes for tomorrow"

const testARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf"

// vault plays Secrets Manager, and lets in only who signs as AWS asks for.
type vault struct {
	*httptest.Server
	asked  atomic.Int64
	status int
	answer any
	clock  atomic.Int64
	env    map[string]string
}

func newVault(t *testing.T, answer any) *vault {
	t.Helper()
	v := &vault{status: 200, answer: answer}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.asked.Add(1)
		body := must(io.ReadAll(r.Body))
		if want := signatureV4(r, body); r.Header.Get("Authorization") != want {
			t.Errorf("Authorization is\n%s, want\n%s", r.Header.Get("Authorization"), want)
		}
		if r.Method != "POST" || r.URL.Path != "/" || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" ||
			r.Header.Get("Content-Type") != "application/x-amz-json-1.1" || string(body) != `{"SecretId":"`+testARN+`"}` {
			t.Errorf("the request is %s %s %v %s", r.Method, r.URL, r.Header, body)
		}
		w.WriteHeader(v.status)
		_, _ = w.Write(must(json.Marshal(v.answer)))
	}))
	t.Cleanup(v.Close)
	v.env = map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "test key only", "AWS_SESSION_TOKEN": "session",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": v.URL, "AWS_ENDPOINT_URL": "https://nowhere.invalid",
	}
	return v
}

// signatureV4 is the header that AWS would compute itself: "AWS Signature Version 4"
// in the IAM user guide, by hand.
func signatureV4(r *http.Request, body []byte) string {
	sum := func(data string) string { h := sha256.Sum256([]byte(data)); return hex.EncodeToString(h[:]) }
	mac := func(key []byte, data string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(data))
		return h.Sum(nil)
	}
	at := r.Header.Get("X-Amz-Date")
	const signed = "content-length;content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
	canonical := strings.Join([]string{
		r.Method, "/", "", fmt.Sprint("content-length:", r.ContentLength), "content-type:" + r.Header.Get("Content-Type"), "host:" + r.Host,
		"x-amz-date:" + at, "x-amz-security-token:session", "x-amz-target:" + r.Header.Get("X-Amz-Target"), "", signed, sum(string(body)),
	}, "\n")
	scope := time.Unix(now, 0).UTC().Format("20060102") + "/eu-central-1/secretsmanager/aws4_request"
	key := []byte("AWS4test key only")
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+sum(canonical)))
	return "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/" + scope + ", SignedHeaders=" + signed + ", Signature=" + signature
}

func text(s string) map[string]string { return map[string]string{"ARN": testARN, "SecretString": s} }

func (v *vault) options(alg string) token.Options {
	return token.Options{
		Algorithms: []string{alg}, Keys: []token.KeySource{{Secret: testARN}},
		Now:    func() time.Time { return time.Unix(now, v.clock.Load()) },
		Lookup: func(name string) (string, bool) { s, ok := v.env[name]; return s, ok },
	}
}

func TestSecretsTextIsAKeyInAnyOfItsForms(t *testing.T) {
	t.Parallel()
	made := string(must(token.GenerateKeys("ES256", rand.Reader)))
	var file keyFile
	if err := json.Unmarshal([]byte(made), &file); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		alg, text string
		signs     token.SigningKey
	}{
		"an HMAC secret":          {"HS256", testSecret, token.SigningKey{HMAC: []byte(testSecret)}},
		"with its line end":       {"HS256", testSecret + "\n", token.SigningKey{HMAC: []byte(testSecret + "\n")}},
		"PEM":                     {"ES256", "\n" + file.PublicKey, token.SigningKey{PEM: []byte(file.PrivateKey)}},
		"PEM on one line":         {"ES256", strings.ReplaceAll(file.PublicKey, "\n", `\n`), token.SigningKey{PEM: []byte(file.PrivateKey)}},
		"a key file":              {"ES256", made, token.SigningKey{PEM: []byte(file.PrivateKey)}},
		"a key file with secret":  {"HS256", ` {"secret":"` + testSecret + `"}`, token.SigningKey{HMAC: []byte(testSecret)}},
		"a JWKS, public as it is": {"ES256", string(must(json.Marshal(map[string]any{"keys": file.Keys}))), token.SigningKey{PEM: []byte(file.PrivateKey)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, text(row.text))
			row.signs.Algorithm = row.alg
			raw := must(newSigner(t, row.signs).Sign(token.Draft{Claims: token.Claims{Subject: "alice"}}))
			c, err := newVerifier(t, v.options(row.alg)).Verify(t.Context(), []string{raw})
			wantSubject(t, "alice", c, err)
			if v.asked.Load() != 1 {
				t.Errorf("the secret was fetched %d times", v.asked.Load())
			}
		})
	}
}

func TestRotatedSecretIsFollowedLikeAnAddress(t *testing.T) {
	t.Parallel()
	v := newVault(t, text(testSecret))
	verifier := newVerifier(t, v.options("HS256"))
	older := mint(t, jwt.SigningMethodHS256, []byte(testSecret), timeless())
	newer := mint(t, jwt.SigningMethodHS256, []byte(anotherSecret), timeless(), "kid", "newer")
	subject := func(raw string) (token.Claims, error) { return verifier.Verify(t.Context(), []string{raw}) }
	c, err := subject(older)
	wantSubject(t, "alice", c, err)
	_, err = subject(newer)
	wantRefusal(t, err, badSignature)
	v.answer = text(anotherSecret)
	v.clock.Add(int64(gap))
	c, err = subject(newer)
	wantSubject(t, "alice", c, err)
	_, err = subject(older)
	wantRefusal(t, err, badSignature)
	// It has no name, so a token with a name that nobody knew is asked about again.
	v.clock.Add(int64(gap))
	newest := mint(t, jwt.SigningMethodHS256, []byte(thirdSecret), timeless(), "kid", "newest")
	_, err = subject(newest)
	wantRefusal(t, err, badSignature)
	v.answer = text(thirdSecret)
	v.clock.Add(int64(gap))
	c, err = subject(newest)
	wantSubject(t, "alice", c, err)
	v.answer = text("TELLTALE") // a mistake: the key that was known goes on
	v.clock.Add(int64(refresh))
	c, err = subject(newest)
	wantSubject(t, "alice", c, err)
}

func TestWhatIsWrongWithASecretIsToldWithARemedy(t *testing.T) {
	t.Parallel()
	awsSays := func(code string) any { return map[string]string{"__type": code, "Message": "TELLTALE"} }
	for want, row := range map[string]struct {
		status  int
		answer  any
		lasting bool
	}{
		"answers 400: the credentials' role may not read it; allow secretsmanager:GetSecretValue": {400, awsSays("AccessDeniedException"), false},
		"answers 400: there is no such secret, or it has no value yet; compare the ARN":           {400, awsSays("com.amazonaws.secretsmanager#ResourceNotFoundException"), false},
		"answers 400: the AWS credentials are wrong or have expired; run: eval":                   {400, awsSays("ExpiredTokenException"), false},
		"answers 400":                                                {400, awsSays("TELLTALE"), false},
		"answers 503":                                                {503, "TELLTALE", false},
		"the answer is not JSON":                                     {200, []string{"TELLTALE"}, false},
		"the answer has more than 131072 bytes":                      {200, text(strings.Repeat("TELLTALE", 17<<10)), false},
		"the secret has more than 65536 bytes":                       {200, text(strings.Repeat("TELLTALE", 9<<10)), false},
		"the secret is binary; store it as text":                     {200, map[string]string{"SecretBinary": "TELLTALE"}, true},
		"no key to verify with: the HMAC secret has 8 bytes; use 32": {200, text("TELLTALE"), true},
		"no key to verify with: the HMAC secret has 0 bytes":         {200, text(""), true},
		"no key to verify with: JSON, but no key file; store what keyway keys generate makes":        {200, text(`{"TELLTALE`), true},
		"no key to verify with: holds no signing key":                                                {200, text(`{"JWT":"TELLTALE"}`), true},
		"no key to verify with: the secret printed in the Agno documents":                            {200, text(config.PublishedSecret), true},
		"is no key to verify with: the secret printed in the Agno documents, with which":             {200, text(`{"secret":"` + config.PublishedSecret + `"}`), true},
		"no key to verify with: a private key; verifying needs the public half only":                 {200, text(string(pemBlock("PRIVATE KEY", []byte("TELLTALE")))), true},
		"no key to verify with: holds an RSA key of 2048 bits, which can't verify HS256; give a key": {200, text(string(publicPEM(rsaKey()))), true},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, row.answer)
			v.status = row.status
			verifier := newVerifier(t, v.options("HS256"))
			faults := verifier.Fetch(t.Context())
			if len(faults) != 1 || !strings.Contains(faults[0].Error(), "keys[0]: ") || !strings.Contains(faults[0].Error(), want) {
				t.Fatalf("faults %v, want one with %q", faults, want)
			}
			if got := errors.Is(faults[0], fault.Invalid); got != row.lasting {
				t.Errorf("lasting is %v, want %v", got, row.lasting)
			}
			_, err := verifier.Verify(t.Context(), []string{mint(t, jwt.SigningMethodHS256, []byte(testSecret), timeless())})
			if !errors.Is(err, fault.Unavailable) || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("a token meanwhile: %v", err)
			}
			said := fmt.Sprintf("%v %+v %v %+v", faults, faults, err, err)
			for _, secret := range []string{"TELLTALE", "VEVMTFRBTEU", config.PublishedSecret, "test key only", "session"} {
				if strings.Contains(said, secret) {
					t.Errorf("%q is shown: %s", secret, said)
				}
			}
		})
	}
}

// A signed request is for AWS alone.
func TestSecretIsNotAskedForWhereARedirectLeads(t *testing.T) {
	t.Parallel()
	elsewhere := newVault(t, text(testSecret))
	aws := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(aws.Close)
	elsewhere.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = aws.URL
	faults := newVerifier(t, elsewhere.options("HS256")).Fetch(t.Context())
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "redirects to another host") || elsewhere.asked.Load() != 0 {
		t.Errorf("faults %v, %d requests elsewhere", faults, elsewhere.asked.Load())
	}
}

func TestSecretNeedsCredentialsAndARegion(t *testing.T) {
	t.Parallel()
	v := newVault(t, text(testSecret))
	delete(v.env, "AWS_SECRET_ACCESS_KEY")
	faults := newVerifier(t, v.options("HS256")).Fetch(t.Context())
	if len(faults) != 1 || !errors.Is(faults[0], fault.Invalid) || !strings.Contains(faults[0].Error(), "aws configure export-credentials") || v.asked.Load() != 0 {
		t.Errorf("without credentials: %v, %d requests", faults, v.asked.Load())
	}
	for arn, want := range map[string]string{
		"arn:aws:secretsmanager:evil.example/:123456789012:secret:x":     "not the ARN of a secret",
		"arn:aws:secretsmanager:nowhere:123456789012:secret:x":           "not the ARN of a secret",
		"arn:aws:s3:eu-central-1:123456789012:secret:x":                  "not the ARN of a secret",
		"arn:aws-moon:secretsmanager:moon-north-1:123456789012:secret:x": "no address of Secrets Manager in partition aws-moon; set AWS_ENDPOINT_URL_SECRETS_MANAGER",
	} {
		o := v.options("HS256")
		o.Lookup, o.Keys = nil, []token.KeySource{{Secret: arn}}
		_, err := token.NewVerifier(o)
		wantFault(t, err, "keys[0]: ", want)
	}
}

// hosts collects where requests would have gone.
type hosts struct{ seen []string }

func (h *hosts) RoundTrip(r *http.Request) (*http.Response, error) {
	h.seen = append(h.seen, r.URL.String())
	return nil, errors.New("no network")
}

func TestSecretIsAskedForWhereItsARNSays(t *testing.T) {
	t.Parallel()
	for arn, want := range map[string]string{
		testARN: "https://secretsmanager.eu-central-1.amazonaws.com/",
		"arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:x": "https://secretsmanager.us-gov-west-1.amazonaws.com/",
		"arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:x":        "https://secretsmanager.cn-north-1.amazonaws.com.cn/",
		"arn:aws-eusc:secretsmanager:eusc-de-east-1:123456789012:secret:x":  "https://secretsmanager.eusc-de-east-1.amazonaws.eu/",
	} {
		h := &hosts{}
		o := newVault(t, nil).options("HS256")
		o.Keys[0].Secret, o.HTTP = arn, &http.Client{Transport: h}
		o.Lookup = func(name string) (string, bool) {
			return map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}[name], true
		}
		newVerifier(t, o).Fetch(t.Context())
		if len(h.seen) != 1 || h.seen[0] != want {
			t.Errorf("%s is asked for at %q, want %q", arn, h.seen, want)
		}
	}
}
