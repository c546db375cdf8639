package bedrock_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// signed fails when r isn't signed for Bedrock in eu-central-1 with the credentials:
// it signs what arrived once more.
func signed(t *testing.T, r *http.Request) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("signed at %q", r.Header.Get("X-Amz-Date"))
	}
	again, err := http.NewRequestWithContext(t.Context(), r.Method, "http://"+cmp.Or(r.Host, r.URL.Host)+r.URL.RequestURI(), bytes.NewReader(body))
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
	key := aws.Credentials{AccessKeyID: credentials.AccessKeyID, SecretAccessKey: credentials.SecretAccessKey, SessionToken: credentials.SessionToken}
	if err := v4.NewSigner().SignHTTP(t.Context(), key, again, hex.EncodeToString(sum[:]), "bedrock", "eu-central-1", at); err != nil {
		t.Error(err)
	}
	if want := again.Header.Get("Authorization"); authorization != want || !strings.Contains(list, "x-amz-security-token") {
		t.Errorf("Authorization %s\nwant %s", authorization, want)
	}
}

func TestEveryRequestIsSigned(t *testing.T) {
	t.Parallel()
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed(t, r)
		paths = append(paths, r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	m := bedrock.New(bedrock.Options{
		ID: "anthropic.claude-3-5-sonnet-20240620-v1:0", Region: "eu-central-1", BaseURL: s.URL, Credentials: credentials, HTTPClient: &http.Client{Transport: transport},
	})
	modeltest.Listen(t.Context(), t, m, modeltest.Ask("größe"))
	modeltest.Listen(t.Context(), t, m, askWhole)
	const path = "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse"
	if len(paths) != 2 || paths[0] != path+"-stream" || paths[1] != path {
		t.Errorf("asked %q", paths)
	}
}

func TestARegionIsAHost(t *testing.T) {
	t.Parallel()
	var host string
	client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		host = r.URL.Scheme + "://" + r.URL.Host
		return nil, io.ErrUnexpectedEOF
	})}
	modeltest.Listen(t.Context(), t, bedrock.Once(bedrock.Options{ID: "m", Region: "us-west-2", Credentials: credentials, HTTPClient: client}), modeltest.Ask("hello"))
	if host != "https://bedrock-runtime.us-west-2.amazonaws.com" {
		t.Errorf("asked %s", host)
	}
}

// A signature is for one host, and a session token none of another's business.
func TestNoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("redirected with %v", r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{302, 307, 308} {
		if a := hear(t, modeltest.Fail(status, "").Header("Location", elsewhere.URL)); a.Err == nil {
			t.Errorf("%d is no error", status)
		}
	}
}

// Not parallel: Setenv changes it for all.
func TestTheProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("AWS_BEARER_TOKEN_BEDROCK", "leaked")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIALEAKED0123456789", "AWS_SECRET_ACCESS_KEY": "leaked", "AWS_SESSION_TOKEN": "leaked", "AWS_REGION": "leaked-1",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1/leaked", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://127.0.0.1:1/leaked",
		"AWS_PROFILE": "leaked", "AWS_CONFIG_FILE": "/leaked", "AWS_MAX_ATTEMPTS": "9",
	} {
		t.Setenv(name, value)
	}
	tries := 0
	client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		tries++
		if r.URL.Host != "bedrock-runtime.eu-central-1.amazonaws.com" {
			t.Errorf("request to %s", r.URL)
		}
		signed(t, r)
		for name, values := range r.Header {
			if strings.Contains(strings.ToLower(name+strings.Join(values, " ")), "leaked") {
				t.Errorf("header %s: %v comes from the environment", name, values)
			}
		}
		return nil, io.ErrUnexpectedEOF
	})}
	m := bedrock.Hasty(bedrock.Options{ID: "m", Region: "eu-central-1", HTTPClient: client, Credentials: credentials})
	modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello"))
	if tries != 3 {
		t.Errorf("%d tries", tries)
	}
}

// dials counts the connections that were made for its requests.
type dials struct {
	next  http.RoundTripper
	fresh int
}

func (d *dials) RoundTrip(r *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			d.fresh++
		}
	}}
	return d.next.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}
