package token

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// maxRedirects is what a renamed path may need.
const maxRedirects = 3

var errRedirect = errors.New("redirects to another host or too often; write the address that it leads to")

// fetcher fetches the keys of s. What it refuses by itself can't heal.
func (o Options) fetcher(s KeySource, methods map[string]jwt.SigningMethod) (func(context.Context) ([]key, error), error) {
	if err := s.exactlyOne(); err != nil {
		return nil, err
	}
	if s.Secret != "" {
		return o.secretFetcher(s, methods)
	}
	return o.jwksFetcher(s, methods)
}

// jwksFetcher reads the set at an address. A set that can be read is believed,
// whatever is in it: a key that isn't there was removed.
func (o Options) jwksFetcher(s KeySource, methods map[string]jwt.SigningMethod) (func(context.Context) ([]key, error), error) {
	u, err := url.Parse(s.JWKSURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, errors.New("the JWKS address must be https://host/path (http on loopback only)")
	}
	for alg, m := range methods {
		if _, secret := m.(*jwt.SigningMethodHMAC); secret {
			return nil, fmt.Errorf("a JWKS address gives public keys, which can't verify %s; change the algorithms", alg)
		}
	}
	client := o.client()
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || r.URL.Scheme != u.Scheme || r.URL.Host != u.Host {
			return errRedirect
		}
		return nil
	}
	return func(ctx context.Context) ([]key, error) {
		found, err := fetchSet(ctx, client, u)
		if err != nil {
			return nil, fmt.Errorf("%s://%s: %w", u.Scheme, u.Host, err) // without path and query, where keys may travel
		}
		usable, _ := s.fit(found, methods)
		return usable, nil
	}, nil
}

func fetchSet(ctx context.Context, client *http.Client, u *url.URL) ([]key, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("is no address")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	status, body, err := send(client, r, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("answers %d", status)
	}
	return parseSet(body)
}

// send returns an answer of limit bytes at most. Its errors show nothing of the
// answer, nor of the address, which *url.Error would.
func send(client *http.Client, r *http.Request, limit int) (status int, body []byte, err error) {
	resp, err := client.Do(r)
	if err == nil {
		defer resp.Body.Close()
		status = resp.StatusCode
		body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	}
	op, isNet := errors.AsType[*net.OpError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case err == nil && len(body) > limit:
		err = fmt.Errorf("the answer has more than %d bytes", limit)
	case err == nil:
	case errors.Is(err, errRedirect):
		err = errRedirect
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		err = fmt.Errorf("does not answer within %v", fetchTime)
	case untrusted:
		err = errors.New("has a certificate that is not trusted here")
	case isNet:
		err = op // dial tcp host:port: why
	default:
		err = errors.New("breaks off, or does not speak HTTP")
	}
	return status, body, err
}

// client is one of our own unless the caller brought one. It keeps no connection:
// minutes lie between two fetches, and Lambda freezes the process in between.
func (o Options) client() *http.Client {
	if o.HTTP != nil {
		c := *o.HTTP
		return &c
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: maxKeyFile}
	return &http.Client{Transport: t}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseSet reads a set of somebody else's. A key that is broken, weak, private or of
// a kind we don't know is passed over: it must not take the others down, and none of
// them verifies anything here.
func parseSet(data []byte) ([]key, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, errors.New("the answer is no JSON object")
	}
	list := o["keys"]
	if list == "" || list[0] != '[' {
		return nil, errors.New(`the answer has no list "keys"`)
	}
	n, keys := 0, []key{}
	for value := range (strictjson.Value{Raw: list}).Elements() {
		if n++; n > maxKeys {
			return nil, fmt.Errorf("the answer has more than %d keys", maxKeys)
		}
		if jwk, err := publicJWK([]byte(value.Raw)); err == nil && jwk != nil {
			keys = append(keys, key{id: jwk.KeyID, alg: jwk.Algorithm, public: jwk.Key})
		}
	}
	return keys, nil
}

// lasting marks a fault that only the operator can end.
func lasting(err error) error { return fault.Public(fault.Invalid, err.Error(), nil) }
