package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/logtest"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// unhurried is a long timeout, for tests that are not about time.
const unhurried = 10 * time.Second

func limit(t testing.TB, p algo.Params) *algo.Limit {
	t.Helper()
	l, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func hit(b backend.Backend, key string, l *algo.Limit, hits int64) (algo.Decision, error) {
	out := make([]algo.Decision, 1)
	err := b.Decide(context.Background(), &backend.Request{Checks: []backend.Check{{Key: []byte(key), Limit: l, Hits: hits}}}, out)
	return out[0], err
}

// countsThree fails the test unless three hits of a limit of 3 pass, and no fourth.
func countsThree(t *testing.T, b backend.Backend, l *algo.Limit) {
	t.Helper()
	for want := int64(2); want >= 0; want-- {
		d, err := hit(b, "a", l, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Allowed || d.Remaining != want {
			t.Errorf("got %+v, want %d to remain", d, want)
		}
	}
	if d, err := hit(b, "a", l, 1); err != nil || d.Allowed {
		t.Errorf("a hit too many: %+v, %v", d, err)
	}
}

// TestDeployments reaches each kind of deployment through the environment, and
// counts in it.
func TestDeployments(t *testing.T) {
	t.Parallel()
	l := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 3, Window: 24 * time.Hour})
	tests := map[string]func(t *testing.T) (env, *redistest.Server){
		"TCP": func(t *testing.T) (env, *redistest.Server) {
			s := redistest.Start(t, redistest.Config{})
			return env{"REDIS_URL": "redis://" + s.Addr}, s
		},
		"socket": func(t *testing.T) (env, *redistest.Server) {
			s := redistest.Start(t, redistest.Config{Unix: true})
			return env{"REDIS_URL": "unix://" + s.Addr}, s
		},
		"password": func(t *testing.T) (env, *redistest.Server) {
			s := redistest.Start(t, redistest.Config{Password: "p/w:x"})
			return env{"REDIS_URL": "redis://:p%2Fw%3Ax@" + s.Addr}, s
		},
		"user with just the rights that are documented": func(t *testing.T) (env, *redistest.Server) {
			s := redistest.Start(t, redistest.Config{})
			s.Do(documentedUser(t)...)
			s.Do("ACL", "SETUSER", "default", "-set", "-evalsha")
			return env{"REDIS_URL": s.Addr, "REDIS_SOCKET_TYPE": "tcp", "REDIS_AUTH": "ratelimit:password"}, s
		},
		"database": func(t *testing.T) (env, *redistest.Server) {
			s := redistest.Start(t, redistest.Config{})
			host, port := split(t, s.Addr)
			return env{"REDIS_HOST": host, "REDIS_PORT": port, "REDIS_DB": "5"}, s
		},
		"TLS with a client's certificate": func(t *testing.T) (env, *redistest.Server) {
			files := redistest.NewTLS(t)
			s := redistest.Start(t, redistest.Config{TLS: files})
			return env{
				"REDIS_URL": "rediss://" + s.Addr, "REDIS_TLS_CACERT": files.CA,
				"REDIS_TLS_CLIENT_CERT": files.ClientCert, "REDIS_TLS_CLIENT_KEY": files.ClientKey,
			}, s
		},
		"TLS and another name": func(t *testing.T) (env, *redistest.Server) {
			files := redistest.NewTLS(t)
			s := redistest.Start(t, redistest.Config{TLS: files, Args: []string{"--tls-auth-clients", "no", "--bind", "127.0.0.1", "127.0.0.2"}})
			_, port := split(t, s.Addr)
			return env{
				"REDIS_HOST": "127.0.0.2", "REDIS_PORT": port, "REDIS_SSL": "true",
				"REDIS_TLS_CACERT": files.CA, "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true",
			}, s
		},
	}
	for name, start := range tests {
		t.Run(name, func(t *testing.T) {
			variables, server := start(t)
			from, err := settings.ReadRedis(variables.get)
			if err != nil {
				t.Fatal(err)
			}
			from.Options.Timeout, from.Options.DialTimeout = unhurried, unhurried
			b := open(t, from.Options)
			countsThree(t, b, l)
			if keys := server.Info("db" + fmt.Sprint(from.Options.DB)); !strings.HasPrefix(keys, "keys=1,expires=1,") {
				t.Errorf("the database holds %s, want one key that expires", keys)
			}
		})
	}
}

// documentedUser returns the command of docs/redis.md that creates a user with only the
// necessary rights.
func documentedUser(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, found := strings.Cut(string(text), "\nACL SETUSER ")
	command, _, ended := strings.Cut(command, "```")
	if !found || !ended {
		t.Fatal("docs/redis.md has no ACL SETUSER")
	}
	return append([]string{"ACL", "SETUSER"}, strings.Fields(command)...)
}

