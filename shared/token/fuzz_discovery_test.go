package token

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// answer is a network in which every address answers with the same text.
type answer []byte

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(a)), Request: r}, nil
}

// FuzzDiscovery reads any metadata document. Whatever it says, the keys belong to the issuer that was asked
// for, and are fetched by https only.
func FuzzDiscovery(f *testing.F) {
	for _, seed := range []string{
		`{"issuer":"https://i/a","jwks_uri":"https://k/keys"}`, `{"issuer":"https://i/a/","jwks_uri":"https://k/keys"}`,
		`{"issuer":"https://i/a//","jwks_uri":"https://k"}`, `{"issuer":"https://i/a","jwks_uri":"http://k"}`,
		`{"issuer":"https://i/a","jwks_uri":"//k"}`, `{"issuer":"https://i/A","jwks_uri":"https://k"}`,
		`{"issuer":"https://i/{a}","jwks_uri":"https://k"}`, `{"issuer":"https://i/a","issuer":"x","jwks_uri":"https://k"}`,
		`{"Issuer":"https://i/a","jwks_uri":"https://k"}`, `{"\u0069ssuer":"https://i/a","jwks_uri":"https://k"}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	const asked = "https://i/a"
	f.Fuzz(func(t *testing.T, document []byte) {
		address, err := url.Parse(asked)
		if err != nil {
			t.Fatal(err)
		}
		c := connection{address: address, client: &http.Client{Transport: answer(document)}}
		from := newSource("keys[0]", Rules{Issuers: []string{asked}}, "")
		keys, err := c.discover(context.Background(), from)
		if err != nil {
			return
		}
		if keys.Scheme != "https" || keys.Hostname() == "" || keys.User != nil {
			t.Errorf("keys at %s", keys)
		}
		if len(from.Issuers) != 1 || from.Issuers[0] != asked {
			t.Errorf("the configured source has the issuers %q", from.Issuers)
		}
	})
}
