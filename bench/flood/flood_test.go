package flood_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/bench/flood"
)

// Each flood and the overload, for a moment: what is measured is not judged.
func TestFloodsRun(t *testing.T) {
	dir := t.TempDir()
	o := flood.Options{
		Floor: filepath.Join(dir, "floor"), Service: filepath.Join(dir, "ratelimit"),
		Floods:   []string{"1,000 rules, reload every 50 ms", "1,000 connections", "10,000 open streams", "messages of 1 MiB, not ended", "requests of 1,000 descriptors", "overload"},
		Backends: []string{"memory"}, Duration: 200 * time.Millisecond, Progress: t.Output(),
	}
	for _, b := range [][]string{{"..", o.Floor, "./cmd/floor"}, {"../..", o.Service, "./cmd/ratelimit"}} {
		cmd := exec.Command("go", "build", "-o", b[1], b[2])
		cmd.Dir = b[0]
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var out bytes.Buffer
	o.Out = &out
	if err := flood.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, want := range append(o.Floods[:5:5], "InvalidArgument", "| memory | 20ms | 64 | on |") {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
