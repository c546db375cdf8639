package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// fetch returns the keys that a source has now.
type fetch func(context.Context) (batch, error)

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

// jwksFetcher fetches the set at an address, or at the one that the metadata document of an
// issuer names. If a set can be read, it replaces the known keys, even if it is empty: a key
// that is missing in it was removed.
func (o Options) jwksFetcher(s KeySource, from *source, methods map[string]jwt.SigningMethod) (fetch, error) {
	c, err := o.connect(s)
	if err != nil {
		return nil, err
	}
	if s.Discovery != "" && len(s.Issuers) == 0 {
		return nil, errors.New("discovery needs the issuer that the metadata document must name; add it")
	}
	for alg, m := range methods {
		if _, secret := m.(*jwt.SigningMethodHMAC); secret {
			return nil, fmt.Errorf("the algorithm %s needs a shared secret, but an address gives only public keys; "+
				"list RS256, ES256 or EdDSA in auth.algorithms", alg)
		}
	}
	return func(ctx context.Context) (batch, error) {
		at := c.address
		if s.Discovery != "" {
			var err error
			if at, err = c.discover(ctx, from); err != nil {
				return batch{}, fmt.Errorf("%s://%s: %w", c.address.Scheme, c.address.Host, err)
			}
		}
		found, err := c.fetchSet(ctx, at)
		if err != nil {
			return batch{}, fmt.Errorf("%s://%s: %w", at.Scheme, at.Host, err) // path and query may contain an API key
		}
		found, _ = from.usable(found, methods) // a set without usable keys is a set, see above
		return found, nil
	}, nil
}

// fetchSet requests a set once, and reads the keys in the answer.
func (c connection) fetchSet(ctx context.Context, u *url.URL) (batch, error) {
	got, err := c.get(ctx, u, "application/jwk-set+json, application/json", maxSet)
	if err != nil {
		return batch{}, err
	}
	if got.status != http.StatusOK {
		return batch{}, fmt.Errorf("answered with status %d", got.status)
	}
	found, err := parseSet(got.body)
	found.date = got.date
	return found, err
}

// parseSet reads a fetched set. It passes over a key that is broken, weak, private or of an
// unknown kind: somebody else publishes the set, and one such key must not make the others
// unusable. Such a key verifies nothing.
func parseSet(data []byte) (batch, error) {
	o, err := parseObject(data)
	if err != nil {
		return batch{}, errors.New("the answer is not a JSON object")
	}
	list := o["keys"]
	switch {
	case list == "" && o["jwks_uri"] != "":
		return batch{}, errors.New("the answer is a metadata document, which names the address of the keys; " +
			"write discovery in place of jwks_url")
	case list == "" || list[0] != '[':
		return batch{}, errors.New(`the answer has no list "keys"`)
	}
	n, b := 0, batch{}
	for value := range (strictjson.Value{Raw: list}).Elements() {
		if n == maxKeys {
			return batch{}, fmt.Errorf("the answer has more than %d keys, and more are not read; "+
				"remove at the issuer those that no longer sign", maxKeys)
		}
		_ = b.add(n, []byte(value.Raw)) // b contains the reason
		n++
	}
	return b, nil
}

// permanent marks an error that stays until the operator changes something.
func permanent(err error) error { return fault.Public(fault.Invalid, err.Error(), nil) }
