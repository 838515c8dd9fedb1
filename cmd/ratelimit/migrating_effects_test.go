package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/freeport"
)

// effect is what a variable changes, as one can see it.
type effect struct {
	live  func(m *migrated)             // looks at the service that has started with it
	after func(m *migrated, log string) // looks at what it has written until it ended
	test  string                        // elsewhere: the package and name of a test that sees it
}

// effects are those of all variables that have one, by name.
var effects = map[string]effect{
	"HOST":       {live: func(m *migrated) { m.listens(m.http, "127.0.0.2:") }},
	"PORT":       {live: func(m *migrated) { m.listens(m.http, ":"+m.give("port")) }},
	"DEBUG_HOST": {live: func(m *migrated) { m.listens(m.admin, "127.0.0.2:") }},
	"DEBUG_PORT": {live: func(m *migrated) { m.listens(m.admin, ":"+m.give("port")) }},
	"GRPC_UDS":   {live: func(m *migrated) { m.decides("edge", m.dial("unix:"+m.given["dir"]+"/grpc.sock", nil)) }},
	"GRPC_HOST":  {live: func(m *migrated) { m.listens(m.grpc, "127.0.0.2:"); m.decides("edge", m.conn()) }},
	"GRPC_PORT":  {live: func(m *migrated) { m.listens(m.grpc, ":"+m.give("port")); m.decides("edge", m.conn()) }},

	"GRPC_MAX_CONNECTION_AGE": {live: func(m *migrated) {
		conn := m.conn()
		conn.Connect()
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(m.Context(), state) {
				return
			}
		}
		ctx, cancel := context.WithTimeout(m.Context(), patience)
		defer cancel()
		if !conn.WaitForStateChange(ctx, connectivity.Ready) {
			m.Error("the connection stays")
		}
	}},
	"GRPC_MAX_CONNECTION_AGE_GRACE": {live: func(m *migrated) {
		ctx, cancel := context.WithTimeout(m.Context(), patience)
		defer cancel()
		stream, err := healthv1.NewHealthClient(m.conn()).Watch(ctx, &healthv1.HealthCheckRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			m.Errorf("a stream outlives the grace: %v", err)
		}
	}},

	"GRPC_SERVER_USE_TLS":  {live: speaksTLS},
	"GRPC_SERVER_TLS_CERT": {live: speaksTLS},
	"GRPC_SERVER_TLS_KEY":  {live: speaksTLS},
	"GRPC_CLIENT_TLS_CACERT": {live: func(m *migrated) {
		m.decides("edge", m.dialTLS("cert"))
		m.refuses(m.dialTLS(""))
	}},
	"GRPC_CLIENT_TLS_SAN": {live: func(m *migrated) {
		m.decides("edge", m.dialTLS("envoycert"))
		m.refuses(m.dialTLS("cert"))
	}},

	"LOG_LEVEL": {
		live: func(m *migrated) { // which is a line at info, and one at warn
			m.ask(m.conn(), "edge", "nothing")
			m.ask(m.conn(), "nobody", "user")
		},
		after: func(m *migrated, log string) {
			if strings.Contains(log, "\tinfo\t") || !strings.Contains(log, "\twarn\t") {
				m.Errorf("the log is not at warn:\n%s", log)
			}
		},
	},
	"LOG_FORMAT": {after: func(m *migrated, log string) {
		for line := range strings.Lines(log) {
			if !json.Valid([]byte(line)) {
				m.Errorf("not JSON: %s", line)
			}
		}
	}},

	"CONFIG_TYPE": {live: logs(`no connection to the xDS server`)},
	"FORCE_START_WITHOUT_INITIAL_CONFIG": {live: func(m *migrated) {
		if code, _ := m.get(m.http, "/healthcheck"); code != http.StatusOK {
			m.Errorf("health is %d without rules", code)
		}
	}},
	"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": {live: isUnhealthy},

	"CONFIG_GRPC_XDS_NODE_ID":                   {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_NODE_METADATA":             {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_SERVER_URL":                {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_SERVER_USE_TLS":            {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_CLIENT_TLS_CERT":           {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_CLIENT_TLS_KEY":            {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_SERVER_TLS_CACERT":         {test: "test/integration TestStartedByEnvoyGateway"},
	"CONFIG_GRPC_XDS_SERVER_TLS_SAN":            {test: "test/integration TestStartedByEnvoyGateway"},

	"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL": {live: logs(`no connection to the xDS server.*"retry_after": "7s"`)},
	"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL":           {live: logs(`stream of rules has ended.*"retry_after": "7s"`)},
	"XDS_CLIENT_BACKOFF_MAX_INTERVAL": {
		live: logs(`(?s)"retry_after": "1ms".*"retry_after": "2ms".*"retry_after": "4ms".*"retry_after": "4ms"`),
		after: func(m *migrated, log string) {
			if strings.Contains(log, `"retry_after": "8ms"`) {
				m.Errorf("waits go on growing:\n%s", log)
			}
		},
	},
	"XDS_CLIENT_BACKOFF_RANDOM_FACTOR": {live: logs(`"retry_after": "(?:9\.9\d+|10\.0\d+)s"`)},
	"XDS_CLIENT_BACKOFF_JITTER":        {live: logs(`"retry_after": "10s"`)},
	"XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES": {live: logs(`message larger than max \(\d+ vs\. 500\)`)},

	"USE_DOG_STATSD":            {live: sends(`ratelimit\.service\.rate_limit\.edge\.user\.total_hits:1\|c`)},
	"USE_DOG_STATSD_MOGRIFIERS": {live: sends(`(?m)^renamed:1\|c`)},
	"USE_STATSD":                {live: sends(`ratelimit\.service\.rate_limit\.edge\.user\.total_hits:1\|c`)},
	"STATSD_HOST":               {live: sends(`ratelimit\.service\.rate_limit\.edge\.user\.total_hits:1\|c`)},
	"STATSD_PORT":               {live: sends(`ratelimit\.service\.rate_limit\.edge\.user\.total_hits:1\|c`)},
	"EXTRA_TAGS":                {live: sends(`total_hits\.__zone=a:1\|c`)},
	"STATS_FLUSH_INTERVAL": {live: func(m *migrated) {
		began := time.Now()
		sends(`total_hits:1\|c`)(m)
		if took := time.Since(began); took > 8*time.Second { // 10 s by default
			m.Errorf("it came after %v", took)
		}
	}},
	"DISABLE_STATS": {live: decidesEdge, after: func(m *migrated, _ string) {
		if got := m.received.String(); got != "" {
			m.Errorf("it has sent %q", got)
		}
	}},
	"USE_PROMETHEUS":  {live: showsMetrics("/metrics")},
	"PROMETHEUS_ADDR": {live: showsMetrics("/metrics")},
	"PROMETHEUS_PATH": {live: showsMetrics("/stats/prometheus")},

	"RUNTIME_ROOT":           {live: decidesEdge},
	"RUNTIME_SUBDIRECTORY":   {live: func(m *migrated) { m.decides("sub", m.conn()) }},
	"RUNTIME_APPDIRECTORY":   {live: func(m *migrated) { m.decides("app", m.conn()) }},
	"RUNTIME_IGNOREDOTFILES": {live: decidesEdge}, // beside one that could not be loaded
	"MERGE_DOMAIN_CONFIG":    {live: decidesEdge}, // by two files

	"LOCAL_CACHE_SIZE_IN_BYTES": {live: func(m *migrated) {
		for range 4 {
			m.ask(m.conn(), "edge", "bucket")
		}
		m.shows(`ratelimit_service_rate_limit_over_limit_with_local_cache\{domain="edge",key1="bucket"\} [1-9]`)
	}},
	"NEAR_LIMIT_RATIO": {live: func(m *migrated) {
		for range 3 {
			m.ask(m.conn(), "edge", "user")
		}
		m.shows(`ratelimit_service_rate_limit_near_limit\{domain="edge",key1="user"\} 1\n`)
	}},
	"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": {test: "test/integration TestRefusedRequestsChargeNothing"},

	"LIMIT_RESPONSE_HEADERS_ENABLED": {live: func(m *migrated) {
		m.hasHeader("RateLimit-Limit")
		m.hasHeader("RateLimit-Remaining")
		m.hasHeader("RateLimit-Reset")
	}},
	"LIMIT_LIMIT_HEADER":     {live: func(m *migrated) { m.hasHeader("X-Limit") }},
	"LIMIT_REMAINING_HEADER": {live: func(m *migrated) { m.hasHeader("X-Remaining") }},
	"LIMIT_RESET_HEADER":     {live: func(m *migrated) { m.hasHeader("X-Reset") }},

	"SHADOW_MODE": {live: func(m *migrated) {
		for range 6 {
			if answer := m.ask(m.conn(), "edge", "user"); answer.GetOverallCode() != rls.RateLimitResponse_OK {
				m.Errorf("refused: %v", answer)
			}
		}
		m.shows(`ratelimit_service_global_shadow_mode 1\n`)
	}},
	"QUOTA_MODE": {live: func(m *migrated) {
		for range 6 { // of which user has no room for the last, and other has
			if answer := m.ask(m.conn(), "edge", "user", "other"); answer.GetOverallCode() != rls.RateLimitResponse_OK {
				m.Errorf("refused: %v", answer)
			}
		}
	}},
	"RESPONSE_DYNAMIC_METADATA": {live: func(m *migrated) {
		if answer := m.ask(m.conn(), "edge", "user"); answer.GetDynamicMetadata().GetFields()["domain"].GetStringValue() != "edge" {
			m.Errorf("the metadata is %v", answer.GetDynamicMetadata())
		}
	}},

	"CACHE_KEY_PREFIX": {live: func(m *migrated) { m.countsIn("redis", "user", "mine:") }},
	"BACKEND_TYPE": {live: func(m *migrated) {
		m.shows(`ratelimit_redis_connected [01]
`)
	}},
	"REDIS_SOCKET_TYPE":                    {live: countsInRedis("redis")},
	"REDIS_TYPE":                           {live: logs(`not a cluster: use REDIS_TYPE=SINGLE`)},
	"REDIS_URL":                            {live: countsInRedis("redis")},
	"REDIS_AUTH":                           {live: countsInRedis("guarded")},
	"REDIS_TLS":                            {live: countsInRedis("secure")}, // which asks for a certificate, and has one of its own authority
	"REDIS_TLS_CACERT":                     {live: countsInRedis("secure")},
	"REDIS_TLS_CLIENT_CERT":                {live: countsInRedis("secure")},
	"REDIS_TLS_CLIENT_KEY":                 {live: countsInRedis("secure")},
	"REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": {test: "internal/backend/redis TestDeployments"},
	"REDIS_POOL_SIZE":                      {test: "internal/settings TestReadRedis"},
	"REDIS_PIPELINE_WINDOW":                {test: "internal/settings TestReadRedis"},
	"REDIS_SENTINEL_AUTH":                  {test: "internal/backend/redis TestSentinelsHaveALoginOfTheirOwn"},
	"REDIS_TIMEOUT":                        {test: "test/integration TestAnswersComeBeforeTheDeadline"},
	"REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": {live: isUnhealthy},

	"REDIS_PERSECOND":             {live: countsSecondsIn("second")},
	"REDIS_PERSECOND_SOCKET_TYPE": {live: countsSecondsIn("second")},
	"REDIS_PERSECOND_TYPE":        {live: logs(`not a cluster: use REDIS_PERSECOND_TYPE=SINGLE`)},
	"REDIS_PERSECOND_URL":         {live: countsSecondsIn("second")},
	"REDIS_PERSECOND_AUTH":        {live: countsSecondsIn("guarded")},
	"REDIS_PERSECOND_TLS":         {live: countsSecondsIn("secure")},
	// Read as those of the other Redis are, by names with a word more.
	"REDIS_PERSECOND_POOL_SIZE":       {test: "internal/settings TestPerSecondVariablesAreReadAsTheOthers"},
	"REDIS_PERSECOND_PIPELINE_WINDOW": {test: "internal/settings TestPerSecondVariablesAreReadAsTheOthers"},
	"REDIS_PERSECOND_SENTINEL_AUTH":   {test: "internal/settings TestPerSecondVariablesAreReadAsTheOthers"},
	"REDIS_PERSECOND_TIMEOUT":         {test: "internal/settings TestPerSecondVariablesAreReadAsTheOthers"},

	"TRACING_ENABLED":             {test: "test/integration TestTelemetry"},
	"TRACING_SERVICE_NAME":        {test: "test/integration TestTelemetry"},
	"TRACING_SERVICE_NAMESPACE":   {test: "test/integration TestTelemetry"},
	"TRACING_SERVICE_INSTANCE_ID": {test: "test/integration TestTelemetry"},
	"TRACING_EXPORTER_PROTOCOL":   {test: "test/integration TestTelemetry"},
	"TRACING_SAMPLING_RATE":       {test: "test/integration TestTelemetry"},
}

// exists fails the test unless there is one of that package and name.
func exists(t *testing.T, test string) {
	t.Helper()
	dir, name, _ := strings.Cut(test, " ")
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "\nfunc "+name+"(t *testing.T) {") {
			return
		}
	}
	t.Errorf("there is no test %s", test)
}

