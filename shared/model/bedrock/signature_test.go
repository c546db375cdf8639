package bedrock_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// checkSignature fails the test unless r is signed for Bedrock in eu-central-1 with the
// credentials. It signs the received request again and compares the signatures.
func checkSignature(t *testing.T, r *http.Request) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("signed at %q", r.Header.Get("X-Amz-Date"))
	}
	url := "http://" + cmp.Or(r.Host, r.URL.Host) + r.URL.RequestURI()
	again, err := http.NewRequestWithContext(t.Context(), r.Method, url, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	authorization := r.Header.Get("Authorization")
	_, list, _ := strings.Cut(authorization, "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	for name := range strings.SplitSeq(list, ";") {
		if name != "host" && name != "content-length" {
			again.Header[http.CanonicalHeaderKey(name)] = r.Header[http.CanonicalHeaderKey(name)]
		}
	}
	again.Header.Del("X-Amz-Date")
	sum := sha256.Sum256(body)
	key := aws.Credentials{
		AccessKeyID: credentials.AccessKeyID, SecretAccessKey: credentials.SecretAccessKey,
		SessionToken: credentials.SessionToken,
	}
	hash := hex.EncodeToString(sum[:])
	if err := v4.NewSigner().SignHTTP(t.Context(), key, again, hash, "bedrock", "eu-central-1", at); err != nil {
		t.Error(err)
	}
	want := again.Header.Get("Authorization")
	if authorization != want || !strings.Contains(list, "x-amz-security-token") {
		t.Errorf("Authorization %s\nwant %s", authorization, want)
	}
}

func TestEveryRequestIsSigned(t *testing.T) {
	t.Parallel()
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		checkSignature(t, r)
		paths = append(paths, r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	m := bedrock.New(bedrock.Options{
		ID: "anthropic.claude-3-5-sonnet-20240620-v1:0", Region: "eu-central-1", BaseURL: s.URL,
		Credentials: credentials, HTTPClient: &http.Client{Transport: transport},
	})
	modeltest.Collect(t.Context(), t, m, modeltest.Ask("größe"))
	r := modeltest.Ask("hello")
	r.Whole = true
	modeltest.Collect(t.Context(), t, m, r)
	const path = "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse"
	if len(paths) != 2 || paths[0] != path+"-stream" || paths[1] != path {
		t.Errorf("requests to %q", paths)
	}
}

func TestTheRegionDeterminesTheHost(t *testing.T) {
	t.Parallel()
	var host string
	client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		host = r.URL.Scheme + "://" + r.URL.Host
		return nil, io.ErrUnexpectedEOF
	})}
	o := bedrock.Options{ID: "m", Region: "us-west-2", Credentials: credentials, HTTPClient: client}
	modeltest.Collect(t.Context(), t, bedrock.NewOnce(o), modeltest.Ask("hello"))
	if host != "https://bedrock-runtime.us-west-2.amazonaws.com" {
		t.Errorf("request to %s", host)
	}
}

// A signature is valid for one host, and the session token must not reach another.
func TestNoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("redirected with %v", r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{302, 307, 308} {
		if a := answerOf(t, modeltest.Fail(status, "").Header("Location", elsewhere.URL)); a.Err == nil {
			t.Errorf("status %d is not an error", status)
		}
	}
}

// Not parallel: Setenv changes the environment of all tests.
func TestTheProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("AWS_BEARER_TOKEN_BEDROCK", "leaked")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIALEAKED0123456789", "AWS_SECRET_ACCESS_KEY": "leaked",
		"AWS_SESSION_TOKEN": "leaked", "AWS_REGION": "leaked-1",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1/leaked", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://127.0.0.1:1/leaked",
		"AWS_PROFILE": "leaked", "AWS_CONFIG_FILE": "/leaked", "AWS_MAX_ATTEMPTS": "9",
	} {
		t.Setenv(name, value)
	}
	attempts := 0
	client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		attempts++
		if r.URL.Host != "bedrock-runtime.eu-central-1.amazonaws.com" {
			t.Errorf("request to %s", r.URL)
		}
		checkSignature(t, r)
		for name, values := range r.Header {
			if strings.Contains(strings.ToLower(name+strings.Join(values, " ")), "leaked") {
				t.Errorf("header %s: %v comes from the environment", name, values)
			}
		}
		return nil, io.ErrUnexpectedEOF
	})}
	o := bedrock.Options{ID: "m", Region: "eu-central-1", HTTPClient: client, Credentials: credentials}
	m := bedrock.NewWithoutPauses(o)
	modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
	if attempts != 3 {
		t.Errorf("%d attempts, want 3", attempts)
	}
}
