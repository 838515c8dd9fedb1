// Package statsd sends the service's counts to a statsd or DogStatsD server under the
// names that envoyproxy/ratelimit gives them. Counting is left to package stats.
package statsd

import (
	"context"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	datadog "github.com/DataDog/datadog-go/v5/statsd"
	gostats "github.com/lyft/gostats"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/stats"
)

// Sink takes increments of counters.
type Sink interface {
	// Count adds n to the counter of that name.
	Count(name string, n uint64)
	// Flush sends the buffered increments. It returns an error if the context ends
	// before that.
	Flush(ctx context.Context) error
}

// NewStatsd returns a sink that sends to a statsd server, with the tags at the end of
// each name as gostats writes them. protocol is "udp" or "tcp"; a TCP connection is made
// again whenever it breaks. The log gets connections that can't be made.
func NewStatsd(host string, port int, protocol string, tags map[string]string, log *zap.Logger) Sink {
	var suffix strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		fmt.Fprintf(&suffix, ".__%s=%s", name, tags[name])
	}
	sink := gostats.NewNetSink(gostats.WithStatsdHost(host), gostats.WithStatsdPort(port), gostats.WithStatsdProtocol(protocol), gostats.WithLogger(log.Sugar()))
	return statsdSink{sink, suffix.String()}
}

type statsdSink struct {
	gostats.FlushableSink
	tags string
}

func (s statsdSink) Count(name string, n uint64) { s.FlushCounter(name+s.tags, n) }

// Flush implements Sink. While there is no connection, gostats waits for one for many
// seconds.
func (s statsdSink) Flush(ctx context.Context) error {
	flushed := make(chan struct{})
	go func() {
		s.FlushableSink.Flush()
		close(flushed)
	}()
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("statsd: %w", context.Cause(ctx))
	}
}

// NewDogStatsD returns a sink that sends datagrams to a DogStatsD server. The mogrifiers
// turn parts of names into tags.
func NewDogStatsD(host string, port int, tags map[string]string, mogrifiers []Mogrifier) (Sink, error) {
	client, err := datadog.New(net.JoinHostPort(host, strconv.Itoa(port)),
		datadog.WithoutClientSideAggregation(), datadog.WithoutTelemetry(), datadog.WithoutOriginDetection())
	if err != nil {
		return nil, fmt.Errorf("DogStatsD at %s:%d: %w", host, port, err)
	}
	return dogSink{client, tagList(tags), mogrifiers}, nil
}

type dogSink struct {
	*datadog.Client
	tags       []string
	mogrifiers []Mogrifier
}

func (s dogSink) Count(name string, n uint64) {
	tags := s.tags
	for _, m := range s.mogrifiers {
		if to, more, ok := m.apply(name); ok {
			name, tags = to, append(slices.Clone(tags), more...)
			break
		}
	}
	_ = s.Client.Count(name, int64(n), tags, 1) // datagrams may be lost in any case
}

// Flush implements Sink. Sending datagrams never waits.
func (s dogSink) Flush(context.Context) error { return s.Client.Flush() }

func tagList(tags map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, name+":"+tags[name])
	}
	return list
}

// Mogrifier turns a name that it matches into another name and tags. In these, $1, $2 …
// stand for the matches of the pattern's groups, and $0 for the whole match.
type Mogrifier struct {
	Pattern *regexp.Regexp
	Name    string
	Tags    map[string]string
}

func (m Mogrifier) apply(name string) (to string, tags []string, ok bool) {
	match := m.Pattern.FindStringSubmatch(name)
	if match == nil {
		return name, nil, false
	}
	expand := func(template string) string {
		return placeholder.ReplaceAllStringFunc(template, func(p string) string {
			if i, err := strconv.Atoi(p[1:]); err == nil && i < len(match) {
				return match[i]
			}
			return p
		})
	}
	expanded := make(map[string]string, len(m.Tags))
	for k, v := range m.Tags {
		expanded[k] = expand(v)
	}
	return expand(m.Name), tagList(expanded), true
}

var placeholder = regexp.MustCompile(`\$\d+`)

// Exporter sends how much the counts have grown since the last time.
type Exporter struct {
	Stats *stats.Stats
	Sink  Sink
	// Reloads returns how many loads of rules succeeded and failed.
	Reloads func() (successes, failures uint64)

	sent map[string]uint64
}

// Run sends at every interval until ctx is done. The counts since then are left for a
// last Send.
func (e *Exporter) Run(ctx context.Context, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = e.Send(ctx) // the sink's log says why
		case <-ctx.Done():
			return nil
		}
	}
}

// Send sends now, and gives up when ctx ends. It must not be called while Run runs.
func (e *Exporter) Send(ctx context.Context) error {
	now := make(map[string]uint64, len(e.sent))
	e.read(now)
	for name, n := range now {
		if before := e.sent[name]; n > before {
			e.Sink.Count(name, n-before)
		} else if n < before { // the rule was removed and added again
			e.Sink.Count(name, n)
		}
	}
	e.sent = now
	return e.Sink.Flush(ctx)
}

func (e *Exporter) read(now map[string]uint64) {
	for _, r := range e.Stats.Rules() {
		prefix := "ratelimit.service.rate_limit." + Sanitize(r.Name.Domain) + "." + Sanitize(r.Name.Path) + "."
		for name, n := range r.Counts().Hits() {
			now[prefix+name] += n
		}
	}
	unknown, _ := e.Stats.Unmatched()
	for _, m := range unknown {
		now["ratelimit.service.rate_limit."+Sanitize(m.Domain)+".domain_not_found"] += m.Count
	}
	now["ratelimit_server.ShouldRateLimit.total_requests"] = e.Stats.Requests()
	const service = "ratelimit.service."
	now[service+"global_shadow_mode"] = e.Stats.GlobalShadowMode.Load()
	now[service+"domain_not_found"] = e.Stats.DomainNotFound.Load()
	now[service+"call.should_rate_limit.redis_error"] = e.Stats.BackendErrors.Load()
	now[service+"call.should_rate_limit.service_error"] = e.Stats.ServiceErrors.Load()
	now[service+"config_load_success"], now[service+"config_load_error"] = e.Reloads()
}

var ipv4 = regexp.MustCompile(`\d{1,3}(\.\d{1,3}){3}`)

// Sanitize makes a part of a name safe. Characters that would end the name, its type or
// its line become _. So do the dots of an IPv4 address, as in envoyproxy/ratelimit: they do
// not separate levels.
func Sanitize(part string) string {
	part = strings.Map(func(r rune) rune {
		if r == ':' || r == '|' || r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, part)
	return ipv4.ReplaceAllStringFunc(part, func(ip string) string { return strings.ReplaceAll(ip, ".", "_") })
}