// migrated is a bare service that was started with a variable of the table.
type migrated struct {
	*testing.T
	name              string            // of the variable
	given             map[string]string // to all
	servers           map[string]*redistest.Server
	own               map[string]string // what give has made
	grpc, http, admin string            // host:port
	log, received     growing
}

// give returns what $name stands for: what is given to all, or what is made for this
// variable alone.
func (m *migrated) give(name string) string {
	m.Helper()
	if value, found := m.given[name]; found {
		return value
	}
	if value, found := m.own[name]; found {
		return value
	}
	var value string
	switch name {
	case "port":
		value = strconv.Itoa(freeport.ForTest(m).Number)
	case "tcp":
		value = m.port(m.listen(func(conn net.Conn) { _, _ = io.Copy(&m.received, conn) }))
	case "udp":
		value = m.port(m.listenUDP())
	case "plane":
		value = m.startPlane(plane{})
	case "talkative":
		value = m.startPlane(plane{responds: true})
	default:
		m.Fatalf("nothing stands for $%s", name)
	}
	if m.own == nil {
		m.own = map[string]string{}
	}
	m.own[name] = value
	return value
}

func (m *migrated) port(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		m.Fatal(err)
	}
	return port
}

// listen takes connections until the test ends.
func (m *migrated) listen(take func(net.Conn)) (addr string) {
	m.Helper()
	listener, err := new(net.ListenConfig).Listen(m.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		m.Fatal(err)
	}
	var taking sync.WaitGroup
	taking.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taking.Go(func() {
				defer conn.Close()
				take(conn)
			})
		}
	})
	m.Cleanup(func() { // the service, whose connections these are, has ended
		_ = listener.Close()
		taking.Wait()
	})
	return listener.Addr().String()
}

