package settings

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// Redis holds the settings of one Redis.
type Redis struct {
	// Options say how to reach it. They have no Log.
	Options redis.Options
	// NeededForHealth makes the service unhealthy while there is no connection.
	NeededForHealth bool
	// Warnings name settings that have no effect here, and say why.
	Warnings []string
}

// redisVariables say where Redis is and how to treat it; any of them selects redis.
var redisVariables = []string{
	"REDIS_URL", "REDIS_SOCKET_TYPE", "REDIS_TYPE", "REDIS_AUTH", "REDIS_SENTINEL_AUTH",
	"REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_SSL",
	"REDIS_USERNAME_FILE", "REDIS_PASSWORD_FILE", "REDIS_SENTINEL_PASSWORD_FILE",
	"REDIS_TLS", "REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY", "REDIS_TLS_CACERT", "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION",
	"REDIS_TIMEOUT", "REDIS_DIAL_TIMEOUT", "REDIS_POOL_SIZE", "REDIS_PIPELINE_WINDOW",
	"REDIS_BREAK_AFTER", "REDIS_BREAK_FOR", "REDIS_COMBINING", "REDIS_PLAIN_KEYS", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",
}

// withoutEffect are settings of envoyproxy/ratelimit that this client does not use.
var withoutEffect = map[string]string{
	"REDIS_PIPELINE_LIMIT":               "it has none there either",
	"REDIS_CLUSTER_PIPELINE_PARALLELISM": "slots are always called in parallel",
	"REDIS_POOL_ON_EMPTY_BEHAVIOR":       "connections are shared, and never run out",
	"REDIS_STARTUP_INITIAL_INTERVAL":     "the service starts without Redis, and connects when it can",
	"REDIS_STARTUP_MAX_INTERVAL":         "the service starts without Redis, and connects when it can",
	"REDIS_STARTUP_MAX_ELAPSED_TIME":     "the service starts without Redis, and connects when it can",
}

// ReadRedis reads the settings of a Redis in both dialects: that of
// envoyproxy/ratelimit (REDIS_URL as host:port or a path, REDIS_SOCKET_TYPE,
// REDIS_TYPE, REDIS_AUTH, REDIS_TLS…) with URLs besides (redis://, rediss://,
// unix://), and REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_PASSWORD, REDIS_SSL.
// getenv is as os.Getenv; an empty value is no value. Settings that contradict
// each other are an error that names both, and never a password.
func ReadRedis(getenv Getenv) (Redis, error) {
	e := environment{get: withoutLineEnds(getenv)}
	r := Redis{Options: e.redisOptions(), NeededForHealth: e.boolean("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", false)}
	for name, why := range withoutEffect {
		if getenv(name) != "" {
			r.Warnings = append(r.Warnings, name+" has no effect: "+why)
		}
	}
	r.Warnings = append(r.Warnings, e.warnings...)
	slices.Sort(r.Warnings)
	if len(e.errs) == 0 {
		e.errs = append(e.errs, r.Options.Check())
	}
	return r, errors.Join(e.errs...)
}

// withoutLineEnds cuts off line ends after logins, which a Secret of Kubernetes often has:
// those of a file are no part of a password either.
func withoutLineEnds(getenv Getenv) Getenv {
	return func(name string) string {
		switch name {
		case "REDIS_AUTH", "REDIS_SENTINEL_AUTH", "REDIS_USERNAME", "REDIS_PASSWORD":
			return strings.TrimRight(getenv(name), "\r\n")
		}
		return getenv(name)
	}
}

func (e *environment) redisOptions() redis.Options {
	at := e.location()
	o := redis.Options{
		Mode:            at.mode,
		Network:         at.network,
		Addrs:           at.addrs,
		MasterName:      at.master,
		Timeout:         e.duration("REDIS_TIMEOUT"),
		DialTimeout:     e.duration("REDIS_DIAL_TIMEOUT"),
		FlushDelay:      e.duration("REDIS_PIPELINE_WINDOW"),
		BreakAfter:      e.number("REDIS_BREAK_AFTER"),
		BreakFor:        e.duration("REDIS_BREAK_FOR"),
		NoCombining:     !e.boolean("REDIS_COMBINING", true),
		PlainKeys:       e.boolean("REDIS_PLAIN_KEYS", false),
		Prefix:          agreed(e, "key prefixes", append(e.text("RATE_LIMITER_KEY_PREFIX"), e.text("CACHE_KEY_PREFIX")...)),
		LocalCacheBytes: e.number("LOCAL_CACHE_SIZE_IN_BYTES"),
		Replicas:        e.number("REPLICAS"),
	}
	if n := e.number("REDIS_POOL_SIZE"); n > 0 {
		o.Connections = min(1<<(bits.Len(uint(n))-1), redis.MaxConnections)
	}
	e.login(&o, at)
	e.secure(&o, at)
	if db := agreed(e, "databases", append(at.db, e.text("REDIS_DB")...)); db != "" {
		n, err := strconv.Atoi(db)
		if err != nil {
			e.wrong("the database is %q: use a number", db)
		}
		o.DB = n
		if o.Mode.Spreads() && n != 0 {
			e.wrong("REDIS_TYPE is %s, and the database %d: a %[1]s has only 0; leave REDIS_DB out", o.Mode, n)
		}
	}
	return o
}

