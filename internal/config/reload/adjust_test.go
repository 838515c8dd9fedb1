package reload_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// TestAdjustmentsOverSeveralSources combines adjustments of the files with rules of a
// control plane and of the admin API.
func TestAdjustmentsOverSeveralSources(t *testing.T) {
	perSecond := func(name string) string {
		return "domain: " + name + "\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 10}}]\n"
	}
	adjust := func(set string) string { return "adjust: [{rules: {domain: \"*\"}, set: {" + set + "}}]\n" }
	files, admin := memory{}, memory{origin: config.FromAdmin}
	plane := verdicts{memory: memory{origin: config.FromXDS, err: reload.ErrWaiting}}
	core, logs := observer.New(zap.ErrorLevel)
	c := reload.New(reload.Options{
		Load:      reload.Adjusted(rulefile.NewParser(rulefile.Options{}).Parse, config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 20 * config.OnePercent}, By: "DEFAULT_ALGORITHM"}),
		Providers: []reload.Provider{&files, &plane, &admin}, Log: zap.New(core),
	})
	for _, step := range []struct {
		name    string
		change  func()
		outcome reload.Outcome
		rules   []string // "domain: limits" in force afterwards
		err     string   // of the files; empty: none
		refused bool     // the control plane's rules
		warning string
	}{
		{name: "adjustments alone are nothing to serve with", change: func() { files.set(nil, adjust("burst: 5")) }, outcome: reload.Waiting},
		{
			name: "the plane's rules come", change: func() { plane.set(nil, perSecond("plane")) }, outcome: reload.Loaded,
			rules: []string{"plane: token_bucket, 10 per second, burst 5, denied_hits count"},
		},
		{
			name: "another adjustment meets what is unchanged", change: func() { files.set(nil, adjust("burst: 50%, shadow_mode: true")) }, outcome: reload.Loaded,
			rules: []string{"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode"},
		},
		{
			name: "a bad file is set aside", change: func() { files.set(nil, adjust("burst: 0")) }, outcome: reload.Failed,
			rules: []string{"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode"}, err: "0.yaml:1:46: adjust[0].set.burst: burst of 0 admits nothing",
		},
		{
			name: "and holds up neither the plane nor the admin API", change: func() { plane.set(nil, perSecond("plane"), perSecond("more")); admin.set(nil, perSecond("own")) }, outcome: reload.Partly,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode", "more: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode",
				"own: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode",
			},
			err: "burst of 0 admits nothing",
		},
		{
			name: "one that would make a rule of a file invalid, too", change: func() {
				files.set(nil, strings.Replace(perSecond("file"), "unit: second", "algorithm: fixed_window, unit: second", 1), adjust("burst: 50%"))
			}, outcome: reload.Failed,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode", "more: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode",
				"own: token_bucket, 10 per second, burst 5 (50%), denied_hits count, shadow_mode",
			},
			err: "1.yaml:1:10: adjust[0].set: the limit of user in domain file (0.yaml:2:39) can't be so: fixed_window has no burst; remove it",
		},
		{
			name: "a rule of the plane goes on without one that would make it invalid", change: func() {
				files.set(nil, adjust("burst: 50%"))
				plane.set(nil, perSecond("plane"), strings.Replace(perSecond("more"), "unit: second", "algorithm: fixed_window, unit: second", 1))
			}, outcome: reload.Partly,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count", "more: fixed_window, 10 per second", "own: token_bucket, 10 per second, burst 5 (50%), denied_hits count",
			},
			err: "0.yaml:1:10: adjust[0].set: the limit of user in domain more (1.yaml:2:39) can't be so: fixed_window has no burst: it goes on without this adjustment",
		},
		{
			name: "which is told as long as it is so", change: func() {}, outcome: reload.Failed,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 5 (50%), denied_hits count", "more: fixed_window, 10 per second", "own: token_bucket, 10 per second, burst 5 (50%), denied_hits count",
			},
			err: "it goes on without this adjustment",
		},
		{
			name: "until the adjustment leaves it out", change: func() {
				files.set(nil, "adjust: [{rules: {domain: plane}, set: {burst: 7}}, {rules: {domain: nowhere}, set: {burst: 7}}]\n")
			}, outcome: reload.Loaded,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 7, denied_hits count", "more: fixed_window, 10 per second", "own: token_bucket, 10 per second, burst 2 (20%), denied_hits count",
			},
			warning: "0.yaml:1:53: adjust[1].rules: no limit is selected",
		},
		{
			name: "bad rules of the plane are refused", change: func() { plane.set(nil, "domain: plane\ndescriptors: 5\n") }, outcome: reload.Failed, refused: true,
			rules: []string{
				"plane: token_bucket, 10 per second, burst 7, denied_hits count", "more: fixed_window, 10 per second", "own: token_bucket, 10 per second, burst 2 (20%), denied_hits count",
			},
		},
	} {
		step.change()
		err := c.Reload(t.Context())
		var ofFiles error
		if failures, ok := errors.AsType[reload.Failures](err); ok {
			for _, f := range failures {
				if f.Source == config.FromFile {
					ofFiles = f.Err
				}
			}
		}
		if (ofFiles == nil) != (step.err == "") || ofFiles != nil && !strings.Contains(ofFiles.Error(), step.err) {
			t.Errorf("%s: the files are wrong by %v, want %q", step.name, ofFiles, step.err)
		}
		last := plane.acknowledged[len(plane.acknowledged)-1]
		if refused := last != nil && !errors.Is(last, reload.ErrWaiting); refused != step.refused {
			t.Errorf("%s: the plane is told %v", step.name, last)
		}
		status := c.Status()
		if partial := strings.HasSuffix(step.err, "without this adjustment"); status.Sources[0].Partial != partial {
			t.Errorf("%s: the files are %+v", step.name, status.Sources[0])
		}
		if status.Last.Outcome != step.outcome {
			t.Errorf("%s: %s, want %s", step.name, status.Last.Outcome, step.outcome)
		}
		if step.warning != "" && !strings.Contains(strings.Join(status.Last.Warnings, "\n"), step.warning) {
			t.Errorf("%s: warnings %q, want %s", step.name, status.Last.Warnings, step.warning)
		}
		var got []string
		if rules := c.Rules(); rules != nil {
			for r := range rules.All() {
				got = append(got, r.Domain.Name+": "+r.Descriptor().LimitsText())
			}
		}
		if !slices.Equal(got, step.rules) {
			t.Errorf("%s: in force\n%s\nwant\n%s", step.name, strings.Join(got, "\n"), strings.Join(step.rules, "\n"))
		}
	}
	if loud := logs.FilterMessage("some of what a source says is not in force").All(); len(loud) != 1 || loud[0].ContextMap()["source"] != "file" {
		t.Errorf("logged %v, want one line about the files", loud)
	}
}