func (m *migrated) listenUDP() (addr string) {
	m.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(m.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		m.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for datagram := make([]byte, 1<<16); ; {
			n, _, err := conn.ReadFrom(datagram)
			if err != nil {
				return
			}
			_, _ = m.received.Write(append(datagram[:n:n], '\n'))
		}
	}()
	m.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// plane is an xDS server that ends each stream.
type plane struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	responds bool // with more than 500 bytes, first
}

// StreamAggregatedResources implements the service.
func (p plane) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if p.responds {
		if err := stream.Send(&discovery.DiscoveryResponse{VersionInfo: strings.Repeat("v", 1000)}); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "that is all")
}

func (m *migrated) startPlane(p plane) (addr string) {
	m.Helper()
	listener, err := new(net.ListenConfig).Listen(m.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		m.Fatal(err)
	}
	server := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(server, p)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	m.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			m.Error(err)
		}
	})
	return listener.Addr().String()
}

// growing is text that others write.
type growing struct {
	mu   sync.Mutex
	text strings.Builder
}

func (g *growing) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.Write(p)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func (m *migrated) await(what string, from interface{ String() string }, pattern string) {
	m.Helper()
	re := regexp.MustCompile(pattern)
	redistest.Eventually(m, what+" has "+pattern, func() bool { return re.MatchString(from.String()) })
}

