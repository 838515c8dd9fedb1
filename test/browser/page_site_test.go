package browser

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// siteRules have a rule of each sort that a page can show: a tree, a list, a range of
// addresses, a set, a table, a candidate, holds, and what an adjustment changes.
const siteRules = `domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, algorithm: token_bucket, unit: second, requests_per_unit: 5, burst: 20}
  - key: path
    value: [/search, /suggest]
    descriptors:
      - key: remote_address
        value: {cidr: 198.51.100.0/24}
        rate_limit: {algorithm: hybrid, strict: true, unit: minute, requests_per_unit: 100, burst: 20}
limits:
  - name: by_plan
    match: {plan: {}, customer: {}}
    count_by: [customer]
    rate_limit: {algorithm: sliding_window, unit: minute, requests_per_unit: {by: plan, values: {gold: 600, silver: 60}, default: 10}}
  - name: trial
    match: {customer: {}}
    count_by: [customer]
    rate_limit: {unit: minute, requests_per_unit: 30, shadow_mode: true}
---
domain: llm
limits:
  - name: in_flight
    match: {team: {}}
    count_by: [team]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 4}
  - name: asks
    match: {team: {}}
    count_by: [team]
    rate_limit: {unit: hour, requests_per_unit: 1000000}
  - name: tokens
    match: {budget: {}}
    count_by: [budget]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {unit: hour, requests_per_unit: 100000}
---
domain: gateway
descriptors:
  - key: masked_remote_address
    rate_limit: {unit: minute, requests_per_unit: 300}
---
adjust:
  - rules: {domain: gateway, path: masked_remote_address}
    set: {algorithm: token_bucket, burst: 20%}
`

