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

// TestRenewedCertificates has all certificates be renewed under another authority,
// and Redis started again with them. A connection of the old ones is refused then.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	files, renewed := redistest.NewTLS(t), redistest.NewTLS(t)
	s := redistest.Start(t, redistest.Config{TLS: files})
	settings, err := redis.FromEnvironment(env{
		"REDIS_URL": "rediss://" + s.Addr, "REDIS_TLS_CACERT": files.CA,
		"REDIS_TLS_CLIENT_CERT": files.ClientCert, "REDIS_TLS_CLIENT_KEY": files.ClientKey,
	}.get)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, settings.Redis)
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

// TestPasswordsFromFiles has user and password change while the service runs.
func TestPasswordsFromFiles(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	s.Do("ACL", "SETUSER", "first", "on", ">one", "~*", "+@all")
	dir := t.TempDir()
	user, password := filepath.Join(dir, "user"), filepath.Join(dir, "password")
	write(t, user, "first\n")
	write(t, password, "one\n")
	settings, err := redis.FromEnvironment(env{"REDIS_URL": s.Addr, "REDIS_USERNAME_FILE": user, "REDIS_PASSWORD_FILE": password}.get)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, settings.Redis)
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

// TestFilesOfSecrets shows what is said of files with passwords.
func TestFilesOfSecrets(t *testing.T) {
	dir := t.TempDir()
	open, empty, private := filepath.Join(dir, "open"), filepath.Join(dir, "empty"), filepath.Join(dir, "private")
	for _, path := range []string{open, private} {
		write(t, path, "hunter2")
	}
	write(t, empty, "\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := redis.FromEnvironment(env{"REDIS_URL": "r:1", "REDIS_PASSWORD_FILE": open}.get)
	if err != nil || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "REDIS_PASSWORD_FILE: anyone may read or write "+open) {
		t.Errorf("%v, %v, want a warning that anyone may read it", s.Warnings, err)
	}
	s, err = redis.FromEnvironment(env{"REDIS_URL": "r:1", "REDIS_PASSWORD_FILE": private, "REDIS_USERNAME": "app"}.get)
	if err != nil || len(s.Warnings) != 0 || s.Redis.PasswordFile != private {
		t.Errorf("%+v, %v", s, err)
	}
	for name, test := range map[string]struct {
		env  env
		want string
	}{
		"no such file":       {env{"REDIS_PASSWORD_FILE": filepath.Join(dir, "none")}, "REDIS_PASSWORD_FILE: open "},
		"empty":              {env{"REDIS_PASSWORD_FILE": empty}, "REDIS_PASSWORD_FILE: " + empty + " is empty"},
		"and a password":     {env{"REDIS_PASSWORD_FILE": private, "REDIS_PASSWORD": "hunter3"}, "REDIS_PASSWORD_FILE and REDIS_PASSWORD: leave one of them out"},
		"and one in the URL": {env{"REDIS_URL": "redis://:hunter3@r:1", "REDIS_PASSWORD_FILE": private}, "REDIS_PASSWORD_FILE and REDIS_URL"},
		"and a user":         {env{"REDIS_USERNAME_FILE": private, "REDIS_USERNAME": "app"}, "REDIS_USERNAME_FILE and REDIS_USERNAME"},
		"only a user":        {env{"REDIS_USERNAME_FILE": private}, "there is no REDIS_PASSWORD_FILE"},
	} {
		if test.env["REDIS_URL"] == "" {
			test.env["REDIS_URL"] = "r:1"
		}
		_, err := redis.FromEnvironment(test.env.get)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v, want %q and no password", name, err, test.want)
		}
	}
}
