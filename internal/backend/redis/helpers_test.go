package redis_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
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

// timeout returns a context that is done after d.
func timeout(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// env is an environment.
type env map[string]string

func (e env) get(name string) string { return e[name] }
