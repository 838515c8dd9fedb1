package redis

import "github.com/redis/rueidis"

// Client returns the backend's client, for other data in the same Redis. A failover
// may replace the client, so callers must ask for it each time. The error says why
// there is none yet.
func (b *Backend) Client() (rueidis.Client, error) { return b.conn.current() }

// Prefix returns the prefix of all keys.
func (b *Backend) Prefix() string { return b.opts.Prefix }
