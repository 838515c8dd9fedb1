package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

var (
	// errSharded means that keys of one address are spread over several servers.
	errSharded = errors.New("keys lead to different servers, as behind a proxy that shards")
	// errMoved means that the server is part of a cluster, without a proxy.
	errMoved = errors.New("the server is part of a cluster")
	// errUntagged means that a proxy spreads keys by their whole name.
	errUntagged = errors.New("the proxy sends keys with one hash tag to different servers: Envoy needs enable_hashtagging: true and lb_policy: MAGLEV or RING_HASH, twemproxy hash_tag: \"{}\"")
)

// whereScript returns the run_id of the server to which its first key leads, or "" if
// the server does not report one. Each server has its own. The script changes nothing.
const whereScript = `local info = redis.pcall('INFO', 'server')
return type(info) == 'string' and info:match('run_id:(%w+)') or ''`

// placesTried is the number of pairs of keys that are tried. With two servers, all keys
// lead to one of them by chance once in 2^31 times. Behind a proxy without hash tags,
// all pairs agree by chance once in 2^16 times.
const placesTried = 16

// checkPlaces returns an error if keys lead to different servers although they must
// lead to one: all keys with Single, and with Proxy those of one hash tag. A server that
// does not report its run_id is accepted.
func (c *connector) checkPlaces(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.option.Dialer.Timeout)
	defer cancel()
	calls := make(rueidis.Commands, 2*placesTried)
	for i := range calls {
		key, other := fmt.Sprintf("%s:%d", c.probe, i), fmt.Sprintf("%s:%d", c.probe, i+1)
		if c.mode == Proxy { // two calls for a tag, whose first keys differ
			tag := fmt.Sprintf("%s:{%d}", c.probe, i/2)
			key, other = fmt.Sprintf("%s:%d", tag, i%2), fmt.Sprintf("%s:%d", tag, (i+1)%2)
		}
		calls[i] = client.B().Eval().Script(whereScript).Numkeys(2).Key(key, other).Build()
	}
	var servers [2 * placesTried]string
	for i, answer := range client.DoMulti(ctx, calls...) {
		id, err := answer.ToString()
		if refusal, ok := rueidis.IsRedisErr(err); ok {
			switch {
			case strings.HasPrefix(refusal.Error(), "MOVED"):
				return errMoved
			case !strings.HasPrefix(refusal.Error(), "CROSSSLOT"):
			case c.mode == Proxy:
				return errUntagged
			default:
				return errSharded
			}
		}
		if servers[i] = id; i == 0 || id == "" {
			continue
		}
		switch before := servers[i-1]; {
		case before == "" || before == id:
		case c.mode == Single:
			return errSharded
		case i%2 == 1:
			return errUntagged
		}
	}
	return nil
}
