package overload

import (
	"testing"
	"time"
)

const (
	target = 5 * time.Millisecond
	tick   = 10 * time.Millisecond
)

func TestALongWaitIsOverload(t *testing.T) {
	d := detector{target: target}
	for now := tick; ; now += tick {
		if d.update(target+time.Millisecond, false, tick) {
			if now != 100*time.Millisecond {
				t.Errorf("found after %v", now)
			}
			break
		}
		if now > time.Second {
			t.Fatal("not found")
		}
	}
	// What is refused makes the wait short. The overload goes on.
	for range 1000 {
		if !d.update(time.Millisecond, true, tick) {
			t.Fatal("over while requests are refused")
		}
	}
	for now := tick; d.update(time.Millisecond, false, tick); now += tick {
		if now > time.Second {
			t.Fatal("not over although nothing is refused any more")
		}
	}
}

func TestABurstIsNoOverload(t *testing.T) {
	d := detector{target: target}
	for _, ticks := range []int{1, 5, 9} {
		for range ticks {
			if d.update(time.Second, false, tick) {
				t.Errorf("a burst of %d ticks", ticks)
			}
		}
		d.update(target, false, tick)
	}
	// The machine was suspended: a single wait, an hour long.
	if d.update(time.Hour, false, time.Hour) {
		t.Error("a pause")
	}
}
