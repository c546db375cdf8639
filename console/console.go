// Package console decides what a browser gets for the web console: the files, their media types, and the headers that
// name what the page may load and which server it may call. The page is plain HTML, CSS and ES modules. It calls only
// routes of the API, with the token of the person, so it may do what the token may do and nothing else.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
)

//go:embed index.html console.css icon.svg *.js vendor/*.js
var source embed.FS

// Index is the name of the page itself.
const Index = "index.html"

// policy is the Content-Security-Policy of every file. The page loads and asks only this server, so a text of a model
// that became markup could send nothing to another place. The page can't be framed and has no forms that leave it. Only
// DOMPurify turns a text into elements: in other code of the page that is an error (W3C, Trusted Types).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; " +
	"trusted-types dompurify"

// File is one file of the console.
type File struct {
	Content []byte
	media   string
	etag    string
	gzip    func() []byte
}

// mediaTypes are the types of the files, by the extension of the name.
var mediaTypes = map[string]string{
	".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
}

// files are read once, at the first request for one.
var files = sync.OnceValue(func() map[string]*File {
	out := map[string]*File{}
	for _, pattern := range []string{"*.*", "vendor/*.js"} {
		names, err := fs.Glob(source, pattern)
		if err != nil {
			panic(err) // the patterns are constants
		}
		for _, name := range names {
			content, err := source.ReadFile(name)
			if err != nil {
				panic(err) // the file is part of the program
			}
			sum := sha256.Sum256(content)
			out[path.Base(name)] = &File{
				Content: content, media: mediaTypes[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:16]) + `"`,
				gzip: sync.OnceValue(func() []byte { return compress(content) }),
			}
		}
	}
	return out
})

// Lookup returns the file of a name. The vendored libraries have names without a folder.
func Lookup(name string) (*File, bool) {
	f, ok := files()[name]
	return f, ok
}

// Write answers a request with the file: 304 if the browser has it, and compressed if the client accepts that.
func (f *File) Write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.media+"; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	// A cache may store it, and asks each time whether it is still the same. So an update is seen at once.
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding") // The answer may vary by its origin too.
	body, etag := f.Content, f.etag
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body, etag = f.gzip(), strings.TrimSuffix(f.etag, `"`)+`-gzip"`
	}
	h.Set("ETag", etag)
	if strings.Contains(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body) // an error means that the client has gone
}

// acceptsGzip reports whether a header Accept-Encoding (RFC 9110, section 12.5.3) names gzip with a weight above 0.
func acceptsGzip(header string) bool {
	for coding := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, found := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			return !found || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

func compress(content []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = w.Write(content) // a bytes.Buffer returns no errors
	_ = w.Close()
	return out.Bytes()
}
