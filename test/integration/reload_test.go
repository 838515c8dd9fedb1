package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// rulesAllowing are rules that the reported limit tells apart.
func rulesAllowing(n int) string {
	return fmt.Sprintf("domain: edge\ndescriptors: [{key: user, rate_limit: {unit: year, requests_per_unit: %d}}]\n", n)
}

func reports(answer harness.Answer, limit int) bool {
	return answer.Header.Get("X-Ratelimit-Limit") == fmt.Sprintf("%d, %d;w=%d", limit, limit, year)
}

// rename does what many editors do: write another file and move it over.
func rename(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+"~", text)
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// relink points link at target in one step.
func relink(t *testing.T, target, link string) {
	t.Helper()
	err := errors.Join(os.Symlink(target, link+".new"), os.Rename(link+".new", link))
	if err != nil {
		t.Fatal(err)
	}
}

// TestReloadUnderTraffic changes the rules while clients of a listener that fails
// closed go on: every answer must report the old limit or the new one.
func TestReloadUnderTraffic(t *testing.T) {
	t.Parallel()
	const first, last = 1_000_000, 1_000_003
	for _, tt := range []struct {
		name string
		// layout prepares dir and returns the path to serve, and how to change the rules.
		layout func(t *testing.T, dir string) (path string, change func(t *testing.T, text string))
	}{
		{"save in place", func(_ *testing.T, dir string) (string, func(*testing.T, string)) {
			path := filepath.Join(dir, "rules.yaml")
			return path, func(t *testing.T, text string) { t.Helper(); write(t, path, text) }
		}},
		{"rename over", func(_ *testing.T, dir string) (string, func(*testing.T, string)) {
			path := filepath.Join(dir, "rules.yaml")
			return path, func(t *testing.T, text string) { t.Helper(); rename(t, path, text) }
		}},
		{"ConfigMap", func(t *testing.T, dir string) (string, func(*testing.T, string)) {
			t.Helper()
			revision := 0
			if err := os.Symlink("..data/rules.yaml", filepath.Join(dir, "rules.yaml")); err != nil {
				t.Fatal(err)
			}
			return dir, func(t *testing.T, text string) {
				t.Helper()
				revision++
				data := fmt.Sprintf("..revision_%d", revision)
				if err := os.Mkdir(filepath.Join(dir, data), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, data, "rules.yaml"), text)
				relink(t, data, filepath.Join(dir, "..data"))
			}
		}},
		{"runtime root", func(_ *testing.T, dir string) (string, func(*testing.T, string)) {
			revision := 0
			return filepath.Join(dir, "current"), func(t *testing.T, text string) {
				t.Helper()
				revision++
				target := filepath.Join(dir, fmt.Sprint("revision", revision))
				if err := os.Mkdir(target, 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(target, "rules.yaml"), text)
				relink(t, target, filepath.Join(dir, "current"))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, change := tt.layout(t, t.TempDir())
			change(t, rulesAllowing(first))
			service := harness.StartService(t, path)
			envoy := harness.StartEnvoy(t, "failure-mode.yaml", service)
			ask := func() (harness.Answer, error) {
				return envoy.Do(http.MethodGet, 10001, "/", "x-user", "alice")
			}

			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for ctx.Err() == nil {
						answer, err := ask()
						known := false
						for limit := first; limit <= last; limit++ {
							known = known || reports(answer, limit)
						}
						if err != nil || answer.Status != http.StatusOK || !known {
							t.Errorf("status %d, error %v, %v", answer.Status, err, answer.Header)
							return
						}
					}
				})
			}
			defer clients.Wait()
			defer stop()
			for limit := first + 1; limit <= last; limit++ {
				change(t, "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: fortnight}}]\n")
				change(t, rulesAllowing(limit))
				harness.Eventually(t, "the new limit is reported", func() bool {
					answer, err := ask()
					return err == nil && reports(answer, limit)
				})
			}
		})
	}
}

// TestReload follows rules and counters through changes, good and bad.
func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rulesAllowing(4))
	service := harness.StartService(t, path)
	envoy := harness.StartEnvoy(t, "http.yaml", service)
	remaining(t, get(t, envoy, http.StatusOK, "x-user", "alice"), 3)
	remaining(t, get(t, envoy, http.StatusOK, "x-user", "alice"), 2)

	write(t, path, "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: fortnight}}]\n")
	harness.Eventually(t, "the mistake is reported", func() bool { return service.Printed("fortnight") })
	remaining(t, get(t, envoy, http.StatusOK, "x-user", "alice"), 1)

	// A limit is tuned, and its counter goes on.
	write(t, path, rulesAllowing(6))
	harness.Eventually(t, "the new limit is reported", func() bool {
		return reports(envoy.Get(t, "/", "x-user", "bob"), 6)
	})
	remaining(t, get(t, envoy, http.StatusOK, "x-user", "alice"), 2)
}
