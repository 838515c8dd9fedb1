package proc_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/distlimiter/ratelimit/bench/proc"
)

// The test binary is also the program under test.
const roleVariable = "PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "fails":
		fmt.Fprintln(os.Stderr, "no such luck")
		os.Exit(1)
	case "works":
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			panic(err)
		}
		fmt.Println("something else")
		fmt.Println("cores ", set.Count(), set.IsSet(0))
		for { // until told to stop
			unix.Getpid()
		}
	}
}

func start(t *testing.T, role string) *proc.Process {
	t.Helper()
	p, err := proc.Start(0, []string{roleVariable + "=" + role}, os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProcess(t *testing.T) {
	p := start(t, "works")
	if line, err := p.Line("cores"); err != nil || line != "1 true" {
		t.Errorf("%q, %v: want one core, the first", line, err)
	}
	first, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	for later := first; later == first; { // busy as it is
		if later, err = p.CPU(); err != nil || later < first {
			t.Fatalf("%v after %v, %v", later, first, err)
		}
	}
	if rss, err := p.RSS(); err != nil || rss < 100<<10 || rss > 1<<30 {
		t.Errorf("%d bytes, %v", rss, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if cpu, err := p.CPU(); err == nil {
		t.Errorf("processor time %v of a process that has ended", cpu)
	}
}

func TestFailuresSayWhatTheProgramSaid(t *testing.T) {
	p := start(t, "fails")
	_, err := p.Line("cores")
	if stop := p.Stop(); stop != nil {
		t.Error(stop)
	}
	if _, later := p.Line("cores"); err == nil || later == nil || !strings.Contains(later.Error(), `never wrote a line "cores": no such luck`) {
		t.Errorf("%v, then %v", err, later)
	}
	if _, err := proc.Start(0, nil, "/no/such/program"); err == nil {
		t.Error("started a program that is not there")
	}
	if _, err := proc.Start(1000, nil, os.Args[0]); err == nil || !strings.Contains(err.Error(), "core 1000") {
		t.Errorf("core 1000: %v", err)
	}
}

func TestThisProcessIsNotLeftPinned(t *testing.T) {
	affinity := func() (s unix.CPUSet) {
		if err := unix.SchedGetaffinity(os.Getpid(), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := affinity()
	p := start(t, "works")
	if after := affinity(); after != before {
		t.Errorf("affinity %v, before %v", after, before)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}
