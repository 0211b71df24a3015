// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/pki/enrol"
)

// Wherever a change of the PIN breaks off, the next start opens the token.
func TestPINChangeBreaksOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := &config.Gateway{DataDir: dir, PINFile: filepath.Join(dir, "pin")}
	write := func(name, pin string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(pin+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opens := func(when, want string) {
		t.Helper()
		if _, err := roles.OpenToken(cfg); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if pin, err := roles.Secret(cfg.PINFile, "pin"); err != nil || string(pin) != want {
			t.Errorf("%s: the file has %q, %v", when, pin, err)
		}
		if _, err := os.Stat(roles.NextPIN(cfg.PINFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the new PIN lies about: %v", when, err)
		}
	}
	token, err := pki.CreateToken(roles.TokenDir(cfg), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	write(cfg.PINFile, "one")
	opens("at first", "one")
	write(roles.NextPIN(cfg.PINFile), "two")
	opens("before the token has it", "one")
	write(roles.NextPIN(cfg.PINFile), "two")
	if err := token.ChangePIN([]byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	opens("before the file has it", "two")

	if err := roles.ChangePIN(token, nil, cfg.PINFile, []byte("wrong"), []byte("three")); !errors.Is(err, pki.ErrWrongPIN) {
		t.Error(err)
	}
	opens("after a wrong PIN", "two")
	if err := roles.ChangePIN(token, nil, cfg.PINFile, []byte("two"), []byte("three\nfour")); err == nil {
		t.Error("a PIN of two lines")
	}
	if err := roles.ChangePIN(token, nil, cfg.PINFile, []byte("two"), []byte("three")); err != nil {
		t.Error(err)
	}
	opens("changed", "three")
	write(cfg.PINFile, "other")
	if _, err := roles.OpenToken(cfg); !errors.Is(err, pki.ErrWrongPIN) {
		t.Error(err)
	}
	write(roles.NextPIN(cfg.PINFile), "another")
	if _, err := roles.OpenToken(cfg); !errors.Is(err, pki.ErrWrongPIN) {
		t.Error(err)
	}
}

// The keys of ACME accounts always have the PIN of the token.
func TestPINOfAccounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := &config.Gateway{DataDir: dir, PINFile: filepath.Join(dir, "pin")}
	one, two, three := []byte("one"), []byte("two"), []byte("three")
	if err := os.WriteFile(cfg.PINFile, one, 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := pki.CreateToken(roles.TokenDir(cfg), one)
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := enrol.OpenAccounts(roles.AccountsDir(cfg), one)
	if err != nil {
		t.Fatal(err)
	}
	if err := roles.ChangePIN(token, accounts, cfg.PINFile, one, two); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.OpenAccounts(roles.AccountsDir(cfg), two); err != nil {
		t.Errorf("after a change: %v", err)
	}
	// A change that breaks off between token and accounts.
	if err := os.WriteFile(roles.NextPIN(cfg.PINFile), three, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := token.ChangePIN(two, three); err != nil {
		t.Fatal(err)
	}
	if _, err := roles.OpenToken(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.OpenAccounts(roles.AccountsDir(cfg), three); err != nil {
		t.Errorf("after a crash: %v", err)
	}
}

func TestOneGatewayPerFolder(t *testing.T) {
	t.Parallel()
	cfg := &config.Gateway{DataDir: t.TempDir()}
	release, err := roles.HoldGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := roles.HoldGateway(cfg); !errors.Is(err, roles.ErrRunning) {
		t.Error(err)
	}
	if _, err := roles.ImportCertificates(cfg); !errors.Is(err, roles.ErrRunning) {
		t.Error(err)
	}
	release()
	again, err := roles.HoldGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
