package descriptor_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// parse reads the text of a file.
func parse(t *testing.T, name, text string) *config.Rules {
	t.Helper()
	rules, err := rulefile.Parse([]rulefile.Source{{Name: name, Data: []byte(text)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// edge makes a file of descriptors, one a line.
func edge(descriptors ...string) string {
	return "domain: edge\ndescriptors:\n" + strings.Join(descriptors, "\n") + "\n"
}

// user is a descriptor with such a limit.
func user(limit string) string { return "- {key: user, rate_limit: {" + limit + "}}" }

func users(limits ...string) string {
	return "- {key: user, rate_limits: [{" + strings.Join(limits, "}, {") + "}]}"
}

func TestCountersThatGoOn(t *testing.T) {
	for name, test := range map[string]struct {
		old, next string
		kept      int
	}{
		"the same":      {edge(user("unit: minute, requests_per_unit: 5")), edge(user("unit: minute, requests_per_unit: 5")), 1},
		"another limit": {edge(user("unit: minute, requests_per_unit: 5")), edge(user("unit: minute, requests_per_unit: 500")), 1},
		"another burst": {edge(user("algorithm: token_bucket, unit: minute, requests_per_unit: 5, burst: 5")), edge(user("algorithm: token_bucket, unit: minute, requests_per_unit: 5, burst: 50")), 1},
		"another name":  {edge(user("unit: minute, requests_per_unit: 5, name: a")), edge(user("unit: minute, requests_per_unit: 5, name: b")), 1},
		"shadow mode":   {edge(user("unit: minute, requests_per_unit: 5")), edge("- {key: user, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 5}}"), 1},
		"a calendar with its defaults": {edge(user("window: {calendar: week}, requests_per_unit: 5")),
			edge(user("window: {calendar: week, timezone: UTC, starts: monday}, requests_per_unit: 9")), 1},
		"the window in words":   {edge(user("unit: minute, requests_per_unit: 5")), edge(user("window: 60s, requests_per_unit: 5")), 1},
		"a second limit":        {edge(user("unit: minute, requests_per_unit: 5")), edge(users("unit: minute, requests_per_unit: 5", "unit: hour, requests_per_unit: 50")), 1},
		"limits of other kinds": {edge(users("unit: minute, requests_per_unit: 5", "unit: hour, requests_per_unit: 50")), edge(users("unit: hour, requests_per_unit: 50", "unit: minute, requests_per_unit: 5")), 2},
		"lines that moved": {
			edge(user("unit: minute, requests_per_unit: 5"), "- {key: path, rate_limit: {unit: minute, requests_per_unit: 5}}"),
			edge("- {key: path, rate_limit: {unit: minute, requests_per_unit: 5}}", user("unit: minute, requests_per_unit: 5")), 2,
		},
		// A counter is called by the entries, not by the rule that charges it.
		"a value with the limit of all": {
			edge(user("unit: minute, requests_per_unit: 5")),
			edge(user("unit: minute, requests_per_unit: 5"), "- {key: user, value: alice, rate_limit: {unit: minute, requests_per_unit: 50}}"), 2,
		},
		"a pattern in place of a key": {
			edge(user("unit: minute, requests_per_unit: 5")),
			edge(`- {key: user, value: "*", rate_limit: {unit: minute, requests_per_unit: 5}}`), 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := descriptor.Replace(parse(t, "old", test.old), parse(t, "new", test.next))
			for _, c := range got.Changes {
				if c.Old != nil {
					t.Errorf("listed: %s", c)
				}
			}
			if got.Kept != test.kept {
				t.Errorf("%d go on, want %d", got.Kept, test.kept)
			}
		})
	}
}

func TestCountersThatBeginAnew(t *testing.T) {
	for name, test := range map[string]struct {
		old, next string
		want      []string // each a line
	}{
		"another algorithm": {
			edge(user("unit: minute, requests_per_unit: 5")), edge(user("algorithm: token_bucket, unit: minute, requests_per_unit: 5, burst: 7")),
			[]string{"new:3:27: edge user: begins anew: algorithm changed: fixed_window, 5 per minute (old:3:27) -> token_bucket, 5 per minute, burst 7"},
		},
		"another window": {
			edge(user("unit: minute, requests_per_unit: 5")), edge(user("unit: hour, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: fixed_window, 5 per minute (old:3:27) -> fixed_window, 5 per hour"},
		},
		"a month of the calendar for one of 30 days": {
			edge(user("unit: month, requests_per_unit: 5")), edge(user("window: {calendar: month}, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: fixed_window, 5 per month (old:3:27) -> fixed_window, 5 per calendar month (UTC)"},
		},
		"another time zone": {
			edge(user("window: {calendar: month}, requests_per_unit: 5")), edge(user("window: {calendar: month, timezone: Europe/Berlin}, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: fixed_window, 5 per calendar month (UTC) (old:3:27) -> fixed_window, 5 per calendar month (Europe/Berlin)"},
		},
		"another start": {
			edge(user("window: {calendar: week}, requests_per_unit: 5")), edge(user("window: {calendar: week, starts: sunday}, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: fixed_window, 5 per calendar week (UTC) (old:3:27) -> fixed_window, 5 per calendar week (UTC, from Sunday)"},
		},
		"another window of a sliding window": {
			edge(user("algorithm: sliding_window, unit: minute, requests_per_unit: 5")), edge(user("algorithm: sliding_window, window: 90s, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: sliding_window, 5 per minute (old:3:27) -> sliding_window, 5 per 1m30s"},
		},
		"another window of a log": {
			edge(user("algorithm: sliding_log, unit: minute, requests_per_unit: 5")), edge(user("algorithm: sliding_log, unit: hour, requests_per_unit: 5")),
			[]string{"new:3:27: edge user: begins anew: window changed: sliding_log, 5 per minute (old:3:27) -> sliding_log, 5 per hour"},
		},
		"one of several limits": {
			edge(users("unit: minute, requests_per_unit: 5", "unit: hour, requests_per_unit: 50, name: hourly")),
			edge(users("unit: minute, requests_per_unit: 6", "unit: day, requests_per_unit: 50, name: hourly")),
			[]string{"new:3:67: edge user: begins anew: window changed: hourly: fixed_window, 50 per hour, denied_hits drop (old:3:67) -> hourly: fixed_window, 50 per day, denied_hits drop"},
		},
		"limits of one kind that change places": {
			edge(users("unit: minute, requests_per_unit: 5", "unit: minute, requests_per_unit: 50")),
			edge(users("unit: minute, requests_per_unit: 50", "unit: minute, requests_per_unit: 5")),
			[]string{
				"new:3:29: edge user: begins anew: its place among the limits of its kind changed: fixed_window, 50 per minute, denied_hits drop (old:3:67) -> fixed_window, 50 per minute, denied_hits drop",
				"new:3:68: edge user: begins anew: its place among the limits of its kind changed: fixed_window, 5 per minute, denied_hits drop (old:3:29) -> fixed_window, 5 per minute, denied_hits drop",
			},
		},
		"a limit before one of its kind": {
			edge(user("unit: minute, requests_per_unit: 5")),
			edge(users("unit: minute, requests_per_unit: 50", "unit: minute, requests_per_unit: 5")),
			[]string{
				"new:3:29: edge user: new: fixed_window, 50 per minute, denied_hits drop",
				"new:3:68: edge user: begins anew: its place among the limits of its kind changed: fixed_window, 5 per minute (old:3:27) -> fixed_window, 5 per minute, denied_hits drop",
			},
		},
		"share_threshold": {
			edge(`- {key: user, value: "a*", rate_limit: {unit: minute, requests_per_unit: 5}}`),
			edge(`- {key: user, value: "a*", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 5}}`),
			[]string{"new:3:63: edge user_a*: begins anew: values share a counter that had one each: fixed_window, 5 per minute (old:3:40) -> fixed_window, 5 per minute"},
		},
		"share_threshold and algorithm": {
			edge(`- {key: user, value: "a*", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 5}}`),
			edge(`- {key: user, value: "a*", rate_limit: {algorithm: sliding_log, unit: minute, requests_per_unit: 5}}`),
			[]string{"new:3:40: edge user_a*: begins anew: values have a counter each that shared one; algorithm changed: fixed_window, 5 per minute (old:3:63) -> sliding_log, 5 per minute"},
		},
		"consume": {
			edge(user("unit: minute, requests_per_unit: 5")), "consume: all_or_nothing\n" + edge(user("unit: minute, requests_per_unit: 5")),
			[]string{"new:4:27: edge user: begins anew: consume changed, and with it the counters' place in a Redis Cluster; elsewhere they go on: fixed_window, 5 per minute (old:3:27) -> fixed_window, 5 per minute, denied_hits drop"},
		},
		"another key": {
			edge(user("unit: minute, requests_per_unit: 5")), edge("- {key: account, rate_limit: {unit: minute, requests_per_unit: 5}}"),
			[]string{"new:3:30: edge account: new: fixed_window, 5 per minute", "old:3:27: edge user: gone: fixed_window, 5 per minute"},
		},
		"another domain": {
			edge(user("unit: minute, requests_per_unit: 5")), "domain: shop\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 5}}]",
			[]string{"new:2:39: shop user: new: fixed_window, 5 per minute", "old:3:27: edge user: gone: fixed_window, 5 per minute"},
		},
		"unlimited": {
			edge(user("unit: minute, requests_per_unit: 5")), edge(user("unlimited: true")),
			[]string{"old:3:27: edge user: gone: fixed_window, 5 per minute"},
		},
		// alice was counted by the rule of all users.
		"a value taken over from all": {
			edge(user("unit: minute, requests_per_unit: 5")),
			edge(user("unit: minute, requests_per_unit: 5"), "- {key: user, value: alice, rate_limit: {unit: hour, requests_per_unit: 50}}"),
			[]string{"new:4:41: edge user_alice: begins anew: window changed: fixed_window, 5 per minute (old:3:27) -> fixed_window, 50 per hour"},
		},
		"a level more": {
			edge(user("unit: minute, requests_per_unit: 5")),
			edge("- {key: user, descriptors: [{key: path, rate_limit: {unit: minute, requests_per_unit: 5}}]}"),
			[]string{"new:3:53: edge user.path: new: fixed_window, 5 per minute", "old:3:27: edge user: gone: fixed_window, 5 per minute"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			changes := descriptor.Replace(parse(t, "old", test.old), parse(t, "new", test.next)).Changes
			got := make([]string, len(changes))
			for i, c := range changes {
				got[i] = c.String()
			}
			if g, w := strings.Join(got, "\n"), strings.Join(test.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

// TestRulesThatStayKeepTheirCounters holds that rules in place of equal ones
// change nothing, whatever keys and values they have.
func TestRulesThatStayKeepTheirCounters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := drawLevel(t, 3, 8)
		r := rules("edge|", level...)
		if got := descriptor.Replace(r, r); len(got.Changes) > 0 || got.Kept > r.Len() {
			t.Fatalf("%d of %d rules go on; changed: %v", got.Kept, r.Len(), got.Changes)
		}
	})
}
