// Package flood measures the service under far too much load: its peak memory, the longest
// wait of an ordinary client meanwhile, and how many requests it still answers in time
// beyond saturation. It compares each flood with the floor server, which shows what grpc-go
// and the machine do by themselves. It runs on Linux only.
package flood

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/bench/proc"
)

// Options of a run.
type Options struct {
	// Floor and Service are paths of programs.
	Floor, Service string
	// Front is the gRPC front of the service.
	Front string
	// Floods by name, and the backends to measure overload with; empty: all.
	Floods, Backends []string
	// Descriptors of a request under overload.
	Descriptors int
	// Duration of floods that have no end of their own, and of each overload.
	Duration time.Duration
	// ServerCore is for the server, LoadCore for everything else.
	ServerCore, LoadCore int
	// Out gets the tables, Progress a line for each step.
	Out, Progress io.Writer
}

// target is a running server to flood.
type target struct {
	*proc.Process
	address string
	rules   string // its file of rules; empty for the floor
}

// bench is a run in progress.
type bench struct {
	Options
	dir string
}

// Run floods and writes tables.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "ratelimit-flood-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{Options: o, dir: dir}
	if err := b.floods(ctx); err != nil {
		return err
	}
	return b.overload(ctx)
}

const domain = "bench"

// rules is the beginning of a rule file: the rule for the load generator. A hit is forgotten
// only after 86 seconds, so that all keys of a flood are live at once.
const rules = `domain: bench
descriptors:
  - key: user
    rate_limit: {algorithm: token_bucket, unit: day, requests_per_unit: 1000}
`

// start starts the service with more additional rules, or the floor server.
func (b *bench) start(floor bool, more int, env []string, flags ...string) (*target, error) {
	t := &target{}
	path, args := b.Floor, []string{"--options", "same"}
	if !floor {
		t.rules = filepath.Join(b.dir, "rules.yaml")
		if err := writeRules(t.rules, more, 0); err != nil {
			return nil, err
		}
		path = b.Service
		args = append([]string{"serve", "--config", t.rules, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--drain-timeout", "2s", "--grpc-front", b.Front}, flags...)
	}
	var err error
	t.Process, err = proc.Start(b.ServerCore, append(env, "GOMAXPROCS=1"), path, append(args, "--grpc-addr", "127.0.0.1:0")...)
	if err != nil {
		return nil, err
	}
	if t.address, err = t.Line("gRPC "); err != nil {
		return nil, errors.Join(err, t.Stop())
	}
	return t, nil
}

// writeRules writes the rules, and more additional rules that no request matches. Files of
// different versions differ in the additional rules.
func writeRules(path string, more, version int) error {
	var text strings.Builder
	text.WriteString(rules)
	for i := range more {
		fmt.Fprintf(&text, "  - {key: user, value: nobody-%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, 100+version)
	}
	// Replace the file in one step, as editors do.
	if err := os.WriteFile(path+".new", []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// startRedis starts a Redis server on a socket.
func (b *bench) startRedis() (*proc.Process, string, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", fmt.Errorf("%w: install it, or leave it out with --backends memory", err)
	}
	socket := filepath.Join(b.dir, "redis.sock")
	p, err := proc.Start(b.LoadCore, nil, path, "--port", "0", "--unixsocket", socket, "--dir", b.dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, "", err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return p, "unix://" + socket, nil
		}
		if time.Now().After(deadline) {
			return nil, "", errors.Join(p.Failure("does not listen"), p.Stop())
		}
	}
}

func mib(bytes int64) string { return strconv.FormatInt((bytes+1<<20-1)>>20, 10) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
