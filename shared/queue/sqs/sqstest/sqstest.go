// Package sqstest is an imitation of SQS for tests: moto's, which make moto installs.
// It knows no run and no function.
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

// Start gives the address of a server that ends with the test. Without moto the test
// is skipped; in CI it fails.
func Start(t testing.TB) (endpoint string) {
	t.Helper()
	server := os.Getenv("KEYWAY_MOTO_SERVER")
	if server == "" {
		if reason := "KEYWAY_MOTO_SERVER names no moto_server; run make moto, which says what to set"; os.Getenv("CI") != "" {
			t.Fatal(reason)
		} else {
			t.Skip(reason)
		}
	}
	cmd := exec.CommandContext(context.Background(), server, "-H", "127.0.0.1", "-p", "0") // #nosec G204 G702 -- who runs the tests names it
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if at := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(lines.Text()); at != "" {
			go func() { // or it would block
				for lines.Scan() {
				}
			}()
			return at
		}
	}
	t.Fatal("moto_server ended without an address")
	return ""
}

const (
	region = "eu-west-1"
	id     = "AKIDEXAMPLE"
	secret = "test key only"
)

// Environment is what a program has in its environment to reach the server.
func Environment(endpoint string) map[string]string {
	return map[string]string{"AWS_REGION": region, "AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL_SQS": endpoint}
}

// Client is the service's own, for what a template and Lambda do.
func Client(endpoint string) *sqs.Client {
	return sqs.New(sqs.Options{Region: region, BaseEndpoint: &endpoint, Credentials: aws.CredentialsProviderFunc(
		func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		})})
}
