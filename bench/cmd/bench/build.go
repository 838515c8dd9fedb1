package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// single are the flags of a command that measures one build of the service.
type single struct {
	Build    string `placeholder:"PATH" help:"The build to measure. Default: the directory above."`
	LoadCore int    `default:"1" help:"The core for the load."`
}

// measure measures the build and prints the result.
func measure[Result interface{ Write(io.Writer) error }](s single, run func(service string) (Result, error)) error {
	dir, err := os.MkdirTemp("", "ratelimit-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	service, err := buildService(dir, s.Build)
	if err != nil {
		return err
	}
	if err := quiet(s.LoadCore); err != nil {
		return err
	}
	r, err := run(service)
	if err != nil {
		return err
	}
	return r.Write(os.Stdout)
}

// buildService returns the path of the build that is given or, if it is empty, of one
// of the directory above, which it puts into dir.
func buildService(dir, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	path := filepath.Join(dir, "ratelimit")
	return path, build(path, "..", "./cmd/ratelimit")
}

// build builds a program as the Makefile builds ratelimit.
func build(to, dir, pkg string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", to}, flags...)
	cmd := exec.Command("go", append(args, pkg)...) //nolint:gosec // our own arguments
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}
