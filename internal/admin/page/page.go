// Package page owns the web page on the admin address: the replica and what is wrong
// with it, what is refused now, decisions as they happen, rules with their rates,
// explaining a request, editing a rule, and what became of reloads. It is static, needs
// no other host, and speaks to the admin API alone.
package page

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
)

//go:embed static
var files embed.FS

// policy lets the page load and call only what this server gives.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// Handler serves the page at / and its files below /page/.
func Handler() http.Handler {
	static, err := fs.Sub(files, "static")
	if err != nil { // embedded: cannot be
		return http.NotFoundHandler()
	}
	mux := http.NewServeMux()
	mux.Handle("GET /page/", http.StripPrefix("/page/", http.FileServerFS(static)))
	mux.HandleFunc("GET /page/algorithms.js", algorithms)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, static, "index.html") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	})
}

// algorithms is the module that tells the page which algorithms a rule of the tree may
// have, which is what its form writes: those that can do without a hold.
func algorithms(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	var names []string
	for a, name := range algo.Algorithms() {
		if !algo.Algorithm(a).AlwaysHolds() {
			names = append(names, name)
		}
	}
	fmt.Fprintf(w, "export const algorithms = ['%s'];\n", strings.Join(names, "', '"))
}
