package integration

import (
	"net/http"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestTokensAreChargedAfterTheAnswer(t *testing.T) {
	t.Parallel()
	service, envoy := start(t, "tokens.yaml", example(t, "llm.yaml"))
	left := uint32(1000)
	for _, step := range []struct {
		path string
		cost uint32
	}{
		{"/v1/chat/completions", 400},
		{"/v1/chat/stream", 250},
		{"/v1/chat/completions", 400}, // more than is left, and charged all the same
	} {
		answer := envoy.Get(t, step.path, "x-user", "alice")
		if answer.Status != http.StatusOK {
			t.Fatalf("%s: status %d with %d tokens left", step.path, answer.Status, left)
		}
		remaining(t, answer, int(left)) // asked before the charge
		left -= min(left, step.cost)
		// Envoy charges after it has answered, and waits for nobody.
		harness.Eventually(t, step.path+" is charged", func() bool {
			return service.Ask(t, harness.Request("llm", 0, "user", "alice")).GetStatuses()[0].GetLimitRemaining() == left
		})
	}
	answer := get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
	remaining(t, answer, 0)
	remaining(t, get(t, envoy, http.StatusOK, "x-user", "bob"), 1000)
}
