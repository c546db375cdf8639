package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// printed collects the output of a server while a test waits for a text in it.
type printed struct {
	parts chan string
	all   strings.Builder
}

func (p *printed) Write(text []byte) (int, error) {
	p.parts <- string(text)
	return len(text), nil
}

// await waits until the output matches the pattern, and returns the match.
func (p *printed) await(t *testing.T, pattern string) []string {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for re := regexp.MustCompile(pattern); ; {
		if m := re.FindStringSubmatch(p.all.String()); m != nil {
			return m
		}
		select {
		case part := <-p.parts:
			p.all.WriteString(part)
		case <-deadline:
			t.Fatalf("keyway did not print %s but\n%s", pattern, p.all.String())
		}
	}
}

// serveAt runs keyway serve --dev in this process until the test ends, because a process
// can't get a clock from a test. Package acceptance tests servers with the real clock, as
// processes.
func serveAt(t *testing.T, now func() time.Time, file string, vars map[string]string) *printed {
	t.Helper()
	out := &printed{parts: make(chan string, 1000)}
	args := []string{"serve", "--dev", "--addr", "127.0.0.1:0", "--config", file, "--data", t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if code := Run(ctx, args, Options{Stderr: out, LookupEnv: testEnv(vars).lookup, Now: now}); code != 0 {
			t.Errorf("keyway serve exits %d", code)
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	return out
}

// get sends a GET request with a token.
func get(t *testing.T, url, token string) *httptest.ResponseRecorder {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := httptest.NewRecorder()
	got.Code = resp.StatusCode
	for name := range resp.Header {
		got.Header().Set(name, resp.Header.Get(name))
	}
	if _, err := got.Body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return got
}
