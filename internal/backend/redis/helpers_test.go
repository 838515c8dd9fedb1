package redis_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

func split(t testing.TB, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func withoutCertificate(files *redistest.TLS) *tls.Config {
	c := files.Client.Clone()
	c.Certificates = nil
	return c
}
