package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// ruleList is the answer of GET /admin/rules.
type ruleList struct {
	Revision   uint64       `json:"revision"`
	Generation uint64       `json:"generation"`
	Writable   bool         `json:"writable"`
	Domains    []domainJSON `json:"domains"`
	Rules      []ruleJSON   `json:"rules"`
}

type domainJSON struct {
	Domain  string `json:"domain"`
	Consume string `json:"consume"`
}

type ruleJSON struct {
	Key       string              `json:"key"`
	Domain    string              `json:"domain"`
	Path      string              `json:"path"`
	Entries   []pathEntry         `json:"entries"`
	Source    string              `json:"source"`
	Location  string              `json:"location"`
	Limits    string              `json:"limits"` // in words
	Rule      rulefile.Descriptor `json:"rule"`   // as written
	Written   string              `json:"written,omitempty"`
	Adjusted  []config.AdjustedBy `json:"adjusted,omitempty"`
	Overrides *overridden         `json:"overrides,omitempty"`
}

// pathEntry is one node on the path to a rule, with its settings for the keys and
// metrics of the rules below it. The value of a node with a list is the list's text.
type pathEntry struct {
	descriptor.Entry
	Values         any  `json:"values,omitempty"` // the list, in the grammar
	ShareThreshold bool `json:"share_threshold,omitempty"`
	ValueToMetric  bool `json:"value_to_metric,omitempty"`
}

type overridden struct {
	Source   string              `json:"source"`
	Location string              `json:"location"`
	Limits   string              `json:"limits"`
	Rule     rulefile.Descriptor `json:"rule"`
}

func describeRule(r config.Rule) ruleJSON {
	d := r.Descriptor()
	out := ruleJSON{
		Key: r.ID(), Domain: r.Domain.Name, Path: r.Name(), Entries: make([]pathEntry, 0, len(r.Path)),
		Source: d.Origin.String(), Location: location(d), Limits: d.LimitsText(), Rule: rulefile.Descriptor{Descriptor: d.WithoutChildren()},
	}
	for _, step := range r.Path {
		if step.Set == nil {
			entry := pathEntry{Entry: descriptor.Entry{Key: step.Key, Value: step.ValueText()}, ShareThreshold: step.ShareThreshold, ValueToMetric: step.ValueToMetric}
			if step.HasList() {
				entry.Values = rulefile.Values(step)
			}
			out.Entries = append(out.Entries, entry)
		}
	}
	if out.Adjusted = config.DescribeAdjustments(d.AdjustedBy()); out.Adjusted != nil {
		out.Written = d.AsWritten().LimitsText()
	}
	if d.Overridden != nil {
		out.Overrides = &overridden{d.Overridden.Origin.String(), location(d.Overridden), d.Overridden.LimitsText(), rulefile.Descriptor{Descriptor: d.Overridden}}
	}
	return out
}

// location returns where a rule is written, for a reader to look there.
func location(d *config.Descriptor) string {
	switch d.Origin {
	case config.FromAdmin:
		return "admin"
	case config.FromXDS:
		return d.Pos.File
	}
	return d.Pos.String()
}

// etag identifies the rules in force together with the stored admin rules. A stored
// change may alter it twice, when saved and when put in force, but never goes unseen.
func (a api) etag(stored rulestore.Set) string {
	return fmt.Sprintf("%q", stored.Token()+"."+a.Reloads().Last.Hash)
}

// stored returns the admin rules; if they can't be read, the last known ones.
func (a api) stored(ctx context.Context) rulestore.Set {
	if a.Store == nil {
		return rulestore.Set{}
	}
	set, _ := a.Store.Load(ctx) // the sources show the error
	return set
}

func (a api) listRules(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	source := query.Get("source")
	if source != "" && !slices.Contains([]string{"file", "xds", "admin"}, source) {
		return refuse(http.StatusBadRequest, "source=%s: use file, xds or admin", source)
	}
	set := a.stored(r.Context())
	list := ruleList{Revision: set.Revision, Generation: a.Reloads().Last.Generation, Writable: a.Store != nil && !a.Access.ReadOnly,
		Domains: []domainJSON{}, Rules: []ruleJSON{}}
	tag := a.etag(set)
	w.Header().Set("ETag", tag)
	if matches(r.Header.Values("If-None-Match"), tag, weakly) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	domain, name := query.Get("domain"), query.Get("name")
	rules := a.rulesInForce()
	for _, d := range rules.Domains {
		if domain == "" || d.Name == domain {
			list.Domains = append(list.Domains, domainJSON{d.Name, d.Consume.String()})
		}
	}
	for rule := range rules.All() {
		d := rule.Descriptor()
		if domain != "" && rule.Domain.Name != domain || source != "" && d.Origin.String() != source ||
			name != "" && !slices.ContainsFunc(d.Limits, func(l *config.Limit) bool { return l.Name == name }) {
			continue
		}
		list.Rules = append(list.Rules, describeRule(rule))
	}
	answer(w, http.StatusOK, list)
	return nil
}