// logs returns what waits for a part of the log.
func logs(pattern string) func(*migrated) {
	return func(m *migrated) { m.await("the log", &m.log, pattern) }
}

// sends returns what asks once and waits for what a statsd server is then sent.
func sends(pattern string) func(*migrated) {
	return func(m *migrated) {
		m.ask(m.conn(), "edge", "user")
		m.await("the statsd server", &m.received, pattern)
	}
}

func showsMetrics(path string) func(*migrated) {
	return func(m *migrated) {
		m.await("the log", &m.log, `"at": "http://127.0.0.1:`+m.give("port"))
		if code, body := m.get("127.0.0.1:"+m.give("port"), path); code != http.StatusOK || !strings.Contains(body, "\nratelimit_config_rules ") {
			m.Errorf("%s is %d %s", path, code, body)
		}
	}
}

func (m *migrated) shows(pattern string) {
	m.Helper()
	if code, body := m.get(m.admin, "/metrics"); !regexp.MustCompile(pattern).MatchString(body) {
		m.Errorf("the metrics (%d) have no %s:\n%s", code, pattern, body)
	}
}

func (m *migrated) get(addr, path string) (code int, body string) {
	m.Helper()
	request, err := http.NewRequestWithContext(m.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		m.Fatal(err)
	}
	answer, err := (&http.Client{Timeout: patience}).Do(request)
	if err != nil {
		m.Error(err)
		return 0, ""
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		m.Error(err)
	}
	return answer.StatusCode, string(content)
}

