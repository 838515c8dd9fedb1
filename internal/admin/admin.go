// Package admin owns the HTTP address for people and monitoring: the rules in force and
// their changes, the results of reloads, statistics, counters, metrics, profiles and
// health, and the access to all of these. openapi.yaml describes /admin/. The package
// shows the data of other packages. It decides no requests, and leaves the storage of
// rules to rulestore.
package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/health/grpc_health_v1"

	web "github.com/distlimiter/ratelimit/internal/admin/page"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/sparing"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Options has the sources of the pages. All fields but Store are required.
type Options struct {
	// Rules returns the rules in force; nil before there are any.
	Rules func() *config.Rules
	// Reloads returns the results of reloads. Reload loads the rules now.
	Reloads func() reload.Status
	Reload  func(context.Context) error
	// Store keeps the admin rules. Nil: rules cannot be changed.
	Store *rulestore.Provider
	// Replica describes this process and its store.
	Replica  Replica
	Limiter  *limiter.Limiter
	Counters Resetter
	Stats    *stats.Stats
	// Live shows decisions as they happen.
	Live *live.Feed
	// Metrics answers scrapes.
	Metrics http.Handler
	Health  grpc_health_v1.HealthServer
	// Access defines who may use the address.
	Access Access
	// Audit gets a line for every write, and for a refusal unless there are very many. It
	// must not sample.
	Audit *zap.Logger
}

// page is one line of the index.
type page struct {
	path, help string
	handler    http.Handler
}

// New returns the handler of the admin address.
func New(o Options) http.Handler {
	api := o.api()
	pages := []page{
		{livePath, "decisions as they happen, until the client leaves", api},
		{"/admin/reloads", "when rules were loaded and what failed", api},
		{"/admin/replica", "this process, its version and its store", api},
		{"/admin/rules", "the rules in force; POST changes them", api},
		{"/admin/stats", "counts and rates of each rule", api},
		{"/debug/pprof/", "profiles of the running process, for go tool pprof", oneAtATime(pprof.Index)},
		{"/healthcheck", "200 OK, or 503 while the service does not want requests", Healthcheck(o.Health, o.Reloads)},
		{"/openapi.yaml", "the description of everything under /admin/", http.HandlerFunc(specification)},
		{"/metrics", "metrics for Prometheus", o.Metrics},
		{"/rlconfig", "the rules in force, one line for each limit", o.rlconfig()},
		{"/rules/status", "when rules were loaded and what failed, as JSON", o.status()},
		{"/stats", "counts of each rule; ?format=json", o.stats()},
	}
	mux := http.NewServeMux()
	for _, p := range pages {
		mux.Handle("GET "+p.path, p.handler)
	}
	// Profiles that pprof.Index leaves to handlers of their own. The command line is
	// left out, because flags may hold secrets.
	mux.Handle("GET /debug/pprof/profile", oneAtATime(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.Handle("GET /debug/pprof/trace", oneAtATime(pprof.Trace))
	browser := web.Handler()
	mux.Handle("GET /page/", browser)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			browser.ServeHTTP(w, r)
			return
		}
		plainText(w)
		for _, p := range pages {
			fmt.Fprintf(w, "%s: %s\n", p.path, p.help)
		}
	})
	mux.Handle("/admin/", api)
	return o.Access.guard(http.MaxBytesHandler(mux, maxRules), sparing.Log(o.Audit, 100, 10*time.Second))
}

// oneAtATime bounds the cost of profiles: anybody who reaches the address can take one,
// but not several at a time.
func oneAtATime(take http.HandlerFunc) http.Handler {
	busy := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
			take(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "another profile is being taken: try again", http.StatusTooManyRequests)
		}
	})
}

func specification(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openapi) // a client that has left is no error of ours
}

// rlconfig lists the limits in force as envoyproxy/ratelimit does.
func (o Options) rlconfig() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		plainText(w)
		if rules := o.Rules(); rules != nil {
			fmt.Fprint(w, rules)
		}
	})
}

func (o Options) status() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, o.Reloads()) })
}

// Healthcheck answers 200 while the gRPC health service reports SERVING for the whole
// server, and 503 otherwise. The text begins with "OK". Further lines name bad sources
// of rules, without details, because anybody may ask.
func Healthcheck(health grpc_health_v1.HealthServer, reloads func() reload.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plainText(w)
		state, err := health.Check(r.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || state.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "not serving\n")
			return
		}
		fmt.Fprint(w, "OK")
		for _, s := range reloads().Sources {
			if s.State != reload.SourceBad {
				continue
			}
			how := "bad, the last good ones stay"
			if s.Partial {
				how = "not all of them are in force"
			}
			fmt.Fprintf(w, "\nrules from %s: %s; see /admin/reloads of the admin address", s.Source, how)
		}
	})
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
