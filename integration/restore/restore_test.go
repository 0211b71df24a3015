// SPDX-License-Identifier: Apache-2.0

// Package restore_test restores backups on blank folders and has what came back
// do its work.
package restore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/cmd/archive"
	"kontor/cmd/roles"
	"kontor/config"
	"kontor/integration/testnet"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

type backup struct {
	t        *testing.T
	dir      string
	config   string
	passFile string
	file     string
}

func newBackup(t *testing.T) *backup {
	t.Helper()
	dir := t.TempDir()
	b := &backup{t, dir, filepath.Join(dir, "role.yaml"), filepath.Join(dir, "pass"), filepath.Join(dir, "role.backup")}
	for file, text := range map[string]string{b.config: "# this one\n", b.passFile: "a long passphrase\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// refusedWhileRunning checks that nothing is written while the role runs.
func (b *backup) refusedWhileRunning(set *roles.BackupSet) {
	b.t.Helper()
	if err := roles.Backup(set, b.file, b.passFile, time.Now); err == nil || !strings.Contains(err.Error(), "stop it") {
		b.t.Errorf("backup of a running %s: %v", set.Role, err)
	}
	if _, err := os.Lstat(b.file); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("a refused backup leaves a file: %v", err)
	}
}

// cycle backs a set up, destroys all of it, and restores it.
func (b *backup) cycle(set *roles.BackupSet) {
	b.t.Helper()
	if err := roles.Backup(set, b.file, b.passFile, time.Now); err != nil {
		b.t.Fatal(err)
	}
	if err := roles.Backup(set, b.file, b.passFile, time.Now); err == nil {
		b.t.Error("a backup was overwritten")
	}
	contents, done := b.open(set.Role)
	if err := roles.Restore(contents, set); !errors.Is(err, archive.ErrNotEmpty) {
		b.t.Errorf("restored over data: %v", err)
	}
	done()
	if err := os.RemoveAll(set.DataDir); err != nil {
		b.t.Fatal(err)
	}
	for _, f := range set.Files {
		if err := os.RemoveAll(f.Path); err != nil {
			b.t.Fatal(err)
		}
	}
	contents, done = b.open(set.Role)
	defer done()
	other := *set
	other.ID = "another"
	if err := roles.Restore(contents, &other); err == nil || !strings.Contains(err.Error(), "backup of") {
		b.t.Errorf("restored to another: %v", err)
	}
	if err := roles.Restore(contents, set); err != nil {
		b.t.Fatal(err)
	}
	if text, err := os.ReadFile(b.config); err != nil || string(text) != "# this one\n" {
		b.t.Errorf("configuration file: %q, %v", text, err)
	}
}

func (b *backup) open(role string) (*archive.Contents, func()) {
	b.t.Helper()
	if _, _, err := roles.OpenBackup(b.file, b.passFile, "another role"); err == nil {
		b.t.Error("a backup of another role opens")
	}
	contents, done, err := roles.OpenBackup(b.file, b.passFile, role)
	if err != nil {
		b.t.Fatal(err)
	}
	return contents, func() { done() }
}

// A gateway comes back with keys, rights and evidence, and exchanges messages.
func TestGateway(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	call := func() *testnet.Result {
		t.Helper()
		res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons)+"/1", nil)
		if res.Err != nil || res.Status != http.StatusOK {
			t.Fatalf("%+v %s", res, res.Body)
		}
		return res
	}
	before := call()
	n.Proofs(n.A, testnet.Portal, before.ID) // stamped
	b := newBackup(t)
	set := roles.GatewayBackup(b.config, &n.A.Cfg)
	b.refusedWhileRunning(set)
	n.A.Stop()
	b.cycle(set)
	n.A.Restart(nil)
	for _, id := range []string{before.ID, call().ID} {
		if proofs := n.Proofs(n.A, testnet.Portal, id); len(proofs) != 2 {
			t.Errorf("%d proofs of %s", len(proofs), id)
		}
	}
}

