package redis

import (
	"errors"
	"testing"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestErrorsWithoutACode: a server answers with errors that begin with ERR, which the
// library removes. Their meaning must still be recognized.
func TestErrorsWithoutACode(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	b, err := New(Options{Addrs: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	redistest.Eventually(t, "it is connected", func() bool { return b.Ready(t.Context()) == nil })
	client, err := b.Client()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"max number of clients reached": errLogin,
		"DB index is out of range":      errLogin,
		"Connection refused":            ErrUnavailable,
		"Connection timed out":          ErrUnavailable,
		"value is not an integer":       ErrRefused,
	} {
		err := client.Do(t.Context(), client.B().Eval().Script("return redis.error_reply('ERR "+text+"')").Numkeys(0).Build()).Error()
		if _, ok := rueidis.IsRedisErr(err); !ok {
			t.Fatalf("%q: %v", text, err)
		}
		if got := b.failed(err); !errors.Is(got, want) {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}
