package gateway

import (
	"fmt"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
)

// SameOrigin gives requests for the routes of keyway serve --dev to own, if a page of this server sends them, and
// refuses all others: such a route signs tokens. Requests for other routes go to others, which answers pages of other
// origins too. own must not: its answers have no header that lets a page of another origin read them.
func SameOrigin(table *route.Routes, own, others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The routes are all for POST. Any other method at their paths is refused in the same way.
		m := table.Match(http.MethodPost, r.URL.Path)
		if m.Route == nil || m.Route.Function != route.DevServer {
			others.ServeHTTP(w, r)
			return
		}
		if want, ok := isSameOrigin(r); !ok {
			err := fault.Public(fault.Forbidden, fmt.Sprintf("Only a page of this server may send this request: its Origin "+
				"must be %s", want), nil)
			logging.Note(r.Context(), "refused", fault.Reason(err))
			fault.Write(w, err)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// isSameOrigin reports whether a page of this server has sent the request. Browsers send Origin with each POST, and a
// page can't change it (WHATWG Fetch, "Origin header"). Sec-Fetch-Site says the same, and not every browser sends it.
func isSameOrigin(r *http.Request) (want string, ok bool) {
	want = "http://" + r.Host
	if r.TLS != nil {
		want = "https://" + r.Host
	}
	origins, sites := r.Header.Values("Origin"), r.Header.Values("Sec-Fetch-Site")
	ok = len(origins) == 1 && origins[0] == want
	return want, ok && (len(sites) == 0 || len(sites) == 1 && sites[0] == "same-origin")
}