// TestTheOrderOfComingDoesNotMatter for the rules in force: a restarted replica has the
// same rules as the others.
func TestTheOrderOfComingDoesNotMatter(t *testing.T) {
	const rules = "domain: plane\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 10}}]\n"
	const adjust = "adjust: [{rules: {domain: \"*\"}, set: {burst: 50%}}, {rules: {domain: \"*\"}, set: {lease: 0.1}}]\n"
	var texts []string
	for _, order := range [][]string{{"files", "plane"}, {"plane", "files"}, {"both"}} {
		files, plane := memory{}, memory{origin: config.FromXDS, err: reload.ErrWaiting}
		c := reload.New(reload.Options{Load: reload.Adjusted(rulefile.NewParser(rulefile.Options{}).Parse, config.Default{}), Providers: []reload.Provider{&files, &plane}})
		for _, which := range order {
			if which != "plane" {
				files.set(nil, adjust)
			}
			if which != "files" {
				plane.set(nil, rules)
			}
			_ = c.Reload(t.Context()) // another test checks the error
		}
		for r := range c.Rules().All() {
			texts = append(texts, r.Descriptor().LimitsText())
		}
	}
	if want := "fixed_window, 10 per second, lease 0.1"; len(texts) != 3 || slices.Compact(slices.Clone(texts))[0] != want || len(slices.Compact(texts)) != 1 {
		t.Errorf("%q, want thrice %q", texts, want)
	}
}
