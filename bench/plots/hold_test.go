package plots

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The drawing of holds tells what the page says beneath it.
func TestHoldsLife(t *testing.T) {
	all, err := rooms()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []room{
		{10 * time.Second, 0, 40}, {30 * time.Second, 0, 80}, {40 * time.Second, 25, 65},
		{50 * time.Second, 25, 95}, {65 * time.Second, 75, 105}, {110 * time.Second, 75, 75},
	} {
		if got := all[int(want.at/time.Second)]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestHoldsDrawingIsUpToDate(t *testing.T) {
	want, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(docs, "img", HoldFile))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/img/%s is out of date (%v): run make plots", HoldFile, err)
	}
	shows(t, "holds.md", []string{HoldFile})
}
