package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// adminOptions say who may use the admin address, and where its rules are kept.
type adminOptions struct {
	RulesFile   string `group:"admin" placeholder:"FILE" env:"ADMIN_RULES_FILE" help:"Keep rules that come from the admin API here, over restarts. With counters in Redis they are kept there, and this is a copy for a start without Redis."`
	TokenFile   string `group:"admin" placeholder:"FILE" env:"ADMIN_TOKEN_FILE" help:"File with the bearer token that requests must bring. Read for each, so that it can be replaced."`
	TLSCert     string `group:"admin" name:"tls-cert" placeholder:"FILE" env:"ADMIN_TLS_CERT" help:"Serve HTTPS with this certificate. Files are read again when they change."`
	TLSKey      string `group:"admin" name:"tls-key" placeholder:"FILE" env:"ADMIN_TLS_KEY" help:"Its key."`
	ReadOnly    bool   `group:"admin" negatable:"" env:"ADMIN_READ_ONLY" help:"Let nobody change anything at the admin address. It may then be one that others can reach: they see rules, counts and profiles, but no values that clients send."`
	TLSClientCA string `group:"admin" name:"tls-client-ca" placeholder:"FILE" env:"ADMIN_TLS_CLIENT_CA" help:"Take only connections with a client certificate that these authorities have signed."`
	TLSName     string `group:"admin" name:"tls-client-name" placeholder:"NAME" env:"ADMIN_TLS_CLIENT_NAME" help:"Name (DNS, IP address or URI) that a client's certificate must hold."`
}

// Validate refuses what does not go together.
func (o *adminOptions) Validate() error {
	if (o.TLSCert == "") != (o.TLSKey == "") || o.TLSCert == "" && o.TLSClientCA != "" {
		return errors.New("--admin-tls-cert and --admin-tls-key belong together, and --admin-tls-client-ca needs both")
	}
	if o.TLSName != "" && o.TLSClientCA == "" {
		return errors.New("--admin-tls-client-name needs --admin-tls-client-ca: without, nobody says who a client is")
	}
	return nil
}

// adminAccess says who may use the admin address; the error, why it must not be
// served like this. Where the variables or defaults of envoyproxy/ratelimit have
// opened it to others, and nothing says who may change rules, nobody may: there,
// too, it is for reading alone.
func (s *service) adminAccess(on net.Addr) (admin.Access, error) {
	given := admin.Access{TokenFile: s.Admin.TokenFile, ClientCertificates: s.Admin.TLSClientCA != "", ReadOnly: s.Admin.ReadOnly}
	access, err := given.On(on)
	if err != nil && access.ForAnyone() && isTheirAdminAddr(s.AdminAddr) {
		s.log.Warn("the admin address is read-only, for anyone can reach it: set ADMIN_TOKEN_FILE, or ADMIN_TLS_CERT, ADMIN_TLS_KEY and ADMIN_TLS_CLIENT_CA, or DEBUG_HOST=127.0.0.1, to change rules there",
			zap.String("address", s.AdminAddr))
		given.ReadOnly = true
		access, err = given.On(on)
	}
	if err != nil {
		return access, fmt.Errorf("--admin-addr: %w", err)
	}
	if w := access.Warning(); w != "" {
		s.log.Warn("the admin token is no secret", zap.String("warning", w))
	}
	return access, nil
}

// adminTLS returns the TLS of the admin address; nil for none.
func (s *service) adminTLS() (*tls.Config, error) {
	if s.Admin.TLSCert == "" {
		return nil, nil
	}
	files := tlsfiles.Files{Cert: s.Admin.TLSCert, Key: s.Admin.TLSKey, CA: s.Admin.TLSClientCA, Name: s.Admin.TLSName, Log: s.log}
	perConnection, err := tlsfiles.Server(files)
	if err != nil {
		return nil, fmt.Errorf("TLS of --admin-addr: %w", err)
	}
	of := perConnection.GetConfigForClient // for gRPC, which is HTTP/2
	perConnection.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := of(hello)
		if err == nil {
			c.NextProtos = []string{"http/1.1"}
		}
		return c, err
	}
	return perConnection, nil
}

// openRuleStore opens the place where admin rules are kept, if there is one.
func (s *service) openRuleStore() (err error) {
	var file *rulestore.File
	if s.Admin.RulesFile != "" {
		if file, err = rulestore.NewFile(s.Admin.RulesFile); err != nil {
			return fmt.Errorf("--admin-rules-file: %w", err)
		}
	}
	var store rulestore.Store
	switch {
	case len(s.redis) > 0:
		main := s.redis[0]
		store = rulestore.NewRedis(rulestore.RedisOptions{Client: main.Client, Prefix: main.Prefix(), Copy: file, Log: s.log.Named("rules")})
	case file != nil:
		store = file
	default:
		return nil
	}
	s.adminRules = &rulestore.Provider{Store: store, Log: s.log.Named("rules"), Check: func(sources []config.Source) error {
		return s.rules.Check(config.FromAdmin, sources)
	}}
	return nil
}

func (s *service) adminHandler() http.Handler {
	return admin.New(admin.Options{
		Rules: s.rules.Rules, Reloads: s.rules.Status, Reload: s.rules.Reload, Store: s.adminRules,
		Service: s.decider, Counters: counters{s.backend, s.snapshot}, Stats: s.stats, Live: &s.live, Metrics: s.scrapes, Health: s.health,
		Access: s.access, Audit: s.audit,
	})
}

// counters has the stores forget counters, and their snapshot too.
type counters struct {
	in       backend.Backend
	snapshot *memory.Snapshot // nil for none
}

var _ admin.Resetter = counters{}

// Reset implements admin.Resetter.
func (c counters) Reset(ctx context.Context, checks []backend.Check) (n int, err error) {
	var keys [][]byte // also of what is unused now: the snapshot may be from before it was forgotten
	for i := range checks {
		var used bool
		if used, err = reset(ctx, c.in, &checks[i]); err != nil {
			break
		}
		keys = append(keys, checks[i].Key)
		if used {
			n++
		}
	}
	return n, errors.Join(err, c.forget(keys))
}

// forget keeps the counters from coming back with the snapshot after a crash.
func (c counters) forget(keys [][]byte) error {
	if c.snapshot == nil {
		return nil
	}
	return c.snapshot.Forget(keys)
}

func reset(ctx context.Context, in backend.Backend, check *backend.Check) (used bool, err error) {
	switch b := in.(type) {
	case *memory.Store:
		return b.Reset(check.Key), nil
	case *redis.Backend:
		return b.Reset(ctx, *check)
	case *persecond.Backend:
		return reset(ctx, b.Of(check), check)
	}
	return false, fmt.Errorf("a store of kind %T can't forget", in)
}

// ResetAll implements admin.Resetter. Redis holds digests of the keys.
func (c counters) ResetAll(ctx context.Context, goes func([]byte) bool) (n int, err error) {
	store, ok := c.in.(*memory.Store)
	if !ok {
		return 0, admin.ErrCannotList
	}
	var keys [][]byte
	for k := range store.All() {
		if ctx.Err() != nil {
			break
		}
		if goes(k.Key) && store.Reset(k.Key) {
			n++
			if c.snapshot != nil {
				keys = append(keys, bytes.Clone(k.Key))
			}
		}
	}
	return n, errors.Join(ctx.Err(), c.forget(keys))
}
