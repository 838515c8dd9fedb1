package app

import (
	"fmt"
	"maps"

	"google.golang.org/grpc/credentials"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// grpcTLS makes the TLS of the gRPC address, if it is configured.
func (s *service) grpcTLS() error {
	if s.opts.GRPC.TLS == nil {
		return nil
	}
	files := *s.opts.GRPC.TLS
	files.Log = s.log
	secure, err := tlsfiles.Server(files)
	if err != nil {
		return fmt.Errorf("TLS of gRPC: %w", err)
	}
	s.handshakes = tlsfiles.NewHandshakes(credentials.NewTLS(secure), s.log.Named("tls"))
	s.metrics = append(s.metrics, s.handshakes)
	return nil
}

// watchCertificates exports when the certificates of this service expire.
func (s *service) watchCertificates() error {
	files := map[string]tlsfiles.Files{}
	maps.Copy(files, s.opts.Store.Certificates)
	for use, of := range map[string]*tlsfiles.Files{"admin": s.opts.Admin.TLS, "grpc": s.opts.GRPC.TLS, "xds": s.opts.Rules.XDSTLS} {
		if of != nil {
			files[use] = *of
		}
	}
	lifetimes, err := tlsfiles.NewLifetimes(files)
	if err != nil {
		return fmt.Errorf("the lifetimes of certificates: %w", err)
	}
	s.metrics = append(s.metrics, lifetimes)
	return nil
}
