// Package sqstest starts imitations of SQS for tests: moto's server, which `make moto` installs, and ElasticMQ's, which
// `make programs` installs.
package sqstest

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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
	return listen(t, regexp.MustCompile(`http://127\.0\.0\.1:\d+`), server, "-H", "127.0.0.1", "-p", "0")
}

// StartElasticMQ is Start for ElasticMQ. Without KEYWAY_PROGRAMS the test is skipped.
func StartElasticMQ(t testing.TB) (endpoint string) {
	t.Helper()
	programs := os.Getenv("KEYWAY_PROGRAMS")
	if programs == "" {
		t.Skip("KEYWAY_PROGRAMS is not set; run make programs, which prints the command that sets it")
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	listen(t, regexp.MustCompile(`Started SQS rest server`), "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Drest-sqs.bind-hostname=127.0.0.1", "-Drest-sqs.bind-port="+port, "-Drest-sqs.sqs-limits=strict",
		"-Dnode-address.host=127.0.0.1", "-Dnode-address.port="+port, "-Drest-stats.enabled=false",
		"-cp", filepath.Join(programs, "elasticmq", "lib", "*"), "org.elasticmq.server.Main")
	return "http://127.0.0.1:" + port
}

// listen starts a server that ends with the test, and returns the first match of ready in its output, by which it
// reports that it listens.
func listen(t testing.TB, ready *regexp.Regexp, command string, args ...string) string {
	t.Helper()
	// #nosec G204 G702 -- the program is chosen by the person who runs the tests
	cmd := exec.CommandContext(context.Background(), command, args...)
	output, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var printed strings.Builder
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if found := ready.FindString(lines.Text()); found != "" {
			go func() { // The server would block if nothing read its output.
				for lines.Scan() {
				}
			}()
			return found
		}
		printed.WriteString(lines.Text() + "\n")
	}
	t.Fatalf("%s ended before it listened:\n%s", filepath.Base(command), &printed)
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
