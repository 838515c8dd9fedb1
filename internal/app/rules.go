package app

import (
	"fmt"
	"slices"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// load returns the function that parses sources into rules, with warnings about rules
// that can never apply.
func (s *service) load() reload.Load {
	load := reload.Adjusted(rulefile.NewParser(s.opts.Rules.Grammar).Parse, s.opts.Rules.Default)
	var hidden descriptor.HiddenFinder
	return func(sources []rulefile.Source) (*config.Rules, error) {
		rules, err := load(sources)
		if err == nil {
			rules.Warnings = slices.Concat(rules.Warnings, hidden.Find(rules))
		}
		return rules, err
	}
}

// providers returns the providers of all sources of rules.
func (s *service) providers() ([]reload.Provider, error) {
	var list []reload.Provider
	from := s.opts.Rules
	if len(from.Paths) > 0 {
		list = append(list, &reload.Files{Paths: from.Paths, Options: from.Files, Skipped: s.logSkipped()})
	}
	if s.adminRules != nil {
		list = append(list, s.adminRules)
	}
	if from.XDS == nil {
		return list, nil
	}
	creds, err := s.xdsCredentials()
	if err != nil {
		return nil, fmt.Errorf("TLS to the xDS server: %w", err)
	}
	options := *from.XDS
	options.Credentials, options.Log = creds, s.log.Named("xds")
	server, err := xds.New(options)
	return append(list, server), err
}

func (s *service) xdsCredentials() (credentials.TransportCredentials, error) {
	if s.opts.Rules.XDSTLS == nil {
		return insecure.NewCredentials(), nil
	}
	files := *s.opts.Rules.XDSTLS
	files.Log = s.log.Named("xds")
	return tlsfiles.Client(files)
}

// logSkipped returns a function that logs each file once.
func (s *service) logSkipped() func(path, why string) {
	logged := map[string]bool{}
	return func(path, why string) {
		if !logged[path] {
			logged[path] = true
			s.log.Info("a file with the rules is skipped", zap.String("file", path), zap.String("why", why))
		}
	}
}