func isUnhealthy(m *migrated) {
	if code, body := m.get(m.http, "/healthcheck"); code != http.StatusServiceUnavailable {
		m.Errorf("health is %d %s", code, body)
	}
}

// listens fails the test unless part is in the address, where somebody listens.
func (m *migrated) listens(addr, part string) {
	m.Helper()
	conn, err := new(net.Dialer).DialContext(m.Context(), "tcp", addr)
	if err != nil || !strings.Contains(addr, part) {
		m.Errorf("it listens at %s (%v), want %s", addr, err, part)
	}
	if err == nil {
		_ = conn.Close()
	}
}

func (m *migrated) conn() *grpc.ClientConn { return m.dial(m.grpc, nil) }

func (m *migrated) dial(target string, secure credentials.TransportCredentials) *grpc.ClientConn {
	m.Helper()
	if secure == nil {
		secure = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(secure))
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialTLS connects by TLS, with the certificate that is given by this name; "" is none.
func (m *migrated) dialTLS(own string) *grpc.ClientConn {
	m.Helper()
	ca, err := os.ReadFile(m.given["ca"])
	if err != nil {
		m.Fatal(err)
	}
	settings := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	settings.RootCAs.AppendCertsFromPEM(ca)
	if own != "" {
		certificate, err := tls.LoadX509KeyPair(m.given[own], m.given[strings.TrimSuffix(own, "cert")+"key"])
		if err != nil {
			m.Fatal(err)
		}
		settings.Certificates = []tls.Certificate{certificate}
	}
	return m.dial(m.grpc, credentials.NewTLS(settings))
}

func speaksTLS(m *migrated) {
	m.decides("edge", m.dialTLS(""))
	m.refuses(m.conn())
}

// request asks for a hit of descriptors of one entry, whose value names the variable.
func (m *migrated) request(domain string, keys ...string) *rls.RateLimitRequest {
	request := &rls.RateLimitRequest{Domain: domain}
	for _, key := range keys {
		request.Descriptors = append(request.Descriptors, &ratelimitv3.RateLimitDescriptor{
			Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: key, Value: m.value()}},
		})
	}
	return request
}

// value is one that no other variable's name contains.
func (m *migrated) value() string { return m.name + "." }

func (m *migrated) ask(conn *grpc.ClientConn, domain string, keys ...string) *rls.RateLimitResponse {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	answer, err := rls.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, m.request(domain, keys...), grpc.WaitForReady(true))
	if err != nil {
		m.Error(err)
	}
	return answer
}

// refuses fails the test if the service decides for that connection.
func (m *migrated) refuses(conn *grpc.ClientConn) {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	if answer, err := rls.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, m.request("edge", "user")); status.Code(err) != codes.Unavailable {
		m.Errorf("answered %v, %v", answer, err)
	}
}

// decides fails the test unless the rule of the domain is in force.
func (m *migrated) decides(domain string, conn *grpc.ClientConn) {
	m.Helper()
	if s := m.ask(conn, domain, "user").GetStatuses(); len(s) != 1 || s[0].GetCurrentLimit().GetRequestsPerUnit() != 5 {
		m.Errorf("the statuses are %v", s)
	}
}

func decidesEdge(m *migrated) { m.decides("edge", m.conn()) }

func (m *migrated) hasHeader(name string) {
	m.Helper()
	var names []string
	for _, h := range m.ask(m.conn(), "edge", "user").GetResponseHeadersToAdd() {
		names = append(names, h.Key)
		if h.Key == name {
			return
		}
	}
	m.Errorf("the headers are %q, without %s", names, name)
}

// countsIn waits until a Redis has a counter of this variable's, which begins like that.
func (m *migrated) countsIn(server, key, prefix string) {
	m.Helper()
	conn := m.conn()
	redistest.Eventually(m, server+" has the counter", func() bool { // one of a second may be gone at once
		m.ask(conn, "edge", key)
		found := m.servers[server].Do("KEYS", prefix+"*"+m.value()+"*")
		keys, err := found.AsStrSlice()
		return err == nil && len(keys) > 0
	})
}

func countsInRedis(server string) func(*migrated) {
	return func(m *migrated) { m.countsIn(server, "user", "distlimiter:") }
}

// countsSecondsIn is for limits per second, beside which others are in redis.
func countsSecondsIn(server string) func(*migrated) {
	return func(m *migrated) {
		m.countsIn(server, "second", "distlimiter:")
		m.countsIn("redis", "user", "distlimiter:")
	}
}
