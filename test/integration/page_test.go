package integration

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

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// browser is a tab of a real Chromium with the admin page open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string // what a page without faults does not do
}

// openPage opens the service's page and waits until it shows rules.
func openPage(t *testing.T, service *harness.Service) *browser {
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
			if u, err := url.Parse(e.Request.URL); err != nil || u.Host != service.Admin {
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
	b.run(network.Enable(), runtime.Enable(), chromedp.Navigate("http://"+service.Admin+"/"), chromedp.WaitVisible("#rules table", chromedp.ByQuery))
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
	b := openPage(t, service)

	t.Run("live rates", func(t *testing.T) {
		b := b.in(t)
		for range 5 {
			service.Ask(t, harness.Request("edge", 1, "user", "alice"))
		}
		b.waitFor(`document.querySelector('#rules tbody tr svg')?.getAttribute('aria-label') === 'last minute: 3 allowed, 2 denied'`)
		if text := b.text("#rules"); !strings.Contains(text, "token_bucket, 3 per minute") || !strings.Contains(text, "path=/search* › remote_address") {
			t.Errorf("the rules are shown as\n%s", text)
		}
	})
	t.Run("details", func(t *testing.T) {
		b := b.in(t)
		b.run(chromedp.Click("#rules tbody tr button.link", chromedp.ByQuery), chromedp.WaitVisible("#details dl", chromedp.ByQuery))
		if text := b.text("#details"); !strings.Contains(text, "user=alice") || !strings.Contains(text, "Hottest counters") {
			t.Errorf("details are\n%s", text)
		}
		b.run(chromedp.KeyEvent("\x1b"), chromedp.WaitNotVisible("#details", chromedp.ByQuery))
	})
	t.Run("explain", func(t *testing.T) {
		b := b.in(t)
		b.run(chromedp.SendKeys("#explain-domain", "edge", chromedp.ByQuery), chromedp.SendKeys("#explain-descriptor", "user=alice\r", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#explanation').innerText.includes('over limit')`)
		if text := b.text("#explanation"); !strings.Contains(text, "Rule user applies.") || !strings.Contains(text, "4:user=5:alice") {
			t.Errorf("explained as\n%s", text)
		}
		b.run(chromedp.Click("#reset", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#explanation').innerText.includes('would pass · token_bucket, 3 per minute: 3 left')`)
	})
	t.Run("order", func(t *testing.T) {
		b := b.in(t)
		for range 20 {
			service.Ask(t, harness.Request("edge", 1, "path", "/search/x", "remote_address", "10.0.0.1"))
		}
		b.waitFor(`document.querySelectorAll('#rules tbody tr svg')[1]?.getAttribute('aria-label') === 'last minute: 20 allowed, 0 denied'`)
		first := func() (key string) {
			b.run(chromedp.Evaluate(`document.querySelector('#rules tbody tr td').innerText`, &key))
			return key
		}
		choose := func(by string) {
			b.run(chromedp.Evaluate(fmt.Sprintf(`(() => { const s = document.querySelector('#order'); s.value = %q; s.dispatchEvent(new Event('change')) })()`, by), nil))
		}
		choose("allowed")
		if got := first(); got != "path=/search* › remote_address" {
			t.Errorf("most allowed is %q", got)
		}
		choose("denied")
		if got := first(); got != "user" {
			t.Errorf("most denied is %q", got)
		}
		choose("")
		if got := first(); got != "user" {
			t.Errorf("first written is %q", got)
		}
	})
	t.Run("rates are not read out", func(t *testing.T) {
		b := b.in(t)
		var heard, shown string
		b.run(chromedp.Evaluate(`document.querySelector('[role=status]').innerText`, &heard), chromedp.Evaluate(`document.querySelector('#state').innerText`, &shown))
		if heard != "" || !strings.Contains(shown, "allowed/s") {
			t.Errorf("a screen reader hears %q, and %q is shown", heard, shown)
		}
	})
	t.Run("keyboard", func(t *testing.T) {
		b := b.in(t)
		// From the top of the page, by Tab and Enter alone, to the details of the first rule and back.
		b.run(chromedp.Evaluate(`document.activeElement.blur(); window.getSelection().removeAllRanges(); document.body.tabIndex = -1; document.body.focus()`, nil))
		const focused = `document.activeElement.closest('#rules tbody') && document.activeElement.classList.contains('link')`
		var there bool
		for range 30 {
			b.run(chromedp.KeyEvent("\t"), chromedp.Evaluate(`Boolean(`+focused+`)`, &there))
			if there {
				break
			}
		}
		if !there {
			t.Fatal("Tab does not lead to the rules")
		}
		b.run(chromedp.KeyEvent("\r"), chromedp.WaitVisible("#details dl", chromedp.ByQuery), chromedp.KeyEvent("\x1b"), chromedp.WaitNotVisible("#details", chromedp.ByQuery),
			chromedp.Evaluate(`Boolean(`+focused+`)`, &there))
		if !there {
			t.Error("the focus does not come back from the details")
		}
	})
	t.Run("edit", func(t *testing.T) {
		b := b.in(t)
		const amount = `#editor [data-field=requests_per_unit]`
		b.run(chromedp.Click("#rules tbody tr td:last-child button", chromedp.ByQuery), chromedp.WaitVisible(amount, chromedp.ByQuery),
			b.clear(amount), chromedp.SendKeys(amount, "-5", chromedp.ByQuery))
		b.waitFor(`document.querySelector('` + amount + `').getAttribute('aria-invalid') === 'true'`)
		var beside string
		b.run(chromedp.Evaluate(`document.getElementById(document.querySelector('`+amount+`').getAttribute('aria-describedby')).innerText`, &beside))
		if beside == "" {
			t.Error("no error beside the field")
		}
		b.run(b.clear(amount), chromedp.SendKeys(amount, "7", chromedp.ByQuery), chromedp.Click("#editor button.main", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#rules').innerText.includes('admin, overrides file')`)
		if text := b.text("#rules"); !strings.Contains(text, "token_bucket, 7 per minute") {
			t.Errorf("after the change the rules are\n%s", text)
		}
		b.run(chromedp.Click("#rules tbody tr td:last-child button", chromedp.ByQuery), chromedp.WaitVisible("#delete", chromedp.ByQuery), chromedp.Click("#delete", chromedp.ByQuery))
		b.waitFor(`document.querySelector('#rules').innerText.includes('token_bucket, 3 per minute')`)
		if text := b.text("#reloads"); !strings.Contains(text, "loaded") {
			t.Errorf("reloads are\n%s", text)
		}
	})
	t.Run("every control has a name", func(t *testing.T) {
		b := b.in(t)
		var nameless []string
		b.run(chromedp.Evaluate(`[...document.querySelectorAll('input, select, button, textarea')]
			.filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.innerText.trim() || e.closest('dialog:not([open])')))
			.map((e) => e.outerHTML)`, &nameless))
		for _, e := range nameless {
			t.Error(e)
		}
	})
	t.Run("dark", func(t *testing.T) {
		b := b.in(t)
		var light, dark string
		const ground = `getComputedStyle(document.body).backgroundColor`
		b.run(chromedp.Evaluate(ground, &light),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}),
			chromedp.Evaluate(ground, &dark))
		if light == dark {
			t.Errorf("the ground is %s in both", light)
		}
		if path := os.Getenv("PAGE_SCREENSHOT"); path != "" {
			for range 30 {
				service.Ask(t, harness.Request("edge", 1, "path", "/search/x", "remote_address", "10.0.0.1"))
			}
			b.waitFor(`/ [1-9][0-9]* denied/.test(document.querySelectorAll("#rules tbody tr svg")[1]?.getAttribute("aria-label"))`)
			var png []byte
			b.run(emulation.SetEmulatedMedia(), chromedp.FullScreenshot(&png, 100))
			if err := os.WriteFile(path, png, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestPageWithAThousandRules(t *testing.T) {
	var yaml strings.Builder
	yaml.WriteString("domain: edge\ndescriptors:\n")
	for i := range 1000 {
		fmt.Fprintf(&yaml, "  - {key: user, value: u%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, i+1)
	}
	b := openPage(t, harness.StartService(t, writeRules(t, yaml.String())))
	b.waitFor(`document.querySelectorAll('#rules tbody tr').length === 1000`)
	b.run(chromedp.SendKeys("#filter", "user=u99", chromedp.ByQuery))
	b.waitFor(`document.querySelectorAll('#rules tbody tr:not([hidden])').length === 11`) // u99, u990 … u999
}

// TestPageThatChangesNothing offers nothing that would be refused, and says why.
func TestPageThatChangesNothing(t *testing.T) {
	b := openPage(t, harness.StartService(t, writeRules(t, pageRules), "--admin-rules-file", filepath.Join(t.TempDir(), "rules.json"), "--admin-read-only"))
	b.waitFor(`document.querySelectorAll('#rules tbody tr').length === 2`)
	var buttons int
	b.run(chromedp.Evaluate(`[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && /Edit|New/.test(b.innerText)).length`, &buttons))
	if text := b.text("#fixed"); buttons != 0 || !strings.Contains(text, "this address is read-only") {
		t.Errorf("%d buttons to change rules, and the page says %q", buttons, text)
	}
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
		chromedp.SendKeys("#token", "s3cret-s3cret-s3cret\r", chromedp.ByQuery), chromedp.WaitVisible("#rules table", chromedp.ByQuery)); err != nil {
		t.Fatal(err)
	}
}

// TestPageTellsOfBadSources breaks the rule file under an open page.
func TestPageTellsOfBadSources(t *testing.T) {
	path := writeRules(t, pageRules)
	b := openPage(t, harness.StartService(t, path))
	if text := b.text("#sources"); text != "" {
		t.Errorf("while all is well: %q", text)
	}
	if err := os.WriteFile(path, []byte("domain: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	b.waitFor(`document.querySelector('#sources').innerText.includes('Rules from file are bad: the last good ones stay.')`)
	if text := b.text("#sources"); !strings.Contains(text, path+":2:1: not YAML") {
		t.Errorf("the page tells\n%s", text)
	}
	if err := os.WriteFile(path, []byte(pageRules), 0o600); err != nil {
		t.Fatal(err)
	}
	b.waitFor(`document.querySelector('#sources').innerText === ''`)
}
