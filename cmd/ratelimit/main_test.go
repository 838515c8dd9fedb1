package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ratelimit": main})
}

// patience bounds how long a test waits for an event that must come.
const patience = 30 * time.Second

// TestScript runs the command as a person would. Besides testscript's own
// commands the scripts have:
//
//	exitcode N program [args…]     runs a program that must exit with just this code
//	start [VAR=value…] [flags…]   starts `ratelimit serve` on free ports and waits until it serves;
//	                              sets GRPC_ADDR (by which hit finds it), HTTP_ADDR and ADMIN_ADDR
//	signal NAME                   sends it a signal
//	await regexp [VAR]            waits for a line of its log, and keeps what the first group matched
//	statsd udp                    starts a server of datagrams; sets STATSD_PORT
//	received regexp               waits until it has received what matches
//	exit code                     waits until it has exited; its output is then stdout and stderr
//	grpc health [service]          prints what the gRPC health service says
//	grpc services                  lists the services by reflection
//	waitfor regexp URL            waits until a page matches
//	pagefiles PAGE                writes the YAML blocks of a page of docs whose first line is # and a name
//	transcript PAGE               runs the commands of its console blocks, whose answers must be those of
//	                              the page, but for times and rates
//	http METHOD URL [file]        prints the status and the body of an answer; the file is the request's body
//
// The files $CA, $SERVER_CERT, $SERVER_KEY, $CLIENT_CERT and $CLIENT_KEY are for TLS,
// and those of newAdminCertificates.
func TestScript(t *testing.T) {
	certificates, admins := redistest.NewTLS(t), newAdminCertificates(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			for _, addr := range []string{"GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"} {
				env.Setenv(addr, "127.0.0.1:0")
			}
			env.Setenv("GORACE", "atexit_sleep_ms=10") // the race detector's second at every exit adds up
			for name, file := range map[string]string{
				"CA": certificates.CA, "SERVER_CERT": certificates.ServerCert, "SERVER_KEY": certificates.ServerKey,
				"CLIENT_CERT": certificates.ClientCert, "CLIENT_KEY": certificates.ClientKey,
			} {
				env.Setenv(name, file)
			}
			for name, file := range admins {
				env.Setenv(name, file)
			}
			s := &process{env: env}
			env.Values[processKey{}] = s
			env.Defer(s.kill)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":    func(ts *testscript.TestScript, _ bool, args []string) { processOf(ts).start(ts, args) },
			"signal":   func(ts *testscript.TestScript, _ bool, args []string) { processOf(ts).signal(ts, args) },
			"await":    func(ts *testscript.TestScript, _ bool, args []string) { processOf(ts).await(ts, args) },
			"exit":     func(ts *testscript.TestScript, _ bool, args []string) { processOf(ts).exit(ts, args) },
			"exitcode": exitCode,
			"statsd":   func(ts *testscript.TestScript, _ bool, _ []string) { processOf(ts).listenStatsd(ts) },
			"received": func(ts *testscript.TestScript, _ bool, args []string) { processOf(ts).datagrams.await(ts, args[0]) },
			"grpc":     callGRPC,
			"http":     request,
			"waitfor":  waitFor,

			"pagefiles":  pageFiles,
			"transcript": transcript,
		},
	})
}

// newAdminCertificates returns an authority, $TLS_CA, and certificates with their
// keys: $TLS_SERVER, $TLS_GOOD, which names admin.example, and some that are wrong.
func newAdminCertificates(t *testing.T) map[string]string {
	t.Helper()
	ours, theirs := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	files := map[string]string{"TLS_CA": ours.File}
	for name, c := range map[string]struct {
		by          *tlstest.Authority
		called      string
		from, until time.Duration
	}{
		"SERVER":   {ours, "127.0.0.1", -time.Hour, time.Hour},
		"GOOD":     {ours, "admin.example", -time.Hour, time.Hour},
		"OTHER":    {ours, "other.example", -time.Hour, time.Hour},
		"EXPIRED":  {ours, "admin.example", -time.Hour, -time.Minute},
		"EARLY":    {ours, "admin.example", 30 * time.Minute, time.Hour},
		"STRANGER": {theirs, "admin.example", -time.Hour, time.Hour},
	} {
		files["TLS_"+name], files["TLS_"+name+"_KEY"] = c.by.IssueFrom(strings.ToLower(name), c.called, c.from, c.until)
	}
	return files
}

type processKey struct{}

func processOf(ts *testscript.TestScript) *process {
	p, ok := ts.Value(processKey{}).(*process)
	if !ok {
		ts.Fatalf("the script was not set up")
	}
	return p
}

// process is the one `ratelimit serve` that a script runs at a time.
type process struct {
	env            *testscript.Env
	cmd            *exec.Cmd
	stdout, stderr *output
	exited         chan struct{}
	datagrams      *output // that statsd has got
}

