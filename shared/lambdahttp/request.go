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
	"github.com/keyway-agents/keyway/shared/logging"
)

// proxyHeaders begin the headers in which the proxy library would hand the event's
// context over. Whoever sends one wants to be somebody else.
const proxyHeaders = "X-Golambdaproxy-"

// request is the event as the local server would get it. API Gateway has decoded the
// path: it is taken as it is, where parsing it as an address would end it at a ? and
// stumble over a %.
func request(ctx context.Context, e events.APIGatewayProxyRequest) (*http.Request, error) {
	path := withoutBase(e)
	e.Path = (&url.URL{Path: path}).EscapedPath()
	r, err := new(core.RequestAccessor).EventToRequestWithContext(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("not a request of API Gateway: %w", err)
	}
	r.URL.Path, r.URL.RawPath = path, ""
	r.RequestURI = r.URL.RequestURI()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.Header.Del("Host")
	for name := range r.Header {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), proxyHeaders) {
			delete(r.Header, name)
		}
	}
	return r, nil
}

// withoutBase is the path below a custom domain's base path, which API Gateway leaves in
// the event. What it matched, and asked the authorizer about, are the resource and its
// parameters: the path is cut to those or stays as it is, so that nobody's address can
// imitate a base path.
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

// matched is the resource that API Gateway matched, with its parameters filled in.
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

// isBase reports whether API Gateway could have such a base path.
func isBase(path string) bool {
	segments := strings.Split(path, "/")
	return len(segments) > 1 && segments[0] == "" && !slices.ContainsFunc(segments[1:], func(s string) bool { return s == "" || s == "." || s == ".." })
}

// caller puts into the request's context whom the authorizer named. Nobody, where it
// named none or said what isn't its: then only public routes answer.
func caller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		said, _ := core.GetAPIGatewayContextFromContext(ctx)
		if invocation, _ := core.GetRuntimeContextFromContext(ctx); invocation != nil {
			logging.Note(ctx, "aws_request_id", invocation.AwsRequestID)
		}
		p, err := edge.Principal(said.Authorizer)
		switch {
		case err == nil:
			logging.Note(ctx, "principal", p.SubjectHash())
			r = r.WithContext(authz.WithPrincipal(ctx, p))
		case len(said.Authorizer) > 0:
			logging.Note(ctx, "refused", err.Error())
		}
		next.ServeHTTP(w, r)
	})
}
