package redis_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
)

// TestSecrets prints options in every way that a log or the admin address may.
func TestSecrets(t *testing.T) {
	o := redis.Options{Addrs: []string{"r:1"}, Password: "hunter2", SentinelPassword: "hunter3"}
	asJSON, err := json.Marshal(map[string]any{"password": o.Password, "sentinel": o.SentinelPassword})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", o, o, o), string(asJSON), fmt.Sprint(o.Password), fmt.Sprintf("%q", o.Password)} {
		if strings.Contains(text, "hunter") {
			t.Errorf("%s shows a password", text)
		}
		if !strings.Contains(text, "(hidden)") {
			t.Errorf("%s does not show that there is a password", text)
		}
	}
}
