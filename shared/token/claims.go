package token

import (
	"slices"
	"strconv"
	"time"
)

// restriction is what a token must say besides being signed. The zero value asks
// for nothing.
type restriction struct {
	issuer   string
	audience []string
}

// claims reads a payload whose signature holds, and refuses in PyJWT's order, so
// that a token with two faults gets the text AgentOS 3.1.10 gives.
func (v *Verifier) claims(payload []byte, only restriction) (c Claims, err error) {
	o, err := parseObject(payload)
	if err != nil {
		return c, denyToken("Invalid payload string: %v", err)
	}
	if c.ExpiresAt, err = v.inTime(o); err != nil {
		return c, err
	}
	// null is as good as absent here: it names nobody, and grants nothing.
	var ok bool
	if c.Subject, ok = o.text(v.o.SubjectClaim); !ok {
		return c, denyToken("Subject must be a string")
	}
	if c.ID, ok = o.text("jti"); !ok {
		return c, denyToken("JWT ID must be a string")
	}
	if err = (restriction{v.o.Issuer, v.o.Audience}).admits(o); err != nil {
		return c, err
	}
	// Not instead of the above: a key's own audience can narrow the OS's, never widen it.
	if err = only.admits(o); err != nil {
		return c, err
	}
	if c.Issuer, ok = o.text("iss"); !ok {
		return c, denyToken("Payload Issuer (iss) must be a string")
	}
	if c.SessionID, ok = o.text(v.o.SessionClaim); !ok {
		return c, denyToken("%s must be a string of at most %d bytes", v.o.SessionClaim, maxID)
	}
	c.Scopes = o.list(v.o.ScopesClaim)
	return c, c.check(v.o.SessionClaim)
}

// inTime checks iat, nbf and exp and returns exp, zero when there is none. A future
// iat is refused though RFC 7519 doesn't ask for it: PyJWT does, and such a token
// comes from a broken clock or a forger.
func (v *Verifier) inTime(o object) (time.Time, error) {
	if exp := o["exp"]; v.o.RequireExp && (exp == "" || exp == "null") {
		return time.Time{}, denyToken(`Token is missing the "exp" claim`)
	}
	now := v.o.Now()
	for _, claim := range []struct{ name, label string }{{"iat", "Issued At"}, {"nbf", "Not Before"}} {
		at, err := o.date(claim.name, claim.label)
		if err != nil {
			return at, err
		}
		if at.After(now.Add(v.o.Leeway)) {
			return at, denyToken("The token is not yet valid (%s)", claim.name)
		}
	}
	exp, err := o.date("exp", "Expiration Time")
	if err == nil && !exp.IsZero() && !exp.After(now.Add(-v.o.Leeway)) {
		err = deny("Token has expired")
	}
	return exp, err
}

// lastDate is the last that RFC 3339 can write, 9999-12-31, in Unix seconds.
const lastDate = 253402300799

// date is a NumericDate (RFC 7519 section 2), cut to whole seconds as PyJWT does and
// kept between 1970 and lastDate. Absent is zero, which no date present is.
func (o object) date(name, label string) (time.Time, error) {
	raw, ok := o[name]
	if !ok {
		return time.Time{}, nil
	}
	// JSON's numbers only: text, true and null fail here, and so does 1e400.
	seconds, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return time.Time{}, denyToken("%s claim (%s) must be an integer.", label, name)
	}
	return time.Unix(int64(min(max(seconds, 0), lastDate)), 0).UTC(), nil
}

// admits tells whether the claims are meant for one of the audiences and made by the
// issuer. Both are compared byte by byte, as RFC 7519 section 2 (StringOrURI) has it.
func (r restriction) admits(o object) error {
	if r.audience != nil {
		if raw := o["aud"]; raw == "" || raw == "null" {
			return missing("aud", "Audience")
		}
		ours := func(aud string) bool { return slices.Contains(r.audience, aud) }
		if !slices.ContainsFunc(o.list("aud"), ours) {
			return deny("Invalid token audience - token not valid for this AgentOS instance")
		}
	}
	if r.issuer != "" {
		if raw := o["iss"]; raw == "" || raw == "null" {
			return missing("iss", "Issuer")
		}
		if iss, _ := o.text("iss"); iss != r.issuer {
			return denyToken("Invalid issuer")
		}
	}
	return nil
}

func missing(claim, what string) error {
	return denyToken("Token is missing the %q claim. %s verification requires this claim to be present in the token.",
		claim, what)
}
