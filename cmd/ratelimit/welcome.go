package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/hit"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// welcome prints the addresses of the service, its numbers of domains and rules, and a
// command to try first. If the log is for machines to read, welcome logs all of that in
// one line instead.
func welcome(out io.Writer, s app.Started, inLog bool) {
	domains, rules, try := 0, 0, ""
	if s.Rules != nil {
		domains, rules, try = len(s.Rules.Domains), s.Rules.Len(), firstCommand(s, os.Args[0])
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
	fmt.Fprintf(out, "Rules   %s, %s\nTry     %s\n", check.Count(domains, "domain"), check.Count(rules, "rule"), try)
}

// firstCommand returns a hit command that shows a limit of the rules at work, or advice if
// there is none.
func firstCommand(s app.Started, program string) string {
	first, ok := hit.First(s.Rules, s.Matcher)
	if !ok {
		return "add a rate_limit to the rules: they limit nothing yet"
	}
	words := []string{program, "hit", "--domain", first.Domain, first.Descriptors[0].String(), "-n", strconv.Itoa(first.Count)}
	if first.Hits > 1 {
		words = append(words, "--hits", strconv.FormatInt(first.Hits, 10))
	}
	addr := s.GRPC.String()
	if s.GRPC.Network() == "unix" {
		addr = "unix:" + addr
	}
	if addr != settings.DefaultGRPCAddr {
		words = append(words, "--addr", addr)
	}
	if s.TLS {
		words = append(words, "--tls")
	}
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

// shellWord quotes s for a POSIX shell if it needs it.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.,:=/@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
