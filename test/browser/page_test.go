package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// browser is a tab of a real Chromium with the admin page open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string // what a page without faults does not do
}

// openPage opens the service's page at an address, which is what follows its URL, and
// waits until it shows what the service has told.
func openPage(t *testing.T, service *harness.Service, address string) *browser {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(harness.Tool(t, "chromium")), chromedp.NoSandbox, chromedp.WindowSize(1200, 1000),
		chromedp.WSURLReadTimeout(time.Minute))...)
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(closeTab)
	ctx, cancel := context.WithTimeout(tab, 5*time.Minute)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	chromedp.ListenTarget(tab, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.trouble("exception: %s", e.ExceptionDetails.Error())
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && u.Host != service.Admin {
				b.trouble("a request to another host: %s", e.Request.URL)
			}
		}
	})
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, what := range b.troubles {
			t.Error(what)
		}
	})
	b.run(network.Enable(), runtime.Enable(), chromedp.Navigate("http://"+service.Admin+"/"+address), chromedp.WaitVisible("#facts dd", chromedp.ByQuery))
	return b
}

func (b *browser) trouble(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles = append(b.troubles, fmt.Sprintf(format, args...))
}

func (b *browser) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// in is the same tab for a part of the test.
func (b *browser) in(t *testing.T) *browser { return &browser{t: t, ctx: b.ctx} }

// clear empties an input, for what is typed next.
func (b *browser) clear(selector string) chromedp.Action {
	return chromedp.Evaluate(fmt.Sprintf("document.querySelector(%q).value = ''", selector), nil)
}

// waitFor waits until a JavaScript condition holds.
func (b *browser) waitFor(condition string) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, chromedp.Poll(condition, nil, chromedp.WithPollingTimeout(time.Minute))); err != nil {
		b.t.Fatalf("%v: %s; the page shows\n%s", err, condition, b.text("body"))
	}
}

func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	b.run(chromedp.Evaluate(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector), &text))
	return text
}

// value is what a JavaScript expression gives.
func value[T any](b *browser, expression string) (v T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &v))
	return v
}

// open goes to another address of the page, as a link does.
func (b *browser) open(address string) {
	b.t.Helper()
	b.run(chromedp.Evaluate(fmt.Sprintf("location.hash = %q", address), nil))
}

// choose takes an option of a select.
func (b *browser) choose(selector, option string) {
	b.t.Helper()
	b.run(chromedp.Evaluate(fmt.Sprintf(`(() => { const s = document.querySelector(%q); s.value = %q; s.dispatchEvent(new Event('change')) })()`, selector, option), nil))
}

func picturesWanted() bool { return os.Getenv("PAGE_PICTURES") != "" }

// picture puts what the tab shows into docs/img when the variable PAGE_PICTURES is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	if !picturesWanted() {
		return
	}
	var png []byte
	b.run(chromedp.CaptureScreenshot(&png))
	if err := os.WriteFile(filepath.Join(harness.Root(b.t), "docs", "img", name), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// phone makes the tab as wide and as high as the screen of a phone, in CSS pixels.
func phone() chromedp.Action { return chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile) }

func writeRules(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const pageRules = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, algorithm: token_bucket, unit: minute, requests_per_unit: 3}
  - key: path
    value: /search*
    descriptors:
      - key: remote_address
        rate_limit: {algorithm: hybrid, strict: true, unit: minute, requests_per_unit: 100, burst: 20}
