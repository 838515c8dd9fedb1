package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// pageBlocks returns the fenced blocks of a page that are in a language.
func pageBlocks(ts *testscript.TestScript, page, language string) []string {
	text, err := os.ReadFile(page)
	ts.Check(err)
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?\n)```$").FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	if len(found) == 0 {
		ts.Fatalf("%s has no block of %s", page, language)
	}
	return found
}

func pageFiles(ts *testscript.TestScript, _ bool, args []string) {
	for _, block := range pageBlocks(ts, args[0], "yaml") {
		first, _, _ := strings.Cut(block, "\n")
		if name, named := strings.CutPrefix(first, "# "); named && strings.HasSuffix(name, ".yaml") {
			ts.Check(os.WriteFile(ts.MkAbs(name), []byte(block), 0o600))
		}
	}
}

func transcript(ts *testscript.TestScript, _ bool, args []string) {
	for _, block := range pageBlocks(ts, args[0], "console") {
		for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(part, "\n")
			got := said(ts, command, strings.Count(want, "\n"))
			if alike(got) != alike(want) {
				ts.Fatalf("%s: $ %s\ngot\n%s\nwant\n%s", args[0], command, got, want)
			}
		}
	}
}

// said returns the output of a command, and then its errors. One that goes on is
// interrupted when it has said that many lines.
func said(ts *testscript.TestScript, command string, lines int) string {
	if !strings.HasPrefix(command, "ratelimit tail") {
		_ = ts.Exec("sh", "-c", command) // some fail on purpose
		return ts.ReadFile("stdout") + ts.ReadFile("stderr")
	}
	cmd := exec.Command("sh", "-c", "exec "+command)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "ADMIN_ADDR", "TESTSCRIPT_COMMAND", "HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	ts.Check(cmd.Start())
	var b strings.Builder
	for out := bufio.NewScanner(read); lines > 0 && out.Scan(); lines-- {
		b.WriteString(out.Text() + "\n")
	}
	ts.Check(cmd.Process.Signal(syscall.SIGINT))
	go io.Copy(io.Discard, read) //nolint:errcheck // until the process has ended
	ts.Check(cmd.Wait())
	return b.String()
}

var varying = []*regexp.Regexp{
	regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`),              // a time
	regexp.MustCompile(`\b(?:\d+(?:\.\d+)?(?:h|m|s|ms|µs))+\b`), // a duration
	regexp.MustCompile(`\b\d+\.\d\b`),                           // a rate
}

// alike replaces whatever differs between two runs.
func alike(text string) string {
	for _, v := range varying {
		text = v.ReplaceAllString(text, "…")
	}
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
