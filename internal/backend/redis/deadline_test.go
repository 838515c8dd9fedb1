package redis

import (
	"context"
	"testing"
	"time"
)

// BenchmarkDeadline makes and releases the context of a call. It compares that with a
// context of the standard library that reports when its time has come.
func BenchmarkDeadline(b *testing.B) {
	bk := &breaker{all: &breakers{}}
	b.Run("pooled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			now := time.Now()
			newDeadline(now.Add(time.Second), now, bk, 0).free()
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			now := time.Now()
			ctx, cancel := context.WithDeadline(context.Background(), now.Add(time.Second))
			stop := context.AfterFunc(ctx, func() { bk.report(now, 0, errTimeout) })
			stop()
			cancel()
		}
	})
}
