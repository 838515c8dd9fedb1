package limiter_test

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// document returns a domain with that many rules. Equal salts give equal limits; edited
// adds one to the limit of the rule in the middle.
func document(domain string, rules, salt int, edited bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "domain: %s\ndescriptors:\n", domain)
	for i := range rules {
		limit := 1 + i%1000 + 1000*salt
		if edited && i == rules/2 {
			limit++
		}
		fmt.Fprintf(&b, "  - key: user\n    value: user%06d\n    rate_limit:\n      algorithm: token_bucket\n      unit: minute\n      requests_per_unit: %d\n", i, limit)
	}
	return b.Bytes()
}

// documents is a provider of documents that do not change on their own.
type documents [][]byte

func (*documents) Origin() config.Origin { return config.FromFile }

func (d *documents) Sources(context.Context) (sources []rulefile.Source, err error) {
	for i, data := range *d {
		sources = append(sources, rulefile.Source{Name: fmt.Sprintf("rules%d.yaml", i), Data: data})
	}
	return sources, nil
}

func (*documents) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// processorTime returns the CPU time of this process, garbage collector included. On a
// machine with other work it is more precise than elapsed time.
func processorTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkReload brings 100,000 rules from the text of their files into force, after a
// different kind of change in each case.
func BenchmarkReload(b *testing.B) {
	const rules = 100_000
	for _, bm := range []struct {
		name  string
		files int
		next  func(i int) (salt int, edited bool) // of the first file
		// adjust changes every rule; nil: nothing does.
		adjust func(i int) (burst string)
	}{
		{"one file/every rule changed", 1, func(i int) (int, bool) { return 1 + i%2, false }, nil},
		{"one file/one rule changed", 1, func(i int) (int, bool) { return 0, i%2 == 0 }, nil},
		{"100 files/one rule changed", 100, func(i int) (int, bool) { return 0, i%2 == 0 }, nil},
		{"one file/one rule changed, all adjusted", 1, func(i int) (int, bool) { return 0, i%2 == 0 }, func(int) string { return "20%" }},
		{"100 files/one rule changed, all adjusted", 100, func(i int) (int, bool) { return 0, i%2 == 0 }, func(int) string { return "20%" }},
		{"100 files/the adjustment of all changed", 100, func(int) (int, bool) { return 0, false }, func(i int) string { return fmt.Sprintf("%d%%", 20+i%2) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			var provider documents
			for i := range bm.files {
				provider = append(provider, document(fmt.Sprintf("edge%d", i), rules/bm.files, 0, false))
			}
			versions, adjustments := [2][]byte{}, [2][]byte{}
			for i := range versions {
				if bm.adjust != nil {
					adjustments[i] = fmt.Appendf(nil, "adjust: [{rules: {path: user*}, set: {burst: %s}}]\n", bm.adjust(i))
				}
				salt, edited := bm.next(i)
				versions[i] = document("edge0", rules/bm.files, salt, edited)
			}
			if bm.adjust != nil {
				provider = append(provider, adjustments[0])
			}
			store := memory.New(memory.Options{})
			b.Cleanup(func() { _ = store.Close() })
			service := limiter.New(limiter.Options{Backend: store, Log: zap.NewNop(), Stats: stats.New(0)})
			coordinator := reload.New(reload.Options{Load: reload.Adjusted(rulefile.NewParser(rulefile.Options{}).Parse, config.Default{}), Providers: []reload.Provider{&provider}})
			coordinator.Subscribe(service.SetRules)
			if err := coordinator.Reload(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			before := processorTime(b)
			for i := 0; b.Loop(); i++ {
				provider[0] = versions[i%2]
				if bm.adjust != nil {
					provider[bm.files] = adjustments[i%2]
				}
				if err := coordinator.Reload(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((processorTime(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
	}
}
