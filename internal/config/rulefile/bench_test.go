package rulefile_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// manyRules is a document with n rules.
func manyRules(n int) []byte {
	var b bytes.Buffer
	b.WriteString("domain: large\ndescriptors:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - key: user\n    value: user%06d\n    rate_limit:\n      algorithm: token_bucket\n      unit: minute\n      requests_per_unit: %d\n", i, i+1)
	}
	return b.Bytes()
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		data := manyRules(n)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rulefile.Parse([]rulefile.Source{{Name: "large.yaml", Data: data}}, rulefile.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
