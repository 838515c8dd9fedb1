package rulestore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// saverFile, when set, makes the test binary the process that is killed.
const saverFile = "RULESTORE_TEST_SAVER_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(saverFile); path != "" {
		fmt.Fprintln(os.Stderr, saveForever(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rulesOf is a domain whose rules all have the limit, large enough for a write
// to take a while.
func rulesOf(limit uint64) string {
	var b strings.Builder
	b.WriteString("domain: edge\ndescriptors:\n")
	for i := range 500 {
		fmt.Fprintf(&b, "  - {key: user, value: u%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, limit)
	}
	return b.String()
}

// saveForever saves one of two sets after the other, with nothing else to do in
// between, and prints the revision of each that is saved.
func saveForever(path string) error {
	store, err := rulestore.NewFile(path)
	if err != nil {
		return err
	}
	var domains [2]map[string]json.RawMessage
	for i := range domains {
		rules, err := rulefile.Parse([]rulefile.Source{{Name: "test", Data: []byte(rulesOf(uint64(i)))}}, rulefile.Options{})
		if err != nil {
			return err
		}
		set, _, err := rulestore.Set{}.Put(rules.Domains[0], true)
		if err != nil {
			return err
		}
		domains[i] = set.Domains
	}
	set, err := store.Load(context.Background())
	for err == nil {
		next := rulestore.Set{Revision: set.Revision + 1, Domains: domains[(set.Revision+1)%2]}
		if err = store.Save(context.Background(), set, next); err == nil {
			fmt.Println(next.Revision)
			set = next
		}
	}
	return err
}

// TestKill kills a process that saves, at any moment of that, again and again:
// what is left is the last set that was saved, or the one that was being saved,
// and whole. The next start removes all else.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.json")
	saved := uint64(0)
	for range 8 {
		saved = max(saved, killSaver(t, path, 1+rand.IntN(4)))
		store, err := rulestore.NewFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) > 1 {
			t.Errorf("left behind: %v, error %v", files, err)
		}
		set, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if set.Revision != saved && set.Revision != saved+1 {
			t.Fatalf("revision %d is left after %d was saved", set.Revision, saved)
		}
		n := 0
		for r := range domain(t, string(set.Domains["edge"])).All() {
			n++
			if got := uint64(r.Descriptor().Limits[0].RequestsPerUnit); got != set.Revision%2 {
				t.Fatalf("revision %d has a rule of %d", set.Revision, got)
			}
		}
		if n != 500 {
			t.Fatalf("%d rules are left", n)
		}
		saved = set.Revision
	}
}

// killSaver kills a saver after it has said so often that it saved, and returns
// the last revision that it said.
func killSaver(t *testing.T, path string, after int) (saved uint64) {
	saver := exec.Command(os.Args[0])
	saver.Env = append(os.Environ(), saverFile+"="+path)
	saver.Stderr = os.Stderr
	out, err := saver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := saver.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if saved, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if after--; after == 0 {
			if err := saver.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = saver.Wait() // it was killed
	return saved
}