// TestTheDocumentedUserMayDoAll uses every feature of the service that needs Redis, as the
// user of docs/redis.md.
func TestTheDocumentedUserMayDoAll(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{Args: []string{"--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"}})
	s.Do(documentedUser(t)...)
	log, lines := logtest.New(zapcore.WarnLevel)
	b := open(t, redis.Options{Addrs: []string{s.Addr}, Username: "ratelimit", Password: "password", Log: log})
	for a := range algo.Algorithms() {
		l, err := algo.New(algo.Params{Algorithm: algo.Algorithm(a), Limit: 3, Window: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 { // grows, is refused, gives back
			if _, err := hit(b, fmt.Sprint(a), l, 1); err != nil {
				t.Errorf("%v: %v", algo.Algorithm(a), err)
			}
		}
		if _, err := hit(b, fmt.Sprint(a), l, -1); err != nil {
			t.Errorf("%v: %v", algo.Algorithm(a), err)
		}
		if _, err := b.Reset(context.Background(), backend.Check{Key: []byte(fmt.Sprint(a)), Limit: l}); err != nil {
			t.Errorf("reset of %v: %v", algo.Algorithm(a), err)
		}
	}
	rules := rulestore.NewRedis(rulestore.RedisOptions{Prefix: b.Prefix(), Client: b.Client, Log: zap.NewNop()})
	for revision := range uint64(2) {
		set, err := rules.Load(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := rules.Save(context.Background(), set, rulestore.Set{Revision: revision + 1}); err != nil {
			t.Fatal(err)
		}
	}
	changed, stop := context.WithCancel(context.Background())
	defer stop()
	seen := 0
	if err := rules.Watch(changed, func() {
		if seen++; seen == 2 { // the second time by the rules in Redis
			stop()
		}
	}); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	lines.Await(t, 1, "maxmemory-policy")
	denied := s.Do("ACL", "LOG")
	if list, err := denied.ToArray(); err != nil || len(list) > 0 {
		t.Errorf("denied were %v, %v", list, err)
	}
}

// TestAMissingRightIsAnError takes each right from the documented user that decisions need.
// Without it no hit may be let through as if the limit were unused.
func TestAMissingRightIsAnError(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	for _, right := range []string{"evalsha", "time", "get", "set", "incrby", "getrange", "pttl"} {
		user := "without-" + right
		command := append(documentedUser(t), "-"+right)
		command[2] = user
		s.Do(command...)
		b := open(t, redis.Options{Addrs: []string{s.Addr}, Username: user, Password: "password"})
		for a := range algo.Algorithms() {
			l, err := algo.New(algo.Params{Algorithm: algo.Algorithm(a), Limit: 2, Window: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			allowed := 0
			for range 5 {
				d, err := hit(b, right+fmt.Sprint(a), l, 1)
				if err != nil && !strings.Contains(err.Error(), "permission") && !strings.Contains(err.Error(), "can't run this command") {
					t.Errorf("without %s: %v", right, err)
				}
				if err == nil && d.Allowed {
					allowed++
				}
			}
			if allowed > 2 {
				t.Errorf("without %s %v admits %d of 2", right, algo.Algorithm(a), allowed)
			}
		}
	}
}

// TestRefusedConnections checks the errors for servers that refuse the connection.
func TestRefusedConnections(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLS(t)
	secured := redistest.Start(t, redistest.Config{TLS: files})
	protected := redistest.Start(t, redistest.Config{Password: "right"})
	alone, another := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{})
	guarded := redistest.StartClusterOfOne(t, redistest.Config{})
	guarded.Do("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-cluster|slots")
	tests := map[string]struct {
		options redis.Options
		want    string
	}{
		"password":       {redis.Options{Addrs: []string{protected.Addr}, Password: "hunter2"}, "WRONGPASS"},
		"no password":    {redis.Options{Addrs: []string{protected.Addr}}, "NOAUTH"},
		"plain text":     {redis.Options{Addrs: []string{secured.Addr}}, "not connected yet: "},
		"no certificate": {redis.Options{Addrs: []string{secured.Addr}, TLS: &tlsfiles.Files{CA: files.CA}}, "not connected yet: "},
		"no cluster":     {redis.Options{Mode: redis.Cluster, Addrs: []string{alone.Addr}}, "is not a cluster: use Mode=SINGLE"},
		"no clusters":    {redis.Options{Mode: redis.Cluster, Addrs: []string{alone.Addr, another.Addr}}, "is not a cluster: use Mode=SINGLE"},
		"no permission":  {redis.Options{Mode: redis.Cluster, Addrs: []string{guarded.Addr}, Username: "app", Password: "pw"}, "cluster|slots"},
		"many servers":   {redis.Options{Addrs: []string{redistest.StartEnvoy(t, alone, another)}}, "use Mode=PROXY"},
		"a cluster":      {redis.Options{Addrs: []string{guarded.Addr}}, "use Mode=PROXY, or CLUSTER"},
		"no hash tags":   {redis.Options{Mode: redis.Proxy, Addrs: []string{redistest.StartEnvoyWithoutTags(t, alone, another)}}, "enable_hashtagging: true"},
		"no proxy":       {redis.Options{Mode: redis.Proxy, Addrs: []string{freeport.ForTest(t).Addr()}}, "refused"},
		"nobody there":   {redis.Options{Addrs: []string{freeport.ForTest(t).Addr()}}, "refused"},
	}
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 3, Window: time.Minute})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := redis.New(test.options)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			var last error
			redistest.Eventually(t, "the reason is known", func() bool {
				_, last = hit(b, "a", l, 1)
				return last != nil && contains(last, test.want)
			})
			if !errors.Is(last, redis.ErrUnavailable) {
				t.Errorf("%v is not ErrUnavailable", last)
			}
			if b.Healthy() {
				t.Error("it is healthy without a connection")
			}
			if contains(last, "hunter") {
				t.Errorf("%v shows a password", last)
			}
		})
	}
}
