package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestPageShowsWhatAdjustsARule in the list, on the rule's page, where a request is
// explained and in the form, which has the rule as it is written.
func TestPageShowsWhatAdjustsARule(t *testing.T) {
	path := writeRules(t, `domain: edge
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 100}
---
adjust:
  - rules: {path: user}
    set: {shadow_mode: true}
`)
	b := openPage(t, harness.StartService(t, path, "--default-algorithm", "token_bucket", "--default-burst", "20%", "--admin-rules-file", t.TempDir()+"/rules.json"), "")
	const limit, written = "token_bucket, 100 per hour, burst 20 (20%), denied_hits count, shadow_mode", "fixed_window, 100 per hour"
	const first, second = "--default-algorithm or DEFAULT_ALGORITHM", ":7:5"

	b.open("#/rules?filter=adjusted")
	b.waitFor(`document.querySelector('#rules tbody tr')?.innerText.includes('adjusted')`)
	if row := b.text("#rules tbody tr"); !strings.Contains(row, limit) {
		t.Errorf("the list shows\n%s", row)
	}
	if title := value[string](b, `document.querySelector('#rules tbody td .tag').title`); !strings.Contains(title, first) || !strings.Contains(title, path+second) || !strings.Contains(title, written) {
		t.Errorf("its tag says\n%s", title)
	}
	b.run(chromedp.Click("#rules tbody tr a", chromedp.ByQuery))
	b.waitFor(`document.querySelector('#rule dl')?.innerText.includes('Adjusted by')`)
	if text := b.text("#rule"); !strings.Contains(text, written) || !strings.Contains(text, first+": algorithm token_bucket, burst 20%") || !strings.Contains(text, path+second+": shadow_mode true") {
		t.Errorf("the rule's page is\n%s", text)
	}
	b.open("#/explain?domain=edge&descriptor=user%3Dalice")
	b.waitFor(`document.querySelector('#explanation')?.innerText.includes('adjusted by')`)
	if text := b.text("#explanation"); !strings.Contains(text, limit+": adjusted by "+first) || !strings.Contains(text, "written as "+written) {
		t.Errorf("explained as\n%s", text)
	}
	b.open("#/rules")
	b.run(chromedp.Click("#rules tbody tr button", chromedp.ByQuery), chromedp.WaitVisible("#editor #adjusted", chromedp.ByQuery))
	if algorithm := value[string](b, `document.querySelector('#editor [data-field=algorithm]').value`); algorithm != "" {
		t.Errorf("the form has the algorithm %q, which nobody wrote", algorithm)
	}
}
