package bedrock_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// The hosts are those of AWS's SDK.
func TestEachPartitionOfAWSHasItsOwnHost(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"ap-southeast-7":     "bedrock-runtime.ap-southeast-7.amazonaws.com",
		"us-gov-west-1":      "bedrock-runtime.us-gov-west-1.amazonaws.com",
		"cn-north-1":         "bedrock-runtime.cn-north-1.amazonaws.com.cn",
		"eusc-de-east-1":     "bedrock-runtime.eusc-de-east-1.amazonaws.eu",
		"us-iso-east-1":      "bedrock-runtime.us-iso-east-1.c2s.ic.gov",
		"us-isob-east-1":     "bedrock-runtime.us-isob-east-1.sc2s.sgov.gov",
		"eu-isoe-west-1":     "bedrock-runtime.eu-isoe-west-1.cloud.adc-e.uk",
		"us-isof-south-1":    "bedrock-runtime.us-isof-south-1.csp.hci.ic.gov",
		"fips-us-east-1":     "bedrock-runtime-fips.us-east-1.amazonaws.com",
		"fips-us-gov-west-1": "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
	} {
		var host, signed string
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			host, signed = r.URL.Host, r.Header.Get("Authorization")
			return nil, io.ErrUnexpectedEOF
		})}
		o := bedrock.Options{ID: "m", Region: region, Credentials: credentials, HTTPClient: client}
		modeltest.Collect(t.Context(), t, bedrock.NewOnce(o), modeltest.Ask("hello"))
		if host != want {
			t.Errorf("%s: request to %s, want %s", region, host, want)
		}
		// AWS refuses a signature for any other name than the region's own.
		if own := strings.Split(want, ".")[1]; !strings.Contains(signed, "/"+own+"/bedrock/aws4_request,") {
			t.Errorf("%s: signed as %s", region, signed)
		}
	}
}

// A computer whose clock is wrong by more than AWS accepts signs with AWS's time, from the second attempt on.
func TestAWrongClockIsCorrectedByAWSsTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code     string
		ahead    time.Duration
		attempts int
	}{
		{"InvalidSignatureException", time.Hour, 2},
		{"InvalidSignatureException", -time.Hour, 2},
		{"InvalidSignatureException", time.Minute, 1}, // the reason is another one
		{"ExpiredTokenException", time.Hour, 1},
	} {
		attempts := 0
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			attempts++
			now := time.Now().Add(c.ahead)
			signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
			response := &http.Response{StatusCode: http.StatusForbidden, Request: r, Header: http.Header{
				"Date": {now.UTC().Format(http.TimeFormat)}, "X-Amzn-Errortype": {c.code},
			}, Body: io.NopCloser(strings.NewReader("{}"))}
			if err == nil && now.Sub(signed).Abs() < 10*time.Second {
				response.StatusCode = http.StatusTeapot
				response.Header.Set("X-Amzn-Errortype", "Accepted")
			}
			return response, nil
		})}
		m := bedrock.NewWithoutPauses(bedrock.Options{
			ID: "m", Region: "eu-central-1", Credentials: credentials, HTTPClient: client,
		})
		a := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
		accepted := strings.Contains(fault.Detail(a.Err), "418")
		if attempts != c.attempts || accepted != (c.attempts == 2) {
			t.Errorf("%s, %v ahead: %d attempts, then %v", c.code, c.ahead, attempts, a.Err)
		}
		if modeltest.Collect(t.Context(), t, m, modeltest.Ask("again")); accepted && attempts != 3 {
			t.Errorf("the next request was sent %d times", attempts-2)
		}
	}
}

func TestAModelThatIsNotReadyIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, failAs(429, "ModelNotReadyException", "loading"))
	a := modeltest.Collect(t.Context(), t, bedrock.NewWithoutPauses(optionsFor(t, srv)), modeltest.Ask("hello"))
	if n := len(srv.Requests()); n != 1 || fault.KindOf(a.Err) != fault.Unavailable || fault.Detail(a.Err) != "loading" {
		t.Errorf("%d requests, error %v", n, a.Err)
	}
}
