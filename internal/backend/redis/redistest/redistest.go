// Package redistest starts real Redis servers for tests, on free ports of
// loopback and in directories of their own: single servers, servers with sentinels,
// or a cluster. It kills, freezes and fails over real processes.
package redistest

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// patience bounds every wait for the servers of a test.
const patience = 30 * time.Second

// Server is one running redis-server, or redis-sentinel.
type Server struct {
	// Addr is its host:port, or the path of its socket.
	Addr string
	// Dir is its working directory.
	Dir string

	t       testing.TB
	conf    Config
	program string // its path
	args    []string
	cmd     *exec.Cmd
	gone    chan struct{} // closed when the process has ended
	client  rueidis.Client
}

// Config says how to start a server. The zero value is a plain one on TCP.
type Config struct {
	// Unix makes it listen on a socket only.
	Unix bool
	// TLS makes it use TLS only, and ask clients for certificates.
	TLS *TLS
	// Password is the password of the default user.
	Password string
	// Args are further arguments, as on redis-server's command line.
	Args []string
	// Env is added to its environment.
	Env []string
	// Dir is its working directory. Default a temporary directory.
	Dir string
	// Program is the path of another server than the redis-server on the path.
	Program string

	sentinel string // path of a sentinel's configuration
	port     int
	busPort  int // of a node of a cluster
}

// Start starts a server that ends with the test.
func Start(t testing.TB, c Config) *Server {
	t.Helper()
	s := &Server{t: t, conf: c, Dir: c.Dir}
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	if c.port == 0 {
		s.conf.port = freeport.ForTest(t).Number
	}
	s.program = testprogram.Path(t, cmp.Or(c.Program, "redis-server"))
	s.prepare()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func (s *Server) prepare() {
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.conf.port))
	port, tlsPort := s.conf.port, 0
	s.args = nil
	if s.conf.sentinel != "" {
		s.args = []string{s.conf.sentinel, "--sentinel"}
	}
	if s.conf.TLS != nil {
		port, tlsPort = 0, port
		s.args = append(s.args, "--tls-port", strconv.Itoa(tlsPort), "--tls-cert-file", s.conf.TLS.ServerCert,
			"--tls-key-file", s.conf.TLS.ServerKey, "--tls-ca-cert-file", s.conf.TLS.CA)
	}
	if s.conf.Unix {
		port, s.Addr = 0, filepath.Join(s.Dir, "redis.sock")
		s.args = append(s.args, "--unixsocket", s.Addr)
	}
	s.args = append(s.args, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", s.Dir)
	if s.conf.sentinel == "" {
		s.args = append(s.args, "--save", "", "--appendonly", "no")
	}
	if s.conf.Password != "" {
		s.args = append(s.args, "--requirepass", s.conf.Password, "--masterauth", s.conf.Password)
	}
	s.args = append(s.args, s.conf.Args...)
}

// launch starts the process and waits until it reports that it is ready.
func (s *Server) launch() error {
	s.cmd = exec.Command(s.program, s.args...)
	s.cmd.Env = append(os.Environ(), s.conf.Env...)
	testprogram.EndWithParent(s.cmd)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.gone = gone
	ready := make(chan error, 1)
	var log strings.Builder
	go func() {
		lines := bufio.NewScanner(out)
		for waiting := true; lines.Scan(); {
			if !waiting {
				continue
			}
			line := lines.Text()
			log.WriteString(line + "\n")
			if strings.Contains(line, "Ready to accept connections") || strings.Contains(line, "+monitor") ||
				strings.Contains(line, "The server is now ready to accept connections at") {
				waiting = false
				ready <- nil
			}
		}
		_ = s.cmd.Wait()
		close(gone)
		select {
		case ready <- fmt.Errorf("redis-server %v ended:\n%s", s.args, &log):
		default:
		}
	}()
	select {
	case err := <-ready:
		return err
	case <-time.After(patience):
		return fmt.Errorf("redis-server %v does not become ready", s.args)
	}
}

// Kill ends the server at once, as a crash would, if it runs.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// Restart starts the server again, at the same address. It is empty, unless its Args
// make it save data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if s.client != nil { // its connection has ended, which might fail the next command
		s.client.Close()
		s.client = nil
	}
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze stops the process: connections stay, and nothing answers.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Pid returns the process id.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Do sends a command as the default user and returns its answer. It is for one
// goroutine at a time.
func (s *Server) Do(args ...string) rueidis.RedisMessage {
	s.t.Helper()
	m, err := s.do(args...)
	if err != nil && !rueidis.IsRedisNil(err) {
		s.t.Fatalf("%s: %v: %v", s.Addr, args, err)
	}
	return m
}

// try returns the result of a command as text; "" if it fails.
func (s *Server) try(args ...string) string {
	m, err := s.do(args...)
	if err != nil {
		return ""
	}
	text, _ := m.ToString() // empty with an error
	return text
}

// runs reports whether the process is still running.
func (s *Server) runs() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

func (s *Server) do(args ...string) (rueidis.RedisMessage, error) {
	if s.client == nil {
		client, err := rueidis.NewClient(s.option())
		if err != nil {
			return rueidis.RedisMessage{}, err
		}
		s.client = client
		s.t.Cleanup(client.Close)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.client.Do(ctx, s.client.B().Arbitrary(args...).Build()).ToMessage()
}

func (s *Server) option() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: []string{s.Addr}, Password: s.conf.Password, ForceSingleClient: true, DisableCache: true,
	}
	if s.conf.sentinel != "" {
		o.AlwaysRESP2 = true
	}
	if s.conf.TLS != nil {
		o.TLSConfig = s.conf.TLS.Client
	}
	if s.conf.Unix {
		o.DialCtxFn = func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		}
	}
	return o
}

// Text is Do for a command that answers with a string or a number.
func (s *Server) Text(args ...string) string {
	s.t.Helper()
	m := s.Do(args...)
	if n, err := m.AsInt64(); err == nil && !m.IsString() {
		return strconv.FormatInt(n, 10)
	}
	text, err := m.ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		s.t.Fatalf("%v: %v", args, err)
	}
	return text
}

// Info returns one field of INFO.
func (s *Server) Info(field string) string {
	s.t.Helper()
	for line := range strings.Lines(s.Text("INFO", "everything")) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			return strings.TrimSpace(value)
		}
	}
	s.t.Fatalf("INFO has no %s", field)
	return ""
}

// CPU returns the CPU time that the server has used.
func (s *Server) CPU() time.Duration {
	s.t.Helper()
	var sum float64
	for _, field := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, err := strconv.ParseFloat(s.Info(field), 64)
		if err != nil {
			s.t.Fatal(err)
		}
		sum += seconds
	}
	return time.Duration(sum * float64(time.Second))
}

// Backend is the part of redis.Backend that Open needs. This package can't import that
// package, whose own tests import this one.
type Backend interface {
	Ready(ctx context.Context) error
	Close()
}

// Open opens a backend, usually by redis.New, and waits until it is ready. It closes it
// when the test ends.
func Open[O any, B Backend](t testing.TB, open func(O) (B, error), options O) B {
	t.Helper()
	b, err := open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// Eventually waits until the condition holds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
