package main

import (
	"fmt"

	"google.golang.org/grpc/credentials"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// grpcTLS makes the TLS of the gRPC address, if it is to have any.
func (s *service) grpcTLS() error {
	if !s.TLS {
		return nil
	}
	secure, err := tlsfiles.Server(tlsfiles.Files{Cert: s.TLSCert, Key: s.TLSKey, CA: s.TLSCACert, Name: s.TLSName, Log: s.log})
	if err != nil {
		return fmt.Errorf("TLS of gRPC: %w", err)
	}
	s.handshakes = tlsfiles.NewHandshakes(credentials.NewTLS(secure), s.log.Named("tls"))
	s.metrics = append(s.metrics, s.handshakes)
	return nil
}

// watchCertificates has metrics say when the certificates of this service end.
func (s *service) watchCertificates() error {
	files := map[string]tlsfiles.Files{"admin": {Cert: s.Admin.TLSCert, Key: s.Admin.TLSKey}}
	if s.TLS {
		files["grpc"] = tlsfiles.Files{Cert: s.TLSCert, Key: s.TLSKey}
	}
	if s.ConfigType == fromXDS && s.XDS.TLS {
		files["xds"] = tlsfiles.Files{Cert: s.XDS.TLSCert, Key: s.XDS.TLSKey}
	}
	for use, r := range map[string]struct {
		settings *redis.Settings
		variable func(string) string
	}{"redis": {&s.stores.main, s.redisVariable}, "redis_per_second": {s.stores.perSecond, perSecondVariable}} {
		if r.settings != nil && r.settings.Backend == "redis" && r.settings.Redis.TLS != nil {
			files[use] = tlsfiles.Files{Cert: r.variable("REDIS_TLS_CLIENT_CERT"), Key: r.variable("REDIS_TLS_CLIENT_KEY")}
		}
	}
	lifetimes, err := tlsfiles.NewLifetimes(files)
	if err != nil {
		return fmt.Errorf("the lifetimes of certificates: %w", err)
	}
	s.metrics = append(s.metrics, lifetimes)
	return nil
}
