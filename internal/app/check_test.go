package app

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// valid returns options that Check takes.
func valid() Options {
	var o Options
	o.Memory.MaxKeys, o.Limiter.Replicas, o.Limiter.NearLimitRatio, o.Counts.Interval = 1, 1, 0.8, time.Second
	o.Server.Bounds.Descriptors, o.Server.Bounds.Entries, o.Server.Bounds.EntryBytes = 1, 1, 1
	o.GRPC.MaxMessageSize, o.GRPC.MaxConnections, o.GRPC.MaxStreams, o.GRPC.MaxHeaderBytes = 1, 1, 1, 1
	o.GRPC.Keepalive.Timeout = time.Second
	return o
}

func TestCheckNamesEachFieldThatIsWrong(t *testing.T) {
	if o := valid(); o.Check() != nil {
		t.Fatal(o.Check())
	}
	goodXDS := xds.Options{ConnectRetry: 1, Backoff: xds.Backoff{Initial: 1, Max: 1}}
	for _, tt := range []struct {
		name string
		set  func(o *Options)
		want []string
	}{
		{"all at once", func(o *Options) { o.Memory.MaxKeys, o.DrainTimeout = 0, -1 }, []string{"Memory.MaxKeys: 0: use at least 1", "DrainTimeout: -1ns: use a time of at least 0"}},
		{"more replicas than a window can be split for", func(o *Options) { o.Limiter.Replicas = 1 << 32 }, []string{"Limiter.Replicas: 4294967296: use at most 100000"}},
		{"few bytes", func(o *Options) { o.Memory.MaxBytes = 5 }, []string{"Memory.MaxBytes: 5: use at least 1048576, or leave it out for half of the memory limit"}},
		{"no ratio", func(o *Options) { o.Limiter.NearLimitRatio = math.NaN() }, []string{"Limiter.NearLimitRatio: NaN: use a number above 0, at most 1"}},
		{"sampling", func(o *Options) { o.Telemetry.SamplingRate = 1.5 }, []string{"Telemetry.SamplingRate: 1.5: use a number from 0 to 1"}},
		{"keepalive too often", func(o *Options) { o.GRPC.Keepalive.Time = time.Millisecond }, []string{"Keepalive.Time: 1ms: use at least 1s, or 0 for never"}},
		{"no header", func(o *Options) { o.Server.Headers.Reset = "x y" }, []string{`Headers.Reset: "x y" is not the name of a header: write letters, digits and -, such as x-ratelimit-limit`}},
		{"no path", func(o *Options) { o.Prometheus.Addr, o.Prometheus.Path = ":1", "metrics" }, []string{`Prometheus.Path: "metrics": write a path that begins with /`}},
		{"no path, and no address that needs one", func(o *Options) { o.Prometheus.Path = "metrics" }, nil},
		{"xDS", func(o *Options) { o.Rules.XDS = &goodXDS }, nil},
		{"xDS that waits backwards", func(o *Options) {
			x := goodXDS
			x.Backoff, x.MaxMessageBytes = xds.Backoff{Initial: 2, Max: 1, Jitter: -1}, -1
			o.Rules.XDS = &x
		}, []string{"Backoff.Max: 1ns: use a time no shorter than the first wait, 2ns", "Backoff.Jitter: -1: use a number from 0 to 1", "XDS.MaxMessageBytes: -1: use a number above 0"}},
		{"a certificate without its key", func(o *Options) { o.Admin.TLS = &tlsfiles.Files{Cert: "c"} }, []string{"Admin.TLS: set both the certificate and its key; a check of client certificates needs both too"}},
		{"authorities of clients alone", func(o *Options) { o.Admin.TLS = &tlsfiles.Files{CA: "c"} }, []string{"Admin.TLS: set both the certificate and its key; a check of client certificates needs both too"}},
		{"a name of clients alone", func(o *Options) { o.Admin.TLS = &tlsfiles.Files{Cert: "c", Key: "k", Name: "n"} }, []string{`Admin.TLS.Name: "n": set Admin.TLS.CA too, which verifies who a client is`}},
		{"one file for two things", func(o *Options) { o.Memory.Snapshot, o.Admin.RulesFile = "a/../f", "f" }, []string{"Memory.Snapshot: Admin.RulesFile names the same file, a/../f: use two files"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := valid()
			tt.set(&o)
			var got []string
			if err := o.Check(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
