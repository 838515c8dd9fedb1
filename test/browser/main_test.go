// Package browser tests the admin page in a real browser, with this project's binary
// behind it.
package browser

import (
	"os"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
