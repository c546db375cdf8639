package lambdahttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// proxyHeaders is the prefix of the headers in which AWS's adapter for frameworks (aws-lambda-go-api-proxy) passes on
// the event's context, the authorizer's answer included. Keyway reads the context of the
// event itself, and removes such headers from the client's request: a client that sends
// one tries to impersonate another principal.
const proxyHeaders = "X-Golambdaproxy-"

// request converts the event to the request that the local server would receive.
//
// API Gateway has decoded the event's path once, and it is used as it is: it is no URL, in which a literal ? would
// begin the query. Only slashes that the client escaped stay so in its RawPath: they are part of a
// parameter.
//
// The context has the authorizer's principal. A missing or malformed authorizer context leaves the request anonymous,
// and only public routes answer it.
func request(ctx context.Context, in *lambdaruntime.Invocation) (*http.Request, error) {
	e, err := decode(in.Event)
	if err != nil {
		return nil, notARequest(err)
	}
	method := cmp.Or(strings.ToUpper(e.method), http.MethodGet)
	if !isToken(method) {
		return nil, notARequest(fmt.Errorf("the method is %.20q", method))
	}
	r := &http.Request{
		Method: method, URL: &url.URL{Scheme: "https", Host: e.domain, RawQuery: e.query},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: e.headers, Body: http.NoBody,
		RemoteAddr: e.source, Host: cmp.Or(e.headers.Get("Host"), e.domain),
	}
	r.URL.Path, r.URL.RawPath = escaped(withoutBase(e), e)
	r.RequestURI = r.URL.RequestURI()
	if e.body != "" {
		sent := strings.NewReader(e.body)
		r.Body, r.ContentLength = io.NopCloser(sent), int64(len(e.body))
		if e.base64 {
			data, err := base64.StdEncoding.DecodeString(e.body)
			if err != nil {
				return nil, notARequest(err)
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		}
	}
	r.Header.Del("Host")
	// API Gateway passes a compressed body on as base64, because the media types of text are not binary for it. So a
	// handler must not compress its answer.
	r.Header.Del("Accept-Encoding")
	for name := range r.Header {
		if strings.HasPrefix(name, proxyHeaders) {
			delete(r.Header, name)
		}
	}
	i := invocation{id: in.ID}
	switch p, err := e.authorizer.Principal(); {
	case err == nil:
		i.principal = p.Hash
		ctx = authz.WithPrincipal(ctx, p)
	case !e.authorizer.Empty():
		i.refused = fault.Reason(err)
	}
	return r.WithContext(context.WithValue(ctx, invocationKey{}, i)), nil
}

func notARequest(err error) error {
	return fmt.Errorf("the event is not a request of API Gateway: %w", err)
}

// isToken reports whether a method is one that HTTP allows (RFC 9110, section 5.6.2).
func isToken(method string) bool {
	for _, c := range []byte(method) {
		if !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' ||
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return true
}

// invocation is what the log line of a request has of its event, and invocationKey its key in the request's context.
type (
	invocation    struct{ id, principal, refused string }
	invocationKey struct{}
)

// escaped returns the path, and its form in which the slashes inside parameters are escaped; ""
// if there are none. API Gateway matches a parameter such as {session_id} with one segment of
// the path as it was sent, so each slash in its value was escaped.
func escaped(path string, e event) (decoded, raw string) {
	within := false
	for _, parameter := range e.parameters {
		name, value := parameter[0], parameter[1]
		if v, err := url.PathUnescape(value); err == nil {
			value = v
		}
		if !strings.Contains(value, "/") || !strings.Contains(e.resource, "{"+name+"}") {
			continue
		}
		if !within {
			raw, within = (&url.URL{Path: path}).EscapedPath(), true
		}
		plain := (&url.URL{Path: "/" + value}).EscapedPath()
		if strings.Contains(raw, plain) {
			raw = strings.Replace(raw, plain, "/"+strings.ReplaceAll(plain[1:], "/", "%2F"), 1)
		} else { // slashes at the end are missing in the path
			path, raw = path+"/", raw+"%2F"
		}
	}
	return path, raw
}

// withoutBase returns the event's path without the base path of a custom domain. API
// Gateway leaves a base path in the event ("/os/agents" for a domain that maps /os to
// this API).
//
// A client must not be able to choose what is removed: then the authorizer and the
// handler could see different paths. API Gateway asked the authorizer about the resource
// that it matched and the parameters in it. The path is therefore cut to exactly those,
// or left unchanged. A parameter can be given as the client sent it or decoded, so both
// forms are compared.
func withoutBase(e event) string {
	path := strings.TrimRight(e.path, "/")
	asSent, known := matched(e, func(s string) (string, error) { return s, nil })
	decoded, decodes := matched(e, url.PathUnescape)
	if known && path == asSent || decodes && path == decoded {
		return e.path
	}
	ends := []string{asSent}
	if decodes {
		ends = append(ends, decoded)
	}
	for _, end := range ends {
		if base, ok := strings.CutSuffix(path, end); ok && known && isBase(base) {
			return cmp.Or(e.path[len(base):], "/")
		}
	}
	return e.path
}

// matched returns the resource that API Gateway matched, with its parameters filled in;
// read converts the value of a parameter. ok is false if the event names no resource, or
// a parameter is missing or can't be converted.
func matched(e event, read func(string) (string, error)) (path string, ok bool) {
	var b strings.Builder
	for segment := range strings.SplitSeq(strings.Trim(e.resource, "/"), "/") {
		if name, isParameter := strings.CutPrefix(segment, "{"); isParameter {
			value, err := read(e.parameter(strings.TrimSuffix(name, "}")))
			if err != nil || value == "" {
				return "", false
			}
			segment = value
		}
		if segment != "" {
			b.WriteString("/" + segment)
		}
	}
	return b.String(), e.resource != ""
}

// isBase reports whether path can be a base path: one or more segments, of which none is
// empty, "." or "..".
func isBase(path string) bool {
	segments := strings.Split(path, "/")
	notASegment := func(s string) bool { return s == "" || s == "." || s == ".." }
	return len(segments) > 1 && segments[0] == "" && !slices.ContainsFunc(segments[1:], notASegment)
}

// noted adds what is known of the event to the log line of the request.
func noted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		i, _ := ctx.Value(invocationKey{}).(invocation)
		logging.Note(ctx, "aws_request_id", i.id)
		logging.Note(ctx, "principal", i.principal)
		logging.Note(ctx, "refused", i.refused)
		next.ServeHTTP(w, r)
	})
}