// siteLoad asks as a site of some customers does, about 100 times a second, until the test ends.
func siteLoad(t *testing.T, service *harness.Service) {
	t.Helper()
	conn := rls.NewRateLimitServiceClient(service.Dial(t))
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			for _, request := range []*rls.RateLimitRequest{
				harness.Request("edge", 1, "user", []string{"alice", "alice", "alice", "bob", "carol"}[i%5]),
				harness.Request("edge", 1, "path", "/search", "remote_address", fmt.Sprintf("198.51.100.%d", 7+i%4%3)),
				harness.Request("edge", 1, "plan", []string{"gold", "silver"}[i%2], "customer", []string{"acme", "initech"}[i%2]),
				harness.Request("llm", 1, "team", "search", "request_id", fmt.Sprint("r", i%6)),
				harness.Request("gateway", 1, "masked_remote_address", fmt.Sprintf("203.0.113.%d/32", i%7)),
			} {
				if _, err := conn.ShouldRateLimit(ctx, request); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
			}
			if i%50 == 0 {
				_, _ = conn.ShouldRateLimit(ctx, harness.Request("shop", 1, "user", "alice"))
				_, _ = conn.ShouldRateLimit(ctx, harness.Request("edge", 1, "usr", "alice"))
				_, _ = conn.ShouldRateLimit(ctx, harness.Request("llm", 8000, "budget", "research", "request_id", fmt.Sprint("b", i)))
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
}

// TestPageOfASiteUnderLoad shows each sort of rule at work. With PAGE_PICTURES it waits
// until there is a minute to see, and takes the pictures of docs/img.
func TestPageOfASiteUnderLoad(t *testing.T) {
	service := harness.StartService(t, writeRules(t, siteRules), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"))
	siteLoad(t, service)
	b := openPage(t, service, "")
	b.run(chromedp.EmulateViewport(1200, 1250), chromedp.Click(".watch", chromedp.ByQuery))
	const limits = `[...document.querySelectorAll('main > div > section:first-child td.wide')].map((d) => d.innerText).join('|')`
	has := func(t *testing.T, shown string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(shown, w) {
				t.Errorf("no %q in\n%s", w, shown)
			}
		}
	}

	t.Run("overview", func(t *testing.T) {
		b := b.in(t)
		b.waitFor(`document.querySelectorAll('main > div > section:first-child tbody tr').length >= 4`)
		b.waitFor(`/\d denied, [1-9][\d,]* in shadow mode/.test(document.querySelector('main').innerText)`)
		b.waitFor(`document.querySelectorAll('.live tbody tr').length >= 10`)
		b.waitFor(limits + `.includes('600 for plan=gold, 60 for plan=silver, else 10 per minute')`)
		has(t, value[string](b, limits), "concurrency, 4 at once", "shadow_mode")
		if picturesWanted() {
			b.waitFor(`document.querySelectorAll('main tr[data-key] svg')[1].querySelectorAll('.a').length > 40`)
		}
		b.picture("page.png")
	})
	t.Run("no word is broken", func(t *testing.T) {
		b := b.in(t)
		for _, address := range []string{"#/rules", "#/live"} {
			b.open(address)
			b.waitFor(`document.querySelectorAll('main tbody tr').length >= 5`)
			for _, broken := range value[[]string](b, `[...document.querySelectorAll('main button, main th, main td.short, main .tag')]
				.filter((e) => e.checkVisibility() && e.getBoundingClientRect().height > 2.2 * parseFloat(getComputedStyle(e).lineHeight))
				.filter((e) => { const r = document.createRange(); r.selectNodeContents(e); return new Set([...r.getClientRects()].map((c) => Math.round(c.top / 8))).size > 1 })
				.map((e) => e.outerHTML)`) {
				t.Errorf("%s: on two lines: %s", address, broken)
			}
		}
	})
	t.Run("explain", func(t *testing.T) {
		b := b.in(t)
		for address, want := range map[string][]string{
			"#/explain?domain=edge&descriptor=plan%3Dgold,customer%3Dacme":               {"Rule limits.by_plan applies. Rule limits.trial applies.", "would pass · sliding_window, 600 per minute: ", ", in shadow mode · "},
			"#/explain?domain=llm&descriptor=team%3Dsearch,request_id%3Dnew":             {"over limit · concurrency, 4 at once", ": 0 left, 4 requests hold, "},
			"#/explain?domain=llm&descriptor=team%3Dsearch,request_id%3Dr0,phase%3Ddone": {"Rule limits.in_flight applies.", "It settles: ", "Rule limits.asks does not apply: phase=done settles what limits.in_flight holds, and is no request of its own."},
			"#/explain?domain=gateway&descriptor=masked_remote_address%3D203.0.113.1/32": {"Rule masked_remote_address applies.", "adjusted by ", "written as fixed_window, 300 per minute"},
			"#/explain?domain=edge&descriptor=plan%3Dgold":                               {"No limit applies.", "Rule limits.by_plan does not apply, by the condition on customer."},
		} {
			b.open(address)
			b.waitFor(`document.querySelector('#explanation .part')`)
			has(t, b.text("#explanation"), want...)
		}
	})
	t.Run("a rule in the dark", func(t *testing.T) {
		b := b.in(t)
		b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
		b.open("#/")
		b.waitFor(`document.querySelector('a[href^="#/rules/"]')`)
		b.run(chromedp.Click(`//main//a[starts-with(., 'edge') and contains(., 'user')]`, chromedp.BySearch), chromedp.WaitVisible(".hottest td", chromedp.ByQuery), chromedp.Click(".watch", chromedp.ByQuery))
		b.waitFor(`document.querySelectorAll('.live tbody tr').length >= 5`)
		b.picture("page-dark.png")
		b.run(emulation.SetEmulatedMedia())
	})
	t.Run("on a phone", func(t *testing.T) {
		b := b.in(t)
		b.run(phone())
		b.open("#/")
		b.waitFor(`document.querySelectorAll('main > div > section:first-child tbody tr').length >= 4`)
		b.picture("page-phone.png")
	})
}
