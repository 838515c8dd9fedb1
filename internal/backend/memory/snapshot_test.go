package memory_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/ownfile"
)

// TestSnapshot carries counters of every algorithm over to another store, and compares
// the decisions of both.
func TestSnapshot(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	o := memory.Options{Clock: now.Load, SweepCycle: -1}
	old, restarted := newStore(t, o), newStore(t, o)
	limits := map[string]*algo.Limit{"strict": newLimit(t, algo.Params{Algorithm: algo.Hybrid, Limit: 50, Window: time.Hour, Strict: true})}
	limits["calendar"] = newLimit(t, algo.Params{Limit: 50, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin", Starts: 15}})
	for i, name := range algo.Algorithms() {
		limits[name] = newLimit(t, algo.Params{Algorithm: algo.Algorithm(i), Limit: 50, Window: time.Hour})
	}
	brief := newLimit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 50, Window: time.Second})
	keys := func(yield func(key string, l *algo.Limit)) {
		for name, l := range limits {
			for i := range 300 {
				yield(fmt.Sprintf("%s %s %d", name, strings.Repeat("k", i%40), i), l)
			}
		}
	}
	keys(func(key string, l *algo.Limit) {
		hit(t, old, key, l, int64(len(key)%50)+1)
		now.Add(100)
	})
	live := old.Len()
	hit(t, old, "brief", brief, 1)
	now.Add(1e6)

	var file bytes.Buffer
	if err := old.Save(&file); err != nil {
		t.Fatal(err)
	}
	n, err := restarted.Load(iotest.OneByteReader(&file))
	if err != nil {
		t.Fatal(err)
	}
	if n != live || restarted.Len() != live {
		t.Errorf("%d keys loaded, %d kept, of %d", n, restarted.Len(), live)
	}
	used := func(s *memory.Store) map[string]memory.Key {
		all := map[string]memory.Key{}
		for k := range s.All() {
			all[string(k.Key)] = memory.Key{Expiry: k.Expiry, Used: k.Used}
		}
		return all
	}
	before, after := used(old), used(restarted)
	for key, k := range before {
		if after[key].Expiry != k.Expiry || after[key].Used != k.Used {
			t.Fatalf("%q was %+v and is %+v", key, k, after[key])
		}
	}
	keys(func(key string, l *algo.Limit) {
		if got, want := hit(t, restarted, key, l, 7), hit(t, old, key, l, 7); got != want {
			t.Fatalf("%q: after a restart %+v, without %+v", key, got, want)
		}
	})
}

func TestSnapshotLeavesOutExpired(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	o := memory.Options{Clock: now.Load, SweepCycle: -1}
	s := newStore(t, o)
	for i := range 100 {
		l := newLimit(t, algo.Params{Algorithm: algo.LeakyBucket, Limit: 1, Window: time.Duration(i+1) * time.Second})
		hit(t, s, fmt.Sprint(i), l, 1)
	}
	var file bytes.Buffer
	now.Add(10e6)
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	now.Add(10e6)
	s = newStore(t, o)
	if n, err := s.Load(&file); n != 80 || err != nil {
		t.Errorf("%d keys, error %v; want the 80 that outlast 20 seconds", n, err)
	}
}

func TestLoadKeepsToMaxKeys(t *testing.T) {
	s := newStore(t, memory.Options{SweepCycle: -1})
	l := perHour(t, 10)
	for i := range 3000 {
		hit(t, s, fmt.Sprint(i), l, int64(i%2*9+1))
	}
	var file bytes.Buffer
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, memory.Options{MaxKeys: 2000, SweepCycle: -1})
	if n, err := s.Load(&file); n > 2000 || n < 1800 || n != s.Len() || err != nil {
		t.Errorf("%d keys, %d kept, error %v; want nearly 2000", n, s.Len(), err)
	}
	for k := range s.All() {
		if k.Used < .9 {
			continue
		}
		l := len(k.Key)
		if l > 0 && (k.Key[l-1]-'0')%2 != 1 {
			t.Fatalf("%s used %v", k.Key, k.Used)
		}
	}
}

