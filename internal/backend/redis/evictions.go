package redis

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// evictions counts the counters that Redis evicts to save memory, whose limits begin
// anew. A server that does not report evictions, such as a proxy, is left out.
type evictions struct {
	known   atomic.Bool
	evicted atomic.Int64 // keys, of all servers since they started
	warned  bool
}

const (
	evictionsEvery   = 15 * time.Second
	evictionsTimeout = time.Second // of a server
)

// watchEvictions asks the servers every evictionsEvery, and warns once if they may evict.
func (b *Backend) watchEvictions(ctx context.Context) {
	select {
	case <-b.conn.ready:
	case <-ctx.Done():
		return
	}
	for {
		if client, err := b.conn.current(); err == nil && b.Healthy() {
			b.evictions.ask(ctx, client, b.opts.Log)
		}
		if !sleep(ctx, evictionsEvery) {
			return
		}
	}
}

func (e *evictions) ask(ctx context.Context, client rueidis.Client, log *zap.Logger) {
	sum, known := int64(0), false
	for addr, node := range client.Nodes() {
		memory, stats := info(ctx, node, "memory"), info(ctx, node, "stats")
		if n, err := strconv.ParseInt(stats["evicted_keys"], 10, 64); err == nil {
			sum, known = sum+n, true
		}
		limit, policy := memory["maxmemory"], memory["maxmemory_policy"]
		if e.warned || limit == "" || limit == "0" || policy == "noeviction" {
			continue
		}
		e.warned = true
		log.Warn("Redis forgets counters when its memory is full, and their limits begin anew: set maxmemory-policy noeviction",
			zap.String("server", addr), zap.String("maxmemory_policy", policy), zap.String("maxmemory", limit))
	}
	e.evicted.Store(sum)
	e.known.Store(known)
}

// info returns the fields of a section of INFO; none if the server does not answer.
func info(ctx context.Context, node rueidis.Client, section string) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, evictionsTimeout)
	defer cancel()
	text, err := node.Do(ctx, node.B().Info().Section(section).Build()).ToString()
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			fields[name] = value
		}
	}
	return fields
}
