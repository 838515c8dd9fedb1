package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

type versionCmd struct{}

func (versionCmd) Run(con console) error {
	_, err := fmt.Fprintf(con.out, "ratelimit %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildVersion is the release's version, or else what the Go toolchain recorded
// of the module and the commit.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// buildMetric tells dashboards what runs.
func buildMetric() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ratelimit_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": buildVersion(), "goversion": runtime.Version()}})
	g.Set(1)
	return g
}
