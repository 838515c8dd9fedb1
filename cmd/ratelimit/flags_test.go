package main

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
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
		return next(nil)
	})
	if err != nil || seen < 30 {
		t.Errorf("visited %d flags, error %v", seen, err)
	}
}

// TestMessagesNameWhatSetsAField holds that each flag and variable by which messages
// tell operators to set something is one of serve's.
func TestMessagesNameWhatSetsAField(t *testing.T) {
	parser, err := newParser(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	flags, variables := map[string]bool{}, map[string]bool{"GOMEMLIMIT": true}
	for _, command := range parser.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			flags["--"+flag.Name] = true
			for _, env := range flag.Envs {
				variables[env] = true
			}
		}
	}
	words := regexp.MustCompile(`--[a-z-]+|[A-Z_]+`)
	for field, by := range setBy {
		for _, word := range words.FindAllString(by.flag+" "+by.variable, -1) {
			if !flags[word] && !variables[word] {
				t.Errorf("%s is set by %s, which serve does not know", field, word)
			}
		}
	}
}

// inner are the files of packages that do not know how an operator sets anything:
// all below internal/ but settings, and the tools of tests.
func inner(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir("../../internal", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasSuffix(name, "test") || name == "testprogram" || name == "settings"):
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
	known := map[string]bool{"OVER_LIMIT": true, "SO_REUSEADDR": true} // a code of Envoy's, an option of sockets
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
