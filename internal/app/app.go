// Package app owns the running service. It wires the packages that do the work from
// plain options, starts them, reloads rules and shuts everything down in order. The
// names and sources of settings are left to its caller.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/health"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/overload"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/scrape"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/stats"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// service is the parts of the service, wired.
type service struct {
	opts     Options
	started  time.Time
	log      *zap.Logger
	audit    *zap.Logger
	store    *memory.Store    // the backend, or its substitute
	snapshot *memory.Snapshot // of the store; nil for none
	backend  backend.Backend
	shared   *OpenStore // shared with other replicas; nil with counters in memory
	metrics  []prometheus.Collector
	scrapes  *scrape.Handler // of all metrics
	stats    *stats.Stats
	live     live.Feed // of decisions
	limiter  *limiter.Limiter
	server   *server.Service
	shedder  *overload.Shedder
	rules    *reload.Coordinator
	health   *health.Server

	adminRules *rulestore.Provider // nil for none

	traces *telemetry.Traces // nil for none
	last   []lastSend        // sent last, after all counters are safe
	access admin.Access      // to the admin address

	handshakes                                *tlsfiles.Handshakes // of gRPC; nil without TLS
	grpcListener, httpListener, adminListener net.Listener
	connections                               *overload.Listener // the same as grpcListener
}

// ErrLogged is the error of a service that has logged why it failed.
var ErrLogged = errors.New("the log says why")

// Signals are those to stop (SIGINT and SIGTERM) and to read the rules again (SIGHUP).
type Signals struct {
	stopping context.Context
	stop     func() // gives SIGINT and SIGTERM their default effect again
	hangups  chan os.Signal
}

// CatchSignals keeps signals for Run. Call it before anything that takes time: a signal
// that comes earlier ends the process at once.
func CatchSignals() *Signals {
	s := &Signals{hangups: make(chan os.Signal, 1)}
	s.stopping, s.stop = signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(s.hangups, syscall.SIGHUP)
	return s
}

// release gives all signals their default effect again.
func (s *Signals) release() {
	s.stop()
	signal.Stop(s.hangups)
}

// Run serves until a signal or a failure ends it.
func Run(o Options, signals *Signals) (err error) {
	defer signals.release()
	stopping := signals.stopping
	s := &service{opts: o, started: time.Now(), stats: stats.New(0), health: health.NewServer()}
	s.log, s.audit = newLogs(o.Log)
	defer func() { _ = s.log.Sync() }() // nothing can report this error
	defer takeLogs(s.log)()
	defer func() {
		if err != nil && o.Log.JSON {
			s.log.Error("the service has failed", zap.Error(err))
			err = ErrLogged
		}
	}()
	defer func() {
		if errors.Is(err, context.Canceled) && stopping.Err() != nil {
			s.log.Info("stopped by a signal before it served")
			err = nil
		}
	}()
	for _, w := range o.Warnings {
		s.log.Warn("a setting has no effect", zap.String("warning", w))
	}
	s.store = memory.New(memory.Options{MaxKeys: o.Memory.MaxKeys, MaxBytes: s.counterBytes()})
	drain, timeUp := context.WithCancel(context.Background())
	defer timeUp()
	// First the counters, which must not be lost, then statistics and traces.
	defer func() { s.sendLast(drain) }()
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.restore(); err != nil {
		return err
	}
	if err := s.open(stopping); err != nil {
		return err
	}
	if err := s.openRuleStore(); err != nil {
		return err
	}
	if err := s.startTraces(); err != nil {
		return err
	}
	s.openOverload()
	limits, answers := o.Limiter, o.Server
	limits.Spread, limits.Encode = o.Store.Spread, wire.EncodeLimit
	limits.Backend, limits.Local, limits.Log, limits.Stats = s.traced(s.backend), s.store, s.log, s.stats
	limits.Live = &s.live
	s.limiter = limiter.New(limits)
	answers.Admit, answers.Stats, answers.Names = s.shedder.Admit, s.stats, o.Names
	if s.traces != nil {
		answers.Why = s.traces.Why
	}
	s.server = server.New(s.limiter, answers)
	if err := s.loadRules(stopping); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.limitConnections()
	s.scrapes = scrape.New(s.registry())
	s.sayHealth()
	o.Started(Started{
		GRPC: s.grpcListener.Addr(), HTTP: s.httpListener.Addr(), Admin: s.adminListener.Addr(), TLS: o.GRPC.TLS != nil,
		Rules: s.rules.Rules(), Matcher: s.limiter.Matcher(), Log: s.log,
	})
	err = s.serve(drain, signals, timeUp)
	return errors.Join(err, s.save())
}

// loadRules loads the rules for the first time. It leaves out a bad source if others
// have rules. It fails if no source has rules, unless rules may come later.
func (s *service) loadRules(ctx context.Context) error {
	providers, err := s.providers()
	if err != nil {
		return err
	}
	// The first attempt is reported by this function, later ones by the log.
	quiet := zap.NewAtomicLevelAt(zap.FatalLevel)
	s.rules = reload.New(reload.Options{
		Providers:    providers,
		Load:         s.load(),
		AllowNoRules: s.opts.Rules.AllowNoRules,
		Delay:        s.opts.Rules.ReloadDelay,
		Names:        s.opts.Names,
		Log:          s.log.WithOptions(zap.IncreaseLevel(quiet)),
	})
	s.rules.Subscribe(s.limiter.SetRules)
	err = s.rules.Reload(ctx)
	quiet.SetLevel(s.opts.Log.Level)
	rules := s.rules.Rules()
	if rules == nil && s.opts.Rules.XDS == nil && !s.opts.Rules.ForceStart {
		return fmt.Errorf("the rules can't be used:\n%w", err)
	}
	if failures, ok := errors.AsType[reload.Failures](err); ok {
		for _, f := range failures {
			what := "starting without the rules of a source"
			if _, partial := errors.AsType[*reload.Partial](f.Err); partial {
				what = "starting without some of what a source says"
			}
			s.log.Error(what, zap.Stringer("source", f.Source), zap.Error(f.Err))
		}
	}
	switch {
	case rules == nil && s.opts.Rules.XDS != nil:
		s.log.Warn("waiting for rules from the xDS server: decisions fail until there are some", zap.String("server", s.opts.Rules.XDS.Server))
	case rules == nil:
		s.log.Warn("starting without rules: decisions fail until there are some")
	case rules.Len() == 0:
		s.log.Warn("there are no rules: nothing is limited")
	default:
		for _, w := range rules.Warnings {
			s.log.Warn("a warning about the rules", zap.String("warning", w.Error()))
		}
	}
	return nil
}

