// SPDX-License-Identifier: Apache-2.0

//go:build unix

package roles_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/registry"
	"kontor/registry/postgres/pgtest"
)

// Two nodes from their configurations: the second joins, each has keys of its
// own, and both know what either accepts.
func TestRegistryNodes(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	dsn := server.DSN()
	node := func(name, address string) *config.Registry {
		dir := t.TempDir()
		cfg := &config.Registry{Instance: "DEV", Node: name, Address: address, DataDir: filepath.Join(dir, "data"), PINFile: filepath.Join(dir, "pin"), PublishInterval: time.Minute}
		cfg.Store.Postgres.DSN, cfg.Store.Postgres.PasswordFile = dsn, server.PasswordFile()
		return cfg
	}
	first, second := node("", "127.0.0.1:8001"), node("two", "127.0.0.2:8001")
	if err := roles.JoinRegistry(second, pki.P256, false); !errors.Is(err, registry.ErrNotFound) {
		t.Fatal("joined nothing:", err)
	}
	if err := roles.InitRegistry(second, pki.P256); err == nil || !strings.Contains(err.Error(), "--join") {
		t.Fatal("a further node created a registry:", err)
	}
	if err := roles.InitRegistry(first, pki.P256); err != nil {
		t.Fatal(err)
	}
	if err := roles.JoinRegistry(second, pki.P256, false); err != nil {
		t.Fatal(err)
	}
	if err := roles.JoinRegistry(&config.Registry{Node: "x", PINFile: second.PINFile}, pki.P256, false); err == nil || !strings.Contains(err.Error(), "store.postgres.dsn") {
		t.Error("joined without a database:", err)
	}
	if err := roles.MoveRegistry(&config.Registry{}); err == nil || !strings.Contains(err.Error(), "store.postgres.dsn") {
		t.Error("moved nowhere:", err)
	}
	if err := roles.MoveRegistry(first); !errors.Is(err, registry.ErrNotFound) {
		t.Error("moved twice:", err)
	}
	var nodes []*registry.Registry
	for _, cfg := range []*config.Registry{first, second} {
		r, err := roles.OpenRegistry(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		nodes = append(nodes, r)
	}
	if r, err := roles.OpenRegistry(second); err == nil {
		r.Close()
		t.Error("one node runs twice")
	}
	n, err := nodes[0].Apply(t.Context(), registry.Author{Who: "test"}, []registry.Change{&registry.SetMemberClass{Code: "GOV", Description: "Government"}})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); nodes[1].State().Number() != n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second node does not learn what the first accepted")
		}
	}
	if st := nodes[1].State(); len(st.Keys(registry.Internal)) != 2 || len(st.Nodes()) != 2 || nodes[1].Status().Node != "two" {
		t.Errorf("nodes %v, keys %v", st.Nodes(), st.Keys(registry.Internal))
	}
}
