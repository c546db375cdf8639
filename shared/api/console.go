package api

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/console"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// consolePage answers the page of the web console. Its files and requests have relative addresses, so that it works
// below any path. These need the slash at the end of the address. A request without it is redirected to a file,
// relative too: what stands in front of this program may remove a slash at the end.
func consolePage() Endpoint {
	serve := func(w http.ResponseWriter, r *request, _ nothing) error {
		if !strings.HasSuffix(r.URL.Path, "/") {
			w.Header().Set("Location", "console/"+console.Index)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return nil
		}
		return writeConsole(w, r, console.Index)
	}
	return Endpoint{
		Route: route.Console, In: reflect.TypeFor[nothing](), Status: http.StatusOK, Media: "text/html",
		serve: reading(serve),
	}
}

// consoleFile answers a file of the web console.
func consoleFile() Endpoint {
	serve := func(w http.ResponseWriter, r *request, _ nothing) error { return writeConsole(w, r, r.param("file")) }
	return Endpoint{
		Route: route.ConsoleFile, In: reflect.TypeFor[nothing](), Status: http.StatusOK, Media: "*/*",
		serve: reading(serve),
	}
}

func writeConsole(w http.ResponseWriter, r *request, name string) error {
	file, ok := console.Lookup(name)
	if !ok {
		return fault.Public(fault.NotFound, "The console has no such file", nil)
	}
	file.Write(w, r.Request)
	return nil
}
