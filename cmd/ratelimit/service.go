package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/overload"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/scrape"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/stats"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// service is the parts of `ratelimit serve`, wired.
type service struct {
	*serveCmd
	log      *zap.Logger
	audit    *zap.Logger
	store    *memory.Store    // the backend, or what stands in for it
	snapshot *memory.Snapshot // of the store; nil for none
	backend  backend.Backend
	redis    []*redis.Backend // none with counters in memory
	metrics  []prometheus.Collector
	scrapes  *scrape.Handler // of all metrics
	stats    *stats.Stats
	decider  *server.Service
	shedder  *overload.Shedder
	rules    *config.Coordinator
	health   *health.Server

	adminRules *rulestore.Provider // nil for none

	traces *telemetry.Traces // nil for none
	last   []lastSend        // what is sent when nothing else can be lost any more
	access admin.Access      // to the admin address

	handshakes                                *tlsfiles.Handshakes // of gRPC; nil without TLS
	grpcListener, httpListener, adminListener net.Listener
	connections                               *overload.Listener // what grpcListener is
}

// Run serves until a signal or a failure ends it.
func (c *serveCmd) Run(con console) (err error) {
	// Before anything that takes time, so that a signal is never missed.
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	s := &service{serveCmd: c, stats: stats.New(0), health: health.NewServer()}
	s.log, s.audit = newLogs(con.err, zapcore.Level(c.LogLevel), c.LogFormat)
	defer func() { _ = s.log.Sync() }() // nobody is left to tell
	defer takeLogs(s.log)()
	defer func() {
		if err != nil && c.LogFormat == jsonLog {
			s.log.Error("the service has failed", zap.Error(err))
			err = errReported
		}
	}()
	s.store = memory.New(memory.Options{MaxKeys: s.MaxKeys, MaxBytes: s.counterBytes()})
	drain, timeUp := context.WithCancel(context.Background())
	defer timeUp()
	// First what must not be lost: the counters. Then what others want to know.
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
	options := c.serverOptions()
	options.Admit = s.shedder.Admit
	options.Backend, options.Local, options.Log, options.Stats = s.traced(s.backend), s.store, s.log, s.stats
	s.decider = server.New(options)
	if err := s.loadRules(stopping); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.limitConnections()
	s.scrapes = scrape.New(s.registry())
	s.sayHealth()
	s.welcome(con.out)
	err = s.serve(stopping, drain, stop, timeUp, hangups)
	return errors.Join(err, s.save())
}

// loadRules loads the rules for the first time. A source that is bad is left out if
// others have rules; without any there is nothing to serve, unless they may come later.
func (s *service) loadRules(ctx context.Context) error {
	providers, err := s.providers()
	if err != nil {
		return err
	}
	// The first attempt is reported by this function, later ones by the log.
	quiet := zap.NewAtomicLevelAt(zap.FatalLevel)
	s.rules = config.NewCoordinator(config.CoordinatorOptions{
		Providers:    providers,
		Options:      s.config(),
		AllowNoRules: s.AllowNoRules,
		Delay:        s.ReloadDelay,
		Log:          s.log.WithOptions(zap.IncreaseLevel(quiet)),
	})
	warnOfIgnored(s.log)
	s.rules.Subscribe(s.decider.SetRules)
	err = s.rules.Reload(ctx)
	quiet.SetLevel(zapcore.Level(s.LogLevel))
	rules := s.rules.Rules()
	if rules == nil && s.ConfigType != fromXDS && !s.ForceStart {
		return fmt.Errorf("the rules can't be used:\n%w", err)
	}
	if failures, ok := errors.AsType[config.Failures](err); ok {
		for _, f := range failures {
			s.log.Error("starting without the rules of a source", zap.Stringer("source", f.Source), zap.Error(f.Err))
		}
	}
	switch {
	case rules == nil && s.ConfigType == fromXDS:
		s.log.Warn("waiting for rules from the xDS server: decisions fail until there are some", zap.String("server", s.XDS.Server))
	case rules == nil:
		s.log.Warn("starting without rules: decisions fail until there are some")
	case rules.Len() == 0:
		s.log.Warn("there are no rules: nothing is limited")
	default:
		for _, w := range rules.Warnings {
			s.log.Warn("a rule is odd", zap.String("warning", w.Error()))
		}
	}
	return nil
}

