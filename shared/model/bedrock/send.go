package bedrock

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// post sends body as JSON to an operation of the model, "converse" or "converse-stream", and
// returns a response with a status of success. The caller must close its body. Failed
// requests are repeated as the retryer decides, which it may do until a response has such a
// status, but not after that.
func (m *Model) post(ctx context.Context, client *http.Client, operation string, body any) (*http.Response, error) {
	data, err := upstream.Encode(body)
	if err != nil {
		return nil, err
	}
	address := m.options.address(operation)
	release := m.retryer.GetInitialToken()
	for try := 1; ; try++ {
		resp, err := m.send(ctx, client, address, data)
		if err == nil {
			return resp, release(nil)
		}
		repeat := m.correctClock(err) || m.retryer.IsErrorRetryable(err)
		if ctx.Err() != nil || !repeat || try >= m.retryer.MaxAttempts() {
			return nil, err
		}
		// The retryer allows a limited number of repetitions as long as most requests fail.
		next, none := m.retryer.GetRetryToken(ctx, err)
		if none != nil {
			return nil, err
		}
		release = next
		wait, failed := m.retryer.RetryDelay(try, err)
		if failed != nil {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// send signs a request and sends it once. Its error is an *httpError or a sendError if the
// request was sent.
func (m *Model) send(ctx context.Context, client *http.Client, address string, data []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", upstream.UserAgent)
	hash := sha256.Sum256(data)
	now, region := time.Now().Add(time.Duration(m.skew.Load())), withoutFIPS(m.options.Region)
	err = m.signer.SignHTTP(ctx, m.credentials, r, hex.EncodeToString(hash[:]), "bedrock", region, now)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r) // #nosec G704 -- the address is the region's or the operator's
	if err != nil {
		return nil, sendError{err}
	}
	if !upstream.IsAnswer(resp) {
		defer func() { _ = resp.Body.Close() }()
		return nil, readHTTPError(resp)
	}
	return resp, nil
}

// address returns the URL of an operation. The signature covers the path, in which AWS
// escapes every byte that is not a letter, a digit or one of "-._~".
func (o Options) address(operation string) string {
	id := strings.ReplaceAll(url.QueryEscape(o.ID), "+", "%20")
	base := o.BaseURL
	if base == "" {
		base = endpoint(o.Region)
	}
	return upstream.Address(base, "/model/"+id+"/"+operation)
}

// suffixes are the domains of AWS's partitions, by the beginning of the names of their regions
// (https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html). All other regions
// have amazonaws.com.
var suffixes = [...]struct{ region, domain string }{
	{"cn-", "amazonaws.com.cn"}, {"eusc-de-", "amazonaws.eu"}, {"us-iso-", "c2s.ic.gov"}, {"us-isob-", "sc2s.sgov.gov"},
	{"eu-isoe-", "cloud.adc-e.uk"}, {"us-isof-", "csp.hci.ic.gov"},
}

// endpoint returns AWS's own address for a region. A name such as fips-us-east-1 means the
// region's endpoint with FIPS 140 cryptography, as in AWS's SDKs.
func endpoint(region string) string {
	service, domain := "bedrock-runtime", "amazonaws.com"
	if plain := withoutFIPS(region); plain != region {
		service, region = service+"-fips", plain
	}
	for _, s := range suffixes {
		if strings.HasPrefix(region, s.region) {
			domain = s.domain
		}
	}
	return "https://" + service + "." + region + "." + domain
}

// withoutFIPS returns a region's own name.
func withoutFIPS(region string) string {
	return strings.NewReplacer("-fips-", "-", "fips-", "", "-fips", "").Replace(region)
}

// skewed is by how much this computer's clock must differ from AWS's to be the reason for a
// refused signature. AWS accepts five minutes.
const skewed = 4 * time.Minute

// mayBeSkewed holds the codes by which AWS refuses signatures, among them those of a wrong time.
var mayBeSkewed = map[string]bool{
	"InvalidSignatureException": true, "SignatureDoesNotMatch": true, "AuthFailure": true,
	"RequestTimeTooSkewed": true, "AccessDeniedException": true,
}

// correctClock reports whether err may come from this computer's clock. If so, all further
// signatures have the time of AWS's clock.
func (m *Model) correctClock(err error) bool {
	e, ok := errors.AsType[*httpError](err)
	if !ok || !mayBeSkewed[e.code] {
		return false
	}
	at, err := http.ParseTime(e.header.Get("Date"))
	skew := time.Until(at)
	if err != nil || (skew-time.Duration(m.skew.Load())).Abs() <= skewed {
		return false
	}
	m.skew.Store(int64(skew))
	return true
}
