package report

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/distlimiter/ratelimit/bench/proc"
)

// redis is a Redis server without persistence, on a socket of its own.
type redis struct {
	*proc.Process
	port int
}

func (b *bench) startRedis() (*redis, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w: install it, or measure --backends memory", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &redis{port: port}
	r.Process, err = proc.Start(b.LoadCore, nil, path, "--bind", "127.0.0.1", "--port", fmt.Sprint(port),
		"--dir", filepath.Clean(b.dir), "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	b.stop = append(b.stop, r.Stop)
	return r, r.await()
}

// await waits until Redis accepts connections.
func (r *redis) await() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", r.port), time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return errors.Join(errors.New("redis-server accepts no connections"), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *redis) flags() []string { return []string{"--redis-url", fmt.Sprintf("127.0.0.1:%d", r.port)} }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