func (s *process) start(ts *testscript.TestScript, args []string) {
	environ := slices.Clone(s.env.Vars)
	for _, name := range []string{"GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"} {
		environ = append(environ, name+"="+ts.Getenv(name))
	}
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") && strings.Contains(args[0], "=") {
		environ = append(environ, args[0])
		args = args[1:]
	}
	program, err := exec.LookPath("ratelimit")
	ts.Check(err)
	s.kill()
	s.stdout, s.stderr, s.exited = newOutput(), newOutput(), make(chan struct{})
	s.cmd = exec.Command(program, append([]string{"serve"}, args...)...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = ts.MkAbs("."), environ, s.stdout, s.stderr
	ts.Check(s.cmd.Start())
	go func(cmd *exec.Cmd, exited chan struct{}, outputs ...*output) {
		_ = cmd.Wait() // the code is in ProcessState
		for _, o := range outputs {
			o.end()
		}
		close(exited)
	}(s.cmd, s.exited, s.stdout, s.stderr)
	inJSON := func(arg string) bool {
		return strings.EqualFold(arg, "json") || strings.EqualFold(arg, "LOG_FORMAT=json")
	}
	if slices.ContainsFunc(slices.Concat(environ, args), inJSON) {
		found := s.stderr.await(ts, `"@message":"started".*"grpc":"([^"]+)","http":"([^"]+)","admin":"([^"]+)"`)
		for i, env := range []string{"GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"} {
			ts.Setenv(env, found[i+1])
		}
		return
	}
	for _, listener := range []struct{ line, env string }{{"gRPC", "GRPC_ADDR"}, {"HTTP", "HTTP_ADDR"}, {"Admin", "ADMIN_ADDR"}} {
		found := s.stdout.await(ts, `(?m)^`+listener.line+` +(\S+)$`)
		ts.Setenv(listener.env, found[1])
	}
	s.stdout.await(ts, `(?m)^(Try .*|Rules +none yet)\n`)
	fmt.Fprint(ts.Stdout(), s.stdout.String())
}

func (s *process) signal(ts *testscript.TestScript, args []string) {
	number := unix.SignalNum("SIG" + args[0])
	if number == 0 {
		ts.Fatalf("no signal %s", args[0])
	}
	ts.Check(s.cmd.Process.Signal(number))
}

func (s *process) await(ts *testscript.TestScript, args []string) {
	found := s.stderr.await(ts, args[0])
	if len(args) > 1 {
		ts.Setenv(args[1], found[1])
	}
}

// listenStatsd keeps what comes in datagrams until the script ends.
func (s *process) listenStatsd(ts *testscript.TestScript) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	ts.Check(err)
	ts.Setenv("STATSD_PORT", port)
	datagrams := newOutput()
	s.datagrams = datagrams
	go func() {
		defer datagrams.end()
		buffer := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = datagrams.Write(append(buffer[:n:n], '\n')) // it never fails
		}
	}()
	ts.Defer(func() { _ = conn.Close() })
}

func (s *process) exit(ts *testscript.TestScript, args []string) {
	select {
	case <-s.exited:
	case <-time.After(patience):
		ts.Fatalf("the service did not exit; its log:\n%s", s.stderr)
	}
	code := fmt.Sprint(s.cmd.ProcessState.ExitCode())
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = unix.SignalName(status.Signal())
	}
	if code != args[0] {
		ts.Fatalf("exited with %s, want %s; its log:\n%s", code, args[0], s.stderr)
	}
	fmt.Fprint(ts.Stdout(), s.stdout.String())
	fmt.Fprint(ts.Stderr(), s.stderr.String())
	s.cmd = nil
}

func (s *process) kill() {
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err)
	}
	<-s.exited
	s.cmd = nil
}

func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		ts.Check(err)
	}
	code := 0
	if failed != nil {
		code = failed.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exited with %d, want %s", code, args[0])
	}
}

func request(ts *testscript.TestScript, _ bool, args []string) {
	var body io.Reader
	if len(args) > 2 {
		body = strings.NewReader(ts.ReadFile(args[2]))
	}
	r, err := http.NewRequest(args[0], args[1], body)
	ts.Check(err)
	if len(args) > 2 && strings.HasSuffix(args[2], ".json") {
		r.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: patience}
	answer, err := client.Do(r)
	ts.Check(err)
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n%s\n", answer.Status, content)
}

func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	client := http.Client{Timeout: patience}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get(args[1])
		ts.Check(err)
		content, err := io.ReadAll(answer.Body)
		ts.Check(errors.Join(err, answer.Body.Close()))
		if re.Match(content) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not match %q:\n%s", args[1], args[0], content)
		}
	}
}

func callGRPC(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := grpc.NewClient(ts.Getenv("GRPC_ADDR"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if args[0] == "health" {
		answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: strings.Join(args[1:], "")})
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), answer.Status)
		return
	}
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	ts.Check(err)
	ts.Check(stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
	answer, err := stream.Recv()
	ts.Check(err)
	for _, service := range answer.GetListServicesResponse().GetService() {
		fmt.Fprintln(ts.Stdout(), service.Name)
	}
}

// output keeps what a process writes and lets others wait for it.
type output struct {
	mu      sync.Mutex
	content bytes.Buffer
	ended   bool
	changed chan struct{} // closed at the next write or the end
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.content.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.content.String()
}

// await returns the first match of the expression and its groups.
func (o *output) await(ts *testscript.TestScript, expression string) []string {
	re, err := regexp.Compile(expression)
	ts.Check(err)
	timeout := time.After(patience)
	for {
		o.mu.Lock()
		found, ended, changed := re.FindStringSubmatch(o.content.String()), o.ended, o.changed
		o.mu.Unlock()
		if found != nil {
			return found
		}
		if ended {
			ts.Fatalf("the service exited before it wrote %q; it wrote:\n%s%s", expression, o, processOf(ts).stderr)
		}
		select {
		case <-changed:
		case <-timeout:
			ts.Fatalf("the service did not write %q; it wrote:\n%s", expression, o)
		}
	}
}