func smallSnapshot(t *testing.T) []byte {
	s := newStore(t, memory.Options{SweepCycle: -1})
	l := perHour(t, 10)
	log := newLimit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: 30, Window: time.Hour})
	for i := range 3 {
		hit(t, s, fmt.Sprint("key ", i), l, 1)
	}
	hit(t, s, "log", log, 9)
	var file bytes.Buffer
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestDamagedSnapshots flips each bit of a snapshot in turn, and cuts it at each length.
func TestDamagedSnapshots(t *testing.T) {
	good := smallSnapshot(t)
	load := func(b []byte) (int, error) {
		s := newStore(t, memory.Options{SweepCycle: -1})
		n, err := s.Load(bytes.NewReader(b))
		if err != nil && (n != 0 || s.Len() != 0) {
			t.Fatalf("%d keys, %d kept, of a snapshot that was refused", n, s.Len())
		}
		return n, err
	}
	if n, err := load(good); n != 4 || err != nil {
		t.Fatalf("%d keys, error %v", n, err)
	}
	for i := range good {
		if _, err := load(good[:i]); !errors.Is(err, memory.ErrSnapshotDamaged) {
			t.Errorf("cut to %d of %d bytes: error %v", i, len(good), err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := load(bad); !errors.Is(err, memory.ErrSnapshotDamaged) && !errors.Is(err, memory.ErrSnapshotVersion) {
				t.Errorf("bit %d of byte %d of %d is wrong: error %v", bit, i, len(good), err)
			}
		}
	}
}

func TestSnapshotErrors(t *testing.T) {
	newer, older := smallSnapshot(t), smallSnapshot(t)
	binary.LittleEndian.PutUint16(newer[len("ratelimit")+1:], 3)
	binary.LittleEndian.PutUint16(older[len("ratelimit")+1:], 1)
	for _, c := range []struct {
		name string
		file io.Reader
		want string
	}{
		{"newer", bytes.NewReader(newer), "loading a snapshot: another version of this program wrote the snapshot: its format is 3, and this version knows 2; remove it to start with unused limits"},
		{"older", bytes.NewReader(older), "loading a snapshot: another version of this program wrote the snapshot: its format is 1, and this version knows 2; remove it to start with unused limits"},
		{"empty", new(bytes.Buffer), "loading a snapshot: the snapshot is damaged or cut short: it ends before byte 0; remove it to start with unused limits"},
		{"another file", strings.NewReader("domain: edge\ndescriptors: []\n"), "loading a snapshot: the snapshot is damaged or cut short: not the start of a snapshot before byte 12; remove it to start with unused limits"},
		{"a failing disk", iotest.ErrReader(fs.ErrPermission), "loading a snapshot: permission denied"},
	} {
		s := newStore(t, memory.Options{SweepCycle: -1})
		if _, err := s.Load(c.file); err == nil || err.Error() != c.want {
			t.Errorf("%s: error %v\nwant %s", c.name, err, c.want)
		}
	}
	s := newStore(t, memory.Options{SweepCycle: -1})
	hit(t, s, "key", perHour(t, 10), 1)
	if _, err := s.Load(bytes.NewReader(smallSnapshot(t))); err == nil || !strings.Contains(err.Error(), "load before the first request") {
		t.Errorf("a store in use: error %v", err)
	}
	if s.Len() != 1 {
		t.Errorf("%d keys, want the one that was there", s.Len())
	}
	if err := s.Save(failingWriter{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("saving to a full disk: error %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fs.ErrPermission }

// snapshotIn returns the store's snapshot in a file.
func snapshotIn(t *testing.T, s *memory.Store, path string) *memory.Snapshot {
	t.Helper()
	snapshot, err := s.Snapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func TestSnapshotFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "limits.snapshot")
	now := int64(start)
	o := memory.Options{Clock: func() int64 { return now }, SweepCycle: -1}
	s := newStore(t, o)
	snapshot := snapshotIn(t, s, path)
	if _, err := snapshot.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	l := perHour(t, 10)
	for i := range 10_000 {
		hit(t, s, fmt.Sprint("key ", i), l, 1)
		if i%5000 == 0 { // it replaces the last one
			if err := snapshot.Save(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := snapshot.Save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v: want 0600", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); len(files) != 1 || err != nil {
		t.Errorf("%d files, error %v: want the snapshot alone", len(files), err)
	}
	now += 60e6
	s = newStore(t, o)
	loaded, err := snapshotIn(t, s, path).Load()
	if want := (memory.Loaded{Keys: 10_000, Saved: time.UnixMicro(start)}); loaded != want || err != nil {
		t.Errorf("%+v, error %v; want %+v", loaded, err, want)
	}

	if err := os.WriteFile(path, []byte("ratelimit\x00\x02\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot = snapshotIn(t, newStore(t, o), path)
	if _, err := snapshot.Load(); !errors.Is(err, memory.ErrSnapshotDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: error %v", err)
	}
	if aside, err := snapshot.SetAside(); aside != path+".unusable" || err != nil {
		t.Errorf("set aside as %q, error %v", aside, err)
	}

	// An empty file, as touch or mktemp makes it, is not yet a snapshot.
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if loaded, err := snapshot.Load(); loaded != (memory.Loaded{}) || err != nil {
		t.Errorf("an empty file: %+v, error %v", loaded, err)
	}
	if err := snapshot.Save(); err != nil {
		t.Errorf("an empty file is not replaced: %v", err)
	}
}

// TestSnapshotLeavesOthersFilesAlone: a save replaces only snapshots, even if another
// file appears after the start.
func TestSnapshotLeavesOthersFilesAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.yaml")
	s := newStore(t, memory.Options{SweepCycle: -1})
	snapshot := snapshotIn(t, s, path)
	const rules = "domain: edge\ndescriptors: []\n"
	if err := os.WriteFile(path, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	_, atStart := s.Snapshot(path)
	_, load := snapshot.Load()
	_, setAside := snapshot.SetAside()
	for what, err := range map[string]error{"Snapshot": atStart, "Load": load, "Save": snapshot.Save(), "SetAside": setAside, "Forget": snapshot.Forget([][]byte{[]byte("key")})} {
		if !errors.Is(err, ownfile.ErrForeign) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if got, err := os.ReadFile(path); string(got) != rules || err != nil {
		t.Errorf("the file holds %q, error %v", got, err)
	}
	if files, err := os.ReadDir(dir); len(files) != 1 || err != nil {
		t.Errorf("%d files, error %v: want the one that was there", len(files), err)
	}
	if _, err := s.Snapshot(filepath.Join(dir, "missing", "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: error %v", err)
	}
}

// TestForgottenStaysForgotten loads a snapshot from before counters were reset, as
// a start after a crash does.
func TestForgottenStaysForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.snapshot")
	o := memory.Options{SweepCycle: -1}
	l := perHour(t, 10)
	s := newStore(t, o)
	snapshot := snapshotIn(t, s, path)
	forget := func(keys ...string) {
		t.Helper()
		var all [][]byte
		for _, key := range keys {
			reset(s, []byte(key))
			all = append(all, []byte(key))
		}
		if err := snapshot.Forget(all); err != nil {
			t.Fatal(err)
		}
	}
	// restart returns the keys that a start would find used.
	restart := func() (used []string) {
		t.Helper()
		s = newStore(t, o)
		snapshot = snapshotIn(t, s, path)
		if _, err := snapshot.Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for k := range s.All() {
			used = append(used, string(k.Key))
		}
		slices.Sort(used)
		return used
	}
	check := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q are used, want %q", what, got, want)
		}
	}

	forget("alice")
	check("no snapshot yet", restart())
	for _, key := range []string{"alice", "bob", "carol", "dave"} {
		hit(t, s, key, l, 10)
	}
	if err := snapshot.Save(); err != nil {
		t.Fatal(err)
	}
	forget("alice")
	forget("bob", "nobody")
	forget()
	check("after a save", restart(), "carol", "dave")
	forget("carol")
	check("after a load", restart(), "dave")

	hit(t, s, "alice", l, 1)
	forget("dave")
	if err := snapshot.Save(); err != nil {
		t.Fatal(err)
	}
	check("a save has all that is used since", restart(), "alice")
	forget("alice")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check("before a crash", restart())

	// A crash while the last mark is written: the reset was not answered, and later
	// marks still count.
	for cut := 1; cut < len("alice")+9; cut++ {
		if err := os.WriteFile(path, whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprint("cut by ", cut), restart(), "alice")
		forget("alice")
		check(fmt.Sprint("again after a cut by ", cut), restart())
	}

	// Somebody has replaced it by an older one: nothing is known of its content.
	if err := errors.Join(os.WriteFile(path+".old", whole, 0o600), os.Rename(path+".old", path)); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Forget([][]byte{[]byte("bob")}); err == nil || !strings.Contains(err.Error(), "another snapshot") {
		t.Errorf("another file: error %v", err)
	}
	if got, err := os.ReadFile(path); !bytes.Equal(got, whole) || err != nil {
		t.Errorf("another file was written to, error %v", err)
	}
}

// TestForgetManyKeys needs more than one block.
func TestForgetManyKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.snapshot")
	s := newStore(t, memory.Options{SweepCycle: -1})
	snapshot := snapshotIn(t, s, path)
	l := perHour(t, 10)
	var keys [][]byte
	for i := range 20_000 {
		key := fmt.Sprint("key ", i)
		hit(t, s, key, l, 1)
		if i%4 > 0 {
			keys = append(keys, []byte(key))
		}
	}
	if err := errors.Join(snapshot.Save(), snapshot.Forget(keys)); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, memory.Options{SweepCycle: -1})
	loaded, err := snapshotIn(t, s, path).Load()
	if loaded.Keys != 5_000 || loaded.Forgotten != 15_000 || err != nil {
		t.Errorf("%+v, error %v", loaded, err)
	}
}
