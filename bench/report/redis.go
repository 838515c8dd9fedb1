package report

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"time"

	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/internal/freeport"
)

// redis is a Redis server without persistence.
type redis struct {
	*proc.Process
	port int
}

func (b *bench) startRedis() (*redis, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w: install it, or measure --backends memory", err)
	}
	port, err := b.freePort()
	if err != nil {
		return nil, err
	}
	r := &redis{port: port}
	r.Process, err = proc.Start(b.LoadCore, nil, path, "--bind", "127.0.0.1", "--port", strconv.Itoa(port),
		"--dir", b.dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	b.stop = append(b.stop, r.Stop)
	return r, await(r.Process, port)
}

// await polls until a program accepts connections, because no event reports that.
func await(p *proc.Process, port int) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return p.Failure(fmt.Sprintf("does not accept connections: %v", err))
		}
	}
}

// freePort returns a port that is held until everything stops.
func (b *bench) freePort() (int, error) {
	p, err := freeport.Hold()
	if err != nil {
		return 0, err
	}
	b.stop = append(b.stop, p.Close)
	return p.Number, nil
}
