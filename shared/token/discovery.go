package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxMetadata is the limit for a metadata document, in bytes. Keycloak's has 7 KB.
const maxMetadata = 64 << 10

// metadata is what is read from the metadata document of an issuer. OpenID Connect Discovery
// section 3 and RFC 8414 section 2 require both members.
type metadata struct{ issuer, keys string }

// documents returns the addresses at which the metadata document of an issuer can be, in the
// order in which they are tried. An address with /.well-known/ in it is that of the document
// itself. OpenID Connect Discovery section 4 appends its path to the issuer, RFC 8414 section
// 3.1 inserts it.
func documents(u *url.URL) []*url.URL {
	if strings.Contains(u.Path, "/.well-known/") {
		return []*url.URL{u}
	}
	openID, oauth, path := *u, *u, strings.TrimSuffix(u.EscapedPath(), "/")
	openID.Path, openID.RawPath = strings.TrimSuffix(u.Path, "/")+"/.well-known/openid-configuration",
		path+"/.well-known/openid-configuration"
	oauth.Path, oauth.RawPath = "/.well-known/oauth-authorization-server"+strings.TrimSuffix(u.Path, "/"),
		"/.well-known/oauth-authorization-server"+path
	return []*url.URL{&openID, &oauth}
}

// discover asks for the metadata document of an issuer, and returns the address of its keys.
func (c connection) discover(ctx context.Context, from *source) (*url.URL, error) {
	var m metadata
	var faults []error
	for _, u := range documents(c.address) {
		found, answered, err := c.metadata(ctx, u)
		if err == nil {
			m, faults = found, nil
			break
		}
		if faults = append(faults, err); !answered {
			break // another path at a host that doesn't answer is of no use
		}
	}
	const remedy = "set discovery to the issuer of the tokens, or to the address of its metadata document"
	switch {
	case len(faults) == 2:
		return nil, fmt.Errorf("no metadata document of OpenID Connect (%w), and none of OAuth, RFC 8414 (%w); %s",
			faults[0], faults[1], remedy)
	case len(faults) == 1:
		return nil, fmt.Errorf("no metadata document: %w; %s", faults[0], remedy)
	}
	if err := checkIssuer(from, m.issuer); err != nil {
		return nil, err
	}
	keys, err := url.Parse(m.keys)
	if err != nil || !c.allows(keys) {
		return nil, errors.New("the metadata document has a jwks_uri that is not https; correct it at the issuer, " +
			"or set http: true on this key if it is http at a private address")
	}
	return keys, nil
}

// metadata requests a metadata document once. answered reports that the host sent an answer.
func (c connection) metadata(ctx context.Context, u *url.URL) (m metadata, answered bool, err error) {
	got, err := c.get(ctx, u, "application/json", maxMetadata)
	if err != nil {
		return m, false, err
	}
	if got.status != http.StatusOK {
		return m, true, fmt.Errorf("status %d", got.status)
	}
	o, err := parseObject(got.body)
	if err != nil {
		return m, true, errors.New("the answer is not a JSON object")
	}
	var isText, isAddress bool
	m.issuer, isText = o.text("issuer")
	m.keys, isAddress = o.text("jwks_uri")
	switch {
	case o["keys"] != "":
		return m, true, errors.New("the answer is a set of keys; write jwks_url in place of discovery, with the issuer")
	case !isText || m.issuer == "":
		return m, true, errors.New("the answer names no issuer")
	case !isAddress || m.keys == "":
		return m, true, errors.New("the answer names no jwks_uri")
	}
	return m, true, nil
}

// checkIssuer refuses a metadata document of another issuer than the one
// that was asked for, to the byte (OpenID Connect Discovery section 4.3, RFC 8414 section 3.3):
// otherwise anybody who can publish such a document could sign for the users of another issuer.
// A slash at the end counts too, because the spelling is part of the names of owners.
func checkIssuer(from *source, issuer string) error {
	quoted := strconv.Quote(brief(issuer))
	switch {
	case strings.ContainsAny(issuer, "{}"):
		return fmt.Errorf("the metadata document is for many tenants (issuer %s); name one tenant in discovery, for "+
			"Entra ID as in https://login.microsoftonline.com/TENANT-ID/v2.0, and give each tenant an entry of its own",
			quoted)
	case slices.Contains(from.Issuers, issuer):
		return nil
	}
	return fmt.Errorf("the metadata document is of the issuer %s, expected %s; if the tokens have that iss, "+
		"write it as issuer of this key, else correct discovery; a slash at the end counts", quoted,
		strings.Join(from.Issuers, " or "))
}
