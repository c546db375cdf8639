// Package sqstest starts an imitation of SQS for tests: moto's server, which `make moto` installs.
package sqstest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Start starts a server and returns its address. The server stops at the end of the test. Without moto the test is
// skipped; in CI it fails.
func Start(t testing.TB) (endpoint string) {
	t.Helper()
	server := os.Getenv("KEYWAY_MOTO_SERVER")
	if server == "" {
		const reason = "KEYWAY_MOTO_SERVER is not set; run make moto, which prints the command that sets it"
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		} else {
			t.Skip(reason)
		}
	}
	// #nosec G204 G702 -- the program is chosen by the person who runs the tests
	cmd := exec.CommandContext(context.Background(), server, "-H", "127.0.0.1", "-p", "0")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// The server chooses a free port (-p 0) and prints its address to standard error.
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if at := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(lines.Text()); at != "" {
			go func() { // The server would block if nothing read its output.
				for lines.Scan() {
				}
			}()
			return at
		}
	}
	t.Fatal("moto_server ended without printing its address")
	return ""
}

const (
	region = "eu-west-1"
	id     = "AKIDEXAMPLE"
	secret = "test key only"
)

// Environment returns the environment variables of a program that uses the server.
func Environment(endpoint string) map[string]string {
	return map[string]string{"AWS_REGION": region, "AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret,
		"AWS_ENDPOINT_URL_SQS": endpoint}
}

// Client returns AWS's client for the server, for what a template and Lambda do.
func Client(endpoint string) *sqs.Client {
	return sqs.New(sqs.Options{Region: region, BaseEndpoint: &endpoint, Credentials: aws.CredentialsProviderFunc(
		func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		})})
}
