package redis

import "github.com/redis/rueidis"

// Client returns the client that the backend uses, for what else is kept in the
// same Redis. It is replaced when a failover asks for it, so callers ask for it
// anew each time. The error says why there is none yet.
func (b *Backend) Client() (rueidis.Client, error) { return b.conn.current() }

// Prefix returns what all keys begin with.
func (b *Backend) Prefix() string { return b.opts.Prefix }
