package settings_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/settings"
)

type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestReadRedis(t *testing.T) {
	tests := map[string]struct {
		env  env
		want string // the settings, as show prints them
	}{
		"no address":  {env{}, "single tcp localhost:6379"},
		"any setting": {env{"REDIS_POOL_SIZE": "10"}, "single tcp localhost:6379 connections=8"},

		"url":                    {env{"REDIS_URL": "redis://r.example:7000"}, "single tcp r.example:7000"},
		"url without a port":     {env{"REDIS_URL": "redis://r.example"}, "single tcp r.example:6379"},
		"url with everything":    {env{"REDIS_URL": "redis://app:p%40ss@r.example:7000/3"}, "single tcp r.example:7000 user=app password=p@ss db=3"},
		"url with a password":    {env{"REDIS_URL": "redis://:secret@r.example:7000"}, "single tcp r.example:7000 password=secret"},
		"url with an @ in it":    {env{"REDIS_URL": "redis://:se@cret@r.example:7000"}, "single tcp r.example:7000 password=se@cret"},
		"url with a ? in it":     {env{"REDIS_URL": "redis://:se?c/ret@r.example:7000/2"}, "single tcp r.example:7000 password=se?c/ret db=2"},
		"url with TLS":           {env{"REDIS_URL": "rediss://r.example:7000"}, "single tcp r.example:7000 tls"},
		"url of a socket":        {env{"REDIS_URL": "unix:///run/redis.sock?db=2"}, "single unix /run/redis.sock db=2"},
		"IPv6":                   {env{"REDIS_URL": "redis://[::1]:7000"}, "single tcp [::1]:7000"},
		"IPv6 without a port":    {env{"REDIS_URL": "rediss://[2001:db8::1]/2"}, "single tcp [2001:db8::1]:6379 db=2 tls"},
		"lines of Secrets":       {env{"REDIS_URL": "r:1", "REDIS_USERNAME": "app\n", "REDIS_PASSWORD": "pw \r\n", "REDIS_TYPE": "SINGLE"}, "single tcp r:1 user=app password=pw "},
		"a line of a Secret":     {env{"REDIS_URL": "r:1", "REDIS_AUTH": "app:pw\n"}, "single tcp r:1 user=app password=pw"},
		"url of a cluster":       {env{"REDIS_URL": "redis://a:1,b:2", "REDIS_TYPE": "cluster"}, "cluster tcp a:1,b:2"},
		"url of sentinels":       {env{"REDIS_URL": "redis://:pw@main,a:1,b:2", "REDIS_TYPE": "SENTINEL"}, "sentinel tcp main a:1,b:2 password=pw"},
		"envoyproxy":             {env{"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": "localhost:6379"}, "single tcp localhost:6379"},
		"envoyproxy, no kind":    {env{"REDIS_URL": "localhost:6379"}, "single tcp localhost:6379"},
		"envoyproxy, socket":     {env{"REDIS_SOCKET_TYPE": "unix", "REDIS_URL": "/var/run/r.sock"}, "single unix /var/run/r.sock"},
		"envoyproxy, path":       {env{"REDIS_URL": "/var/run/r.sock"}, "single unix /var/run/r.sock"},
		"envoyproxy, password":   {env{"REDIS_URL": "r:1", "REDIS_AUTH": "pw"}, "single tcp r:1 password=pw"},
		"envoyproxy, user":       {env{"REDIS_URL": "r:1", "REDIS_AUTH": "app:p:w"}, "single tcp r:1 user=app password=p:w"},
		"envoyproxy, TLS":        {env{"REDIS_URL": "r:1", "REDIS_TLS": "true"}, "single tcp r:1 tls"},
		"envoyproxy, sentinels":  {env{"REDIS_URL": "main,a:1,b:2", "REDIS_TYPE": "SENTINEL", "REDIS_AUTH": "pw", "REDIS_SENTINEL_AUTH": "s:t"}, "sentinel tcp main a:1,b:2 password=pw sentinel=s:t"},
		"envoyproxy, cluster":    {env{"REDIS_URL": "a:1,b:2", "REDIS_TYPE": "CLUSTER"}, "cluster tcp a:1,b:2"},
		"envoyproxy, more":       {env{"REDIS_URL": "r:1", "REDIS_TIMEOUT": "5s", "CACHE_KEY_PREFIX": "mine", "REDIS_PIPELINE_WINDOW": "150us", "LOCAL_CACHE_SIZE_IN_BYTES": "1000"}, "single tcp r:1 prefix=mine timeout=5s flush=150µs cache=1000"},
		"host":                   {env{"REDIS_HOST": "r.example"}, "single tcp r.example:6379"},
		"host and all":           {env{"REDIS_HOST": "r.example", "REDIS_PORT": "7000", "REDIS_DB": "4", "REDIS_PASSWORD": "pw", "REDIS_SSL": "true"}, "single tcp r.example:7000 password=pw db=4 tls"},
		"port":                   {env{"REDIS_PORT": "7000"}, "single tcp localhost:7000"},
		"prefix":                 {env{"REDIS_HOST": "r", "RATE_LIMITER_KEY_PREFIX": "mine"}, "single tcp r:6379 prefix=mine"},
		"both, and they agree":   {env{"REDIS_URL": "redis://:pw@r:7000/1", "REDIS_HOST": "r", "REDIS_PORT": "7000", "REDIS_DB": "1", "REDIS_PASSWORD": "pw", "REDIS_AUTH": "pw", "REDIS_SSL": "false"}, "single tcp r:7000 password=pw db=1"},
		"without effect":         {env{"REDIS_URL": "r:1", "REDIS_PIPELINE_LIMIT": "5"}, "single tcp r:1 warnings=1"},
		"sentinel auth alone":    {env{"REDIS_URL": "r:1", "REDIS_SENTINEL_AUTH": "hunter2"}, "single tcp r:1 sentinel=:hunter2 warnings=1"},
		"certificates, no TLS":   {env{"REDIS_URL": "r:1", "REDIS_TLS_CACERT": "/ca.pem", "REDIS_TLS_CLIENT_CERT": "/c.pem"}, "single tcp r:1 warnings=2"},
		"TLS per second only":    {env{"REDIS_URL": "r:1", "REDIS_TLS_CACERT": "/ca.pem", "REDIS_PERSECOND_TLS": "true"}, "single tcp r:1"},
		"TLS as T":               {env{"REDIS_URL": "r:1", "REDIS_TLS": "T"}, "single tcp r:1 tls"},
		"health":                 {env{"REDIS_URL": "r:1", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": "true"}, "single tcp r:1 health"},
		"no combining, and more": {env{"REDIS_URL": "r:1", "REDIS_COMBINING": "false", "REDIS_PLAIN_KEYS": "true", "REDIS_BREAK_AFTER": "3", "REDIS_BREAK_FOR": "2s"}, "single tcp r:1 alone plain break=3/2s"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := settings.ReadRedis(test.env.get)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(s); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

// show prints what differs from the defaults, secrets too.
func show(s settings.Redis) string {
	o := s.Options
	words := []string{o.Mode.String(), o.Network}
	if o.Network == "" {
		words[1] = "tcp"
	}
	add := func(given bool, format string, args ...any) {
		if given {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(o.MasterName != "", "%s", o.MasterName)
	add(true, "%s", strings.Join(o.Addrs, ","))
	add(o.Username != "", "user=%s", o.Username)
	add(o.Password != "", "password=%s", string(o.Password))
	add(o.SentinelPassword != "", "sentinel=%s:%s", o.SentinelUsername, string(o.SentinelPassword))
	add(o.DB != 0, "db=%d", o.DB)
	add(o.TLS != nil, "tls")
	add(o.Prefix != "", "prefix=%s", o.Prefix)
	add(o.Connections != 0, "connections=%d", o.Connections)
	add(o.Timeout != 0, "timeout=%v", o.Timeout)
	add(o.FlushDelay != 0, "flush=%v", o.FlushDelay)
	add(o.LocalCacheBytes != 0, "cache=%d", o.LocalCacheBytes)
	add(o.NoCombining, "alone")
	add(o.PlainKeys, "plain")
	add(o.BreakAfter != 0, "break=%d/%v", o.BreakAfter, o.BreakFor)
	add(s.NeededForHealth, "health")
	add(len(s.Warnings) > 0, "warnings=%d", len(s.Warnings))
	return strings.Join(words, " ")
}

func TestRedisErrors(t *testing.T) {
	files := redistest.NewTLS(t)
	tests := map[string]struct {
		env  env
		want []string // all in the error
	}{
		"two addresses":           {env{"REDIS_URL": "r:1", "REDIS_HOST": "other"}, []string{"REDIS_URL", "REDIS_HOST", "addresses"}},
		"a port with a line end":  {env{"REDIS_URL": "r:6379\n"}, []string{`"r:6379\n" is not host:port`, `the port is "6379\n": use a number from 1 to 65535`}},
		"a port too large":        {env{"REDIS_HOST": "r", "REDIS_PORT": "70000"}, []string{`the port is "70000"`}},
		"a host with its port":    {env{"REDIS_HOST": "r:6379"}, []string{`the host is "r:6379": use a name or an IP address`}},
		"a host with a space":     {env{"REDIS_URL": " r:6379"}, []string{`the host is " r"`}},
		"too many failures":       {env{"REDIS_URL": "r:1", "REDIS_BREAK_AFTER": "4294967296"}, []string{"4294967296 failures", "use 1 to 2147483647"}},
		"two ports":               {env{"REDIS_URL": "localhost:1", "REDIS_PORT": "2"}, []string{"REDIS_URL", "REDIS_PORT"}},
		"two passwords":           {env{"REDIS_URL": "redis://:hunter2@r:1", "REDIS_PASSWORD": "hunter3"}, []string{"REDIS_URL", "REDIS_PASSWORD", "passwords"}},
		"auth and password":       {env{"REDIS_URL": "r:1", "REDIS_AUTH": "hunter2", "REDIS_PASSWORD": "hunter3"}, []string{"REDIS_AUTH", "REDIS_PASSWORD"}},
		"two users":               {env{"REDIS_URL": "redis://a:hunter2@r:1", "REDIS_AUTH": "b:hunter2"}, []string{"REDIS_URL", "REDIS_AUTH", "users"}},
		"two databases":           {env{"REDIS_URL": "redis://r:1/1", "REDIS_DB": "2"}, []string{"REDIS_URL", "REDIS_DB"}},
		"TLS and not":             {env{"REDIS_URL": "rediss://r:1", "REDIS_SSL": "false"}, []string{"REDIS_URL", "REDIS_SSL"}},
		"not TLS and TLS":         {env{"REDIS_URL": "redis://r:1", "REDIS_TLS": "true"}, []string{"REDIS_URL", "REDIS_TLS"}},
		"TLS twice":               {env{"REDIS_URL": "r:1", "REDIS_TLS": "true", "REDIS_SSL": "false"}, []string{"REDIS_TLS", "REDIS_SSL"}},
		"socket and not":          {env{"REDIS_URL": "/run/r.sock", "REDIS_SOCKET_TYPE": "tcp"}, []string{"REDIS_URL", "REDIS_SOCKET_TYPE"}},
		"two prefixes":            {env{"REDIS_URL": "r:1", "CACHE_KEY_PREFIX": "a", "RATE_LIMITER_KEY_PREFIX": "b"}, []string{"CACHE_KEY_PREFIX", "RATE_LIMITER_KEY_PREFIX"}},
		"database of a cluster":   {env{"REDIS_URL": "a:1", "REDIS_TYPE": "CLUSTER", "REDIS_DB": "1"}, []string{"REDIS_TYPE", "REDIS_DB"}},
		"sentinels, no name":      {env{"REDIS_URL": "a:1,b:2", "REDIS_TYPE": "SENTINEL"}, []string{"REDIS_TYPE", "mymaster,host1:26379"}},
		"no port":                 {env{"REDIS_URL": "r"}, []string{"host:port"}},
		"scheme":                  {env{"REDIS_URL": "http://:hunter2@r"}, []string{"http", "redis://"}},
		"escape":                  {env{"REDIS_URL": "redis://:hunter2%zz@r:1"}, []string{"REDIS_URL", "%25"}},
		"query":                   {env{"REDIS_URL": "redis://:hunter2@r:1?password=hunter2"}, []string{"REDIS_URL", "?db=1"}},
		"a password, no scheme":   {env{"REDIS_URL": "user:hunter2@r:1"}, []string{"REDIS_URL", "redis://user:password@host:port", "REDIS_AUTH"}},
		"a ? in a wrong query":    {env{"REDIS_URL": "redis://:a?hunter2@r:1?password=1"}, []string{"REDIS_URL", "?db=1"}},
		"user alone":              {env{"REDIS_URL": "redis://hunter2@r:1"}, []string{"REDIS_URL", "password"}},
		"not a number":            {env{"REDIS_HOST": "r", "REDIS_DB": "one"}, []string{"one", "number"}},
		"not a time":              {env{"REDIS_HOST": "r", "REDIS_TIMEOUT": "20"}, []string{"REDIS_TIMEOUT", "20ms"}},
		"not yes or no":           {env{"REDIS_HOST": "r", "REDIS_SSL": "maybe"}, []string{"REDIS_SSL", "true or false"}},
		"certificate, no key":     {env{"REDIS_URL": "rediss://r:1", "REDIS_TLS_CLIENT_CERT": files.ClientCert}, []string{"REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY"}},
		"no such file":            {env{"REDIS_URL": "rediss://r:1", "REDIS_TLS_CACERT": "/no/such"}, []string{"REDIS_TLS_CACERT", "/no/such"}},
		"no certificate in it":    {env{"REDIS_URL": "rediss://r:1", "REDIS_TLS_CACERT": files.ClientKey}, []string{"REDIS_TLS_CACERT", "PEM"}},
		"several at once":         {env{"REDIS_URL": "r:1", "REDIS_TYPE": "ring", "REDIS_TIMEOUT": "x"}, []string{"REDIS_TYPE", "REDIS_TIMEOUT"}},
		"braces would pick slots": {env{"REDIS_URL": "r:1", "RATE_LIMITER_KEY_PREFIX": "{a}"}, []string{"{a}", "braces"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := settings.ReadRedis(test.env.get)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %s", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("%q shows a password", err)
			}
		})
	}
}

// TestFilesOfSecrets shows what is said of files with passwords.
func TestFilesOfSecrets(t *testing.T) {
	dir := t.TempDir()
	open, empty, private := filepath.Join(dir, "open"), filepath.Join(dir, "empty"), filepath.Join(dir, "private")
	for path, text := range map[string]string{open: "hunter2", private: "hunter2", empty: "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := settings.ReadRedis(env{"REDIS_URL": "r:1", "REDIS_PASSWORD_FILE": open}.get)
	if err != nil || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "REDIS_PASSWORD_FILE: anyone may read or write "+open) {
		t.Errorf("%v, %v, want a warning that anyone may read it", s.Warnings, err)
	}
	s, err = settings.ReadRedis(env{"REDIS_URL": "r:1", "REDIS_PASSWORD_FILE": private, "REDIS_USERNAME": "app"}.get)
	if err != nil || len(s.Warnings) != 0 || s.Options.PasswordFile != private {
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
		"only a user":        {env{"REDIS_USERNAME_FILE": private}, "REDIS_PASSWORD_FILE is not set"},
	} {
		if test.env["REDIS_URL"] == "" {
			test.env["REDIS_URL"] = "r:1"
		}
		_, err := settings.ReadRedis(test.env.get)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v, want %q and no password", name, err, test.want)
		}
	}
}
