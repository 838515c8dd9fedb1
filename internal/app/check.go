package app

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// Check returns every value that the service cannot work with, each with the setting
// that gives it.
func (o *Options) Check() error {
	c := checker{o: o}
	c.numbers()
	c.times()
	c.headers(o.Server.Headers.Limit, "Headers.Limit")
	c.headers(o.Server.Headers.Remaining, "Headers.Remaining")
	c.headers(o.Server.Headers.Reset, "Headers.Reset")
	c.headers(o.Server.Headers.RetryAfter, "Headers.RetryAfter")
	c.headers(o.Server.Headers.Rule, "Headers.Rule")
	if path := o.Prometheus.Path; o.Prometheus.Addr != "" && (path == "" || path[0] != '/') {
		c.wrong("Prometheus.Path", "%q: write a path that begins with /", path)
	}
	if o.Rules.XDS != nil {
		c.xds(o.Rules.XDS)
	}
	if f := o.GRPC.TLS; f != nil && (f.Cert == "" || f.Key == "") {
		c.wrong("GRPC.TLS", "set both the certificate and its key")
	}
	if o.Admin.TLS != nil {
		c.adminTLS(o.Admin.TLS)
	}
	c.files()
	return errors.Join(c.errs...)
}

// checker collects problems.
type checker struct {
	o    *Options
	errs []error
}

// wrong records what is wrong with a field, and what to write instead.
func (c *checker) wrong(field, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: "+format, append([]any{c.o.Names.Either(field)}, args...)...))
}

func (c *checker) numbers() {
	o := c.o
	for _, bound := range []struct {
		field string
		n     int
	}{
		{"Memory.MaxKeys", o.Memory.MaxKeys}, {"Limiter.Replicas", o.Limiter.Replicas},
		{"Bounds.Descriptors", o.Server.Bounds.Descriptors}, {"Bounds.Entries", o.Server.Bounds.Entries}, {"Bounds.EntryBytes", o.Server.Bounds.EntryBytes},
		{"GRPC.MaxMessageSize", o.GRPC.MaxMessageSize}, {"GRPC.MaxConnections", o.GRPC.MaxConnections},
		{"GRPC.MaxStreams", int(o.GRPC.MaxStreams)}, {"GRPC.MaxHeaderBytes", int(o.GRPC.MaxHeaderBytes)},
	} {
		if bound.n < 1 {
			c.wrong(bound.field, "%d: use at least 1", bound.n)
		}
	}
	if n := o.Limiter.Replicas; n > limiter.MaxReplicas {
		c.wrong("Limiter.Replicas", "%d: use at most %d", n, limiter.MaxReplicas)
	}
	if n := o.Memory.MaxBytes; n != 0 && n < MinCounterBytes {
		c.wrong("Memory.MaxBytes", "%d: use at least %d, or leave it out for half of the memory limit", n, MinCounterBytes)
	}
	if r := o.Limiter.NearLimitRatio; !(r > 0 && r <= 1) {
		c.wrong("Limiter.NearLimitRatio", "%v: use a number above 0, at most 1", r)
	}
	if r := o.Telemetry.SamplingRate; !(r >= 0 && r <= 1) {
		c.wrong("Telemetry.SamplingRate", "%v: use a number from 0 to 1", r)
	}
}

func (c *checker) times() {
	o := c.o
	for _, wait := range []struct {
		field string
		d     time.Duration
	}{
		{"Rules.ReloadDelay", o.Rules.ReloadDelay}, {"DrainDelay", o.DrainDelay}, {"DrainTimeout", o.DrainTimeout}, {"GRPC.MaxWait", o.GRPC.MaxWait},
		{"Keepalive.MaxConnectionAge", o.GRPC.Keepalive.MaxConnectionAge}, {"Keepalive.MaxConnectionAgeGrace", o.GRPC.Keepalive.MaxConnectionAgeGrace},
	} {
		if wait.d < 0 {
			c.wrong(wait.field, "%v: use a time of at least 0", wait.d)
		}
	}
	if d := o.GRPC.Keepalive.Time; d != 0 && d < time.Second {
		c.wrong("Keepalive.Time", "%v: use at least 1s, or 0 for never", d)
	}
	if d := o.GRPC.Keepalive.Timeout; d <= 0 {
		c.wrong("Keepalive.Timeout", "%v: use a time above 0", d)
	}
	if d := o.Counts.Interval; d <= 0 {
		c.wrong("Counts.Interval", "%v: use a time above 0", d)
	}
}

// headers refuses an invalid header name; an empty name leaves the header out.
func (c *checker) headers(name, field string) {
	if name != "" && !httpguts.ValidHeaderFieldName(name) {
		c.wrong(field, "%q is not the name of a header: write letters, digits and -, such as x-ratelimit-limit", name)
	}
}

func (c *checker) xds(x *xds.Options) {
	if x.ConnectRetry <= 0 {
		c.wrong("XDS.ConnectRetry", "%v: use a time above 0", x.ConnectRetry)
	}
	switch b := x.Backoff; {
	case b.Initial <= 0:
		c.wrong("Backoff.Initial", "%v: use a time above 0", b.Initial)
	case b.Max < b.Initial:
		c.wrong("Backoff.Max", "%v: use a time no shorter than the first wait, %v", b.Max, b.Initial)
	}
	if !(x.Backoff.Jitter >= 0) {
		c.wrong("Backoff.Jitter", "%v: use a number from 0 to 1", x.Backoff.Jitter)
	}
	if x.MaxMessageBytes < 0 {
		c.wrong("XDS.MaxMessageBytes", "%d: use a number above 0", x.MaxMessageBytes)
	}
}

func (c *checker) adminTLS(f *tlsfiles.Files) {
	switch {
	case f.Cert == "" || f.Key == "":
		c.wrong("Admin.TLS", "set both the certificate and its key; a check of client certificates needs both too")
	case f.Name != "" && f.CA == "":
		c.wrong("Admin.TLS.Name", "%q: set %s too, which verifies who a client is", f.Name, c.o.Names.Of("Admin.TLS.CA"))
	}
}

// files refuses one file for two purposes, and a file that would stay unused.
func (c *checker) files() {
	snapshot, rules := c.o.Memory.Snapshot, c.o.Admin.RulesFile
	if snapshot == "" {
		return
	}
	if c.o.Store.Open != nil {
		c.wrong("Memory.Snapshot", "it is for counters in memory, but the counters are in %s, which keeps them over a restart: leave it out", c.o.Store.Name)
	}
	if rules == "" {
		return
	}
	one, err := filepath.Abs(snapshot)
	other, err2 := filepath.Abs(rules)
	if err := errors.Join(err, err2); err != nil {
		c.errs = append(c.errs, err)
	} else if one == other {
		c.wrong("Memory.Snapshot", "%s names the same file, %s: use two files", c.o.Names.Either("Admin.RulesFile"), snapshot)
	}
}
