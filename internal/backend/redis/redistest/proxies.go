package redistest

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/testprogram"
)

//go:embed testdata/envoy.yaml
var envoyConfig string

// StartEnvoy starts an Envoy whose redis_proxy spreads the keys over the servers, by
// their hash tags if they have any, and returns its address.
func StartEnvoy(t testing.TB, servers ...*Server) string {
	t.Helper()
	return startEnvoy(t, "true", servers)
}

// StartEnvoyWithoutTags is StartEnvoy for an Envoy that ignores hash tags.
func StartEnvoyWithoutTags(t testing.TB, servers ...*Server) string {
	t.Helper()
	return startEnvoy(t, "false", servers)
}

func startEnvoy(t testing.TB, tags string, servers []*Server) string {
	t.Helper()
	program := testprogram.Path(t, "envoy")
	listen := freeport.ForTest(t)
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	var endpoints []string
	for _, s := range servers {
		endpoints = append(endpoints, fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}", s.conf.port))
	}
	config := strings.NewReplacer("LISTEN", strconv.Itoa(listen.Number), "TAGS", tags, "ENDPOINTS", strings.Join(endpoints, ", ")).Replace(envoyConfig)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	startProxy(t, listen, program, "-c", path, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
	return listen.Addr()
}

// StartTwemproxy starts a twemproxy before the servers, and returns its address. If the
// program is not on the path, it skips the test. The program is one of .ci/servers.
func StartTwemproxy(t testing.TB, servers ...*Server) string {
	t.Helper()
	program, err := exec.LookPath("nutcracker-0.5")
	if err != nil {
		t.Skip("twemproxy is not installed: run .ci/servers")
	}
	listen, stats, dir := freeport.ForTest(t), freeport.ForTest(t), t.TempDir()
	path := filepath.Join(dir, "nutcracker.yml")
	var config strings.Builder
	fmt.Fprintf(&config, "redis:\n  listen: %s\n  redis: true\n  hash: fnv1a_64\n  hash_tag: \"{}\"\n  distribution: ketama\n  preconnect: true\n  servers:\n", listen.Addr())
	for _, s := range servers {
		fmt.Fprintf(&config, "   - %s:1\n", s.Addr)
	}
	if err := os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	startProxy(t, listen, program, "-c", path, "-o", filepath.Join(dir, "log"), "-s", strconv.Itoa(stats.Number), "-a", "127.0.0.1")
	return listen.Addr()
}

// startProxy runs the program until the test ends, and waits until it listens.
func startProxy(t testing.TB, listen freeport.Port, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	testprogram.EndWithParent(cmd)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the log of %s:\n%s", filepath.Base(program), &log)
		}
	})
	Eventually(t, "the proxy listens", func() bool {
		conn, err := net.DialTimeout("tcp", listen.Addr(), time.Second)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// StartClosing starts a proxy that forwards everything to the server, but closes a
// connection on which it sees one of the commands. It returns its address.
func StartClosing(t testing.TB, s *Server, commands ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go relay(client, s.Addr, commands)
		}
	}()
	return listener.Addr().String()
}

func relay(client net.Conn, addr string, refused []string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(client, server) // until one of them is closed
		client.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		for _, command := range refused {
			if bytes.Contains(buffer[:n], []byte("\r\n"+command+"\r\n")) {
				return
			}
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}
