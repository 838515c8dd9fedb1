package plots

import (
	"strings"
	"testing"
)

func TestSoak(t *testing.T) {
	samples := "seconds,memory resident bytes,memory goroutines,keys in Redis\n10,1048576,20,5\n20,2097152,21,6\n30,1048576,20,5\n"
	svg, err := Soak(strings.NewReader(samples))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "memory resident bytes", "memory goroutines", "keys in Redis", "minutes"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("no %q in the plot", want)
		}
	}
	for _, bad := range []string{"", "seconds\n", "seconds,x\n1,2\n2,3\n", "seconds,keys in Redis\n1,many\n2,few\n"} {
		if _, err := Soak(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is drawn", bad)
		}
	}
}
