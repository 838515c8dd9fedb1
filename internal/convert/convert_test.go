package convert_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/distlimiter/ratelimit/internal/convert"
	"github.com/distlimiter/ratelimit/internal/ruletest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestConvert converts in.yaml of each archive and compares what comes of it: want has the
// rules, which begin with what was not carried over, or what is wrong. tests.yaml has what
// the other service would answer: the rules must answer the same.
func TestConvert(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range archives {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			from, _, _ := strings.Cut(name, "-")
			got := converted(from, fileIn(archive, "in.yaml"))
			if *update {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(fileIn(archive, "want")); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if tests := fileIn(archive, "tests.yaml"); tests != nil {
				answersAs(t, got, string(tests))
			}
		})
	}
}

func converted(from string, in []byte) string {
	var b strings.Builder
	result, err := convert.Convert(from, "in.yaml", in, convert.Options{})
	if err == nil {
		err = result.Write(&b, from, "in.yaml")
	}
	if err != nil {
		return err.Error() + "\n"
	}
	return b.String()
}

func fileIn(a *txtar.Archive, name string) []byte {
	for _, f := range a.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// answersAs runs tests against rules.
func answersAs(t *testing.T, rules, tests string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	report := ruletest.Run([]string{"-"}, ruletest.Options{Rules: []string{file}, Stdin: strings.NewReader(tests)})
	if !report.Passed {
		var b strings.Builder
		report.WriteText(&b)
		t.Error(b.String())
	}
}

// TestOneDomain takes all rules if it is named.
func TestOneDomain(t *testing.T) {
	in := "- {namespace: a, max_value: 1, seconds: 1, name: x}\n- {namespace: b, max_value: 2, seconds: 1, name: x}\n"
	result, err := convert.Convert("limitador", "in.yaml", []byte(in), convert.Options{Domain: "edge"})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Domains) != 1 || result.Domains[0].Name != "edge" || len(result.Domains[0].Limits) != 2 || result.Limits != 2 {
		t.Errorf("got %d domains with %d limits: %+v", len(result.Domains), result.Limits, result.Domains)
	}
	if first, second := result.Domains[0].Limits[0].Set.Name, result.Domains[0].Limits[1].Set.Name; first != "x" || second != "x-2" {
		t.Errorf("named %q and %q", first, second)
	}
}

// FuzzConvert: whatever a file holds, the rules that are made of it load.
func FuzzConvert(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(strings.HasPrefix(filepath.Base(path), "gloo"), fileIn(archive, "in.yaml"))
	}
	f.Fuzz(func(t *testing.T, gloo bool, in []byte) {
		from := "limitador"
		if gloo {
			from = "gloo"
		}
		result, err := convert.Convert(from, "in.yaml", in, convert.Options{})
		if err != nil {
			return
		}
		var b strings.Builder
		if err := result.Write(&b, from, "in.yaml"); err != nil {
			t.Errorf("%v\n%s", err, b.String())
		}
	})
}
