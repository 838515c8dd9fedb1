package redis

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestSentinelsHaveALoginOfTheirOwn dials as the library does, and asks for the
// login of each connection.
func TestSentinelsHaveALoginOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	d, err := newDialer(&Options{Network: "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	who := logins{server: login{user: "app", password: "one"}, sentinel: login{user: "watcher", password: "two"}}
	for _, test := range []struct {
		config *tls.Config
		want   rueidis.AuthCredentials
	}{
		{nil, rueidis.AuthCredentials{Username: "app", Password: "one"}},
		{&tls.Config{MinVersion: tls.VersionTLS12}, rueidis.AuthCredentials{Username: "app", Password: "one"}},
		{d.sentinels, rueidis.AuthCredentials{Username: "watcher", Password: "two"}},
	} {
		conn, err := d.dial(t.Context(), s.Addr, &net.Dialer{Timeout: time.Minute}, test.config)
		if err != nil {
			t.Fatal(err)
		}
		got, err := who.credentials(rueidis.AuthCredentialsContext{Address: conn.RemoteAddr()})
		if err != nil || got != test.want {
			t.Errorf("got %+v, %v, want %+v", got, err, test.want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
