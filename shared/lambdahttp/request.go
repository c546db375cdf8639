package lambdahttp

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/obs"
)

// proxyHeaders begin the headers in which the proxy library would hand the event's
// context over. Whoever sends one wants to be somebody else.
const proxyHeaders = "X-Golambdaproxy-"

// request is the event as the local server would get it. API Gateway has decoded the
// path: it is taken as it is, where parsing it as an address would end it at a ? and
// stumble over a %.
func request(ctx context.Context, e events.APIGatewayProxyRequest) (*http.Request, error) {
	path := e.Path
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

// caller puts into the request's context whom the authorizer named. Nobody, where it
// named none or said what isn't its: then only public routes answer.
func caller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		said, _ := core.GetAPIGatewayContextFromContext(ctx)
		if invocation, _ := core.GetRuntimeContextFromContext(ctx); invocation != nil {
			obs.Note(ctx, "aws_request_id", invocation.AwsRequestID)
		}
		p, err := edge.Principal(said.Authorizer)
		switch {
		case err == nil:
			obs.Note(ctx, "principal", p.SubjectHash())
			r = r.WithContext(authz.WithPrincipal(ctx, p))
		case len(said.Authorizer) > 0:
			obs.Note(ctx, "refused", err.Error())
		}
		next.ServeHTTP(w, r)
	})
}
