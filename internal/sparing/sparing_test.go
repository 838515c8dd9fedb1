package sparing_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// leftOut returns the number that each line has of those left out before it.
func leftOut(logs *observer.ObservedLogs) (all []int64) {
	for _, l := range logs.TakeAll() {
		n, _ := l.ContextMap()["left_out"].(int64)
		all = append(all, n)
	}
	return all
}

func TestAFloodOfLinesIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		log := sparing.Log(zap.New(core), 3, 10*time.Second)
		expect := func(when string, want ...int64) {
			t.Helper()
			if got := leftOut(logs); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: lines with %v, want %v", when, got, want)
			}
		}
		flood := func(lines int) {
			for i := range lines {
				log.With(zap.Int("i", i)).Named("n").Warn("a client leaves")
			}
		}
		flood(1000)
		expect("at once", 0, 0, 0)
		log.Warn("another")
		expect("another message", 0)
		time.Sleep(10 * time.Second)
		flood(10)
		expect("after an interval", 997)
		time.Sleep(time.Hour)
		flood(10)
		expect("long after", 9, 0, 0)
	})
}

// A library puts the address of each client into its message.
func TestMessagesThatDifferByANumberAreOne(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	log := zap.NewStdLog(sparing.Log(zap.New(core), 1, time.Hour))
	for port := range 1000 {
		log.Printf("http: TLS handshake error from 127.0.0.1:%d: EOF", port)
		log.Printf("http: TLS handshake error from [::%d]:1: EOF", port)
	}
	log.Print("http: another")
	if n := logs.Len(); n != 3 {
		t.Errorf("%d lines: %v", n, logs.All())
	}
}

func TestMessagesAreBounded(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	log := sparing.Log(zap.New(core), 1, time.Hour)
	for i := range 100_000 {
		log.Info(string(rune('A' + i)))
	}
	if n := logs.Len(); n > 1001 {
		t.Errorf("%d lines", n)
	}
}

// Levels are those of the log before.
func TestLevelsStay(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	log := sparing.Log(zap.New(core), 1, time.Hour)
	log.Info("m")
	log.Warn("m")
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("%v", logs.All())
	}
}
