package token

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/awsenv"
)

// published is the example secret in the Agno documentation. Everybody knows it.
const published = "your-secret-key-at-least-256-bits-long"

// domains are the domains of the AWS partitions. In the first three, the hosts have IPv6
// addresses too.
var domains = map[string]string{
	"aws":        "amazonaws.com",
	"aws-us-gov": "amazonaws.com",
	"aws-cn":     "amazonaws.com.cn",
	"aws-eusc":   "amazonaws.eu",
}

// secretARN matches the ARN of a secret and finds its partition and region. It is strict,
// because the region becomes part of a host name, to which a signed request is sent. It
// is compiled on first use, so that a function without such keys starts faster.
var secretARN = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^arn:(aws[a-z-]*):secretsmanager:([a-z]+(?:-[a-z]+)+-[0-9]+):[0-9]{12}:secret:.+$`)
})

// storedSecret is one secret in AWS Secrets Manager.
type storedSecret struct {
	o                     Options
	arn, region, endpoint string
}

// ReadSecret returns the text of a secret in AWS Secrets Manager. It doesn't have to be a
// key. ReadSecret uses Now, Lookup and HTTP of the options. Its errors name the remedy
// and contain nothing of the secret.
func ReadSecret(ctx context.Context, arn string, o Options) (string, error) {
	secret, err := o.storedSecret(arn)
	if err != nil {
		return "", err
	}
	text, err := secret.get(ctx)
	if err != nil {
		return "", fmt.Errorf("AWS Secrets Manager in %s: %w", secret.region, err)
	}
	return text, nil
}

// storedSecret finds the address of a secret: the endpoint in the environment, or the
// one of the region in the ARN.
func (o Options) storedSecret(arn string) (at storedSecret, err error) {
	parts := secretARN().FindStringSubmatch(arn)
	if parts == nil {
		return at, errors.New("not the ARN of a secret; it is like " +
			"arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf")
	}
	at = storedSecret{o, arn, parts[2], awsenv.Endpoint(o.Lookup, "SECRETS_MANAGER")}
	if domain := domains[parts[1]]; at.endpoint == "" && domain != "" {
		at.endpoint = "https://secretsmanager." + at.region + "." + domain
	}
	u, err := url.Parse(at.endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return at, fmt.Errorf("no address of Secrets Manager in partition %s; "+
			"set AWS_ENDPOINT_URL_SECRETS_MANAGER to https://host", parts[1])
	}
	return at, nil
}

// secretFetcher fetches keys from AWS Secrets Manager. If the text of a secret is not a
// key, the known keys stay: nobody does that on purpose, unlike publishing an empty set.
func (o Options) secretFetcher(s KeySource, from *source, methods map[string]jwt.SigningMethod) (fetch, error) {
	secret, err := o.storedSecret(s.Secret)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (found batch, err error) {
		text, err := secret.get(ctx)
		if err == nil {
			if found, err = from.inText(text, methods); err != nil {
				err = permanent(fmt.Errorf("the text of the secret is not a verification key: %w", err))
			}
		}
		if err != nil {
			return batch{}, fmt.Errorf("AWS Secrets Manager in %s: %w", secret.region, err)
		}
		return found, nil
	}, nil
}

// inText reads the keys in the text of a secret.
func (from *source) inText(text string, methods map[string]jwt.SigningMethod) (batch, error) {
	found, err := keysIn(text)
	if err != nil {
		return batch{}, err
	}
	return from.usable(found, methods)
}

// get requests the text of the secret with the action GetSecretValue. It signs the
// request itself, because the SDK's client of the service would make the authorizer's
// binary a fifth larger.
func (s storedSecret) get(ctx context.Context) (string, error) {
	// The credentials are read for each request and not kept, so that missing ones are an
	// error of the fetch, which is reported like the others.
	credentials, err := awsenv.Credentials(s.o.Lookup)
	if err != nil {
		return "", permanent(err)
	}
	body, err := json.Marshal(map[string]string{"SecretId": s.arn})
	if err != nil {
		return "", err
	}
	address := strings.TrimSuffix(s.endpoint, "/") + "/"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return "", errors.New("is not a valid address")
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	err = v4.NewSigner().SignHTTP(ctx, credentials, r, hash, "secretsmanager", s.region, s.o.Now())
	if err != nil {
		return "", errors.New("the request can't be signed")
	}
	client := s.o.client()
	// A signed request must reach nobody but the host that it was signed for.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
	got, err := send(client, r, 2*maxSecret) // line ends and quotes in the text are escaped
	if err != nil {
		return "", err
	}
	return readSecret(got.status, got.body)
}

// readSecret returns the text in an answer. For an error of AWS it returns this program's
// own description, because AWS's message can contain the ARN of a role or a key.
func readSecret(status int, answer []byte) (string, error) {
	var a struct {
		Type         string `json:"__type"`
		SecretString string
		SecretBinary string
	}
	err := json.Unmarshal(answer, &a)
	code := a.Type[strings.LastIndexByte(a.Type, '#')+1:] // it may follow "com.amazonaws.secretsmanager#"
	remedy := remedies[code]
	switch {
	case status != http.StatusOK && remedy != "":
		return "", fmt.Errorf("answered with status %d: %s", status, remedy)
	case status != http.StatusOK:
		return "", fmt.Errorf("answered with status %d", status)
	case err != nil:
		return "", errors.New("the answer is not JSON")
	case a.SecretString == "" && a.SecretBinary != "":
		return "", permanent(errors.New("the secret is binary; store it as text"))
	case len(a.SecretString) > maxSecret:
		return "", fmt.Errorf("the secret has more than %d bytes", maxSecret)
	}
	return a.SecretString, nil
}

const freshCredentials = "the AWS credentials are wrong or have expired; " + awsenv.Remedy + ", and start again"

// remedies map an error code of GetSecretValue to its usual cause and remedy.
var remedies = map[string]string{
	"AccessDeniedException": "the role of the credentials is not allowed to read it; " +
		"allow secretsmanager:GetSecretValue, and kms:Decrypt for the key that encrypts it",
	"DecryptionFailure":                   "it can't be decrypted; allow kms:Decrypt for the key that encrypts it",
	"ResourceNotFoundException":           "there is no such secret, or it has no value yet; check the ARN",
	"InvalidRequestException":             "it is scheduled for deletion; restore it, or configure another secret",
	"ExpiredTokenException":               freshCredentials,
	"UnrecognizedClientException":         freshCredentials,
	"InvalidSignatureException":           freshCredentials,
	"IncompleteSignatureException":        freshCredentials,
	"InvalidClientTokenId":                freshCredentials,
	"MissingAuthenticationTokenException": freshCredentials,
}

// keysIn reads the keys in a text: a key file, PEM, or the text itself as an HMAC secret.
// The secret is the whole text, even a line end at its end, because the program that
// signs uses the same text.
func keysIn(text string) (batch, error) {
	switch {
	case strings.HasPrefix(strings.TrimSpace(text), "{"):
		var f keyFile
		if json.Unmarshal([]byte(text), &f) != nil {
			return batch{}, errors.New("JSON, but not a key file; store the output of keyway keys generate, " +
				`or a JWKS like {"keys": [...]}`)
		}
		if isPublished(f.Secret) {
			return batch{}, errPublished
		}
		return f.public()
	case strings.Contains(text, "-----BEGIN"):
		public, err := publicKey([]byte(text))
		return batch{keys: []key{{public: public}}}, err
	case isPublished(text):
		return batch{}, errPublished
	}
	return batch{keys: []key{{public: []byte(text)}}}, checkSecret([]byte(text))
}

// isPublished ignores white space, since a text is easily stored with a line end.
func isPublished(secret string) bool { return strings.TrimSpace(secret) == published }

var errPublished = errors.New("the secret printed in the Agno documents, with which anybody can sign; " +
	"make one with: openssl rand -hex 32")
