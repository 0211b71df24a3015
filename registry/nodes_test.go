// SPDX-License-Identifier: Apache-2.0

//go:build unix

package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
	"kontor/registry/postgres"
)

// classes are the codes of the member classes that a test has added.
func classes(st *registry.State) []string {
	var all []string
	for _, c := range st.MemberClasses() {
		all = append(all, c.Code)
	}
	return all
}

func addClass(ctx context.Context, r *registry.Registry, code string) error {
	_, err := r.Apply(ctx, author, []registry.Change{&registry.SetMemberClass{Code: code, Description: "class"}})
	return err
}

// The database is killed under two writing nodes, again and again. What was
// acknowledged is there, what was refused is not, and both nodes go on.
func TestDatabaseKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodes := []*registry.Registry{c.open(t, 0, registry.Config{}), c.open(t, 1, registry.Config{})}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	var accepted, refused, uncertain []string
	var writers sync.WaitGroup
	for i, r := range nodes {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				code := fmt.Sprintf("N%d-%d", i, n)
				err := addClass(context.WithoutCancel(ctx), r, code)
				mu.Lock()
				switch {
				case err == nil:
					accepted = append(accepted, code)
				case errors.Is(err, registry.ErrUncertain):
					uncertain = append(uncertain, code)
				default:
					if len(refused) == 0 {
						t.Log(err)
					}
					refused = append(refused, code)
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted)
	}
	for range 4 {
		before := count()
		eventually(t, "changes are accepted", func() bool { return count() > before+3 })
		time.Sleep(rand.N(20 * time.Millisecond))
		c.server.Kill()
		eventually(t, "a node without its database says so", func() bool {
			s := nodes[1].Status()
			return !s.Healthy && strings.Contains(s.Error, "database")
		})
		c.server.Run()
	}
	before := count()
	eventually(t, "changes are accepted", func() bool { return count() > before+3 })
	stop()
	writers.Wait()
	if err := nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	nodes[1] = c.open(t, 1, registry.Config{})
	have := classes(nodes[1].State())
	for _, code := range accepted {
		if !slices.Contains(have, code) {
			t.Errorf("%s was accepted and is lost", code)
		}
	}
	for _, code := range refused {
		if slices.Contains(have, code) {
			t.Errorf("%s was refused and is there", code)
		}
	}
	t.Logf("%d accepted, %d refused, %d uncertain", len(accepted), len(refused), len(uncertain))
	eventually(t, "the first node knows all", func() bool { return nodes[0].State().Number() == nodes[1].State().Number() })
	if describe(t, nodes[0].State()) != describe(t, nodes[1].State()) {
		t.Error("the nodes differ")
	}
}

// nodeProcess is the environment variable by which the test starts itself as a
// node that writes until it is killed.
const nodeProcess = "KONTOR_TEST_NODE"

