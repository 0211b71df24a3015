// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
)

// memStore is a journal in memory that can be told to fail.
type memStore struct {
	entries [][]byte
	head    []byte
	fail    error // for the next Append
	keep    bool  // whether the failing Append persists all the same
}

func (s *memStore) Append(previous []byte, first uint64, entries [][]byte, head []byte) error {
	if s.fail == nil || s.keep {
		if first != uint64(len(s.entries))+1 {
			panic("entries out of order")
		}
		for _, e := range entries {
			s.entries = append(s.entries, bytes.Clone(e))
		}
		s.head = bytes.Clone(head)
	}
	return s.fail
}

func (s *memStore) Scan(from uint64, fn func(uint64, []byte) error) error {
	for i, e := range s.entries {
		if n := uint64(i) + 1; n >= from {
			if err := fn(n, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *memStore) Head() ([]byte, error) { return s.head, nil }
func (s *memStore) Close() error          { return nil }

// copyOf takes the journal of the registry that all tests copy.
func copyOf(t *testing.T, dir string) *memStore {
	t.Helper()
	from, err := registry.OpenStore(filepath.Join(dir, "journal"), vfs.Default)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	s := &memStore{}
	if err := from.Scan(0, func(_ uint64, e []byte) error {
		s.entries = append(s.entries, bytes.Clone(e))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.head, _ = from.Head()
	return s
}

func TestJournalTellsWhoWhenWhatWhy(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	before := r.State().Number()
	n, err := r.Apply(t.Context(), author, []registry.Change{&registry.SetMemberClass{Code: "GOV", Description: "Government <&>"}})
	if err != nil || n != before+1 {
		t.Fatalf("entry %d, %v", n, err)
	}
	var got []*registry.Entry
	if err := r.Journal(t.Context(), 1, func(e *registry.Entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != int(n) || got[0].Change.String() != "found instance DEV" || got[0].Previous != (registry.Hash{}) {
		t.Errorf("%d entries, first %v after %v", len(got), got[0].Change, got[0].Previous)
	}
	e := got[n-1]
	if e.Author != author || !e.Time.Equal(start) || e.Number != n || e.Change.String() != "set member class GOV (Government <&>)" {
		t.Errorf("entry %+v, %s", e, e.Change)
	}
	b, err := registry.EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"number":7,"previous":"` + e.Previous.String() + `","time":"2026-11-21T12:00:00Z","author":{"who":"test","why":"because","request":"ticket 7"},"change":"class.set","data":{"code":"GOV","description":"Government <&>"}}`
	if string(b) != want {
		t.Errorf("canonical bytes\n%s\nwant\n%s", b, want)
	}
	stop := errors.New("stop")
	if err := r.Journal(t.Context(), 3, func(e *registry.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Journal(cancelled, 1, func(*registry.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDamagedJournalIsRefused(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	good := copyOf(t, dir)
	n := len(good.entries)
	reopen := func(s registry.Store) error {
		r, err := registry.Open(dir, pin, registry.Config{Store: s})
		if err == nil {
			r.Close()
		}
		return err
	}
	if err := reopen(good); err != nil {
		t.Fatal(err)
	}
	damage := func(change func(*memStore)) *memStore {
		s := &memStore{head: bytes.Clone(good.head)}
		for _, e := range good.entries {
			s.entries = append(s.entries, bytes.Clone(e))
		}
		change(s)
		return s
	}
	for name, tc := range map[string]struct {
		store *memStore
		text  string
	}{
		"edited first entry": {damage(func(s *memStore) { s.entries[0] = bytes.Replace(s.entries[0], []byte("DEV"), []byte("XEV"), 1) }), "one of the two was changed"},
		"edited middle": {damage(func(s *memStore) {
			s.entries[1] = bytes.Replace(s.entries[1], []byte("because"), []byte("because!"), 1)
		}), "one of the two was changed"},
		"edited last":      {damage(func(s *memStore) { s.entries[n-1] = bytes.Replace(s.entries[n-1], []byte("test"), []byte("tset"), 1) }), "its last entry 6 was changed"},
		"swapped":          {damage(func(s *memStore) { s.entries[1], s.entries[2] = s.entries[2], s.entries[1] }), "calls itself"},
		"removed in front": {damage(func(s *memStore) { s.entries = s.entries[1:] }), "calls itself"},
		"cut short":        {damage(func(s *memStore) { s.entries = s.entries[:n-2] }), "entries 5 to 6 are missing"},
		"emptied":          {damage(func(s *memStore) { s.entries = nil }), "entries 1 to 6 are missing"},
		"head lost":        {damage(func(s *memStore) { s.head = nil }), "its last entry 6 was changed"},
		"head damaged":     {damage(func(s *memStore) { s.head = []byte("{") }), "head"},
		"entry cut":        {damage(func(s *memStore) { s.entries[2] = s.entries[2][:40] }), "entry 3"},
		"bytes added":      {damage(func(s *memStore) { s.entries[2] = append(s.entries[2], '1') }), "bytes follow"},
		"unknown member": {damage(func(s *memStore) {
			s.entries[2] = bytes.Replace(s.entries[2], []byte(`"data":{`), []byte(`"data":{"x":1,`), 1)
		}), "unknown field"},
		"unknown change": {damage(func(s *memStore) { s.entries[2] = bytes.Replace(s.entries[2], []byte("key.add"), []byte("key.eat"), 1) }), "newer program"},
	} {
		if err := reopen(tc.store); !errors.Is(err, registry.ErrJournal) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Every byte counts.
	for i := range good.entries {
		for pos := range good.entries[i] {
			s := damage(func(s *memStore) { s.entries[i][pos] ^= 1 })
			if err := reopen(s); !errors.Is(err, registry.ErrJournal) {
				t.Fatalf("byte %d of entry %d changed: %v", pos, i+1, err)
			}
		}
	}
}

// TestGapOnDisk removes and edits entries behind the registry's back.
func TestGapOnDisk(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*pebble.DB) error{
		"gap":       func(db *pebble.DB) error { return db.Delete(diskKey(3), pebble.Sync) },
		"edited":    func(db *pebble.DB) error { return db.Set(diskKey(3), []byte("{}"), pebble.Sync) },
		"added":     func(db *pebble.DB) error { return db.Set(diskKey(7), []byte("{}"), pebble.Sync) },
		"alien key": func(db *pebble.DB) error { return db.Set([]byte("e!"), []byte("{}"), pebble.Sync) },
	} {
		dir := newDir(t)
		db, err := pebble.Open(filepath.Join(dir, "journal"), &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{t}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(edit(db), db.Close()); err != nil {
			t.Fatal(err)
		}
		if r, err := registry.Open(dir, pin, registry.Config{}); !errors.Is(err, registry.ErrJournal) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func diskKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'e'}, n) }

type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)                {}
func (q quiet) Errorf(format string, args ...any) { q.t.Errorf(format, args...) }
func (q quiet) Fatalf(format string, args ...any) { q.t.Fatalf(format, args...) }

// TestCrash cuts the power after every accepted change: what Apply reported is
// there, whole, and nothing else.
func TestCrash(t *testing.T) {
	t.Parallel()
	dir, mem := newDir(t), vfs.NewCrashableMem()
	store, err := registry.OpenStore("journal", mem)
	if err != nil {
		t.Fatal(err)
	}
	seed := copyOf(t, dir)
	if err := store.Append(nil, 1, seed.entries, seed.head); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, registry.Config{Store: store})
	rng := rand.New(rand.NewPCG(1, 2))
	var sets [][]registry.Change
	for i := range 15 {
		class := string(rune('A' + i))
		member := must(id.NewMember("DEV", class, "1"))
		sets = append(sets, []registry.Change{
			&registry.SetMemberClass{Code: class, Description: "class"},
			&registry.AddMember{Member: member, Name: "member"},
			&registry.AddSubsystem{Subsystem: must(id.NewClient(member, "sub"))},
		})
	}
	for done, set := range sets {
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		after, err := registry.OpenStore("journal", crashed)
		if err != nil {
			t.Fatal(err)
		}
		again, err := registry.Open(dir, pin, registry.Config{Store: after})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(again.State().Members()); got != done {
			t.Errorf("%d members after a crash, %d were accepted", got, done)
		}
		for _, m := range again.State().Members() {
			if len(m.Subsystems) != 1 {
				t.Errorf("%s is half there", m.ID)
			}
		}
		again.Close()
		if _, err := r.Apply(t.Context(), author, set); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailedWrite: after a failed append nobody knows what is on disk, so the
// registry stands still until it is opened again.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		dir := newDir(t)
		store := copyOf(t, dir)
		r := open(t, dir, registry.Config{Store: store})
		set := []registry.Change{&registry.SetMemberClass{Code: "GOV", Description: "Government"}}
		before := r.State()
		broken := errors.New("input/output error")
		store.fail, store.keep = broken, keep
		if _, err := r.Apply(t.Context(), author, set); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		store.fail = nil
		if _, err := r.Apply(t.Context(), author, set); !errors.Is(err, broken) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("written after a failure: %v", err)
		}
		if r.State() != before {
			t.Error("the state changed")
		}
		again := open(t, dir, registry.Config{Store: store})
		if got := len(again.State().MemberClasses()); (got == 1) != keep {
			t.Errorf("persisted %v: %d classes", keep, got)
		}
	}
}

func TestCreateAndOpen(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	cfg := registry.CreateConfig{Instance: "DEV", Address: "registry.example", Algorithm: pki.P256, By: author}
	if err := registry.Create(dir, pin, cfg); !errors.Is(err, registry.ErrCreated) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := registry.Open(dir, []byte("wrong"), registry.Config{}); !errors.Is(err, pki.ErrWrongPIN) {
		t.Errorf("wrong PIN: %v", err)
	}
	if _, err := registry.Open(t.TempDir(), pin, registry.Config{}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := registry.Open(dir, pin, registry.Config{Store: &memStore{}}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("empty journal: %v", err)
	}
	for name, change := range map[string]func(*registry.CreateConfig){
		"no author":       func(c *registry.CreateConfig) { c.By = registry.Author{} },
		"no instance":     func(c *registry.CreateConfig) { c.Instance = "" },
		"bad instance":    func(c *registry.CreateConfig) { c.Instance = "A/B" },
		"quoted instance": func(c *registry.CreateConfig) { c.Instance = "A'B" },
		"no address":      func(c *registry.CreateConfig) { c.Address = "" },
		"bad address":     func(c *registry.CreateConfig) { c.Address = "http://registry.example" },
		"bad port":        func(c *registry.CreateConfig) { c.Address = "registry.example:0" },
	} {
		bad := cfg
		change(&bad)
		if err := registry.Create(filepath.Join(t.TempDir(), "r"), pin, bad); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	// Create fails after the keys were made; the next one uses them.
	again := filepath.Join(t.TempDir(), "r")
	store := &memStore{fail: errors.New("disk full")}
	cfg.Store = store
	if err := registry.Create(again, pin, cfg); !errors.Is(err, store.fail) {
		t.Fatal(err)
	}
	store.fail = nil
	if err := registry.Create(again, pin, cfg); err != nil {
		t.Fatal(err)
	}
	r := open(t, again, registry.Config{Store: store})
	if st := r.State(); st.Instance() != "DEV" || len(st.Keys(registry.Internal)) != 1 || !st.Keys(registry.External)[0].Active {
		t.Errorf("state %v", st.Keys(registry.Internal))
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, c := range []registry.Change{
		&registry.FoundInstance{Instance: "DEV"},
		&registry.AddMember{Member: memberID("DEV/GOV/1"), Name: "One"},
		&registry.RegisterClient{Server: serverID("DEV/GOV/1/S"), Client: clientID("DEV/GOV/1/a%2Fb")},
		&registry.SetCA{CA: registry.CA{Name: "CA", Intermediates: []registry.CertifiedCA{{}}}},
	} {
		f.Add(must(registry.EncodeEntry(&registry.Entry{Number: 1, Author: author, Change: c})))
	}
	f.Add([]byte(`{"previous":"` + strings.Repeat("0", 67) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := registry.DecodeEntry(b)
		if err != nil {
			return
		}
		canonical, err := registry.EncodeEntry(e)
		if err != nil {
			return // a year beyond 9999
		}
		back, err := registry.DecodeEntry(canonical)
		if err != nil {
			t.Fatalf("%s does not decode: %v", canonical, err)
		}
		if twice := must(registry.EncodeEntry(back)); !bytes.Equal(twice, canonical) {
			t.Fatalf("%s becomes %s", canonical, twice)
		}
		_, _ = registry.NewState(&registry.FoundInstance{Instance: "DEV"}, e.Change) // refuses or accepts, never panics
	})
}
