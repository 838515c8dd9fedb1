package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// adminAccess returns who may use the admin address. The error says why it must not
// be served with these settings. If only the variables or defaults of
// envoyproxy/ratelimit opened it to others, and no setting says who may change rules,
// the address is read-only.
func (s *service) adminAccess(on net.Addr) (admin.Access, error) {
	o, names := s.opts.Admin, s.opts.Names
	given := admin.Access{TokenFile: o.TokenFile, ClientCertificates: o.TLS != nil && o.TLS.CA != "", ReadOnly: o.ReadOnly, Names: names}
	access, err := given.On(on)
	if err != nil && access.ForAnyone() && o.OpenedBy != "" {
		s.log.Warn(fmt.Sprintf("the admin address is read-only, because anyone can reach it: set %s, or %s, or %s=127.0.0.1, to change rules there",
			names.Variable("Admin.TokenFile"), names.Variable("Admin.TLS"), o.OpenedBy), zap.String("address", o.Addr))
		given.ReadOnly = true
		access, err = given.On(on)
	}
	if err != nil {
		field := "Admin.Addr"
		if o.TokenFile != "" { // which is all that can be wrong then
			field = "Admin.TokenFile"
		}
		return access, fmt.Errorf("%s: %w", names.Of(field), err)
	}
	if w := access.Warning(); w != "" {
		s.log.Warn("the admin token is not secret", zap.String("warning", w))
	}
	return access, nil
}

// adminTLS returns the TLS of the admin address; nil for none.
func (s *service) adminTLS() (*tls.Config, error) {
	if s.opts.Admin.TLS == nil {
		return nil, nil
	}
	files := *s.opts.Admin.TLS
	files.Log = s.log
	perConnection, err := tlsfiles.Server(files)
	if err != nil {
		return nil, fmt.Errorf("TLS of %s: %w", s.opts.Names.Of("Admin.Addr"), err)
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

// openRuleStore opens the store of the admin rules, if there is one.
func (s *service) openRuleStore() (err error) {
	var file *rulestore.File
	if path := s.opts.Admin.RulesFile; path != "" {
		if file, err = rulestore.NewFile(path); err != nil {
			return fmt.Errorf("%s: %w", s.opts.Names.Of("Admin.RulesFile"), err)
		}
	}
	var store rulestore.Store
	switch {
	case s.shared != nil && s.shared.Rules != nil:
		store = s.shared.Rules(file, s.log.Named("rules"))
	case file != nil:
		store = file
	default:
		return nil
	}
	s.adminRules = &rulestore.Provider{Store: store, Log: s.log.Named("rules"), Check: func(sources []rulefile.Source) (*config.Rules, error) {
		return s.rules.Check(config.FromAdmin, sources)
	}}
	return nil
}

func (s *service) adminHandler() http.Handler {
	return admin.New(admin.Options{
		Replica: admin.Replica{
			Name: s.hostname(), Version: s.opts.Version, Started: s.started,
			Store: s.opts.Store.Name, StoreHealthy: func() bool { return backend.Healthy(s.backend) },
		},
		Rules: s.rules.Rules, Reloads: s.rules.Status, Reload: s.rules.Reload, Store: s.adminRules,
		Limiter: s.limiter, Counters: counters{s.backend, s.snapshot}, Stats: s.stats, Live: &s.live, Metrics: s.scrapes, Health: s.health,
		Access: s.access, Audit: s.audit,
	})
}

// hostname returns the name that identifies this replica. In Kubernetes it is the
// pod's name.
func (s *service) hostname() string {
	name, err := os.Hostname()
	if err != nil {
		s.log.Warn("this host has no name", zap.Error(err))
	}
	return name
}

// counters resets counters in the stores and in their snapshot.
type counters struct {
	in       backend.Backend
	snapshot *memory.Snapshot // nil for none
}

var _ admin.Resetter = counters{}

// Reset implements admin.Resetter.
func (c counters) Reset(ctx context.Context, checks []backend.Check) (n int, err error) {
	var keys [][]byte // also of unused counters: the snapshot may still hold them
	for i := range checks {
		var used bool
		if used, err = backend.Reset(ctx, c.in, checks[i]); err != nil {
			break
		}
		keys = append(keys, checks[i].Key)
		if used {
			n++
		}
	}
	return n, errors.Join(err, c.forget(keys))
}

// forget prevents the snapshot from restoring the counters after a crash.
func (c counters) forget(keys [][]byte) error {
	if c.snapshot == nil {
		return nil
	}
	return c.snapshot.Forget(keys)
}

// ResetAll implements admin.Resetter. Redis holds digests of the keys.
func (c counters) ResetAll(ctx context.Context, goes func([]byte) bool) (n int, err error) {
	store, lists := c.in.(backend.Lister)
	if !lists {
		return 0, admin.ErrCannotList
	}
	var keys [][]byte
	for key := range store.Keys() {
		if err = ctx.Err(); err != nil {
			break
		}
		if !goes(key) {
			continue
		}
		var used bool
		if used, err = backend.Reset(ctx, c.in, backend.Check{Key: key}); err != nil {
			break
		}
		if used {
			n++
			if c.snapshot != nil {
				keys = append(keys, bytes.Clone(key))
			}
		}
	}
	return n, errors.Join(err, c.forget(keys))
}
