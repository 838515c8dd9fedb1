package transient_test

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/redis/transient"
)

func TestErrorRepliesThatMayPass(t *testing.T) {
	for answer, want := range map[string]bool{
		"LOADING Redis is loading the dataset in memory":                    true,
		"BUSY Redis is busy running a script":                               true,
		"CLUSTERDOWN The cluster is down":                                   true,
		"READONLY You can't write against a read only replica.":             true,
		"upstream failure":                                                  true,
		"Connection refused":                                                true,
		"OOM command not allowed when used memory > 'maxmemory'.":           false,
		"NOPERM this user has no permissions to run the 'eval' command":     false,
		"WRONGTYPE Operation against a key holding the wrong kind of value": false,
		"unknown command 'EVALSHA'":                                         false,
		"":                                                                  false,
	} {
		if got := transient.Is(answer); got != want {
			t.Errorf("%q: %v, want %v", answer, got, want)
		}
	}
}