// location holds the values of the variables that locate Redis, and the other values
// that a URL may carry.
type location struct {
	mode           redis.Mode
	network        string
	addrs          []string
	master         string
	user, password []choice[string]
	db             []choice[string]
	tls            []choice[bool]
}

func (e *environment) location() location {
	var at location
	switch kind := strings.ToLower(e.get("REDIS_TYPE")); kind {
	case "", "single":
	case "sentinel":
		at.mode = redis.Sentinel
	case "cluster":
		at.mode = redis.Cluster
	case "proxy":
		at.mode = redis.Proxy
	default:
		e.wrong("REDIS_TYPE is %q: use SINGLE, SENTINEL, CLUSTER or PROXY", kind)
	}
	var networks, hosts []choice[string]
	if v := e.get("REDIS_URL"); v != "" {
		network, list := e.parseURL(v, &at)
		networks = append(networks, choice[string]{"REDIS_URL", network})
		hosts = append(hosts, choice[string]{"REDIS_URL", list})
	}
	if host, port := e.get("REDIS_HOST"), e.get("REDIS_PORT"); host != "" || port != "" {
		from := "REDIS_HOST"
		if host == "" {
			from, host = "REDIS_PORT", "localhost"
		}
		if port == "" {
			port = "6379"
		}
		hosts = append(hosts, choice[string]{from, net.JoinHostPort(host, port)})
		networks = append(networks, choice[string]{from, "tcp"})
	}
	if v := strings.ToLower(e.get("REDIS_SOCKET_TYPE")); v != "" {
		networks = append(networks, choice[string]{"REDIS_SOCKET_TYPE", v})
	}
	at.network = agreed(e, "kinds of socket", networks)
	list := agreed(e, "addresses", hosts)
	if len(hosts) == 0 {
		list = "localhost:6379"
	}
	at.addrs = strings.Split(list, ",")
	if at.mode == redis.Sentinel {
		at.master, at.addrs = at.addrs[0], at.addrs[1:]
		if len(at.addrs) == 0 || strings.Contains(at.master, ":") {
			e.wrong("REDIS_TYPE is SENTINEL: REDIS_URL is then the name of the master and the sentinels, such as mymaster,host1:26379,host2:26379")
		}
	}
	return at
}

// parseURL reads REDIS_URL, and returns the network and the list of addresses.
func (e *environment) parseURL(v string, at *location) (network, list string) {
	scheme, rest, isURL := strings.Cut(v, "://")
	if !isURL {
		if strings.HasPrefix(v, "/") {
			return "unix", v
		}
		if strings.Contains(v, "@") { // else the password would be read as an address, and shown
			e.wrong("REDIS_URL has an @ and no scheme: write redis://user:password@host:port, or REDIS_AUTH beside host:port")
			return "tcp", ""
		}
		return "tcp", v
	}
	// Cut off the login first: a password may hold characters that separate later parts.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		e.parseLogin(rest[:i], at)
		rest = rest[i+1:]
	}
	rest, query, _ := strings.Cut(rest, "?")
	path := ""
	switch strings.ToLower(scheme) {
	case "unix":
		network, list = "unix", rest
	case "redis", "rediss":
		network = "tcp"
		list, path, _ = strings.Cut(rest, "/")
		at.tls = append(at.tls, choice[bool]{"REDIS_URL", strings.EqualFold(scheme, "rediss")})
	default:
		e.wrong("REDIS_URL begins with %s://: use redis://, rediss:// or unix://, or host:port", scheme)
		return "", ""
	}
	if path != "" {
		at.db = append(at.db, choice[string]{"the path of REDIS_URL", path})
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		e.wrong("REDIS_URL has a query that cannot be read: use ?db=1, or none")
	}
	for name := range values {
		if name != "db" {
			e.wrong("REDIS_URL has a query with %q: use ?db=1, or none", name)
			continue
		}
		at.db = append(at.db, choice[string]{"the query of REDIS_URL", values.Get(name)})
	}
	if network == "tcp" {
		list = withPorts(list)
	}
	return network, list
}

// withPorts adds the usual port to addresses of a list that have none.
func withPorts(list string) string {
	hosts := strings.Split(list, ",")
	for i, host := range hosts {
		if host == "" {
			host = "localhost"
		}
		if len(hosts) == 1 && (!strings.Contains(host, ":") || strings.HasSuffix(host, "]")) {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "6379")
		}
		hosts[i] = host
	}
	return strings.Join(hosts, ",")
}

