// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kontor/config"
	"kontor/gateway/renewal"
	"kontor/pki"
	"kontor/pki/enrol"
)

func acmeDir(cfg *config.Gateway) string     { return filepath.Join(cfg.DataDir, "acme") }
func accountsDir(cfg *config.Gateway) string { return filepath.Join(acmeDir(cfg), "accounts") }

// challenges is where to answer challenges; empty: nowhere.
func challenges(cfg *config.Gateway) string {
	if len(cfg.ACME.Certificates) == 0 {
		return ""
	}
	return cfg.ACME.Listen
}

// newRenewals makes what renews the certificates of the configuration, and
// returns the ACME accounts, nil if there are none.
func newRenewals(cfg *config.Gateway, r renewal.Config) (*renewal.Service, *enrol.Accounts, error) {
	r.Server, r.Dir, r.DNSName, r.Country, r.RenewBefore = cfg.Server, acmeDir(cfg), cfg.ACME.DNSName, cfg.ACME.Country, cfg.ACME.RenewBefore
	for i, c := range cfg.ACME.Certificates {
		usage, err := pki.ParseUsage(c.Usage)
		if err != nil {
			return nil, nil, fmt.Errorf("acme.certificates: entry %d: %w", i+1, err)
		}
		credentials, err := enrol.ReadCredentials(c.Credentials)
		if err != nil {
			return nil, nil, fmt.Errorf("acme.certificates: entry %d: %w", i+1, err)
		}
		member := c.Member
		if member.IsZero() {
			member = cfg.Server.Owner()
		}
		r.Certificates = append(r.Certificates, renewal.Certificate{Usage: usage, Member: member, Profile: c.Profile, Credentials: *credentials})
	}
	// The PIN is common to token and accounts, also while no certificate comes
	// by ACME.
	_, err := os.Stat(accountsDir(cfg))
	if errors.Is(err, fs.ErrNotExist) && len(r.Certificates) == 0 {
		s, err := renewal.New(r)
		return s, nil, err
	}
	pin, err := Secret(cfg.PINFile, "pin_file")
	if err != nil {
		return nil, nil, err
	}
	if r.Accounts, err = enrol.OpenAccounts(accountsDir(cfg), pin); err != nil {
		return nil, nil, fmt.Errorf("keys of ACME accounts in %s: %w", accountsDir(cfg), err)
	}
	s, err := renewal.New(r)
	return s, r.Accounts, err
}

// followPIN gives the accounts a new PIN that the token has taken already, if a
// crash came in between.
func followPIN(dir string, old, next []byte) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := enrol.OpenAccounts(dir, next)
	if !errors.Is(err, pki.ErrWrongPIN) {
		return err
	}
	accounts, err := enrol.OpenAccounts(dir, old)
	if err != nil {
		return err
	}
	return accounts.ChangePIN(old, next)
}
