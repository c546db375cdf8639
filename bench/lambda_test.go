package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// empty builds the function that answers null, with a log to write to.
func empty(t *testing.T) *function {
	t.Helper()
	program := filepath.Join(t.TempDir(), "empty")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./emptylambda")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return &function{
		subject:  &subject{name: "empty", log: log},
		programs: func(string) []string { return []string{program} },
	}
}

func TestAFunctionAnswersSeveralEvents(t *testing.T) {
	t.Parallel()
	f := empty(t)
	init, err := f.launch(t.Context(), "agents", nil)
	if err != nil || init <= 0 {
		t.Fatal(init, err)
	}
	t.Cleanup(f.end)
	for range 3 {
		if body, err := f.api.invoke(t.Context(), []byte(`{}`), f.done); err != nil || string(body) != "null" {
			t.Errorf("%q, %v", body, err)
		}
	}
	if err := f.listAgents(t.Context()); err == nil || !strings.Contains(err.Error(), `the function answered "null"`) {
		t.Errorf("an invalid answer: %v", err)
	}
	if u, err := f.usage(); err != nil || u.peak == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	f.end()
	if _, err := f.api.invoke(t.Context(), []byte(`{}`), f.done); err == nil {
		t.Error("a function that ended answers")
	}
}

func TestAFunctionThatEndsTooEarlyIsReportedWithItsLog(t *testing.T) {
	t.Parallel()
	f := empty(t)
	f.programs = func(string) []string { return []string{"sh", "-c", "echo no key >&2"} }
	if _, err := f.launch(t.Context(), "agents", nil); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("got %v", err)
	}
}

func TestRequestsBecomeEventsAndAnswersBecomeResponses(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://bench/sessions?type=agent&limit=20",
		strings.NewReader("a body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer t")
	data, err := proxyEvent(r, map[string]any{"sub": "ann"})
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Path, HTTPMethod, Body          string
		IsBase64Encoded                 bool
		MultiValueHeaders               http.Header
		MultiValueQueryStringParameters map[string][]string
		RequestContext                  struct{ Authorizer map[string]any }
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	body, _ := base64.StdEncoding.DecodeString(e.Body)
	got := []any{
		e.Path, e.HTTPMethod, string(body), e.IsBase64Encoded, e.MultiValueHeaders.Get("Authorization"),
		e.MultiValueQueryStringParameters["limit"], e.RequestContext.Authorizer["sub"],
	}
	if diff := cmp.Diff([]any{"/sessions", "POST", "a body", true, "Bearer t", []string{"20"}, "ann"}, got); diff != "" {
		t.Error(diff)
	}
	for answer, want := range map[string]string{
		`{"statusCode":200,"body":"whole"}`:                                         "whole",
		`{"statusCode":200,"body":"d2hvbGU=","isBase64Encoded":true}`:               "whole",
		`{"statusCode":200}` + strings.Repeat("\x00", 8) + "event: a\n\nevent: b\n": "event: a\n\nevent: b\n",
	} {
		resp, err := proxyResponse(r, []byte(answer))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want || resp.StatusCode != 200 {
			t.Errorf("%q is read as %d %q", answer, resp.StatusCode, body)
		}
	}
	for _, answer := range []string{"", "null", `{"errorMessage":"no"}`} {
		if resp, err := proxyResponse(r, []byte(answer)); err == nil {
			resp.Body.Close()
			t.Errorf("%q is accepted as an answer", answer)
		}
	}
}

func TestZipSizeIsTheCompressedSize(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bootstrap")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if size, err := zipSize(map[string]string{"bootstrap": file}); err != nil || size < 100 || size > 4096 {
		t.Errorf("a megabyte of zeros is %d bytes, %v", size, err)
	}
	if _, err := zipSize(map[string]string{"bootstrap": file + "-not-there"}); err == nil {
		t.Error("a file that isn't there has a size")
	}
}
