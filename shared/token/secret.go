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

// published is the HMAC secret printed in the Agno documents.
const published = "your-secret-key-at-least-256-bits-long"

// domains are where each AWS partition has its services. In the first three these
// names answer over IPv6 too.
var domains = map[string]string{
	"aws": "amazonaws.com", "aws-us-gov": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu",
}

// secretARN is what the ARN of a secret says besides the secret: a region is part of
// a host name here. Compiled on first use: a function without such keys starts sooner.
var secretARN = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^arn:(aws[a-z-]*):secretsmanager:([a-z]+(?:-[a-z]+)+-[0-9]+):[0-9]{12}:secret:.+$`)
})

// vault is where one secret is kept.
type vault struct {
	o                     Options
	arn, region, endpoint string
}

// ReadSecret is the text of a secret that AWS Secrets Manager keeps, a key or not. Of o
// it uses Now, Lookup and HTTP. The errors say what to do.
func ReadSecret(ctx context.Context, arn string, o Options) (string, error) {
	at, err := o.vault(arn)
	if err != nil {
		return "", err
	}
	text, err := at.get(ctx)
	if err != nil {
		return "", fmt.Errorf("AWS Secrets Manager in %s: %w", at.region, err)
	}
	return text, nil
}

// vault finds out where a secret is kept.
func (o Options) vault(arn string) (at vault, err error) {
	parts := secretARN().FindStringSubmatch(arn)
	if parts == nil {
		return at, errors.New("not the ARN of a secret; it is like arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf")
	}
	at = vault{o, arn, parts[2], awsenv.Endpoint(o.Lookup, "SECRETS_MANAGER")}
	if domain := domains[parts[1]]; at.endpoint == "" && domain != "" {
		at.endpoint = "https://secretsmanager." + at.region + "." + domain
	}
	u, err := url.Parse(at.endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return at, fmt.Errorf("no address of Secrets Manager in partition %s; set AWS_ENDPOINT_URL_SECRETS_MANAGER to https://host", parts[1])
	}
	return at, nil
}

// secretFetcher reads keys that AWS Secrets Manager keeps. A secret whose text is no
// key counts as not fetched: unlike an empty set, it is nobody's intention.
func (o Options) secretFetcher(s KeySource, methods map[string]jwt.SigningMethod) (func(context.Context) ([]key, error), error) {
	at, err := o.vault(s.Secret)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (keys []key, err error) {
		text, err := at.get(ctx)
		if err == nil {
			if keys, err = s.inText(text, methods); err != nil {
				err = lasting(fmt.Errorf("the secret's text is no key to verify with: %w", err))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("AWS Secrets Manager in %s: %w", at.region, err)
		}
		return keys, nil
	}, nil
}

// inText reads the keys of s in a secret's text.
func (s KeySource) inText(text string, methods map[string]jwt.SigningMethod) ([]key, error) {
	found, err := keysIn(text)
	if err != nil {
		return nil, err
	}
	return s.fit(found, methods)
}

// get asks for the secret's text in one request that is signed here: a client of the
// service would make the authorizer's binary a fifth larger.
func (s vault) get(ctx context.Context) (string, error) {
	credentials, err := awsenv.Credentials(s.o.Lookup)
	if err != nil {
		return "", lasting(err)
	}
	body, err := json.Marshal(map[string]string{"SecretId": s.arn})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.endpoint, "/")+"/", bytes.NewReader(body))
	if err != nil {
		return "", errors.New("is no address")
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, r, hex.EncodeToString(sum[:]), "secretsmanager", s.region, s.o.Now()); err != nil {
		return "", errors.New("the request can't be signed")
	}
	client := s.o.client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect } // a signature is for one host
	status, answer, err := send(client, r, 2*maxKeyFile)                                     // a text of maxKeyFile, half of it escaped
	if err != nil {
		return "", err
	}
	return readSecret(status, answer)
}

// readSecret takes the text out of an answer, or says in our own words what the error
// means.
func readSecret(status int, answer []byte) (string, error) {
	var a struct {
		Type         string `json:"__type"`
		SecretString string
		SecretBinary string
	}
	err := json.Unmarshal(answer, &a)
	remedy := remedies[a.Type[strings.LastIndexByte(a.Type, '#')+1:]] // some write com.amazonaws.secretsmanager#Code
	switch {
	case status != http.StatusOK && remedy != "":
		return "", fmt.Errorf("answers %d: %s", status, remedy)
	case status != http.StatusOK:
		return "", fmt.Errorf("answers %d", status)
	case err != nil:
		return "", errors.New("the answer is not JSON")
	case a.SecretString == "" && a.SecretBinary != "":
		return "", lasting(errors.New("the secret is binary; store it as text"))
	case len(a.SecretString) > maxKeyFile:
		return "", fmt.Errorf("the secret has more than %d bytes", maxKeyFile)
	}
	return a.SecretString, nil
}

const freshCredentials = "the AWS credentials are wrong or have expired; " + awsenv.Remedy + ", and start again"

// remedies are what the errors of GetSecretValue come from in practice.
var remedies = map[string]string{
	"AccessDeniedException":               "the credentials' role may not read it; allow secretsmanager:GetSecretValue, and kms:Decrypt of the key that it is encrypted with",
	"DecryptionFailure":                   "it can't be decrypted; allow kms:Decrypt of the key that it is encrypted with",
	"ResourceNotFoundException":           "there is no such secret, or it has no value yet; compare the ARN",
	"InvalidRequestException":             "it is about to be deleted; restore it, or name another",
	"ExpiredTokenException":               freshCredentials,
	"UnrecognizedClientException":         freshCredentials,
	"InvalidSignatureException":           freshCredentials,
	"IncompleteSignatureException":        freshCredentials,
	"InvalidClientTokenId":                freshCredentials,
	"MissingAuthenticationTokenException": freshCredentials,
}

// keysIn reads a secret: a key file, PEM, or the text itself as an HMAC secret, to the
// last byte: whoever signs reads the same text.
func keysIn(text string) ([]key, error) {
	switch {
	case strings.HasPrefix(strings.TrimSpace(text), "{"):
		var f keyFile
		if json.Unmarshal([]byte(text), &f) != nil {
			return nil, errors.New(`JSON, but no key file; store what keyway keys generate makes, or a JWKS like {"keys": [...]}`)
		}
		if isPublished(f.Secret) {
			return nil, errPublished
		}
		return f.public()
	case strings.Contains(text, "-----BEGIN"):
		public, err := publicKey([]byte(text))
		return []key{{public: public}}, err
	case isPublished(text):
		return nil, errPublished
	}
	return []key{{public: []byte(text)}}, checkSecret([]byte(text))
}

func isPublished(secret string) bool { return strings.TrimSpace(secret) == published }

var errPublished = errors.New("the secret printed in the Agno documents, with which anybody can sign; make one with: openssl rand -hex 32")
