package redis_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// write writes a file that only its owner reads.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// answers waits until Redis answers with a connection of its own time.
func answers(t *testing.T, b *redis.Backend, when string) {
	t.Helper()
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 1000, Window: time.Hour})
	redistest.Eventually(t, "it is answered "+when, func() bool {
		_, err := hit(b, "a", l, 1)
		return err == nil
	})
}

// TestRenewedCertificates renews all certificates under another authority, and restarts
// Redis with them. A connection with the old ones is then refused.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	files, renewed := redistest.NewTLS(t), redistest.NewTLS(t)
	s := redistest.Start(t, redistest.Config{TLS: files})
	from, err := settings.ReadRedis(env{
		"REDIS_URL": "rediss://" + s.Addr, "REDIS_TLS_CACERT": files.CA,
		"REDIS_TLS_CLIENT_CERT": files.ClientCert, "REDIS_TLS_CLIENT_KEY": files.ClientKey,
	}.get)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, from.Options)
	answers(t, b, "with the first certificates")
	for from, to := range map[string]string{
		renewed.CA: files.CA, renewed.ServerCert: files.ServerCert, renewed.ServerKey: files.ServerKey,
		renewed.ClientCert: files.ClientCert, renewed.ClientKey: files.ClientKey,
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, string(text))
	}
	s.Restart()
	answers(t, b, "with the renewed certificates")
}

// TestPasswordsFromFiles changes user and password while the service runs.
func TestPasswordsFromFiles(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	s.Do("ACL", "SETUSER", "first", "on", ">one", "~*", "+@all")
	dir := t.TempDir()
	user, password := filepath.Join(dir, "user"), filepath.Join(dir, "password")
	write(t, user, "first\n")
	write(t, password, "one\n")
	from, err := settings.ReadRedis(env{"REDIS_URL": s.Addr, "REDIS_USERNAME_FILE": user, "REDIS_PASSWORD_FILE": password}.get)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, from.Options)
	answers(t, b, "as the first user")
	s.Do("ACL", "SETUSER", "second", "on", ">two", "~*", "+@all")
	write(t, user, "second\n")
	write(t, password, "two\n")
	s.Do("ACL", "DELUSER", "first") // which ends its connections
	answers(t, b, "as the second user")
	if users := s.Text("CLIENT", "LIST"); !strings.Contains(users, "user=second") {
		t.Errorf("the clients are %s, want one that is the second user", users)
	}
}
