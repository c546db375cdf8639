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

// vault is a stand-in for Secrets Manager. It fails for a request without a valid
// signature.
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
		r.Method, "/", "", fmt.Sprint("content-length:", r.ContentLength),
		"content-type:" + r.Header.Get("Content-Type"), "host:" + r.Host, "x-amz-date:" + at,
		"x-amz-security-token:session", "x-amz-target:" + r.Header.Get("X-Amz-Target"), "", signed, sum(string(body)),
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

func TestTheTextOfASecretIsAKeyInAnyForm(t *testing.T) {
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
		"an HMAC secret":    {"HS256", testSecret, token.SigningKey{HMAC: []byte(testSecret)}},
		"with its line end": {"HS256", testSecret + "\n", token.SigningKey{HMAC: []byte(testSecret + "\n")}},
		"PEM":               {"ES256", "\n" + file.PublicKey, token.SigningKey{PEM: []byte(file.PrivateKey)}},
		"PEM on one line": {
			"ES256", strings.ReplaceAll(file.PublicKey, "\n", `\n`), token.SigningKey{PEM: []byte(file.PrivateKey)},
		},
		"a key file":             {"ES256", made, token.SigningKey{PEM: []byte(file.PrivateKey)}},
		"a key file with secret": {"HS256", ` {"secret":"` + testSecret + `"}`, token.SigningKey{HMAC: []byte(testSecret)}},
		"a JWKS, public as it is": {
			"ES256", string(must(json.Marshal(map[string]any{"keys": file.Keys}))),
			token.SigningKey{PEM: []byte(file.PrivateKey)},
		},
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

func TestARotatedSecretIsFetchedLikeASet(t *testing.T) {
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
	// The secret has no kid, so a token with an unknown kid causes another fetch.
	v.clock.Add(int64(gap))
	newest := mint(t, jwt.SigningMethodHS256, []byte(thirdSecret), timeless(), "kid", "newest")
	_, err = subject(newest)
	wantRefusal(t, err, badSignature)
	v.answer = text(thirdSecret)
	v.clock.Add(int64(gap))
	c, err = subject(newest)
	wantSubject(t, "alice", c, err)
	v.answer = text("TELLTALE") // by mistake: the known key stays valid
	v.clock.Add(int64(refresh))
	c, err = subject(newest)
	wantSubject(t, "alice", c, err)
}

func TestErrorsOfASecretNameTheRemedy(t *testing.T) {
	t.Parallel()
	awsError := func(code string) any { return map[string]string{"__type": code, "Message": "TELLTALE"} }
	for want, row := range map[string]struct {
		status    int
		answer    any
		permanent bool
	}{
		"answered with status 400: the role of the credentials is not allowed to read it; allow": {
			400, awsError("AccessDeniedException"), false,
		},
		"answered with status 400: there is no such secret, or it has no value yet; check the ARN": {
			400, awsError("com.amazonaws.secretsmanager#ResourceNotFoundException"), false,
		},
		"answered with status 400: the AWS credentials are wrong or have expired; run: eval": {
			400, awsError("ExpiredTokenException"), false,
		},
		"answered with status 400": {
			400, awsError("TELLTALE"), false,
		},
		"answered with status 503": {
			503, "TELLTALE", false,
		},
		"the answer is not JSON": {
			200, []string{"TELLTALE"}, false,
		},
		"the answer has more than 131072 bytes": {
			200, text(strings.Repeat("TELLTALE", 17<<10)), false,
		},
		"the secret has more than 65536 bytes": {
			200, text(strings.Repeat("TELLTALE", 9<<10)), false,
		},
		"the secret is binary; store it as text": {
			200, map[string]string{"SecretBinary": "TELLTALE"}, true,
		},
		"not a verification key: the HMAC secret has 8 bytes; use 32": {
			200, text("TELLTALE"), true,
		},
		"not a verification key: the HMAC secret has 0 bytes": {200, text(""), true},
		"not a verification key: JSON, but not a key file; store the output of": {
			200, text(`{"TELLTALE`), true,
		},
		"not a verification key: holds no signing key": {
			200, text(`{"JWT":"TELLTALE"}`), true,
		},
		"not a verification key: the secret printed in the Agno documents": {
			200, text(config.PublishedSecret), true,
		},
		"is not a verification key: the secret printed in the Agno documents, with which": {
			200, text(`{"secret":"` + config.PublishedSecret + `"}`), true,
		},
		"not a verification key: a private key; give the public key only": {
			200, text(string(pemBlock("PRIVATE KEY", []byte("TELLTALE")))), true,
		},
		"not a verification key: holds an RSA key of 2048 bits, which can't verify HS256; give a key": {
			200, text(string(publicPEM(rsaKey()))), true,
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, row.answer)
			v.status = row.status
			verifier := newVerifier(t, v.options("HS256"))
			faults := verifier.Fetch(t.Context())
			if len(faults) != 1 || !strings.Contains(faults[0].Error(), "keys[0]: ") ||
				!strings.Contains(faults[0].Error(), want) {
				t.Fatalf("faults %v, want one with %q", faults, want)
			}
			if got := errors.Is(faults[0], fault.Invalid); got != row.permanent {
				t.Errorf("permanent is %v, want %v", got, row.permanent)
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

// A signed request must reach nobody but AWS.
func TestARequestForASecretFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	elsewhere := newVault(t, text(testSecret))
	aws := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(aws.Close)
	elsewhere.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = aws.URL
	faults := newVerifier(t, elsewhere.options("HS256")).Fetch(t.Context())
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "redirects to another host") ||
		elsewhere.asked.Load() != 0 {
		t.Errorf("faults %v, %d requests elsewhere", faults, elsewhere.asked.Load())
	}
}

func TestSecretNeedsCredentialsAndARegion(t *testing.T) {
	t.Parallel()
	v := newVault(t, text(testSecret))
	delete(v.env, "AWS_SECRET_ACCESS_KEY")
	faults := newVerifier(t, v.options("HS256")).Fetch(t.Context())
	if len(faults) != 1 || !errors.Is(faults[0], fault.Invalid) ||
		!strings.Contains(faults[0].Error(), "aws configure export-credentials") || v.asked.Load() != 0 {
		t.Errorf("without credentials: %v, %d requests", faults, v.asked.Load())
	}
	for arn, want := range map[string]string{
		"arn:aws:secretsmanager:evil.example/:123456789012:secret:x":     "not the ARN of a secret",
		"arn:aws:secretsmanager:nowhere:123456789012:secret:x":           "not the ARN of a secret",
		"arn:aws:s3:eu-central-1:123456789012:secret:x":                  "not the ARN of a secret",
		"arn:aws-moon:secretsmanager:moon-north-1:123456789012:secret:x": "no address of Secrets Manager in partition",
	} {
		o := v.options("HS256")
		o.Lookup, o.Keys = nil, []token.KeySource{{Secret: arn}}
		_, err := token.NewVerifier(o)
		wantFault(t, err, "keys[0]: ", want)
	}
}

// hosts collects the addresses of requests and sends none.
type hosts struct{ seen []string }

func (h *hosts) RoundTrip(r *http.Request) (*http.Response, error) {
	h.seen = append(h.seen, r.URL.String())
	return nil, errors.New("no network")
}

func TestASecretIsFetchedFromTheRegionOfItsARN(t *testing.T) {
	t.Parallel()
	for start, want := range map[string]string{
		"aws:secretsmanager:eu-central-1":         "https://secretsmanager.eu-central-1.amazonaws.com/",
		"aws-us-gov:secretsmanager:us-gov-west-1": "https://secretsmanager.us-gov-west-1.amazonaws.com/",
		"aws-cn:secretsmanager:cn-north-1":        "https://secretsmanager.cn-north-1.amazonaws.com.cn/",
		"aws-eusc:secretsmanager:eusc-de-east-1":  "https://secretsmanager.eusc-de-east-1.amazonaws.eu/",
	} {
		h := &hosts{}
		o := newVault(t, nil).options("HS256")
		arn := "arn:" + start + ":123456789012:secret:x"
		o.Keys[0].Secret, o.HTTP = arn, &http.Client{Transport: h}
		o.Lookup = func(name string) (string, bool) {
			return map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}[name], true
		}
		newVerifier(t, o).Fetch(t.Context())
		if len(h.seen) != 1 || h.seen[0] != want {
			t.Errorf("%s is fetched from %q, want %q", arn, h.seen, want)
		}
	}
}
