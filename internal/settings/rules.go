package settings

import (
	"fmt"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/named"
)

// RuleOptions are the settings for reading rules.
type RuleOptions struct {
	MergeDomains     bool      `group:"rules" field:"MergeDomains" negatable:"" env:"MERGE_DOMAIN_CONFIG" help:"Let several files define rules for the same domain."`
	SkipDotFiles     bool      `group:"rules" negatable:"" env:"RUNTIME_IGNOREDOTFILES" help:"Ignore files and directories whose names begin with a dot."`
	AnyName          bool      `group:"rules" negatable:"" env:"CONFIG_ANY_NAME" help:"In directories, read files of any name, not only .yaml, .yml and .json. Below --runtime-root all names are read anyway."`
	DefaultAlgorithm Algorithm `group:"rules" field:"DefaultAlgorithm" placeholder:"NAME" env:"DEFAULT_ALGORITHM" help:"Algorithm of limits that name none, such as those that come by xDS, instead of fixed_window. Quotas and windows of a day or more keep fixed_window."`
	DefaultBurst     Burst     `group:"rules" field:"DefaultBurst" placeholder:"BURST" env:"DEFAULT_BURST" help:"Burst of the limits that --default-algorithm changes: a number, or a percentage of the limit, rounded up."`
	DropDenied       bool      `group:"rules" negatable:"" env:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" help:"A refused request charges nothing: neither the limit that refuses it (also under fixed_window, unless the rule sets denied_hits) nor the limits of its other descriptors."`
}

// Grammar returns how files are read, with the names of flags and variables for errors.
func (o RuleOptions) Grammar(names named.Fields) rulefile.Options {
	return rulefile.Options{MergeDomains: o.MergeDomains, DropDenied: o.DropDenied, Names: names}
}

// Default returns the algorithm of limits that name none.
func (o RuleOptions) Default(names named.Fields) (config.Default, error) {
	d := config.Default{Algorithm: algo.Algorithm(o.DefaultAlgorithm), Burst: config.Burst(o.DefaultBurst), By: names.Either("DefaultAlgorithm")}
	if err := d.Check(); err != nil {
		return d, fmt.Errorf("%s: %w", names.Either("DefaultBurst"), err)
	}
	return d, nil
}

// FileOptions returns which files are read.
func (o RuleOptions) FileOptions() reload.FileOptions {
	return reload.FileOptions{SkipDotFiles: o.SkipDotFiles, AnyName: o.AnyName}
}
