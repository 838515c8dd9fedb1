package rulefile

import (
	"strings"
	"testing"
)

func TestHintsAreAboutSmallLimitsThatAdmitMore(t *testing.T) {
	const rules = `domain: edge
descriptors:
  - key: a
    rate_limit: {unit: second, requests_per_unit: 9, algorithm: sliding_window}
  - key: b
    rate_limits:
      - {unit: second, requests_per_unit: 3, algorithm: hybrid}
      - {unit: minute, requests_per_unit: 10, algorithm: hybrid}
  - {key: c, rate_limit: {unit: second, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: d, rate_limit: {unit: second, requests_per_unit: 1, algorithm: sliding_window, strict: true}}
  - {key: e, rate_limit: {unit: second, requests_per_unit: 1, algorithm: hybrid, strict: true}}
  - {key: f, rate_limit: {unit: second, requests_per_unit: 1, algorithm: sliding_log}}
  - {key: g, rate_limit: {unit: second, requests_per_unit: 0, algorithm: sliding_window}}
  - {key: h, rate_limit: {unit: second, requests_per_unit: 1}}
  - {key: i, rate_limit: {unlimited: true}}
  - {key: j, rate_limit: {unit: second, requests_per_unit: 1, algorithm: hybrid}}
  - key: k
    rate_limit: {algorithm: hybrid, token_bucket: {capacity: 2, refill_rate: 1/s}, sliding_window: {unit: minute, requests_per_unit: 5}}
  - key: l
    rate_limit: {algorithm: hybrid, token_bucket: {capacity: 2, refill_rate: 3/m}, sliding_window: {unit: minute, requests_per_unit: 5}}
  - key: m
    rate_limit: {algorithm: sliding_window, unit: minute, requests_per_unit: {by: plan, values: {gold: 100, small: 5}, default: 50}}
  - {key: remote_address, value: 10.0.0.0/8, rate_limit: {unlimited: true}}
  - {key: remote_address, value: [unknown, "2001:db8::/32"], rate_limit: {unlimited: true}}
  - {key: masked_remote_address, value: 10.0.0.0/8, rate_limit: {unlimited: true}}
  - {key: path, value: /10.0.0.0/8, rate_limit: {unlimited: true}}
limits:
  - {name: n, match: {remote_address: {not: 10.0.0.0/8}}, rate_limit: {unlimited: true}}
`
	got, err := Parse([]Source{{Name: "r.yaml", Data: []byte(rules)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, h := range Hints(got) {
		lines = append(lines, h.Error())
	}
	want := []string{
		"r.yaml:4:17: a sliding_window of 9 admits up to 18 in some windows; consider sliding_log, which is exact, or strict",
		"r.yaml:7:9: a hybrid of 3 admits up to 5 in some windows; consider sliding_log, which is exact, or strict",
		"r.yaml:18:17: a hybrid of 5 admits up to 10 in some windows; consider sliding_log, which is exact, or strict",
		"r.yaml:22:17: a sliding_window of 5 admits up to 10 in some windows; consider sliding_log, which is exact, or strict",
		`r.yaml:23:5: remote_address=10.0.0.0/8 matches the text "10.0.0.0/8" alone, no address in it; write {cidr: "10.0.0.0/8"} to match the addresses in it`,
		`r.yaml:24:5: remote_address=2001:db8::/32 matches the text "2001:db8::/32" alone, no address in it; write {cidr: "2001:db8::/32"} to match the addresses in it`,
		`r.yaml:28:5: remote_address=10.0.0.0/8 matches the text "10.0.0.0/8" alone, no address in it; write {cidr: "10.0.0.0/8"} to match the addresses in it`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if len(got.Warnings) != 0 {
		t.Errorf("warnings: %v", got.Warnings)
	}
}

// TestHintsAreAboutMarksThatAreNeverSent: request_headers of a limit that refuses the
// requests that they would mark.
func TestHintsAreAboutMarksThatAreNeverSent(t *testing.T) {
	const rules = `domain: edge
descriptors:
  - {key: a, rate_limit: {unit: day, requests_per_unit: 1, request_headers: {x-a: b}}}
  - {key: b, rate_limit: {unit: day, requests_per_unit: 1, request_headers: {x-a: b}, shadow_mode: true}}
  - {key: c, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1, request_headers: {x-a: b}}}
  - {key: d, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1, request_headers: {x-a: b}}}
`
	got, err := Parse([]Source{{Name: "r.yaml", Data: []byte(rules)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	hints := Hints(got)
	if len(hints) != 1 || !strings.HasPrefix(hints[0].Error(), "r.yaml:3:26: request_headers mark requests that are over the limit and pass") {
		t.Errorf("hints %v", hints)
	}
}
