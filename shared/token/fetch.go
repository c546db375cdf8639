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

// maxRedirects is enough for a path that was renamed.
const maxRedirects = 3

var errRedirect = errors.New("redirects to another host or too often; configure the address that it redirects to")

// fetch returns the keys that a source has now.
type fetch func(context.Context) ([]key, error)

// fetcher returns the function that fetches the keys of s. An error of fetcher itself
// stays until the operator changes the configuration.
func (o Options) fetcher(s KeySource, from *source, methods map[string]jwt.SigningMethod) (fetch, error) {
	if err := s.exactlyOne(); err != nil {
		return nil, err
	}
	if s.Secret != "" {
		return o.secretFetcher(s, from, methods)
	}
	return o.jwksFetcher(s, from, methods)
}

// jwksFetcher fetches the set at an address. If a set can be read, it replaces the known
// keys, even if it is empty: a key that is missing in it was removed.
//
// Plain http is accepted on loopback only: an attacker who can change the answer on its
// way could add a key. For the same reason a redirect must stay on the same host.
func (o Options) jwksFetcher(s KeySource, from *source, methods map[string]jwt.SigningMethod) (fetch, error) {
	u, err := url.Parse(s.JWKSURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, errors.New("the JWKS address must be https://host/path (http on loopback only)")
	}
	for alg, m := range methods {
		if _, secret := m.(*jwt.SigningMethodHMAC); secret {
			return nil, fmt.Errorf("the algorithm %s needs a shared secret, but jwks_url gives only public keys; "+
				"list RS256, ES256 or EdDSA in auth.algorithms", alg)
		}
	}
	client := o.client()
	// via contains the requests so far, so that there are at most maxRedirects redirects.
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || r.URL.Scheme != u.Scheme || r.URL.Host != u.Host {
			return errRedirect
		}
		return nil
	}
	return func(ctx context.Context) ([]key, error) {
		found, err := fetchSet(ctx, client, u)
		if err != nil {
			return nil, fmt.Errorf("%s://%s: %w", u.Scheme, u.Host, err) // path and query may contain an API key
		}
		keys, _ := from.usable(found, methods) // a set without usable keys is a set, see above
		return keys, nil
	}, nil
}

// fetchSet requests a set once, and reads the keys in the answer.
func fetchSet(ctx context.Context, client *http.Client, u *url.URL) ([]key, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("is not a valid address")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	status, body, err := send(client, r, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("answered with status %d", status)
	}
	return parseSet(body)
}

// send returns the answer to a request if it has at most limit bytes. Its errors contain
// nothing of the answer, and not the address, which a *url.Error would contain.
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
		err = fmt.Errorf("did not answer within %v", fetchTime)
	case untrusted:
		err = errors.New("has a certificate that is not trusted here")
	case isNet:
		err = op // such as "dial tcp host:port: connection refused"
	default:
		err = errors.New("closed the connection too early, or does not speak HTTP")
	}
	return status, body, err
}

// client returns a copy of Options.HTTP, or the default client. That one keeps no
// connection open: there are minutes between two fetches, and on Lambda the process is
// frozen meanwhile, so that the connection would be dead.
func (o Options) client() *http.Client {
	if o.HTTP != nil {
		c := *o.HTTP
		return &c
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: maxKeyFile}
	return &http.Client{Transport: t}
}

// loopback reports whether requests to a host stay on this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseSet reads a fetched set. It ignores a key that is broken, weak, private or of an
// unknown kind: somebody else publishes the set, and one such key must not make the
// others unusable. An ignored key verifies nothing.
func parseSet(data []byte) ([]key, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, errors.New("the answer is not a JSON object")
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
			keys = append(keys, key{id: jwk.KeyID, alg: canonical(jwk.Algorithm), public: jwk.Key})
		}
	}
	return keys, nil
}

// permanent marks an error that stays until the operator changes something.
func permanent(err error) error { return fault.Public(fault.Invalid, err.Error(), nil) }