// listen opens all listeners or none.
func (s *service) listen() (err error) {
	// The listener reports an invalid address.
	if addr, wrong := net.ResolveTCPAddr("tcp", s.opts.Admin.Addr); wrong == nil {
		if s.access, err = s.adminAccess(addr); err != nil {
			return err
		}
	}
	secure, err := s.adminTLS()
	if err != nil {
		return err
	}
	if err := s.grpcTLS(); err != nil {
		return err
	}
	if err := s.watchCertificates(); err != nil {
		return err
	}
	var open []net.Listener
	grpcNetwork, grpcField, grpcAddr := "tcp", "GRPC.Addr", s.opts.GRPC.Addr
	if s.opts.GRPC.Socket != "" {
		grpcNetwork, grpcField, grpcAddr = "unix", "GRPC.Socket", s.opts.GRPC.Socket
	}
	for _, l := range []struct {
		network, field, addr string
		listener             *net.Listener
	}{
		{grpcNetwork, grpcField, grpcAddr, &s.grpcListener},
		{"tcp", "HTTPAddr", s.opts.HTTPAddr, &s.httpListener},
		{"tcp", "Admin.Addr", s.opts.Admin.Addr, &s.adminListener},
	} {
		if *l.listener, err = listen(s.opts.Names, l.network, l.field, l.addr); err != nil {
			for _, o := range open {
				o.Close()
			}
			return err
		}
		open = append(open, *l.listener)
	}
	if secure != nil {
		s.adminListener = tls.NewListener(s.adminListener, secure)
	}
	return nil
}

// serve runs everything until a signal or a part that fails ends it, and then ends it in
// order. Requests under way are answered within the drain timeout; after it serve calls
// timeUp, which ends drain. A second signal has its default effect: it ends the process
// at once.
func (s *service) serve(drain context.Context, signals *Signals, timeUp func()) error {
	var group run.Group
	// Interrupts come in the order of the actors, one after the other.
	group.Add(func() error {
		<-signals.stopping.Done()
		return nil
	}, func(error) {
		signals.stop()
		s.health.Shutdown()
		s.log.Info("stopping; a second signal stops at once", zap.Duration("delay", s.opts.DrainDelay), zap.Duration("timeout", s.opts.DrainTimeout))
		time.Sleep(s.opts.DrainDelay)
		time.AfterFunc(s.opts.DrainTimeout, timeUp)
	})
	s.serveGRPC(drain, &group, s.grpcFront())
	for _, h := range []struct {
		handler  http.Handler
		listener net.Listener
	}{{s.httpHandler(), s.httpListener}, {s.adminHandler(), s.adminListener}} {
		web := httpServer(h.handler, s.log)
		web.RegisterOnShutdown(s.live.Close) // such an answer would never end
		group.Add(func() error {
			return ignore(web.Serve(h.listener), http.ErrServerClosed)
		}, func(error) {
			if err := web.Shutdown(drain); err != nil {
				web.Close()
			}
		})
	}
	if err := s.export(&group); err != nil {
		return err
	}
	if err := s.sendTelemetry(); err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(context.Background())
	group.Add(func() error { return s.rules.Run(watching) }, func(error) { stopWatching() })
	group.Add(func() error { return s.stats.Run(watching) }, func(error) { stopWatching() })
	group.Add(func() error { return s.tuneGC(watching) }, func(error) { stopWatching() })
	if s.opts.GRPC.MaxWait > 0 {
		group.Add(func() error { return s.shedder.Run(watching) }, func(error) { stopWatching() })
	}
	group.Add(func() error { return s.keepHealth(watching) }, func(error) { stopWatching() })
	group.Add(func() error { return s.reloadOn(watching, signals.hangups) }, func(error) { stopWatching() })
	return group.Run()
}

// reloadOn reloads the rules on each hangup.
func (s *service) reloadOn(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-hangups:
			s.log.Info("SIGHUP: reading the rules again")
			_ = s.rules.Reload(ctx) // recorded and logged
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *service) httpHandler() http.Handler {
	mux := http.NewServeMux()
	// A page in a browser on this machine must not charge others' limits.
	json := http.NewCrossOriginProtection().Handler(server.JSON(s.traces.Service(s.server)))
	json = admin.RequireLoopbackHost(s.httpListener.Addr(), json)
	mux.Handle("/json", s.traces.HTTP(json, "/json"))
	mux.Handle("GET /healthcheck", admin.Healthcheck(s.health, s.rules.Status))
	return mux
}

// httpServer returns a server that bounds the time and size of a client's request.
// An answer may take as long as a profile of the default length.
func httpServer(handler http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(ofLibrary(log, "http")),
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
