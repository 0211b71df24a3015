// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kontor/config"
	"kontor/gateway/admin"
	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/guard"
)

// Hashes of the API keys, the key of commands on this machine, and the audit
// log.
func adminTokens(cfg *config.Gateway) string  { return filepath.Join(cfg.DataDir, "admin-keys.json") }
func AdminKeyFile(cfg *config.Gateway) string { return filepath.Join(cfg.DataDir, "admin.key") }
func AuditFile(cfg *config.Gateway) string    { return filepath.Join(cfg.DataDir, "audit.jsonl") }

// newAdmin opens what the administration API needs beside what is given.
func newAdmin(cfg *config.Gateway, accounts *enrol.Accounts, a admin.Config) (*admin.API, error) {
	keys, err := guard.LoadKeys(adminTokens(cfg), admin.Roles()...)
	if errors.Is(err, fs.ErrNotExist) { // an operator who has lost all keys has removed the file
		if err := newAdminKey(cfg); err != nil {
			return nil, err
		}
		keys, err = guard.LoadKeys(adminTokens(cfg), admin.Roles()...)
	}
	if err != nil {
		return nil, err
	}
	audit, err := guard.OpenAudit(AuditFile(cfg))
	if err != nil {
		return nil, err
	}
	a.Server, a.APIKeys, a.Audit, a.Requests = cfg.Server, keys, audit, filepath.Join(cfg.DataDir, "requests")
	a.ChangePIN = func(old, new []byte) error { return changePIN(a.Token, accounts, cfg.PINFile, old, new) }
	return admin.New(a)
}

// newAdminKey makes the first API key, for commands on this machine.
func newAdminKey(cfg *config.Gateway) error {
	key, err := guard.CreateKeys(adminTokens(cfg), "local", admin.RoleSystemAdministrator)
	if err != nil {
		return err
	}
	return guard.WriteFile(AdminKeyFile(cfg), []byte(key+"\n"))
}

// ErrRunning says that the gateway of a data directory runs, so that only it
// may change what is there.
var ErrRunning = errors.New("the gateway is running")

// holdGateway keeps others from changing a data directory until release.
func holdGateway(cfg *config.Gateway) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(cfg.DataDir, "gateway.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	held, err := tryLock(f)
	if err == nil && !held {
		err = ErrRunning
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// nextPIN is where a new PIN waits until the token has it.
func nextPIN(file string) string { return file + ".new" }

// changePIN changes the PIN of the token, of the ACME accounts if there are any,
// and of the file. The new PIN is on disk
// before the token needs it: openToken finds it there after a crash.
func changePIN(token *pki.Token, accounts *enrol.Accounts, file string, old, new []byte) error {
	if bytes.ContainsAny(new, "\r\n") {
		return errors.New("a PIN is one line")
	}
	if err := guard.WriteFile(nextPIN(file), append(bytes.Clone(new), '\n')); err != nil {
		return fmt.Errorf("pin_file: %w", err)
	}
	if err := token.ChangePIN(old, new); err != nil {
		if errors.Is(err, pki.ErrWrongPIN) {
			return errors.Join(err, os.Remove(nextPIN(file)))
		}
		return err // the token may still have taken it: openToken will see
	}
	if accounts != nil {
		if err := accounts.ChangePIN(old, new); err != nil {
			return fmt.Errorf("the token has the new PIN, but the keys of ACME accounts have not; restart the gateway, which mends it: %w", err)
		}
	}
	return finishPIN(file)
}

func finishPIN(file string) error {
	b, err := os.ReadFile(nextPIN(file))
	if err != nil {
		return err
	}
	if err := guard.WriteFile(file, b); err != nil {
		return fmt.Errorf("the token has the new PIN, which stands in %s, but pin_file could not be written: %w", nextPIN(file), err)
	}
	return os.Remove(nextPIN(file))
}

// openToken opens the token with the PIN of its file, or with the one that an
// interrupted change has left beside it.
func openToken(cfg *config.Gateway) (*pki.Token, error) {
	pin, err := Secret(cfg.PINFile, "pin_file")
	if err != nil {
		return nil, err
	}
	token, err := pki.OpenToken(tokenDir(cfg), pin)
	if !errors.Is(err, pki.ErrWrongPIN) {
		if err == nil {
			if e := os.Remove(nextPIN(cfg.PINFile)); e != nil && !errors.Is(e, fs.ErrNotExist) {
				return nil, e
			}
		}
		return token, err
	}
	next, e := Secret(nextPIN(cfg.PINFile), "pin_file")
	if e != nil {
		return nil, err
	}
	if token, e = pki.OpenToken(tokenDir(cfg), next); e != nil {
		return nil, err
	}
	if err := followPIN(accountsDir(cfg), pin, next); err != nil {
		return nil, fmt.Errorf("keys of ACME accounts in %s: %w", accountsDir(cfg), err)
	}
	return token, finishPIN(cfg.PINFile)
}
