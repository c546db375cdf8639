// Package otlp exports the spans of a process to a collector, by OTLP over HTTP. It decides nothing about the spans:
// the environment variables of OpenTelemetry choose the collector, what is sampled, and the name of the service.
//
// OpenTelemetry's own exporter links gRPC and adds 8.6 MB to each program; see docs/adr/0026. Its SDK, which this
// package uses, makes and batches the spans.
package otlp

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/keyway-agents/keyway/shared/trace"
)

// Open returns the exporter that the environment asks for, or trace.None. An error names the variable that
// can't be used. The variables are those of https://opentelemetry.io/docs/specs/otel/protocol/exporter/ for
// http/protobuf; the SDK reads those of the sampler, the batches and the resource itself.
func Open(lookup func(string) (string, bool), version string, log *slog.Logger) (trace.Exporter, error) {
	c, err := configure(lookup)
	if err != nil || c == nil {
		return trace.None(), err
	}
	about, err := service(lookup, version)
	if err != nil {
		return trace.None(), err
	}
	// The SDK reports what it can't export here. There is one for the whole process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans were not exported", "err", err) }))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(c), sdk.WithResource(about))
	return trace.Exporter{
		Tracer: provider.Tracer(trace.Scope), Flush: provider.ForceFlush, Close: provider.Shutdown,
		Lost: c.lost.Load,
	}, nil
}

// service describes this program. The environment has precedence.
func service(lookup func(string) (string, bool), version string) (*resource.Resource, error) {
	name, _ := lookup("OTEL_SERVICE_NAME")
	about, err := resource.Merge(resource.NewSchemaless(attribute.String("service.version", version),
		attribute.String("service.name", "keyway")), resource.Environment())
	if err == nil && name != "" {
		about, err = resource.Merge(about, resource.NewSchemaless(attribute.String("service.name", name)))
	}
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return about, nil
}

// configure returns the collector that the environment names, or nil.
func configure(lookup func(string) (string, bool)) (*collector, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if v, _ := lookup(name); v != "" {
				return v
			}
		}
		return ""
	}
	if disabled, _ := strconv.ParseBool(get("OTEL_SDK_DISABLED")); disabled || get("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	address := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	if base := get("OTEL_EXPORTER_OTLP_ENDPOINT"); address == "" && base != "" {
		address = strings.TrimSuffix(base, "/") + "/v1/traces"
	}
	if address == "" {
		return nil, nil
	}
	c := &collector{}
	if at, err := url.Parse(address); err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errors.New("OTEL_EXPORTER_OTLP_ENDPOINT must be an http or https URL, such as http://localhost:4318")
	}
	c.url = address
	if p := get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p != "" && p != "http/protobuf" {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %.40q; only http/protobuf is supported (port 4318)", p)
	}
	switch v := get("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"); v {
	case "", "none":
	case "gzip":
		c.gzip = true
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_COMPRESSION is %.40q; use gzip or none", v)
	}
	var err error
	c.header, err = headers(get("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"))
	if err != nil {
		return nil, err
	}
	patience, err := strconv.Atoi(cmp.Or(get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"), "10000"))
	if err != nil || patience <= 0 {
		return nil, errors.New("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds")
	}
	c.client, err = client(get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"))
	if err != nil {
		return nil, err
	}
	c.client.Timeout = time.Duration(patience) * time.Millisecond
	return c, nil
}

// headers parses "name=value,name=value" with values in percent-encoding. An error doesn't show the text,
// which may have a key.
func headers(text string) (http.Header, error) {
	h := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, encoded, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(encoded))
		if name = strings.TrimSpace(name); !ok || err != nil || name == "" {
			return nil, errors.New("OTEL_EXPORTER_OTLP_HEADERS must be a list such as name=value,name=value")
		}
		h.Set(name, value)
	}
	return h, nil
}

// client returns the HTTP client of the collector. ca is the path of a file with certificates, or "".
func client(ca string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("OTEL_EXPORTER_OTLP_CERTIFICATE: the file has no certificate in PEM form")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // The headers may have a key of the collector.
	}}, nil
}

// collector is where spans are sent to. It implements the SDK's SpanExporter.
type collector struct {
	url    string
	header http.Header
	gzip   bool
	client *http.Client
	lost   atomic.Int64 // spans
}

// Shutdown implements the SDK's SpanExporter.
func (c *collector) Shutdown(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// firstPause is how long the exporter waits before it tries again. It waits twice as long before each further try.
const firstPause = time.Second

// ExportSpans implements the SDK's SpanExporter. It tries again for as long as ctx lasts, which the SDK bounds, if the
// collector can't be reached or asks for it.
func (c *collector) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) (err error) {
	defer func() {
		if err != nil {
			c.lost.Add(int64(len(spans)))
		}
	}()
	body := encode(spans)
	if c.gzip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(body) // A bytes.Buffer returns no errors.
		_ = z.Close()
		body = b.Bytes()
	}
	for pause := firstPause; ; pause *= 2 {
		asked, err := c.send(ctx, body)
		if err == nil || asked < 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(asked, pause)):
		}
	}
}

// maxAnswer is how much of the collector's answer is read, in bytes.
const maxAnswer = 64 << 10

// send sends one request. After an error it returns how long the collector asks to wait, or a negative time if another
// try would fail as well.
func (c *collector) send(ctx context.Context, body []byte) (time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	r.Header = c.header.Clone()
	r.Header.Set("Content-Type", "application/x-protobuf")
	if c.gzip {
		r.Header.Set("Content-Encoding", "gzip")
	}
	answer, err := c.client.Do(r)
	if err != nil {
		return 0, fmt.Errorf("the collector can't be reached: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode < 300 {
		return 0, nil
	}
	err = fmt.Errorf("the collector answers %d", answer.StatusCode)
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return time.Duration(max(seconds, 0)) * time.Second, err
	}
	return -1, err
}
