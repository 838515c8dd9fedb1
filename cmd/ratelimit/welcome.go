package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// welcome prints where the service listens, what it serves and what to try first;
// in one line of the log where that is for machines to read.
func welcome(out io.Writer, s app.Started, inLog bool) {
	domains, rules, try := 0, 0, ""
	if s.Rules != nil {
		domains, rules, try = len(s.Rules.Domains), s.Rules.Len(), firstCommand(s.Rules, s.GRPC.String())
	}
	if inLog {
		fields := []zap.Field{
			zap.String("version", buildVersion()), zap.Stringer("grpc", s.GRPC), zap.Stringer("http", s.HTTP), zap.Stringer("admin", s.Admin),
			zap.Int("domains", domains), zap.Int("rules", rules),
		}
		if try != "" {
			fields = append(fields, zap.String("try", try))
		}
		s.Log.Info("started", fields...)
		return
	}
	fmt.Fprintf(out, "gRPC    %s\nHTTP    %s\nAdmin   %s\n", s.GRPC, s.HTTP, s.Admin)
	if s.Rules == nil {
		fmt.Fprintln(out, "Rules   none yet")
		return
	}
	fmt.Fprintf(out, "Rules   %s, %s\nTry     %s\n", count(domains, "domain"), count(rules, "rule"), try)
}

// firstCommand returns a hit command that shows the first limit of the rules at work,
// or what to do if there is none.
func firstCommand(rules *config.Rules, addr string) string {
	for _, domain := range rules.Domains {
		if e := firstLimited(domain.Descriptors, nil); e != nil {
			command := "ratelimit hit"
			if addr != defaultGRPCAddr {
				command += " --addr " + shellWord(addr)
			}
			return command + " --domain " + shellWord(domain.Name) + " " + shellWord(e.String()) + " -n 20"
		}
	}
	return "add a rate_limit to the rules: they limit nothing yet"
}

// firstLimited returns entries that lead to the first descriptor with a limit of
// a level or below it; nil if there is none.
func firstLimited(level []*config.Descriptor, above entries) entries {
	for _, d := range level {
		path := slices.Concat(above, entries{example(d)})
		for _, l := range d.Limits {
			if !l.Unlimited {
				return path
			}
		}
		if below := firstLimited(d.Descriptors, path); below != nil {
			return below
		}
	}
	return nil
}

// example returns an entry that the descriptor matches: any value will do for a
// key alone, and each * of a pattern may stand for nothing.
func example(d *config.Descriptor) descriptor.Entry {
	value := strings.ReplaceAll(d.Value, "*", "")
	if d.Value == "" || value == "" {
		value = "demo"
	}
	return descriptor.Entry{Key: d.Key, Value: value}
}
