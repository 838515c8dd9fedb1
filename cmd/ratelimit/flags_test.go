package main

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/commandline"
)

// TestEveryFlagHasAVariable holds the promise of the help: each flag but --help
// has one, and no two flags of a command share one.
func TestEveryFlagHasAVariable(t *testing.T) {
	parser, err := newParser(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		command, ok := node.(*kong.Node)
		if !ok {
			return next(nil)
		}
		flags := map[string]string{}
		for _, flag := range command.Flags {
			if flag == parser.Model.HelpFlag {
				continue
			}
			seen++
			if len(flag.Envs) != 1 {
				t.Errorf("%s --%s has variables %v", command.Name, flag.Name, flag.Envs)
				continue
			}
			if other := flags[flag.Envs[0]]; other != "" {
				t.Errorf("%s --%s and --%s share %s", command.Name, flag.Name, other, flag.Envs[0])
			}
			flags[flag.Envs[0]] = flag.Name
			if flag.Help == "" {
				t.Errorf("%s --%s has no help", command.Name, flag.Name)
			}
		}
		for _, flag := range command.Flags {
			for need := range strings.FieldsFuncSeq(flag.Tag.Get("needs"), func(c rune) bool { return c == '|' }) {
				if name, _, _ := strings.Cut(need, "="); !slices.Contains(slices.Collect(maps.Values(flags)), name) {
					t.Errorf("%s --%s needs --%s, which is none", command.Name, flag.Name, name)
				}
			}
		}
		return next(nil)
	})
	if err != nil || seen < 30 {
		t.Errorf("visited %d flags, error %v", seen, err)
	}
}

// TestMessagesNameWhatSetsAField holds that serve has a flag for each field by which
// messages tell operators to set something.
func TestMessagesNameWhatSetsAField(t *testing.T) {
	parser, err := newParser(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	set := commandline.FieldNames(parser.Model.Children[0])
	if flag, variable := set("Admin.TLS"); flag != "--admin-tls-cert, --admin-tls-key and --admin-tls-client-ca" ||
		variable != "ADMIN_TLS_CERT, ADMIN_TLS_KEY and ADMIN_TLS_CLIENT_CA" {
		t.Errorf("Admin.TLS is set by %s, %s", flag, variable)
	}
	field := regexp.MustCompile(`(?:\.(?:Of|Either|Variable)|OptionError\{|c\.(?:wrong|headers)|\{|, )\(?"([A-Z]\w+(?:\.[A-Z]\w+)*)"`)
	checked := 0
	for _, path := range inner(t) {
		if !strings.Contains(path, "/app/") && !strings.Contains(path, "/admin/") && !strings.Contains(path, "/overload/") && !strings.HasSuffix(path, "/limiter/override.go") {
			continue // the fields of others are set by what settings reads
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range field.FindAllStringSubmatch(string(text), -1) {
			if name := found[1]; strings.Contains(name, ".") || strings.HasPrefix(found[0], ".") {
				checked++
				if flag, variable := set(name); flag+variable == "" {
					t.Errorf("%s: no flag of serve sets %s", path, name)
				}
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d fields are named", checked)
	}
}

// inner are the files of packages that do not know how an operator sets anything:
// all below internal/ but settings and commandline, and the tools of tests.
func inner(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir("../../internal", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasSuffix(name, "test") || slices.Contains([]string{"testprogram", "settings", "commandline"}, name)):
			return filepath.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestInnerPackagesNameNoFlagOrVariable reads the texts and comments of all inner
// packages: an error there names a field, and the outside what sets it.
func TestInnerPackagesNameNoFlagOrVariable(t *testing.T) {
	flag := regexp.MustCompile(`(^|[^-\w])--[a-z][a-z-]+`)
	variable := regexp.MustCompile(`\b([A-Z][A-Z0-9]*(_[A-Z0-9]+)+|GOGC|GOMEMLIMIT)\b`)
	known := map[string]bool{"OVER_LIMIT": true, "SO_REUSEADDR": true, "RING_HASH": true} // of Envoy, of sockets
	files := inner(t)
	if len(files) < 100 {
		t.Fatalf("only %d files", len(files))
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		positions := token.NewFileSet()
		var s scanner.Scanner
		s.Init(positions.AddFile(path, -1, len(text)), text, nil, scanner.ScanComments)
		for {
			at, kind, literal := s.Scan()
			if kind == token.EOF {
				break
			}
			if kind != token.STRING && kind != token.COMMENT {
				continue
			}
			for _, name := range append(flag.FindAllString(literal, -1), variable.FindAllString(literal, -1)...) {
				if !known[name] {
					t.Errorf("%s names %s: name the field, by named.Fields", positions.Position(at), name)
				}
			}
		}
	}
}