func runNode(dsn string) int {
	dir, password := os.Args[1], os.Args[2]
	r, err := func() (*registry.Registry, error) {
		store, err := postgres.Open(context.Background(), postgres.Config{DSN: dsn, PasswordFile: password})
		if err != nil {
			return nil, err
		}
		return registry.Open(dir, pin, registry.Config{Store: store, Node: "two"})
	}()
	for n := 0; err == nil; n++ {
		code := fmt.Sprintf("P%d-%d", os.Getpid(), n)
		// Two entries, so that one half would show.
		_, err = r.Apply(context.Background(), author, []registry.Change{
			&registry.SetMemberClass{Code: code, Description: "class"}, &registry.SetMemberClass{Code: code + "B", Description: "class"}})
		if err == nil {
			fmt.Println(code)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// A node is killed in the middle of its work while the other one works on.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	r := c.open(t, 0, registry.Config{})
	var accepted []string
	for range 8 {
		child := exec.Command(os.Args[0], c.dirs[1], c.server.PasswordFile())
		child.Env = append(os.Environ(), nodeProcess+"="+c.dsn)
		child.Stderr = os.Stderr
		out := must(child.StdoutPipe())
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		seen := make(chan string, 1<<16)
		go func() {
			defer close(seen)
			for lines.Scan() {
				seen <- lines.Text()
			}
		}()
		first, ok := <-seen
		if !ok {
			t.Fatal("the node did not start:", child.Wait())
		}
		accepted = append(accepted, first)
		for n := range 3 { // beside it
			if err := addClass(t.Context(), r, fmt.Sprint("R", len(accepted), "-", n)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(rand.N(30 * time.Millisecond))
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for code := range seen {
			accepted = append(accepted, code)
		}
		child.Wait() //nolint:errcheck // it was killed
		// The survivor is not held up by what the other one left open.
		if err := addClass(t.Context(), r, fmt.Sprint("S", len(accepted))); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, code := range classes(c.open(t, 0, registry.Config{}).State()) {
		have[code] = true
	}
	for _, code := range accepted {
		if !have[code] {
			t.Errorf("%s was accepted and is lost", code)
		}
	}
	for code := range have {
		if strings.HasPrefix(code, "P") && !have[strings.TrimSuffix(code, "B")+"B"] {
			t.Errorf("%s is there by half", code)
		}
	}
	t.Logf("%d changes of killed nodes", len(accepted))
}

// site is the web server of a node, which can be switched off.
type site struct {
	address string
	server  *http.Server
}

// on serves at the address, or at a new one if there is none yet.
func (s *site) on(t *testing.T, h http.Handler) {
	t.Helper()
	if s.address == "" {
		s.address = "127.0.0.1:0"
	}
	l := must(net.Listen("tcp", s.address))
	s.address = l.Addr().String()
	s.server = &http.Server{Handler: h}
	go s.server.Serve(l) //nolint:errcheck // ends with off
	t.Cleanup(s.off)
}

func (s *site) off() { s.server.Close() }

// A gateway keeps up with the configuration while nodes come and go, whichever
// it asks and however their clocks differ.
func TestGatewayOutlivesNodes(t *testing.T) {
	t.Parallel()
	var sites [2]*site
	for i := range sites {
		sites[i] = new(site)
		sites[i].on(t, http.NotFoundHandler())
		sites[i].off()
	}
	c := newCluster(t, sites[1].address)
	clocks := []func() time.Time{time.Now, func() time.Time { return time.Now().Add(-20 * time.Second) }}
	nodes := []*registry.Registry{nil, nil}
	start := func(i int) {
		nodes[i] = c.open(t, i, registry.Config{Now: clocks[i]})
		sites[i].on(t, nodes[i].Handler())
	}
	stop := func(i int) {
		sites[i].off()
		if err := nodes[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	start(0)
	system := nodes[0].State().System()
	system.Address = sites[0].address
	if _, err := nodes[0].Apply(t.Context(), author, []registry.Change{&registry.SetSystem{System: system}}); err != nil {
		t.Fatal(err)
	}
	fill(t, nodes[0], ecosystem(newAuthority("Test CA")))
	start(1)
	both := func() {
		eventually(t, "the nodes agree", func() bool { return nodes[0].State().Number() == nodes[1].State().Number() })
	}
	both()
	publish(t, nodes[0])
	publish(t, nodes[1])

	// Every node is in the anchor and the shared parameters, with its own keys.
	doc := must(nodes[1].InternalAnchor())
	if !slices.Equal(doc, must(nodes[0].InternalAnchor())) {
		t.Error("the nodes give different anchors")
	}
	anchor := must(globalconf.ParseAnchor(doc))
	if len(anchor.Sources) != 2 || !strings.Contains(anchor.Sources[0].URL, sites[0].address) || !strings.Contains(anchor.Sources[1].URL, sites[1].address) ||
		slices.Equal(anchor.Sources[0].Certs[0], anchor.Sources[1].Certs[0]) {
		t.Errorf("sources %v", anchor.Sources)
	}
	if a, b := parts(files(t, c.dirs[0])), parts(files(t, c.dirs[1])); len(a) < 10 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the parts of the nodes differ: %d and %d", len(a), len(b))
	}

	gateway := must(globalconf.NewClient(globalconf.ClientConfig{Anchor: doc, Dir: t.TempDir()}))
	n := 0
	expect := func(by int, asked int) {
		t.Helper()
		n++
		name := fmt.Sprint("Name ", n)
		rename(t, nodes[by], name)
		publish(t, nodes[by])
		if err := gateway.Update(t.Context()); err != nil {
			t.Fatalf("change %d: %v", n, err)
		}
		if got := gateway.View().Name(memberID("DEV/GOV/1234").Client()); got != name {
			t.Fatalf("change %d: name %q", n, got)
		}
		if at := gateway.Stats().Location; asked >= 0 && !strings.Contains(at, sites[asked].address) {
			t.Fatalf("change %d: came from %s, not node %d", n, at, asked)
		}
	}
	if err := gateway.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stop(0)
		expect(1, 1)
		expect(1, 1)
		start(0)
		both()
		publish(t, nodes[0])
		stop(1)
		expect(0, 0)
		start(1)
		both()
		publish(t, nodes[1]) // nothing new, with the clock behind
		if err := gateway.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// It may ask either when both are there.
	for i := range 6 {
		rename(t, nodes[i%2], fmt.Sprint("Both ", i))
		both()
		publish(t, nodes[0])
		publish(t, nodes[1])
		for _, other := range sites {
			other.off()
			if err := gateway.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := gateway.View().Name(memberID("DEV/GOV/1234").Client()); got != fmt.Sprint("Both ", i) {
				t.Fatalf("name %q", got)
			}
			other.on(t, nodes[slices.Index(sites[:], other)].Handler())
		}
	}
	// A gateway with an anchor from before the second node learns of it.
	old := &globalconf.Anchor{Generated: anchor.Generated, Instance: anchor.Instance, Sources: anchor.Sources[:1]}
	late := must(globalconf.NewClient(globalconf.ClientConfig{Anchor: must(old.Marshal())}))
	if err := late.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(0)
	rename(t, nodes[1], "Late")
	publish(t, nodes[1])
	if err := late.Update(t.Context()); err != nil || late.View().Name(memberID("DEV/GOV/1234").Client()) != "Late" {
		t.Errorf("%v, from %s", err, late.Stats().Location)
	}
}

// Each node rotates its own keys; others may retire what does not sign any more.
func TestKeysOfNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a, b := c.open(t, 0, registry.Config{}), c.open(t, 1, registry.Config{})
	old := slices.IndexFunc(b.State().Keys(registry.Internal), func(k registry.SourceKey) bool { return k.Node == "two" })
	if old < 0 {
		t.Fatal("the second node has no key")
	}
	former := b.State().Keys(registry.Internal)[old]
	key, err := b.GenerateKey(t.Context(), author, registry.Internal, pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	activate := []registry.Change{&registry.ActivateKey{Source: registry.Internal, Key: key}}
	if _, err := a.Apply(t.Context(), author, activate); !errors.Is(err, registry.ErrUnknown) || !strings.Contains(err.Error(), "key of node two") {
		t.Error(err)
	}
	retire := []registry.Change{&registry.RetireKey{Source: registry.Internal, Key: former.Hash()}}
	if _, err := a.Apply(t.Context(), author, retire); !errors.Is(err, registry.ErrInUse) {
		t.Error(err)
	}
	if _, err := b.Apply(t.Context(), author, activate); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Apply(t.Context(), author, retire); err != nil {
		t.Fatal(err)
	} else {
		eventually(t, "the second node knows", func() bool { return b.State().Number() == n })
	}
	eventually(t, "the retired private key is gone", func() bool {
		return len(must(pki.OpenToken(filepath.Join(c.dirs[1], "keys"), pin)).Keys()) == 2
	})
	active := 0
	for _, k := range a.State().Keys(registry.Internal) {
		if k.Active {
			active++
		}
	}
	if active != 2 {
		t.Errorf("%d active keys for two nodes", active)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, bad := range []struct {
		node, address string
		replace       bool
		want          string
	}{
		{"two", "127.0.0.3:8001", false, "exists already"},
		{"three", "127.0.0.2:8001", false, "another node has the address"},
		{"three", "127.0.0.1:8001", false, "another node has the address"},
		{"", "127.0.0.3:8001", false, "needs a name"},
		{"", "127.0.0.2:8001", true, "that of node two"},
		{"a/b", "127.0.0.3:8001", false, "node"},
		{"three", "no host", false, "address"},
	} {
		var refusal *registry.Refusal
		if err := c.join(t, bad.node, bad.address, bad.replace); !errors.As(err, &refusal) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	// A machine is lost: the new one has the name and other keys.
	before := openKeys(t, c)
	if err := os.RemoveAll(c.dirs[1]); err != nil {
		t.Fatal(err)
	}
	if err := c.join(t, "two", "127.0.0.3:8001", true); err != nil {
		t.Fatal(err)
	}
	after := openKeys(t, c)
	if len(after) != len(before) || slices.Equal(after, before) {
		t.Errorf("keys before %v, after %v", before, after)
	}
	// Somebody who has not joined.
	store := openPostgres(t, c.server, c.dsn)
	if _, err := registry.Open(c.dirs[1], pin, registry.Config{Store: store, Node: "five"}); !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "join it first") {
		t.Error(err)
	}
	empty := openPostgres(t, c.server, c.server.DSN())
	err := registry.Join(filepath.Join(t.TempDir(), "x"), pin, registry.JoinConfig{Node: "x", Address: "127.0.0.4", By: author, Store: empty})
	if !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
	again := openPostgres(t, c.server, c.dsn)
	err = registry.Create(filepath.Join(t.TempDir(), "x"), pin, registry.CreateConfig{Instance: "DEV", Address: "127.0.0.4", By: author, Store: again})
	if !errors.Is(err, registry.ErrCreated) || !strings.Contains(err.Error(), "join") {
		t.Error(err)
	}
	// A node that was removed does not publish any more.
	a, b := c.open(t, 0, registry.Config{}), c.open(t, 1, registry.Config{})
	fill(t, a, ecosystem(newAuthority("Test CA")))
	n, err := a.Apply(t.Context(), author, []registry.Change{&registry.RemoveNode{Node: "two"}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second node knows", func() bool { return b.State().Number() == n })
	if err := b.Publish(t.Context()); err == nil {
		t.Error("a removed node publishes")
	}
	publish(t, a)
	if st := a.State(); len(st.Nodes()) != 1 || len(st.Keys(registry.Internal)) != 1 {
		t.Errorf("nodes %v", st.Nodes())
	}
}

func openKeys(t *testing.T, c *cluster) []registry.Hash {
	t.Helper()
	r := c.open(t, 0, registry.Config{})
	defer r.Close()
	var all []registry.Hash
	for _, k := range r.State().Keys(registry.External) {
		all = append(all, k.Hash())
	}
	return all
}

// What is in the database must be a journal that this program understands, and
// the one that it knew.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	schema := c.dsn[strings.LastIndex(c.dsn, "=")+1:]
	r := c.open(t, 0, registry.Config{})
	member := must(id.NewMember("DEV", "GOV", "1"))
	if _, err := r.Apply(t.Context(), author, []registry.Change{
		&registry.SetMemberClass{Code: "GOV", Description: "class"}, &registry.AddMember{Member: member, Name: "one"}}); err != nil {
		t.Fatal(err)
	}
	// Set back behind the registry's back, as by a restored dump.
	c.server.SQL(fmt.Sprintf(`BEGIN; DELETE FROM %s.kontor_journal WHERE number > 8; UPDATE %[1]s.kontor_head SET number = 8, head = convert_to('{"number":8,"hash":"' || encode(sha256((SELECT entry FROM %[1]s.kontor_journal WHERE number = 8)), 'hex') || '"}', 'UTF8'); COMMIT`, schema))
	if err := addClass(t.Context(), r, "X"); !errors.Is(err, registry.ErrJournal) || !strings.Contains(err.Error(), "set back") {
		t.Error(err)
	}
	eventually(t, "the status says so", func() bool { return strings.Contains(r.Status().Error, "set back") })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	c.server.SQL(fmt.Sprintf(`UPDATE %s.kontor_journal SET entry = overlay(entry placing '\x7e'::bytea from 200) WHERE number = 3`, schema))
	store := openPostgres(t, c.server, c.dsn)
	if _, err := registry.Open(c.dirs[0], pin, registry.Config{Store: store}); !errors.Is(err, registry.ErrJournal) {
		t.Error(err)
	}
	c.server.SQL(fmt.Sprintf(`UPDATE %s.kontor_schema SET version = 99`, schema))
	if s, err := postgres.Open(t.Context(), postgres.Config{DSN: c.dsn, PasswordFile: c.server.PasswordFile()}); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Error(s, err)
	}
}

// A registry of one node moves into a database as it is, once.
func TestMove(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	moved, other := openPostgres(t, c.server, c.dsn), openPostgres(t, c.server, c.dsn)
	if err := registry.Move(c.dirs[0], moved); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
	dir := newDir(t)
	if err := registry.Move(dir, other); !errors.Is(err, registry.ErrCreated) {
		t.Error(err)
	}
	r := open(t, dir, registry.Config{}) // nothing has happened to it
	want := describe(t, r.State())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	dsn := c.server.DSN()
	if err := registry.Move(dir, openPostgres(t, c.server, dsn)); err != nil {
		t.Fatal(err)
	}
	// Interrupted before the old journal was put aside.
	if err := os.Rename(filepath.Join(dir, "journal.moved"), filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	if err := registry.Move(dir, openPostgres(t, c.server, dsn)); err != nil {
		t.Fatal(err)
	}
	if got := describe(t, open(t, dir, registry.Config{Store: openPostgres(t, c.server, dsn)}).State()); got != want {
		t.Error("the state has changed on the way")
	}
	if _, err := registry.Open(dir, pin, registry.Config{}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the old journal is still used: %v", err)
	}
}