// listen opens all listeners or none.
func (s *service) listen() (err error) {
	// What is no address is for the listener to say.
	if addr, wrong := net.ResolveTCPAddr("tcp", s.AdminAddr); wrong == nil {
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
	grpcNetwork, grpcFlag, grpcAddr := "tcp", "grpc-addr", s.GRPCAddr
	if s.GRPCSocket != "" {
		grpcNetwork, grpcFlag, grpcAddr = "unix", "grpc-socket", s.GRPCSocket
	}
	for _, l := range []struct {
		network, flag, addr string
		listener            *net.Listener
	}{
		{grpcNetwork, grpcFlag, grpcAddr, &s.grpcListener},
		{"tcp", "http-addr", s.HTTPAddr, &s.httpListener},
		{"tcp", "admin-addr", s.AdminAddr, &s.adminListener},
	} {
		if *l.listener, err = listen(l.network, l.flag, l.addr); err != nil {
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

// welcome prints where the service listens, what it serves and what to try first;
// in one line of the log where that is for machines to read.
func (s *service) welcome(out io.Writer) {
	if s.LogFormat == jsonLog {
		s.log.Info("started", s.startedFields()...)
		return
	}
	fmt.Fprintf(out, "gRPC    %s\n", s.grpcListener.Addr())
	fmt.Fprintf(out, "HTTP    %s\n", s.httpListener.Addr())
	fmt.Fprintf(out, "Admin   %s\n", s.adminListener.Addr())
	rules := s.rules.Rules()
	if rules == nil {
		fmt.Fprintf(out, "Rules   none yet\n")
		return
	}
	fmt.Fprintf(out, "Rules   %s, %s\n", count(len(rules.Domains), "domain"), count(rules.Len(), "rule"))
	fmt.Fprintf(out, "Try     %s\n", firstCommand(rules, s.grpcListener.Addr().String()))
}

func (s *service) startedFields() []zap.Field {
	fields := []zap.Field{
		zap.String("version", buildVersion()),
		zap.Stringer("grpc", s.grpcListener.Addr()), zap.Stringer("http", s.httpListener.Addr()), zap.Stringer("admin", s.adminListener.Addr()),
	}
	rules := s.rules.Rules()
	if rules == nil {
		return append(fields, zap.Int("domains", 0), zap.Int("rules", 0))
	}
	return append(fields, zap.Int("domains", len(rules.Domains)), zap.Int("rules", rules.Len()),
		zap.String("try", firstCommand(rules, s.grpcListener.Addr().String())))
}

// serve runs everything until stopping is done or a part fails, and then ends it
// in order: requests that are under way are answered within the drain timeout,
// after which it calls timeUp, to end drain. After stop a second signal has its
// default effect, which is to end the process at once.
func (s *service) serve(stopping, drain context.Context, stop, timeUp func(), hangups <-chan os.Signal) error {
	var group run.Group
	// Interrupts come in the order of the actors, one after the other.
	group.Add(func() error {
		<-stopping.Done()
		return nil
	}, func(error) {
		stop()
		s.health.Shutdown()
		s.log.Info("stopping; a second signal stops at once", zap.Duration("delay", s.DrainDelay), zap.Duration("timeout", s.DrainTimeout))
		time.Sleep(s.DrainDelay)
		time.AfterFunc(s.DrainTimeout, timeUp)
	})
	decisions := s.grpcServer()
	group.Add(func() error {
		return decisions.Serve(s.grpcListener)
	}, func(error) {
		drainGRPC(drain, decisions, s.connections.CloseConns, s.log)
	})
	for _, h := range []struct {
		handler  http.Handler
		listener net.Listener
	}{{s.httpHandler(), s.httpListener}, {s.adminHandler(), s.adminListener}} {
		web := httpServer(h.handler, s.log)
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
	group.Add(func() error { return tuneGC(watching, s.log) }, func(error) { stopWatching() })
	if s.MaxWait > 0 {
		group.Add(func() error { return s.shedder.Run(watching) }, func(error) { stopWatching() })
	}
	group.Add(func() error { return s.keepHealth(watching) }, func(error) { stopWatching() })
	group.Add(func() error { return s.reloadOn(watching, hangups) }, func(error) { stopWatching() })
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

func (s *service) grpcServer() *grpc.Server {
	options := server.GRPCOptions(s.MaxMessageSize, s.keepalive())
	options = append(append(options, s.overloadServerOptions()...), s.traces.GRPC()...)
	if s.handshakes != nil {
		options = append(options, grpc.Creds(s.handshakes))
	}
	g := grpc.NewServer(options...)
	if s.traces != nil { // a span tells of the messages
		rls.RegisterRateLimitServiceServer(g, s.traces.Service(s.decider))
	} else {
		s.decider.Register(g)
	}
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// drainGRPC answers what is under way until the context ends. It then calls closeConns,
// because the server waits for handshakes even when it is told not to wait.
func drainGRPC(ctx context.Context, g *grpc.Server, closeConns func(), log *zap.Logger) {
	drained := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		log.Warn("requests were still under way at the end of --drain-timeout")
		closeConns()
		g.Stop()
		<-drained
	}
}

func (s *service) httpHandler() http.Handler {
	mux := http.NewServeMux()
	// A page in a browser on this machine is not to spend others' limits.
	json := http.NewCrossOriginProtection().Handler(server.JSON(s.traces.Service(s.decider)))
	json = admin.OwnName(s.httpListener.Addr(), json)
	mux.Handle("/json", s.traces.HTTP(json, "/json"))
	mux.Handle("GET /healthcheck", admin.Healthcheck(s.health, s.rules.Status))
	return mux
}

// httpServer bounds how long and how much a client may send. Answers may take as
// long as a profile of the default length.
func httpServer(handler http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(log.Named("http")),
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
