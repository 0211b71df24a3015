// SPDX-License-Identifier: Apache-2.0

//go:build unix

package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/postgres"
	"kontor/registry/postgres/pgtest"
)

func openPostgres(t testing.TB, s *pgtest.Server, dsn string) *postgres.Store {
	t.Helper()
	return must(postgres.Open(t.Context(), postgres.Config{DSN: dsn, PasswordFile: s.PasswordFile()}))
}

// TestStores holds every store to the same contract.
func TestStores(t *testing.T) {
	t.Parallel()
	t.Run("pebble", func(t *testing.T) {
		mem := vfs.NewMem()
		testStore(t, func() registry.Store { return must(registry.OpenStore("journal", mem)) })
	})
	t.Run("postgres", func(t *testing.T) {
		server := pgtest.Start(t)
		dsn := server.DSN()
		testStore(t, func() registry.Store { return openPostgres(t, server, dsn) })
	})
}

func testStore(t *testing.T, reopen func() registry.Store) {
	s := reopen()
	scan := func(from uint64) (all []string) {
		t.Helper()
		if err := s.Scan(from, func(n uint64, e []byte) error {
			all = append(all, fmt.Sprintf("%d:%s", n, e))
			return nil
		}); err != nil {
			t.Error(err)
		}
		return all
	}
	check := func(head string, want ...string) {
		t.Helper()
		if got, err := s.Head(); err != nil || string(got) != head || (got == nil) != (head == "") {
			t.Errorf("head %q, %v; want %q", got, err, head)
		}
		if got := scan(0); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("entries %.200q, want %.200q", got, want)
		}
	}
	check("")
	entries := func(all ...string) (out [][]byte) {
		for _, e := range all {
			out = append(out, []byte(e))
		}
		return out
	}
	if err := s.Append([]byte("x"), 1, entries("a"), []byte("h1")); !errors.Is(err, registry.ErrMoved) {
		t.Errorf("append to a head that is not there: %v", err)
	}
	check("")
	if err := s.Append(nil, 1, entries("a", "b"), []byte("h2")); err != nil {
		t.Fatal(err)
	}
	check("h2", "1:a", "2:b")
	// Late ones are refused whole, and disturb nothing.
	for _, previous := range [][]byte{nil, {}, []byte("h1"), []byte("h22")} {
		if err := s.Append(previous, 3, entries("c", "d"), []byte("h4")); !errors.Is(err, registry.ErrMoved) {
			t.Errorf("after %q: %v", previous, err)
		}
	}
	check("h2", "1:a", "2:b")
	odd := "\x00\xff'\"\\ \n"
	if err := s.Append([]byte("h2"), 3, entries(odd), []byte(odd)); err != nil {
		t.Fatal(err)
	}
	check(odd, "1:a", "2:b", "3:"+odd)
	if got := scan(3); len(got) != 1 || got[0] != "3:"+odd {
		t.Errorf("from 3: %q", got)
	}
	if got := scan(4); got != nil {
		t.Errorf("from 4: %q", got)
	}
	stop := errors.New("stop")
	n := 0
	if err := s.Scan(1, func(uint64, []byte) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("scan went on: %d, %v", n, err)
	}
	// Many and large entries, and a scan beside an append.
	var many [][]byte
	for range 2000 {
		many = append(many, bytes.Repeat([]byte("x"), 3000))
	}
	if err := s.Append([]byte(odd), 4, many, []byte("h2003")); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(2, func(number uint64, _ []byte) error {
		if number == 2 {
			return s.Append([]byte("h2003"), 2004, entries("z"), []byte("h2004"))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	if got := scan(2003); len(got) != 2 || got[1] != "2004:z" {
		t.Errorf("after opening it again: %.100q", got)
	}
	if head, err := s.Head(); err != nil || string(head) != "h2004" {
		t.Errorf("head %q, %v", head, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// cluster is a registry of two nodes on one database.
type cluster struct {
	server *pgtest.Server
	dsn    string
	dirs   [2]string
}

// newCluster puts the registry that all tests copy into a database and joins a
// second node, at the given addresses.
func newCluster(t testing.TB, addresses ...string) *cluster {
	t.Helper()
	c := &cluster{server: pgtest.Start(t)}
	c.dsn, c.dirs = c.server.DSN(), [2]string{newDir(t), filepath.Join(t.TempDir(), "second")}
	if err := registry.Move(c.dirs[0], openPostgres(t, c.server, c.dsn)); err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.2:8001"
	if len(addresses) > 0 {
		address = addresses[0]
	}
	if err := c.join(t, "two", address, false); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) join(t testing.TB, node, address string, replace bool) error {
	dir := c.dirs[1]
	if node == "" {
		dir = c.dirs[0]
	}
	err := registry.Join(dir, pin, registry.JoinConfig{
		Node: node, Address: address, Replace: replace, Algorithm: pki.P256, By: author, Store: openPostgres(t, c.server, c.dsn)})
	if err != nil {
		return err
	}
	return cheapen(filepath.Join(dir, "keys"))
}

func (c *cluster) open(t testing.TB, node int, cfg registry.Config) *registry.Registry {
	t.Helper()
	cfg.Store, cfg.Node = openPostgres(t, c.server, c.dsn), []string{"", "two"}[node]
	return open(t, c.dirs[node], cfg)
}

// eventually waits for what another goroutine or process brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in a minute: " + what)
		}
	}
}

// One node sees what the other accepts, and refuses by it.
func TestNodesConverge(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a, b := c.open(t, 0, registry.Config{}), c.open(t, 1, registry.Config{})
	var slowest time.Duration
	for i := range 20 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		began := time.Now()
		n, err := from.Apply(t.Context(), author, []registry.Change{&registry.SetMemberClass{Code: fmt.Sprint("C", i), Description: "class"}})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other node knows entry", func() bool { return to.State().Number() == n })
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("slowest of 20 changes on both nodes after %s", slowest)
	if describe(t, a.State()) != describe(t, b.State()) {
		t.Error("the nodes differ")
	}
	// No waiting here: a node asks before it judges.
	for i := range 20 {
		code := fmt.Sprint("D", i)
		if _, err := a.Apply(t.Context(), author, []registry.Change{&registry.SetMemberClass{Code: code, Description: "class"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Apply(t.Context(), author, []registry.Change{&registry.DeleteMemberClass{Code: code}}); err != nil {
			t.Fatal(err)
		}
		var refusal *registry.Refusal
		_, err := a.Apply(t.Context(), author, []registry.Change{&registry.DeleteMemberClass{Code: code}})
		if !errors.As(err, &refusal) || !errors.Is(err, registry.ErrUnknown) {
			t.Fatal(err)
		}
	}
}

// Both nodes change the same thing at once: each change is made once, on top of
// the other, and one journal comes of it.
func TestNodesRace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodes := []*registry.Registry{c.open(t, 0, registry.Config{}), c.open(t, 1, registry.Config{})}
	const each = 20
	var writers sync.WaitGroup
	for _, r := range nodes {
		for range 2 {
			writers.Go(func() {
				for range each / 2 {
					_, err := r.Update(t.Context(), author, func(s *registry.State) ([]registry.Change, error) {
						text := "x"
						for _, c := range s.MemberClasses() {
							if c.Code == "NEW" {
								text = c.Description + "x"
							}
						}
						return []registry.Change{&registry.SetMemberClass{Code: "NEW", Description: text}, &registry.SetMemberClass{Code: "N2", Description: text}}, nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Wait()
	if err := nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	nodes[1] = c.open(t, 1, registry.Config{}) // reads all of the journal
	for _, r := range nodes {
		eventually(t, "all changes are there", func() bool { return r.State().Number() == nodes[1].State().Number() })
		for _, class := range r.State().MemberClasses() {
			if strings.HasPrefix(class.Code, "N") && len(class.Description) != 2*each {
				t.Errorf("%d of %d changes survived", len(class.Description), 2*each)
			}
		}
	}
}
