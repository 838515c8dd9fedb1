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
	"google.golang.org/grpc/credentials"
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
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/stats"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// service is the parts of `ratelimit serve`, wired.
type service struct {
	*serveCmd
	log     *zap.Logger
	audit   *zap.Logger
	store   *memory.Store // the backend, or what stands in for it
	backend backend.Backend
	redis   []*redis.Backend // none with counters in memory
	metrics []prometheus.Collector
	stats   *stats.Stats
	decider *server.Service
	shedder *overload.Shedder
	rules   *config.Coordinator
	health  *health.Server

	ruleStore rulestore.Store // of admin rules; nil for none

	traces *telemetry.Traces // nil for none
	access admin.Access      // to the admin address

	grpcListener, httpListener, adminListener net.Listener
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
	s.store = memory.New(memory.Options{MaxKeys: s.MaxKeys})
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
	s.sayHealth()
	s.welcome(con.out)
	err = s.serve(stopping, stop, hangups)
	return errors.Join(err, s.save())
}

// loadRules loads the rules for the first time; without, there is nothing to
// serve, unless they may come later.
func (s *service) loadRules(ctx context.Context) error {
	providers, err := s.providers()
	if err != nil {
		return err
	}
	// The first attempt is reported by this function, later ones by the log.
	quiet := zap.NewAtomicLevelAt(zap.FatalLevel)
	s.rules = config.NewCoordinator(config.CoordinatorOptions{
		Providers: providers,
		Options:   s.config(),
		Delay:     s.ReloadDelay,
		Log:       s.log.WithOptions(zap.IncreaseLevel(quiet)),
	})
	s.rules.Subscribe(s.decider.SetRules)
	err = s.rules.Reload(ctx)
	quiet.SetLevel(zapcore.Level(s.LogLevel))
	switch {
	case err != nil && s.ConfigType == fromXDS:
		s.log.Warn("waiting for rules from the xDS server: decisions fail until there are some", zap.String("server", s.XDS.Server), zap.Error(err))
	case err != nil && s.ForceStart:
		s.log.Error("starting without rules: decisions fail until there are some", zap.Error(err))
	case err != nil:
		return fmt.Errorf("the rules can't be used:\n%w", err)
	default:
		for _, w := range s.rules.Rules().Warnings {
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

// welcome prints where the service listens, what it serves and what to try first.
func (s *service) welcome(out io.Writer) {
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

// serve runs everything until stopping is done or a part fails, and then ends it
// in order: requests that are under way are answered within the drain timeout.
// After stop a second signal has its default effect, which is to end the process
// at once.
func (s *service) serve(stopping context.Context, stop func(), hangups <-chan os.Signal) error {
	var group run.Group
	drain, timeUp := context.WithCancel(context.Background())
	defer timeUp()
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
	decisions, err := s.grpcServer()
	if err != nil {
		return err
	}
	group.Add(func() error {
		return decisions.Serve(s.grpcListener)
	}, func(error) {
		drainGRPC(drain, decisions, s.log)
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
	if err := s.sendTelemetry(drain, &group); err != nil {
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

func (s *service) grpcServer() (*grpc.Server, error) {
	options := server.GRPCOptions(s.MaxMessageSize, s.MaxConnectionAge, s.MaxConnectionAgeGrace)
	options = append(append(options, s.overloadServerOptions()...), s.traces.GRPC()...)
	if s.TLS {
		files := tlsfiles.Files{Cert: s.TLSCert, Key: s.TLSKey, CA: s.TLSCACert, Name: s.TLSName, Log: s.log}
		secure, err := tlsfiles.Server(files)
		if err != nil {
			return nil, fmt.Errorf("TLS of gRPC: %w", err)
		}
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	g := grpc.NewServer(options...)
	if s.traces != nil { // a span tells of the messages
		rls.RegisterRateLimitServiceServer(g, s.traces.Service(s.decider))
	} else {
		s.decider.Register(g)
	}
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g, nil
}

// drainGRPC answers what is under way until the context ends.
func drainGRPC(ctx context.Context, g *grpc.Server, log *zap.Logger) {
	drained := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		log.Warn("requests were still under way at the end of --drain-timeout")
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
	mux.Handle("GET /healthcheck", admin.Healthcheck(s.health))
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
