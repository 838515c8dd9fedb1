package report

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/template"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
)

//go:embed envoy.yaml.tmpl
var envoyTemplate string

// NoFilter is the path through Envoy without the rate limit filter.
const NoFilter = "no rate limit filter"

// way is a path through Envoy to the upstream.
type way struct {
	row     *Row
	Name    string
	Port    int
	Service int // port of the rate-limit service, 0 without the filter
	service *proc.Process
}

// envoy measures the first scenario's servers in the open loop, behind a real Envoy that
// shares the load's core. It shows how much longer a request takes with the filter than
// without.
func (b *bench) envoy(ctx context.Context) error {
	ways := []*way{{row: &Row{Scenario: b.report.Rows[0].Scenario, Server: NoFilter}, Name: "plain"}}
	floors, ours := b.openRows()
	for _, row := range slices.Concat(floors, ours) {
		port, err := portOf(b.servers[row].address)
		if err != nil {
			return err
		}
		ways = append(ways, &way{row: row.again(), Name: fmt.Sprintf("way%d", len(ways)), Service: port, service: b.servers[row].Process})
	}
	if err := b.startEnvoy(ways); err != nil {
		return err
	}
	for _, w := range ways {
		b.report.Envoy = append(b.report.Envoy, w.row)
		b.servers[w.row] = &server{Process: w.service, address: loopback(w.Port)}
	}
	err := b.open(ctx, b.report.Envoy, func(row *Row, round int) (Sample, error) {
		gets, err := load.NewGets(row.Scenario.Clients, uint64(round))
		if err != nil {
			return Sample{}, err
		}
		return b.sample(ctx, row, b.servers[row], gets, b.EnvoyRate, round)
	})
	if err != nil {
		return fmt.Errorf("through Envoy: %w", err)
	}
	return nil
}

func (b *bench) startEnvoy(ways []*way) error {
	upstream, err := b.freePort()
	if err != nil {
		return err
	}
	for _, w := range ways {
		if w.Port, err = b.freePort(); err != nil {
			return err
		}
	}
	path := filepath.Join(b.dir, "envoy.yaml")
	if err := writeConfig(path, ways, upstream); err != nil {
		return err
	}
	p, err := proc.Start(b.LoadCore, nil, b.Envoy, "--config-path", path,
		"--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
	if err != nil {
		return err
	}
	b.stop = append(b.stop, p.Stop)
	return await(p, ways[len(ways)-1].Port)
}

func writeConfig(path string, ways []*way, upstream int) error {
	t, err := template.New("envoy.yaml").Parse(envoyTemplate)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.Execute(f, map[string]any{
		"Ways": ways, "Upstream": upstream, "Domain": domain, "Header": load.Header, "Key": load.DescriptorKeys[0],
	})
}

func portOf(address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