// A registry comes back with its journal and keys, and publishes what gateways
// with the old anchor take.
func TestRegistry(t *testing.T) {
	t.Parallel()
	b := newBackup(t)
	var handler http.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	defer front.Close()
	cfg := &config.Registry{Instance: "DEV", DataDir: filepath.Join(b.dir, "data"), PINFile: filepath.Join(b.dir, "pin"), Address: front.Listener.Addr().String()}
	if err := roles.InitRegistry(cfg, pki.P256); err != nil {
		t.Fatal(err)
	}
	open := func() *registry.Registry {
		t.Helper()
		r, err := roles.OpenRegistry(cfg)
		if err != nil {
			t.Fatal(err)
		}
		handler = r.Handler()
		return r
	}
	r := open()
	provider, err := id.ParseClient("DEV/GOV/1/management")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := registry.Plan(r.State(), &registry.Ecosystem{Instance: "DEV",
		Settings:      &registry.Settings{ManagementProvider: &provider},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}},
		Members:       []registry.MemberDecl{{Class: "GOV", Code: "1", Name: "First", Subsystems: []registry.SubsystemDecl{{Code: "management"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), registry.Author{Who: "test"}, changes); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	anchor, err := r.InternalAnchor()
	if err != nil {
		t.Fatal(err)
	}
	number := r.State().Number()
	set := roles.RegistryBackup(b.config, cfg)
	b.refusedWhileRunning(set)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	b.cycle(set)

	r = open()
	defer r.Close()
	if r.State().Number() != number {
		t.Errorf("entry %d, want %d", r.State().Number(), number)
	}
	if err := r.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: anchor})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := client.View().Name(provider.Member().Client()); got != "First" {
		t.Errorf("name %q", got)
	}
}

// An authority comes back knowing what it issued, and issues more.
func TestTrust(t *testing.T) {
	t.Parallel()
	b := newBackup(t)
	cfg := &config.Trust{DataDir: filepath.Join(b.dir, "data"), PassphraseFile: filepath.Join(b.dir, "ca.pass"), URL: "http://127.0.0.1:1"}
	if _, err := roles.InitTrust(cfg, "CA", "DEV", pki.P256); err != nil {
		t.Fatal(err)
	}
	open := func() *ca.CA {
		t.Helper()
		a, err := roles.OpenTrust(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	issue := func(a *ca.CA) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "holder"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Issue(context.Background(), csr, ca.Request{Usage: pki.Signing}); err != nil {
			t.Fatal(err)
		}
	}
	a := open()
	issue(a)
	before, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set := roles.TrustBackup(b.config, cfg)
	b.refusedWhileRunning(set)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b.cycle(set)
	a = open()
	defer a.Close()
	issue(a)
	if all, err := a.List(t.Context()); err != nil || len(all) != len(before)+1 {
		t.Errorf("%d certificates, %d before, %v", len(all), len(before), err)
	}
}

// What is wrong with a passphrase is said before anything is touched.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	b := newBackup(t)
	set := &roles.BackupSet{Role: "gateway", ID: "x", DataDir: t.TempDir()}
	for _, tc := range []struct {
		text string
		mode os.FileMode
		want string
	}{{"short", 0o600, "longer"}, {"", 0o600, "empty"}, {"a long passphrase", 0o644, "chmod 600"}} {
		file := filepath.Join(t.TempDir(), "pass")
		if err := os.WriteFile(file, []byte(tc.text), tc.mode); err != nil {
			t.Fatal(err)
		}
		if err := roles.Backup(set, b.file, file, time.Now); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v", tc.text, err)
		}
	}
	if err := roles.Backup(set, b.file, b.passFile, time.Now); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("another passphrase"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := roles.OpenBackup(b.file, other, "gateway"); !errors.Is(err, archive.ErrSealed) {
		t.Errorf("another passphrase: %v", err)
	}
}