func (e *environment) parseLogin(text string, at *location) {
	user, password, _ := strings.Cut(text, ":")
	user, userErr := url.PathUnescape(user)
	password, passwordErr := url.PathUnescape(password)
	switch {
	case userErr != nil || passwordErr != nil:
		e.wrong("REDIS_URL has a user or password that cannot be read: write %% as %%25, / as %%2F, @ as %%40")
	case password == "":
		e.wrong("REDIS_URL has an @ and no password before it: write redis://user:password@host, or redis://:password@host")
	default:
		at.password = append(at.password, choice[string]{"REDIS_URL", password})
	}
	if user != "" {
		at.user = append(at.user, choice[string]{"REDIS_URL", user})
	}
}

// login fills in users and passwords.
func (e *environment) login(o *redis.Options, at location) {
	users := slices.Concat(at.user, e.text("REDIS_USERNAME"))
	passwords := slices.Concat(at.password, e.text("REDIS_PASSWORD"))
	if auth := e.get("REDIS_AUTH"); auth != "" {
		user, password := splitAuth(auth)
		passwords = append(passwords, choice[string]{"REDIS_AUTH", password})
		if user != "" {
			users = append(users, choice[string]{"REDIS_AUTH", user})
		}
	}
	o.Username = agreed(e, "users", users)
	o.Password = redis.Secret(agreed(e, "passwords", passwords))
	o.UsernameFile = e.secretFile("REDIS_USERNAME_FILE", users...)
	o.PasswordFile = e.secretFile("REDIS_PASSWORD_FILE", passwords...)
	if password := o.Password != "" || o.PasswordFile != ""; !password && len(e.errs) == 0 {
		switch {
		case o.Username != "":
			e.wrong("%s names a user, but REDIS_PASSWORD is not set", users[0].from)
		case o.UsernameFile != "":
			e.wrong("REDIS_USERNAME_FILE names a user, but REDIS_PASSWORD_FILE is not set")
		}
	}
	auth := e.text("REDIS_SENTINEL_AUTH")
	if len(auth) > 0 {
		user, password := splitAuth(auth[0].value)
		o.SentinelUsername, o.SentinelPassword = user, redis.Secret(password)
	}
	o.SentinelPasswordFile = e.secretFile("REDIS_SENTINEL_PASSWORD_FILE", auth...)
	if o.Mode == redis.Sentinel {
		return
	}
	for _, name := range []string{"REDIS_SENTINEL_AUTH", "REDIS_SENTINEL_PASSWORD_FILE"} {
		if e.get(name) != "" {
			e.warnings = append(e.warnings, name+" has no effect: REDIS_TYPE is not SENTINEL")
		}
	}
}

// secretFile returns the path of a file with a secret. It is an error to give the
// secret in another way, too.
func (e *environment) secretFile(name string, otherwise ...choice[string]) string {
	path := e.get(name)
	if path == "" {
		return ""
	}
	if len(otherwise) > 0 {
		e.wrong("%s and %s: leave one of them out", name, otherwise[0].from)
		return ""
	}
	if _, err := redis.ReadSecret(path); err != nil {
		e.wrong("%s: %w", name, err)
		return path
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&0o006 != 0 {
		e.warnings = append(e.warnings, fmt.Sprintf("%s: anyone may read or write %s (%v): chmod o-rw", name, path, info.Mode().Perm()))
	}
	return path
}

// splitAuth splits "user:password", or "password".
func splitAuth(auth string) (user, password string) {
	if user, password, found := strings.Cut(auth, ":"); found {
		return user, password
	}
	return "", auth
}

// secure fills in TLS.
func (e *environment) secure(o *redis.Options, at location) {
	choices := at.tls
	for _, name := range []string{"REDIS_TLS", "REDIS_SSL"} {
		if e.get(name) != "" {
			choices = append(choices, choice[bool]{name, e.boolean(name, false)})
		}
	}
	files := []string{"REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY", "REDIS_TLS_CACERT"}
	if !agreed(e, "answers to whether to use TLS", choices) {
		if perSecond, err := strconv.ParseBool(e.get("REDIS_PERSECOND_TLS")); err == nil && perSecond {
			return // the files are for that connection
		}
		for _, name := range files {
			if e.get(name) != "" {
				e.warnings = append(e.warnings, name+" has no effect: TLS is not on; set REDIS_TLS=true, or use rediss://")
			}
		}
		return
	}
	f := &tlsfiles.Files{Cert: e.get(files[0]), Key: e.get(files[1]), CA: e.get(files[2]), WithSystem: true, Log: zap.NewNop()}
	if (f.Cert == "") != (f.Key == "") {
		e.wrong("%s and %s belong together: set both or none", files[0], files[1])
	} else if _, err := tlsfiles.ClientConfig(tlsfiles.Files{Cert: f.Cert, Key: f.Key, Log: f.Log}); err != nil {
		e.wrong("%s and %s: %w", files[0], files[1], err)
	}
	if _, err := tlsfiles.ClientConfig(tlsfiles.Files{CA: f.CA, Log: f.Log}); err != nil {
		e.wrong("%s: %w", files[2], err)
	}
	o.TLS = f
	o.SkipHostname = e.boolean("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", false)
}
