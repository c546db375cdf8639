package api

import (
	"crypto/sha256"
	_ "embed" // the documents
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyway-agents/keyway/shared/route"
)

var (
	//go:embed openapi.json
	openAPIDocument []byte
	//go:embed docs.html
	docsPage string
)

func openAPI() Endpoint { return file(route.OpenAPI, "application/json", openAPIDocument, nil) }

// docs answers the page that shows the document. It needs nothing from elsewhere,
// and its policy lets it run its own script, ask its own server and no more.
func docs() Endpoint {
	policy := fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		hashOf("script"), hashOf("style"))
	return file(route.Docs, "text/html", []byte(docsPage), http.Header{
		"Content-Security-Policy": {policy}, "Referrer-Policy": {"no-referrer"},
	})
}

// hashOf names the page's own element for a Content-Security-Policy (CSP 3, 2.3.1).
func hashOf(element string) string {
	_, text, _ := strings.Cut(docsPage, "<"+element+">")
	text, _, _ = strings.Cut(text, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
