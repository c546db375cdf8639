package lambdahttp

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
)

// proxyHeaders is the prefix of the headers in which aws-lambda-go-api-proxy can pass on
// the event's context, the authorizer's answer included. Keyway reads the context of the
// event itself, and removes such headers from the client's request: a client that sends
// one tries to impersonate another principal.
const proxyHeaders = "X-Golambdaproxy-"

// request converts the event to the request that the local server would receive.
//
// API Gateway has decoded the event's path once, and it is used as it is. The proxy
// library would parse it as a URL: a literal ? would begin the query, and a single %
// would fail the invocation. So the path is escaped for the library, and set again
// afterwards. Only slashes that the client escaped stay so in its RawPath: they are part of a
// parameter.
func request(ctx context.Context, e events.APIGatewayProxyRequest) (*http.Request, error) {
	path := withoutBase(e)
	e.Path = (&url.URL{Path: path}).EscapedPath()
	r, err := new(core.RequestAccessor).EventToRequestWithContext(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("the event is not a request of API Gateway: %w", err)
	}
	r.URL.Path, r.URL.RawPath = escaped(path, e)
	r.RequestURI = r.URL.RequestURI()
	r.RemoteAddr = e.RequestContext.Identity.SourceIP
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.Header.Del("Host")
	// API Gateway passes a compressed body on as base64, because the media types of text are not binary for it. So a
	// handler must not compress its answer.
	r.Header.Del("Accept-Encoding")
	for name := range r.Header {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), proxyHeaders) {
			delete(r.Header, name)
		}
	}
	return r, nil
}

// escaped returns the path, and its form in which the slashes inside parameters are escaped; ""
// if there are none. API Gateway matches a parameter such as {session_id} with one segment of
// the path as it was sent, so each slash in its value was escaped.
func escaped(path string, e events.APIGatewayProxyRequest) (decoded, raw string) {
	raw = (&url.URL{Path: path}).EscapedPath()
	within := false
	for name, value := range e.PathParameters {
		if v, err := url.PathUnescape(value); err == nil {
			value = v
		}
		if !strings.Contains(value, "/") || !strings.Contains(e.Resource, "{"+name+"}") {
			continue
		}
		within = true
		plain := (&url.URL{Path: "/" + value}).EscapedPath()
		if strings.Contains(raw, plain) {
			raw = strings.Replace(raw, plain, "/"+strings.ReplaceAll(plain[1:], "/", "%2F"), 1)
		} else { // slashes at the end are missing in the path
			path, raw = path+"/", raw+"%2F"
		}
	}
	if !within {
		raw = ""
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
func withoutBase(e events.APIGatewayProxyRequest) string {
	path := strings.TrimRight(e.Path, "/")
	asSent, known := matched(e, func(s string) (string, error) { return s, nil })
	decoded, decodes := matched(e, url.PathUnescape)
	if known && path == asSent || decodes && path == decoded {
		return e.Path
	}
	ends := []string{asSent}
	if decodes {
		ends = append(ends, decoded)
	}
	for _, end := range ends {
		if base, ok := strings.CutSuffix(path, end); ok && known && isBase(base) {
			return cmp.Or(e.Path[len(base):], "/")
		}
	}
	return e.Path
}

// matched returns the resource that API Gateway matched, with its parameters filled in;
// read converts the value of a parameter. ok is false if the event names no resource, or
// a parameter is missing or can't be converted.
func matched(e events.APIGatewayProxyRequest, read func(string) (string, error)) (path string, ok bool) {
	var b strings.Builder
	for segment := range strings.SplitSeq(strings.Trim(e.Resource, "/"), "/") {
		if name, isParameter := strings.CutPrefix(segment, "{"); isParameter {
			value, err := read(e.PathParameters[strings.TrimSuffix(name, "}")])
			if err != nil || value == "" {
				return "", false
			}
			segment = value
		}
		if segment != "" {
			b.WriteString("/" + segment)
		}
	}
	return b.String(), e.Resource != ""
}

// isBase reports whether path can be a base path: one or more segments, of which none is
// empty, "." or "..".
func isBase(path string) bool {
	segments := strings.Split(path, "/")
	notASegment := func(s string) bool { return s == "" || s == "." || s == ".." }
	return len(segments) > 1 && segments[0] == "" && !slices.ContainsFunc(segments[1:], notASegment)
}

// withCaller stores the authorizer's principal in the request's context. A missing or
// malformed authorizer context leaves the request anonymous, and only public routes
// answer it.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		gateway, _ := core.GetAPIGatewayContextFromContext(ctx)
		if invocation, _ := core.GetRuntimeContextFromContext(ctx); invocation != nil {
			logging.Note(ctx, "aws_request_id", invocation.AwsRequestID)
		}
		p, err := edge.Principal(gateway.Authorizer)
		switch {
		case err == nil:
			logging.Note(ctx, "principal", p.Hash)
			r = r.WithContext(authz.WithPrincipal(ctx, p))
		case len(gateway.Authorizer) > 0:
			logging.Note(ctx, "refused", fault.Reason(err))
		}
		next.ServeHTTP(w, r)
	})
}
