package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/distlimiter/ratelimit/bench/load"
)

// profileSeconds is how long each server is profiled.
const profileSeconds = 5

// profiles loads each service in turn and writes its processor profile to a file of its own,
// for the compiler.
func (b *bench) profiles(ctx context.Context) error {
	for _, row := range b.report.Rows {
		if !b.isBuild(row.Server) {
			continue
		}
		if err := b.profile(ctx, row); err != nil {
			return fmt.Errorf("%s: %w", row.Name(), err)
		}
		fmt.Fprintf(b.Progress, "profiled %s\n", row.Name())
	}
	return nil
}

func (b *bench) profile(ctx context.Context, row *Row) error {
	s := b.servers[row]
	admin, err := s.Line("Admin ")
	if err != nil {
		return err
	}
	calls, err := row.Scenario.calls(0)
	if err != nil {
		return err
	}
	name := fileName(row.Server+"-"+row.Name()) + ".pprof"
	downloaded := make(chan error, 1)
	go func() {
		downloaded <- download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, profileSeconds), filepath.Join(b.Profiles, name))
	}()
	_, err = load.Run(ctx, load.Options{
		Address: s.address, Workload: calls, Connections: b.Connections, InFlight: b.InFlight,
		Duration: profileSeconds * time.Second,
	})
	return errors.Join(err, <-downloaded)
}

// download writes the content of a URL to a file.
func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
