package redis_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

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

// timeout returns a context that is done after d.
func timeout(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}