func (a api) getRule(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.find(r)
	if err != nil {
		return err
	}
	set := a.stored(r.Context())
	w.Header().Set("ETag", a.etag(set))
	answer(w, http.StatusOK, describeRule(rule))
	return nil
}

// comparison is one of the two comparisons of ETags that RFC 9110 defines.
type comparison bool

const (
	strongly comparison = false // of If-Match: a weak tag matches nothing
	weakly   comparison = true  // of If-None-Match
)

// matches reports whether the lines of a header, each a list of ETags, contain tag, or are
// * for any.
func matches(lines []string, tag string, how comparison) bool {
	list := strings.Join(lines, ",")
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimSpace(t)
		if how == weakly {
			t = strings.TrimPrefix(t, "W/")
		}
		if t == tag {
			return true
		}
	}
	return false
}

// writeResult is the answer to a write of rules.
type writeResult struct {
	DryRun   bool             `json:"dry_run"`
	Revision uint64           `json:"revision"`
	InForce  bool             `json:"in_force"`
	Changes  []changeJSON     `json:"changes"`
	Warnings []config.Problem `json:"warnings,omitempty"`
	Problems []string         `json:"problems,omitempty"`
}

type changeJSON struct {
	Change rulestore.Kind  `json:"change"`
	Key    string          `json:"key"`
	Domain string          `json:"domain"`
	Path   string          `json:"path"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

func (a api) applyRules(w http.ResponseWriter, r *http.Request) error {
	given, err := flags(r, "dry_run", "replace")
	if err != nil {
		return err
	}
	body, err := readBody(w, r, maxRules, "application/json", "application/yaml", "application/x-yaml", "text/yaml")
	if err != nil {
		return err
	}
	domains, warnings, err := a.parse(body)
	if err != nil {
		return err
	}
	stored := a.stored(r.Context())
	for _, domain := range domains {
		if why := stored.Unusable(domain.Name); why != nil {
			warnings = append(warnings, config.Problem{What: fmt.Sprintf("the stored admin rules of domain %q can't be used and are replaced: %v", domain.Name, why)})
		}
	}
	return a.write(w, r, given["dry_run"], warnings, func(set rulestore.Set) (rulestore.Set, []rulestore.Change, error) {
		if domains == nil { // another try: Put has kept those of the first
			if domains, _, err = a.parse(body); err != nil {
				return set, nil, err
			}
		}
		var changes []rulestore.Change
		for _, domain := range domains {
			var more []rulestore.Change
			if set, more, err = set.Put(domain, given["replace"]); err != nil {
				break
			}
			changes = append(changes, more...)
		}
		domains = nil
		return set, changes, err
	})
}

// parse reads the domains in a body, one for each document.
func (a api) parse(body []byte) ([]*config.Domain, []config.Problem, error) {
	own := rulefile.Source{Name: "body", Data: body, Origin: config.FromAdmin}
	rules, err := rulefile.Parse([]rulefile.Source{own}, rulefile.Options{MaxBytes: maxRules})
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		return nil, nil, notValid(bad)
	} else if err != nil {
		return nil, nil, err
	}
	warnings := rules.Warnings
	if len(warnings) > 0 {
		// Some warnings only arise because the rules in force are missing beside the body's.
		sources := []rulefile.Source{own}
		for _, domain := range rules.Domains {
			if text, err := a.inForce(domain.Name); err == nil {
				sources = append(sources, rulefile.Source{Name: "in force", Data: text})
			}
		}
		if all, err := rulefile.Parse(sources, rulefile.Options{MaxBytes: maxRules}); err == nil {
			warnings = slices.DeleteFunc(all.Warnings, func(p config.Problem) bool { return p.File != own.Name })
		}
	}
	return rules.Domains, withoutFile(append(warnings, descriptor.Hidden(rules)...)), nil
}

// inForce returns the rules in force of a domain, in the grammar of rule files.
func (a api) inForce(domain string) ([]byte, error) {
	for _, d := range a.rulesInForce().Domains {
		if d.Name == domain {
			return json.Marshal(rulefile.Domain{Domain: d})
		}
	}
	return nil, errors.New("there are none")
}

func (a api) deleteRule(w http.ResponseWriter, r *http.Request) error {
	given, err := flags(r, "dry_run")
	if err != nil {
		return err
	}
	id := r.PathValue("key")
	return a.write(w, r, given["dry_run"], nil, func(set rulestore.Set) (rulestore.Set, []rulestore.Change, error) {
		next, change, err := set.Delete(id)
		if err != nil {
			return set, nil, err
		}
		if change != nil {
			return next, []rulestore.Change{*change}, nil
		}
		rule, err := a.find(r)
		if err != nil {
			return set, nil, err
		}
		d := rule.Descriptor()
		if d.Origin == config.FromAdmin { // it has been deleted, but is still in force
			return set, nil, noRule(id)
		}
		p := refuseAs(notFromHere, "The rule is not an admin rule", http.StatusConflict,
			"the rule %s of domain %s is written in %s: delete it there, or override it by an admin rule of the same keys and values, or name", rule.Name(), rule.Domain.Name, location(d))
		p.Location = location(d)
		return set, nil, p
	})
}

// maxConflicts is how often a write is tried when others write at the same time, and
// reloadTimeout how long the rules may take to come into force.
const (
	maxConflicts  = 10
	reloadTimeout = 20 * time.Second
)

// write edits the stored rules, puts them in force and answers with the changes.
func (a api) write(w http.ResponseWriter, r *http.Request, dryRun bool, warnings []config.Problem,
	edit func(rulestore.Set) (rulestore.Set, []rulestore.Change, error)) error {
	select {
	case a.writing <- struct{}{}:
		defer func() { <-a.writing }()
	case <-r.Context().Done():
		return refuse(http.StatusServiceUnavailable, "other writes took too long; nothing has changed")
	}
	before := a.rulesInForce()
	prev, next, changes, after, err := a.store(r, dryRun, edit)
	if err != nil {
		return err
	}
	result := writeResult{DryRun: dryRun, Revision: next.Revision, Changes: make([]changeJSON, len(changes)), Warnings: warnings}
	for i, c := range changes {
		result.Changes[i] = changeJSON{c.Kind, c.ID, c.Domain, c.Path, c.Before, c.After}
	}
	status := http.StatusOK
	if dryRun {
		result.Revision, next = prev.Revision, prev
	} else {
		result.InForce, result.Problems = a.bringIntoForce(r.Context())
		after = a.rulesInForce()
		a.audit(r, "rules", append(changed(result.Changes), zap.Uint64("revision", next.Revision), zap.Bool("in_force", result.InForce))...)
		if !result.InForce {
			status = http.StatusAccepted
		}
	}
	result.Warnings = append(result.Warnings, causedBy(before, after, result.Warnings)...)
	w.Header().Set("ETag", a.etag(next))
	answer(w, status, result)
	return nil
}

// causedBy returns the warnings about rules, and about adjustments that can't apply to
// them, which there were not before a write. Those that are known are about its body.
func causedBy(before, after *config.Rules, known []config.Problem) (caused []config.Problem) {
	if after == nil {
		return nil
	}
	type warning struct{ what, remedy string }
	of := func(what, remedy string) warning { return warning{storedAt.ReplaceAllString(what, ""), remedy} }
	seen := map[warning]bool{}
	if before != nil {
		for _, p := range slices.Concat(before.Warnings, before.Unadjusted) {
			seen[of(p.What, p.Remedy)] = true
		}
	}
	for _, p := range known {
		seen[of(p.What, p.Remedy)] = true
	}
	for _, p := range slices.Concat(after.Warnings, after.Unadjusted) {
		if w := of(p.What, p.Remedy); !seen[w] {
			seen[w] = true
			caused = append(caused, config.Problem{What: p.Error()})
		}
	}
	return caused
}

// storedAt matches positions in stored rules. A change may move them.
var storedAt = regexp.MustCompile(`\badmin:[^\s)]*:\d+:\d+`)

// maxAudit bounds the changes in a line of the audit log, in bytes.
const maxAudit = 64 << 10

// changed returns the fields of the audit log for the changes. A change that is too large
// is logged without the rules before and after. Changes beyond the bound are only counted.
func changed(all []changeJSON) []zap.Field {
	room, omitted := maxAudit, 0
	listed := []changeJSON{}
	for _, c := range all {
		if c.Change == rulestore.Unchanged {
			continue
		}
		if c.size() > room {
			c.Before, c.After, c.Domain, c.Path = nil, nil, abridge(c.Domain), abridge(c.Path)
		}
		if c.size() > room {
			omitted++
			continue
		}
		room -= c.size()
		listed = append(listed, c)
	}
	fields := []zap.Field{zap.Any("changes", listed)}
	if omitted > 0 {
		fields = append(fields, zap.Int("changes_omitted", omitted))
	}
	return fields
}

// size returns about how many bytes the change takes in the log.
func (c changeJSON) size() int {
	return 100 + len(c.Key) + len(c.Domain) + len(c.Path) + len(c.Before) + len(c.After)
}

// store saves an edit, except in a dry run: then it returns the rules that would be in
// force, nil if that is not known. If others write meanwhile, it edits their rules again.
func (a api) store(r *http.Request, dryRun bool, edit func(rulestore.Set) (rulestore.Set, []rulestore.Change, error)) (
	prev, next rulestore.Set, changes []rulestore.Change, after *config.Rules, err error) {
	precondition := r.Header.Values("If-Match")
	for range maxConflicts {
		if prev, err = a.editable(r.Context(), dryRun); err != nil {
			return prev, next, nil, nil, err
		}
		if precondition != nil && !matches(precondition, a.etag(prev), strongly) {
			return prev, next, nil, nil, hasChanged()
		}
		if next, changes, err = edit(prev); err != nil || next.Revision == prev.Revision {
			return prev, next, changes, nil, err
		}
		if dryRun {
			if a.Store != nil {
				after, err = a.Store.Try(next)
			}
			return prev, next, changes, after, notSaved(err)
		}
		switch err = a.Store.Save(r.Context(), prev, next); {
		case err == nil:
			return prev, next, changes, nil, nil
		case !errors.Is(err, rulestore.ErrConflict):
			return prev, next, nil, nil, notSaved(err)
		case precondition != nil:
			return prev, next, nil, nil, hasChanged()
		}
	}
	return prev, next, nil, nil, notSaved(err)
}

// editable returns the admin rules for a change. Except for a dry run, it is an error if
// there is no store for them.
func (a api) editable(ctx context.Context, dryRun bool) (rulestore.Set, error) {
	switch {
	case dryRun:
		return a.stored(ctx), nil
	case a.Store == nil:
		return rulestore.Set{}, refuseAs(noRuleStore, "There is no place to keep rules", http.StatusNotImplemented,
			"start the service with %s, or with counters in Redis", a.Access.Names.Of("Admin.RulesFile"))
	}
	set, err := a.Store.Load(ctx)
	if err != nil && !errors.Is(err, rulestore.ErrUnusable) { // a change repairs unusable rules
		return set, refuseAs(storeFailed, "The admin rules can't be read", http.StatusServiceUnavailable, "%v; nothing has changed", err)
	}
	return set, nil
}

func hasChanged() *problem {
	return refuseAs(changedMeanwhile, "Rules have changed meanwhile", http.StatusPreconditionFailed, "GET them again, and look whether the change is still right")
}

// notSaved returns the problem for rules that were not saved; nil for no error.
func notSaved(err error) error {
	if err == nil {
		return nil
	}
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		return notValid(bad)
	}
	if errors.Is(err, rulestore.ErrTooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "%v; delete some, or write them in files", err)
	}
	p := refuseAs(storeFailed, "The admin rules are not saved", http.StatusServiceUnavailable, "%v", err)
	if errors.Is(err, rulestore.ErrUnavailable) {
		p.Title = "The admin rules may not be saved"
		p.Detail += "; whether it was saved before it failed is not known: GET /admin/rules shows it"
	}
	return p
}

// bringIntoForce loads the rules. It reports whether the admin rules are in force, and
// returns why they, or some of them, are not. The reload goes on if the client leaves.
func (a api) bringIntoForce(ctx context.Context) (inForce bool, problems []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	err := a.Reload(ctx)
	failures, ok := errors.AsType[reload.Failures](err)
	if !ok && err != nil {
		return false, []string{err.Error()}
	}
	for _, f := range failures {
		if f.Source != config.FromAdmin {
			continue
		}
		if partial, ok := errors.AsType[*reload.Partial](f.Err); ok { // rules of other domains are set aside
			return true, problemTexts(partial.Problems)
		}
		if bad, ok := errors.AsType[*config.Invalid](f.Err); ok {
			return false, problemTexts(bad.Problems)
		}
		return false, []string{f.Err.Error()}
	}
	return true, nil
}

func problemTexts(problems []config.Problem) []string {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.Error()
	}
	return texts
}

// audit logs a write.
func (a api) audit(r *http.Request, what string, fields ...zap.Field) {
	a.Audit.Info("admin write", append([]zap.Field{zap.String("what", what), zap.String("who", a.Access.who(r)),
		zap.String("remote", r.RemoteAddr), zap.String("method", r.Method), zap.String("path", abridge(r.URL.Path))}, fields...)...)
}