`

func TestPage(t *testing.T) {
	service := harness.StartService(t, writeRules(t, pageRules), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"))
	b := openPage(t, service, "")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}

	t.Run("the top tells which replica this is", func(t *testing.T) {
		facts := b.in(t).text("#facts")
		for _, want := range []string{host, "Version", "Up", "memory, well", "2 in 1 domain, since "} {
			if !strings.Contains(facts, want) {
				t.Errorf("no %q in\n%s", want, facts)
			}
		}
	})
	t.Run("refused now", func(t *testing.T) {
		b := b.in(t)
		if text := b.text("main"); !strings.Contains(text, "Nothing was refused in the last minute.") {
			t.Errorf("before any request:\n%s", text)
		}
		for range 5 {
			service.Ask(t, harness.Request("edge", 1, "user", "alice"))
		}
		for range 20 {
			service.Ask(t, harness.Request("edge", 1, "path", "/search/x", "remote_address", "10.0.0.1"))
		}
		b.waitFor(`document.querySelector('main tbody tr svg')?.getAttribute('aria-label') === 'last minute: 3 allowed, 2 denied'`)
		if n := value[int](b, `document.querySelectorAll('main section tbody tr').length`); n != 1 {
			t.Errorf("%d rules are shown as refusing; one does", n)
		}
	})
	t.Run("a rule has an address", func(t *testing.T) {
		b := b.in(t)
		b.run(chromedp.Click("main tbody tr a", chromedp.ByQuery))
		b.waitFor(`document.querySelector('.hottest td')?.innerText.includes('user=alice')`)
		if address := value[string](b, "location.hash"); !strings.HasPrefix(address, "#/rules/") {
			t.Errorf("its address is %s", address)
		}
		if text := b.text("main"); !strings.Contains(text, "token_bucket, 3 per minute") || !strings.Contains(text, "3 allowed, 2 denied") {
			t.Errorf("the rule's page is\n%s", text)
		}
		b.run(chromedp.Reload(), chromedp.WaitVisible(".hottest td", chromedp.ByQuery))
	})
	t.Run("a hot counter is explained and reset", func(t *testing.T) {
		b := b.in(t)
		b.run(chromedp.Click(".hottest td a", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#explanation')?.innerText.includes('over limit')`)
		if text := b.text("#explanation"); !strings.Contains(text, "Rule user applies.") || !strings.Contains(text, "4:user=5:alice") {
			t.Errorf("explained as\n%s", text)
		}
		b.run(chromedp.NavigateBack(), chromedp.Click(".hottest td button", chromedp.ByQuery))
		b.waitFor(`document.querySelector('main').innerText.includes('user=alice: forgotten.')`)
		b.run(chromedp.NavigateBack(), chromedp.WaitVisible("#facts", chromedp.ByQuery))
	})
	t.Run("explain a request of several descriptors", func(t *testing.T) {
		b := b.in(t)
		service.Ask(t, harness.Request("edge", 3, "user", "a,b"))
		b.open("#/explain")
		b.run(chromedp.SendKeys("#explain-domain", "edge", chromedp.ByQuery),
			chromedp.SendKeys("#explain-descriptors", `path=/search/x,remote_address=10.0.0.1`+"\n"+`user=a\,b`, chromedp.ByQuery), chromedp.Click("#explain .main", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#explanation').innerText.includes('The request would be refused by user.')`)
		if text := b.text("#explanation"); !strings.Contains(text, "would pass · hybrid") || !strings.Contains(text, "over limit · per_user: token_bucket, 3 per minute: 0 left") {
			t.Errorf("explained as\n%s", text)
		}
		b.run(chromedp.Reload()) // the address has it all
		b.waitFor(`document.querySelector('#explanation')?.innerText.includes('The request would be refused by user.')`)
		b.run(chromedp.Click(".part:last-child .reset", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#explanation').innerText.includes('The request would pass.')`)
	})
	t.Run("order and filter", func(t *testing.T) {
		b := b.in(t)
		b.open("#/rules?order=allowed")
		const first = `document.querySelector('#rules tbody tr td')?.innerText.trim()`
		const search, user = `edge path=/search* › remote_address`, `edge user`
		b.waitFor(fmt.Sprintf("%s === %q", first, search))
		b.choose("#order", "denied")
		if got := value[string](b, first); got != user {
			t.Errorf("most denied is %q", got)
		}
		b.choose("#order", "")
		if got := value[string](b, first); got != user {
			t.Errorf("first written is %q", got)
		}
		b.run(chromedp.SendKeys("#filter", "search*", chromedp.ByQuery))
		if got := value[string](b, first); got != search {
			t.Errorf("found %q", got)
		}
		if address := value[string](b, "location.hash"); address != "#/rules?filter=search*" {
			t.Errorf("the address is %s", address)
		}
	})
	t.Run("rates are not read out", func(t *testing.T) {
		b := b.in(t)
		heard := value[string](b, `[...document.querySelectorAll('[role=status], [aria-live]')].map((e) => e.innerText).join('')`)
		if shown := b.text("#state"); heard != "1 of 2 rules" || !strings.Contains(shown, "allowed/s") {
			t.Errorf("a screen reader hears %q, and %q is shown", heard, shown)
		}
	})
	t.Run("keyboard", func(t *testing.T) {
		b := b.in(t)
		// From the top of the page, by Tab and Enter alone, to the list of rules and the first of them.
		b.open("#/")
		b.run(chromedp.Evaluate(`document.activeElement.blur(); window.getSelection().removeAllRanges(); document.body.tabIndex = -1; document.body.focus()`, nil))
		tabTo := func(what, condition string) {
			t.Helper()
			for range 30 {
				b.run(chromedp.KeyEvent("\t"))
				if value[bool](b, "Boolean("+condition+")") {
					return
				}
			}
			t.Fatalf("Tab does not lead to %s", what)
		}
		tabTo("the rules", `document.activeElement.getAttribute('href') === '#/rules'`)
		b.run(chromedp.KeyEvent("\r"))
		b.waitFor(`document.activeElement.innerText === 'Rules' && document.activeElement.tagName === 'H2'`)
		tabTo("a rule", `document.activeElement.closest('#rules tbody')`)
		b.run(chromedp.KeyEvent("\r"))
		b.waitFor(`document.activeElement.tagName === 'H2' && document.activeElement.innerText === 'edge user'`)
	})
	t.Run("focus stays while rates change", func(t *testing.T) {
		b := b.in(t)
		b.open("#/rules")
		b.run(chromedp.Focus("#rules tbody tr:nth-child(2) a", chromedp.ByQuery))
		const there = `document.activeElement.closest('#rules tbody tr')?.querySelector('svg')?.getAttribute('aria-label')`
		before := value[string](b, there)
		service.Ask(t, harness.Request("edge", 1, "path", "/search/x", "remote_address", "10.0.0.2"))
		b.waitFor(fmt.Sprintf("%s !== %q", there, before))
		if now := value[string](b, there); !strings.HasPrefix(now, "last minute: ") {
			t.Errorf("the focus is on a row with %q", now)
		}
	})
	t.Run("edit", func(t *testing.T) {
		b := b.in(t)
		const amount, button = `#editor [data-field=requests_per_unit]`, `#rules tbody tr td:last-child button`
		b.open("#/rules")
		b.run(chromedp.Click(button, chromedp.ByQuery), chromedp.WaitVisible(amount, chromedp.ByQuery),
			b.clear(amount), chromedp.SendKeys(amount, "-5", chromedp.ByQuery))
		b.waitFor(`document.querySelector('` + amount + `').getAttribute('aria-invalid') === 'true'`)
		if beside := value[string](b, `document.getElementById(document.querySelector('`+amount+`').getAttribute('aria-describedby')).innerText`); beside == "" {
			t.Error("no error beside the field")
		}
		b.run(b.clear(amount), chromedp.SendKeys(amount, "7", chromedp.ByQuery), chromedp.Click("#editor button.main", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#rules').innerText.includes('admin, overrides file')`)
		if text := b.text("#rules"); !strings.Contains(text, "token_bucket, 7 per minute") {
			t.Errorf("after the change the rules are\n%s", text)
		}
		if !value[bool](b, `document.activeElement === document.querySelector('`+button+`')`) {
			t.Error("the focus does not come back from the editor")
		}
		b.run(chromedp.Click(button, chromedp.ByQuery), chromedp.WaitVisible("#delete", chromedp.ByQuery), chromedp.Click("#delete", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#rules').innerText.includes('token_bucket, 3 per minute')`)
		b.open("#/reloads")
		b.waitFor(`document.querySelector('#reloads')?.innerText.includes('loaded')`)
	})
	t.Run("every view has a heading, and every control a name", func(t *testing.T) {
		b := b.in(t)
		b.open("#/rules")
		b.waitFor(`document.querySelector('#rules tbody tr')`)
		key := value[string](b, `document.querySelector('#rules tbody tr').dataset.key`)
		for _, address := range []string{"#/", "#/rules", "#/rules/" + key, "#/live", "#/explain", "#/reloads"} {
			b.open(address)
			b.waitFor(`document.querySelector('main h2')`)
			for _, e := range value[[]string](b, `[...document.querySelectorAll('input, select, button, textarea, a, section, nav')]
				.filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.matches('section, nav') === false && e.innerText.trim() || !e.checkVisibility()))
				.map((e) => e.outerHTML)`) {
				t.Errorf("%s: %s", address, e)
			}
		}
	})
	t.Run("decisions as they happen", func(t *testing.T) {
		b := b.in(t)
		b.open("#/live?domain=edge&verdict=over,shadow")
		b.waitFor(`document.querySelector('.live').innerText.includes('Watching.')`)
		for range 5 {
			service.Ask(t, harness.Request("edge", 1, "user", "b\u202eob"))
		}
		b.waitFor(`document.querySelectorAll('.live tbody tr').length === 2`)
		const row = `document.querySelector('.live tbody tr')`
		if text := value[string](b, row+`.innerText`); !strings.Contains(text, "over") || !strings.Contains(text, "per_user: token_bucket, 3 per minute") || !strings.Contains(text, "s") {
			t.Errorf("a refusal is shown as %q", text)
		}
		links := value[[]string](b, `[...`+row+`.querySelectorAll('a')].map((a) => a.hash)`)
		if len(links) != 2 || links[0] != "#/explain?domain=edge&descriptor=user%3Db%E2%80%AEob" || !strings.HasPrefix(links[1], "#/rules/") {
			t.Errorf("it leads to %q", links)
		}
		if lone := value[bool](b, row+`.querySelector('.first a').lastChild.tagName === 'BDI'`); !lone {
			t.Error("a value can turn the direction of what is beside it")
		}
		b.choose(".verdict", "unmatched")
		b.waitFor(`document.querySelector('.live').innerText.includes('Watching.')`)
		service.Ask(t, harness.Request("edge", 1, "nobody", "x"))
		b.waitFor(row + `.innerText.includes('nobody=x')`)
		if address := value[string](b, "location.hash"); address != "#/live?domain=edge&verdict=unmatched" {
			t.Errorf("the address is %s", address)
		}
		b.run(chromedp.Click(".watch", chromedp.ByQuery))
		b.waitFor(`document.querySelector('.live').innerText.includes('Stopped.')`)
	})
	t.Run("what no rule limits", func(t *testing.T) {
		b := b.in(t)
		service.Ask(t, harness.Request("shop", 1, "user", "alice"))
		b.open("#/")
		b.waitFor(`document.querySelector('#banners').innerText.includes('Requests ask for domains that have no rules, and pass:')`)
		if text := b.text("#banners"); !strings.Contains(text, "shop") {
			t.Errorf("the banner is %q", text)
		}
		b.waitFor(`document.querySelectorAll('main section:nth-child(1) ~ div tbody tr').length === 2`)
		if text := b.text("main section:nth-child(1) ~ div"); !strings.Contains(text, "shop") || !strings.Contains(text, "descriptors that no rule matches") {
			t.Errorf("the overview shows\n%s", text)
		}
	})
	t.Run("dark", func(t *testing.T) {
		b := b.in(t)
		const ground = `getComputedStyle(document.body).backgroundColor`
		b.open("#/")
		b.run(chromedp.Click(".watch", chromedp.ByQuery))
		b.waitFor(`document.querySelector('.live').innerText.includes('Watching.')`)
		for i := range 30 {
			service.Ask(t, harness.Request("edge", 1, "path", "/search/x", "remote_address", fmt.Sprintf("10.0.0.%d", 1+i%3*i%2)))
			service.Ask(t, harness.Request("edge", 1, "user", []string{"alice", "bob", "carol"}[i%3]))
		}
		b.waitFor(`document.querySelectorAll('main > div > section:first-child tbody tr').length === 2 && document.querySelector('.live tbody tr')`)
		light := value[string](b, ground)
		b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
		if dark := value[string](b, ground); light == dark {
			t.Errorf("the ground is %s in both", light)
		}
		b.run(chromedp.Click("main tbody tr a", chromedp.ByQuery), chromedp.WaitVisible(".hottest td", chromedp.ByQuery))
	})
}

// TestPageOnAPhone keeps all there is on a screen of 390 pixels, rates too.
func TestPageOnAPhone(t *testing.T) {
	service := harness.StartService(t, writeRules(t, pageRules), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"))
	b := openPage(t, service, "#/rules")
	b.run(phone())
	for range 5 {
		service.Ask(t, harness.Request("edge", 1, "user", "alice"))
	}
	b.waitFor(`document.querySelector('#rules tbody tr svg')?.getAttribute('aria-label') === 'last minute: 3 allowed, 2 denied'`)
	const outside = `[...document.querySelectorAll('main *, header *, dialog[open] *')].filter((e) => e.checkVisibility() && !e.closest('thead'))
		.filter((e) => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.left < 0 || r.right > 390.5) }).map((e) => e.outerHTML.slice(0, 200))`
	for _, label := range []string{"Allowed/s", "Denied/s"} {
		if shown := value[bool](b, fmt.Sprintf(`(() => { const r = document.querySelector('#rules td[data-label=%q]').getBoundingClientRect(); return r.width > 40 && r.bottom < 844 })()`, label)); !shown {
			t.Errorf("%s of the first rule is not on the screen", label)
		}
	}
	// Rates are those of the last second.
	harness.Eventually(t, "the page shows a rate", func() bool {
		service.Ask(t, harness.Request("edge", 1, "user", "alice"))
		return value[bool](b, `/[1-9]/.test(document.querySelector('#rules td[data-label="Denied/s"]').innerText)`)
	})
	key := value[string](b, `document.querySelector('#rules tbody tr').dataset.key`)
	for _, address := range []string{"#/", "#/live", "#/explain?domain=edge&descriptor=user%3Dalice", "#/reloads", "#/rules/" + key, "#/rules"} {
		b.open(address)
		b.waitFor(`document.querySelector('main h2')`)
		if strings.Contains(address, key) {
			b.waitFor(`document.querySelector('.hottest td')`)
		}
		for _, e := range value[[]string](b, outside) {
			t.Errorf("%s: off the screen: %s", address, e)
		}
	}
	b.run(chromedp.Click("#rules tbody tr td:last-child button", chromedp.ByQuery), chromedp.WaitVisible("#editor [data-field=requests_per_unit]", chromedp.ByQuery))
	for _, e := range value[[]string](b, outside) {
		t.Errorf("the editor is off the screen: %s", e)
	}
	if width := value[float64](b, `document.querySelector('#editor [data-field=requests_per_unit]').getBoundingClientRect().width`); width < 250 {
		t.Errorf("an input of the editor is %v pixels wide", width)
	}
}

func TestPageWithAThousandRules(t *testing.T) {
	var yaml strings.Builder
	yaml.WriteString("domain: edge\ndescriptors:\n")
	for i := range 1000 {
		fmt.Fprintf(&yaml, "  - {key: user, value: u%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, i+1)
	}
	b := openPage(t, harness.StartService(t, writeRules(t, yaml.String())), "#/rules")
	const rows = `document.querySelectorAll('#rules tbody tr').length`
	const first = `document.querySelector('#rules tbody tr td').innerText.trim()`
	b.waitFor(rows + ` === 50`)
	b.picture("page-1000-rules.png")
	b.run(chromedp.Click(`//button[text()='Next']`, chromedp.BySearch))
	b.waitFor(first + ` === 'edge user=u50'`)
	b.run(chromedp.Reload())
	b.waitFor(rows + ` === 50`)
	if got := value[string](b, first); got != "edge user=u50" {
		t.Errorf("the second page begins with %q after a reload", got)
	}
	took := value[float64](b, `(() => { const begin = performance.now(); const f = document.querySelector('#filter'); f.value = 'user=u99'; f.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - begin })()`)
	t.Logf("filtering took %.1f ms", took)
	if n := value[int](b, rows); n != 11 { // u99, u990 … u999
		t.Errorf("%d rules are found, want 11", n)
	}
}

// TestPageThatChangesNothing offers nothing that would be refused, and says why.
func TestPageThatChangesNothing(t *testing.T) {
	service := harness.StartService(t, writeRules(t, pageRules), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"), "--admin-read-only")
	b := openPage(t, service, "#/rules")
	service.Ask(t, harness.Request("edge", 1, "user", "alice"))
	b.waitFor(`document.querySelectorAll('#rules tbody tr').length === 2`)
	if text := b.text("#fixed"); !strings.Contains(text, "this address is read-only") {
		t.Errorf("the page says %q", text)
	}
	buttons := func(where string) {
		t.Helper()
		if n := value[int](b, `[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && /Edit|New|Reset/.test(b.innerText)).length`); n != 0 {
			t.Errorf("%s: %d buttons to change something", where, n)
		}
	}
	buttons("the rules")
	b.run(chromedp.Click("#rules tbody tr a", chromedp.ByQuery), chromedp.WaitVisible(".hottest td", chromedp.ByQuery))
	buttons("a rule")
	b.run(chromedp.Click(".hottest td a", chromedp.ByQuery))
	b.waitFor(`document.querySelector('#explanation')?.innerText.includes('would pass')`)
	buttons("an explanation")
}

// TestPageForAnyone shows rates and rules, and no values that clients send.
func TestPageForAnyone(t *testing.T) {
	port := freeport.ForTest(t)
	service := harness.StartService(t, writeRules(t, pageRules), "--admin-addr", fmt.Sprintf("0.0.0.0:%d", port.Number), "--admin-read-only")
	service.Admin = port.Addr()
	for range 5 {
		service.Ask(t, harness.Request("edge", 1, "user", "alice"))
	}
	b := openPage(t, service, "#/rules")
	b.waitFor(`document.querySelector('#rules tbody tr svg')?.getAttribute('aria-label') === 'last minute: 3 allowed, 2 denied'`)
	b.run(chromedp.Click("#rules tbody tr a", chromedp.ByQuery), chromedp.WaitVisible("#rule dl", chromedp.ByQuery))
	text := b.text("main")
	if !strings.Contains(text, "3 allowed, 2 denied") || strings.Contains(text, "alice") || !strings.Contains(text, "Values that clients send are not shown") {
		t.Errorf("the rule's page is\n%s", text)
	}
	b.open("#/explain?domain=edge&descriptor=user%3Dalice")
	b.waitFor(`document.querySelector('#explanation')?.innerText.includes('Rule user applies.')`)
}

func TestPageAsksForTheToken(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret-s3cret-s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	service := harness.StartService(t, writeRules(t, pageRules), "--admin-token-file", token)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+service.Admin+"/admin/rules", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var problem struct{ Status int }
	if err := json.NewDecoder(answer.Body).Decode(&problem); err != nil || problem.Status != http.StatusUnauthorized {
		t.Errorf("without the token: %d, %v", problem.Status, err)
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(harness.Tool(t, "chromium")), chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute))...)
	defer stop()
	tab, closeTab := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	defer closeTab()
	ctx, cancel := context.WithTimeout(tab, 2*time.Minute)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.Navigate("http://"+service.Admin+"/"), chromedp.WaitVisible("#token", chromedp.ByQuery),
		chromedp.SendKeys("#token", "s3cret-s3cret-s3cret\r", chromedp.ByQuery), chromedp.WaitVisible("#facts dd", chromedp.ByQuery)); err != nil {
		t.Fatal(err)
	}
}

// TestPageShowsBadSources breaks the rule file under an open page.
func TestPageShowsBadSources(t *testing.T) {
	path := writeRules(t, pageRules)
	b := openPage(t, harness.StartService(t, path), "")
	if text := b.text("#banners"); text != "" {
		t.Errorf("while all is well: %q", text)
	}
	if err := os.WriteFile(path, []byte("domain: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	b.waitFor(`document.querySelector('#banners').innerText.includes('Rules from file are bad: the last good ones stay.')`)
	if text := b.text("#banners"); !strings.Contains(text, path+":2:1: not YAML") {
		t.Errorf("the page tells\n%s", text)
	}
	b.picture("page-failed-reload.png")
	b.run(chromedp.Click("#banners a", chromedp.ByQuery))
	b.waitFor(`document.querySelector('#reloads td.error')?.innerText === 'failed'`)
	if err := os.WriteFile(path, []byte(pageRules), 0o600); err != nil {
		t.Fatal(err)
	}
	b.waitFor(`document.querySelector('#banners').innerText === ''`)
}

// TestPageEditsACalendar writes the window of a rule as the form shows it: in one line.
func TestPageEditsACalendar(t *testing.T) {
	service := harness.StartService(t, writeRules(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {window: {calendar: month, timezone: Europe/Berlin, starts: 15}, requests_per_unit: 3}}
`), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"))
	b := openPage(t, service, "#/rules")
	b.waitFor(`document.querySelector('#rules').innerText.includes('3 per calendar month (Europe/Berlin, from the 15th)')`)
	const window, amount = `#editor [data-field=window]`, `#editor [data-field=requests_per_unit]`
	b.run(chromedp.Click(`#rules tbody tr td:last-child button`, chromedp.ByQuery), chromedp.WaitVisible(window, chromedp.ByQuery))
	if text := value[string](b, `document.querySelector('`+window+`').value`); text != "calendar month Europe/Berlin 15" {
		t.Errorf("the form shows the window as %q", text)
	}
	b.run(b.clear(window), chromedp.SendKeys(window, "calendar week Europe/Berln sunday", chromedp.ByQuery))
	// Half of the text is wrong for another reason.
	b.waitFor(`document.getElementById(document.querySelector('` + window + `').getAttribute('aria-describedby'))?.innerText.includes('Europe/Berln')`)
	b.run(b.clear(window), chromedp.SendKeys(window, "calendar week Europe/Berlin sunday", chromedp.ByQuery),
		b.clear(amount), chromedp.SendKeys(amount, "7", chromedp.ByQuery), chromedp.Click("#editor button.main", chromedp.ByQuery))
	b.waitFor(`document.querySelector('#rules').innerText.includes('7 per calendar week (Europe/Berlin, from Sunday)')`)
}

// TestPageTellsOfStoredRulesSetAside starts with stored rules of which one domain is damaged.
func TestPageTellsOfStoredRulesSetAside(t *testing.T) {
	stored := filepath.Join(t.TempDir(), "admin.json")
	if err := os.WriteFile(stored, []byte("{\"revision\": 4, \"domains\": {\"edge\": {\"domain\": \"edge\", \"descriptors\": [{\"key\": \"a\x7f\", \"rate_limit\": {\"unit\": \"day\", \"requests_per_unit\": 1}}]}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := openPage(t, harness.StartService(t, writeRules(t, pageRules), "--admin-rules-file", stored), "")
	b.waitFor(`document.querySelector('#banners').innerText.includes('Stored rules were set aside')`)
	if text := b.text("#banners"); !strings.Contains(text, `the domain "edge"`) {
		t.Errorf("the banner is %q", text)
	}
}

// TestPageShowsThatTheStoreIsAway kills Redis under an open page.
func TestPageShowsThatTheStoreIsAway(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	b := openPage(t, harness.StartService(t, writeRules(t, pageRules), "--redis-url", "redis://"+server.Addr), "")
	b.waitFor(`document.querySelector('#facts').innerText.includes('Redis, well')`)
	server.Kill()
	b.waitFor(`document.querySelector('#banners').innerText.includes('Redis is away: on_backend_error decides.')`)
	server.Restart()
	b.waitFor(`document.querySelector('#banners').innerText === ''`)
}
