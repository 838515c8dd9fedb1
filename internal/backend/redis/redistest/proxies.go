package redistest

import (
	"bytes"
	_ "embed"
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

// StartEnvoy starts an Envoy whose redis_proxy passes everything on to the server,
// and returns its address.
func StartEnvoy(t testing.TB, s *Server) string {
	t.Helper()
	program := testprogram.Path(t, "envoy")
	listen := freeport.ForTest(t)
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	config := strings.NewReplacer("LISTEN", strconv.Itoa(listen.Number), "SERVER", strconv.Itoa(s.conf.port)).Replace(envoyConfig)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", path, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
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
			t.Logf("Envoy's log:\n%s", &log)
		}
	})
	Eventually(t, "Envoy listens", func() bool {
		conn, err := net.DialTimeout("tcp", listen.Addr(), time.Second)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return listen.Addr()
}

// StartClosing starts a proxy that passes everything on to the server, and closes a
// connection on which one of the commands comes. It returns its address.
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
	go func() { _, _ = io.Copy(client, server) }() // until one of them is closed
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
