package redis

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// namings are all ways to name counters.
var namings = map[string]keys.Naming{
	"hashed":         {Prefix: "p"},
	"plain":          {Prefix: "p", Plain: true},
	"cluster":        {Prefix: "p", Tagged: true},
	"plain, cluster": {Prefix: "p", Tagged: true, Plain: true},
}

// hashTag returns the part of a key that selects its slot in a cluster, as Redis defines
// it, and false if that is the whole key.
func hashTag(key string) (tag string, ok bool) {
	_, rest, ok := strings.Cut(key, "{")
	if !ok {
		return "", false
	}
	tag, _, ok = strings.Cut(rest, "}")
	return tag, ok && tag != ""
}

// checkName fails if the content of the counter's key acts as more than a name.
func checkName(t *testing.T, n keys.Naming, name string, c *backend.Check) {
	t.Helper()
	rest, ok := strings.CutPrefix(name, "p:")
	if !ok {
		t.Fatalf("%q does not begin with the prefix", name)
	}
	tag, tagged := hashTag(name)
	switch {
	case n.Tagged && c.Shard > 0:
		shard := keys.IDOf(c.Key[:c.Shard])
		if want := hex.EncodeToString(shard[:3]); tag != want {
			t.Fatalf("%q: the hash tag is %q, want %q", name, tag, want)
		}
	case n.Plain && tagged:
		t.Fatalf("%q: the descriptor has chosen the hash tag %q", name, tag)
	case n.Plain && len(rest) > 8<<10: // the longest key that is written out, all of it in escapes
		t.Fatalf("%d bytes", len(rest))
	case !n.Plain && len(rest) != len(keys.ID{}):
		t.Fatalf("%q: %d bytes, want %d", name, len(rest), len(keys.ID{}))
	}
}

// FuzzNamesAndDecisions takes two descriptors of any bytes and a few requests for them.
// Their counters have different names in Redis, unless the descriptors are equal. Their
// content never chooses a hash tag. A real Redis, alone and as a cluster, decides every
// field as the store in memory does, which has no names.
func FuzzNamesAndDecisions(f *testing.F) {
	for _, seed := range []struct{ key, value, other string }{
		{"user", "alice", "bob"},
		{"user", "", "\x00"},
		{"user", "{x}", "{x}y"},
		{"{", "}", "}{"},
		{"k", "a|4:user=3:bob|", "a"},
		{"k", "a\nDEL p\r\n", "a\r\n"},
		{"k", "\xff\xfe", "\ufffd\ufffd"},
		{"k", `\x7bx}`, "{x}"},
		{"k", `"`, `\"`},
	} {
		f.Add(seed.key, seed.value, seed.key, seed.other, uint8(3), []byte{0x01, 0x92, 0x47, 0xc1, 0x05})
		f.Add(seed.key, seed.value, seed.value, seed.key, uint8(11), []byte{0x11, 0x82, 0x73, 0xe4, 0x15, 0xff})
	}
	now := int64(1_700_000_000_000_000)
	clock := func() int64 { return now }
	alone := redistest.Start(f, redistest.Config{})
	cluster := redistest.StartClusterOfOne(f, redistest.Config{})
	var backends []*Backend
	open := func(server *redistest.Server, o Options) {
		o.Addrs, o.Clock, o.Timeout, o.DialTimeout = []string{server.Addr}, clock, 30*time.Second, 30*time.Second
		b, err := New(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(b.Close)
		if err := b.Ready(context.Background()); err != nil {
			f.Fatal(err)
		}
		backends = append(backends, b)
	}
	open(alone, Options{Prefix: "hashed"})
	open(alone, Options{Prefix: "plain", PlainKeys: true})
	open(cluster, Options{Mode: Cluster, Prefix: "hashed"})
	open(cluster, Options{Mode: Cluster, Prefix: "plain", PlainKeys: true})
	reference := memory.New(memory.Options{Clock: clock, SweepCycle: -1})
	f.Cleanup(func() { _ = reference.Close() })

	domain := descriptor.Compile(&config.Rules{Domains: []*config.Domain{{Name: "edge"}}}).Domain("edge")
	all := limitsOf(f, 7)
	f.Fuzz(func(t *testing.T, key, value, otherKey, otherValue string, which uint8, script []byte) {
		l := all[int(which)%len(all)]
		first, second := []descriptor.Entry{{Key: key, Value: value}}, []descriptor.Entry{{Key: otherKey, Value: otherValue}}
		var checks [2]backend.Check
		for i, entries := range [][]descriptor.Entry{first, second} {
			checks[i] = backend.Check{Key: domain.AppendOverrideKey(nil, nil, entries, l), Limit: l, Descriptor: i}
		}
		for _, shard := range []bool{false, true} {
			for i := range checks {
				if checks[i].Shard = 0; shard {
					checks[i].Shard = domain.Shard(checks[i].Key)
				}
			}
			for kind, n := range namings {
				var names [2]string
				for i := range checks {
					names[i] = string(n.Append(nil, &checks[i], keys.IDOf(checks[i].Key)))
					checkName(t, n, names[i], &checks[i])
				}
				if (names[0] == names[1]) != (first[0] == second[0]) {
					t.Fatalf("%s: %q and %q are called %q and %q", kind, first, second, names[0], names[1])
				}
			}
		}

		for _, c := range checks {
			if _, err := reference.Reset(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			for _, b := range backends {
				if _, err := b.Reset(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, op := range script[:min(len(script), 12)] {
			now += int64(op>>5) * 400_000
			req := backend.Request{Checks: []backend.Check{checks[op&1]}}
			if op&2 != 0 {
				req.Checks = slices.Clone(checks[:])
			}
			for i := range req.Checks {
				req.Checks[i].Hits = int64(op>>2&7) - 2
			}
			want := make([]algo.Decision, len(req.Checks))
			if err := reference.Decide(t.Context(), &req, want); err != nil {
				t.Fatal(err)
			}
			for _, b := range backends {
				got := make([]algo.Decision, len(req.Checks))
				if err := b.Decide(t.Context(), &req, got); err != nil {
					t.Fatalf("%v, %s: %v", b.opts.Mode, b.opts.Prefix, err)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%q and %q, %+v, %v, %s: got %+v, want %+v", first, second, l.Params(), b.opts.Mode, b.opts.Prefix, got, want)
				}
			}
		}
	})
}
