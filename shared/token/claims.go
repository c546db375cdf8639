package token

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// For is what a token is accepted for.
type For int

// The zero value is what every token is accepted for that no audience keeps away.
const (
	// ForAPI is everything but the door for MCP.
	ForAPI For = iota
	// ForBoth is everything.
	ForBoth
	// ForMCP is the door for MCP and nothing else: aud names that door, and none of the audiences that are required.
	ForMCP
)

// restriction is what the claims must contain. The zero value requires nothing.
type restriction struct {
	issuers  []string
	audience []string
}

// claims reads the payload of a token whose signature was verified. from is the source of
// the key that verified it. The checks are in PyJWT's order, so that a token with two
// errors gets the text that AgentOS 3.1.10 sends.
func (v *Verifier) claims(p parts, from *source) (c Claims, err error) {
	o, err := parseObject(p.payload)
	if err != nil {
		return c, denyToken("Invalid payload string: %v", err)
	}
	var note func(Ignored)
	if x := p.explain; x != nil {
		x.saw(o, p.header, from)
		note = func(i Ignored) { x.Ignored = append(x.Ignored, i) }
	}
	if err = v.inTime(o, &c); err != nil {
		return c, err
	}
	// null is the same as absent: it names no user and grants nothing.
	var ok bool
	if c.Subject, ok, err = from.Subject.text(o); !ok {
		err = denyToken("Subject must be a string")
	}
	if err != nil {
		return c, err
	}
	if c.ID, ok = o.text("jti"); !ok {
		return c, denyToken("JWT ID must be a string")
	}
	if slices.ContainsFunc(o.list("aud"), func(aud string) bool { return slices.Contains(v.o.MCP, aud) }) {
		c.For = ForBoth
	}
	if err = v.everyToken.check(o, &c.For); err != nil {
		return c, err
	}
	// In addition to the check above, not instead of it: the audience of a source can narrow
	// the audience of the OS, and never widens it.
	if err = from.check(o, p.header, &c.For); err != nil {
		return c, err
	}
	if c.Issuer, ok = o.text("iss"); !ok {
		return c, denyToken("Payload Issuer (iss) must be a string")
	}
	c.Source, c.Realm = from.name, from.realm
	if from.realm != "" {
		c.Issuer = from.realm // whichever of its spellings the token has
	}
	if c.SessionID, ok, err = from.Session.text(o); !ok {
		err = denyToken("%s must be a string of at most %d bytes", from.Session, maxID)
	}
	if err != nil {
		return c, err
	}
	if err = from.grant(&c, o, note); err != nil {
		return c, err
	}
	if p.explain != nil {
		p.explain.Limits = from.limitOrigins(o, c.Limits)
	}
	if c.Subject == "" {
		c.SubjectClaim = clipped(from.Subject.String())
	}
	if len(c.Scopes) == 0 {
		c.Absent, c.Unread = from.explainNone(o)
	}
	return c, c.check(from.Session.String())
}

// inTime checks iat, nbf and exp, and sets iat and exp, which are zero if the token has none.
// It refuses a token whose iat is in the future. RFC 7519 section 4.1.6 doesn't require
// that, but PyJWT does it, and such a token is from a wrong clock or from an attacker.
func (v *Verifier) inTime(o object, c *Claims) (err error) {
	if exp := o["exp"]; v.o.RequireExp && (exp == "" || exp == "null") {
		return denyToken(`Token is missing the "exp" claim`)
	}
	// The leeway makes each of the three checks more lenient, never stricter.
	now := v.o.Now()
	for _, claim := range []struct{ name, label string }{{"iat", "Issued At"}, {"nbf", "Not Before"}} {
		at, err := o.date(claim.name, claim.label)
		if err != nil {
			return err
		}
		if at.After(now.Add(v.o.Leeway)) {
			return denyToken("The token is not yet valid (%s)", claim.name)
		}
		if claim.name == "iat" {
			c.IssuedAt = at
		}
	}
	c.ExpiresAt, err = o.date("exp", "Expiration Time")
	if err == nil && !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(now.Add(-v.o.Leeway)) {
		err = deny("Token has expired")
	}
	return err
}

// lastDate is the last date that RFC 3339 can represent, 9999-12-31, in Unix seconds.
const lastDate = 253402300799

// date returns a NumericDate (RFC 7519 section 2) in whole seconds, rounded down as in
// PyJWT, and limited to the time between 1970 and lastDate. An absent claim is the zero
// time, which no present claim is.
func (o object) date(name, label string) (time.Time, error) {
	raw, ok := o[name]
	if !ok {
		return time.Time{}, nil
	}
	// Only numbers of JSON pass: ParseFloat refuses text, true and null, and 1e400 too.
	seconds, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return time.Time{}, denyToken("%s claim (%s) must be an integer.", label, name)
	}
	return time.Unix(int64(min(max(seconds, 0), lastDate)), 0).UTC(), nil
}

// check refuses claims that are not from the issuer or not for any of the audiences.
// Both are compared byte by byte (RFC 7519 section 2, StringOrURI). RFC 8725 sections 3.8
// and 3.9 require these two checks: without them, a token that the same issuer made for
// another service would be accepted here.
//
// A token whose aud names the door for MCP passes the check of audiences in any case: its issuer made it for that door
// (RFC 8707). If it names none of the audiences, it is for nothing else.
func (r restriction) check(o object, to *For) error {
	// aud may be one string or a list (RFC 7519 section 4.1.3). One match is enough.
	ours := func(aud string) bool { return slices.Contains(r.audience, aud) }
	if r.audience != nil && *to != ForAPI {
		if !slices.ContainsFunc(o.list("aud"), ours) {
			*to = ForMCP
		}
	} else if r.audience != nil {
		if raw := o["aud"]; raw == "" || raw == "null" {
			return missing("aud", "Audience", r.audience)
		}
		if !slices.ContainsFunc(o.list("aud"), ours) {
			return denyBecause(mismatch("aud", o["aud"], r.audience),
				"Invalid token audience - token not valid for this AgentOS instance")
		}
	}
	if len(r.issuers) > 0 {
		if raw := o["iss"]; raw == "" || raw == "null" {
			return missing("iss", "Issuer", r.issuers)
		}
		if iss, _ := o.text("iss"); !slices.Contains(r.issuers, iss) {
			return denyBecause(mismatch("iss", o["iss"], r.issuers),
				"Invalid token: Invalid issuer")
		}
	}
	return nil
}

// missing is PyJWT's MissingRequiredClaimError. what is the name of the claim in words.
func missing(claim, what string, expected []string) error {
	return denyBecause(mismatch(claim, "", expected), fmt.Sprintf("Invalid token: Token is missing the %q claim. "+
		"%s verification requires this claim to be present in the token.", claim, what))
}
