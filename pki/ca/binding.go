// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"kontor/pki"
	"kontor/registry/id"
)

var (
	// ErrBinding says that an external account binding cannot be made as described.
	ErrBinding = errors.New("external account binding refused")
	// ErrUnknownBinding says that there is no external account binding with this key identifier.
	ErrUnknownBinding = errors.New("no external account binding with this key identifier")
)

// Binding is a promise to an applicant known to the operator (RFC 8555, 7.3.4):
// whoever proves to hold its key becomes an ACME account that gets certificates
// of one usage for one member, and nothing else.
type Binding struct {
	KID        string            `json:"kid"`
	Usage      pki.Usage         `json:"usage"`
	Member     id.Member         `json:"member"`
	Server     id.SecurityServer `json:"server,omitzero"` // needed for authentication, and for signing by some profiles
	MemberName string            `json:"member_name,omitempty"`
	Country    string            `json:"country,omitempty"`
	// DNSNames are the only names that certificates may carry; empty: any
	// that the applicant controls.
	DNSNames []string  `json:"dns_names,omitempty"`
	Created  time.Time `json:"created"`
	Bound    time.Time `json:"bound,omitzero"` // when the account was made; zero: not used yet
	Account  string    `json:"account,omitempty"`
}

// storedBinding is a Binding with its key, which is forgotten once it has done
// its duty.
type storedBinding struct {
	Binding
	MACKey []byte `json:"mac_key,omitempty"`
}

// subject is the distinguished name of the certificates under b.
func (b *Binding) subject(profile pki.Profile, dnsName string) ([]byte, error) {
	p := pki.SubjectParams{Server: b.Server, Member: b.Member, MemberName: b.MemberName, DNSName: dnsName, Country: b.Country}
	if b.Usage == pki.Authentication {
		return profile.AuthSubject(p)
	}
	return profile.SignSubject(p)
}

// AddBinding makes a binding from the description in b, durably, and returns it
// with its key. KID, dates and account are not the caller's to choose. What the
// authority's certificate profile could not make a subject of is ErrBinding.
func (c *CA) AddBinding(ctx context.Context, b Binding) (*Binding, []byte, error) {
	refuse := func(format string, args ...any) (*Binding, []byte, error) {
		return nil, nil, fmt.Errorf("%w: %w", ErrBinding, fmt.Errorf(format, args...))
	}
	if c.acme == nil {
		return refuse("ACME is off; turn it on in the configuration")
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	switch {
	case b.Usage != pki.Authentication && b.Usage != pki.Signing:
		return refuse("usage %q is neither authentication nor signing", b.Usage)
	case b.Member.IsZero():
		return refuse("name the member")
	case b.Usage == pki.Authentication && b.Server.IsZero():
		return refuse("an authentication certificate is for a security server; name it")
	case b.Usage == pki.Authentication && b.Server.Owner() != b.Member:
		return refuse("security server %s is owned by %s, not by %s", b.Server, b.Server.Owner(), b.Member)
	}
	for _, name := range b.DNSNames {
		if !validDNSName(name) {
			return refuse("%q is not a DNS name", name)
		}
	}
	// The name in the certificate is known only when an order comes.
	if _, err := b.subject(c.acme.profile, "name.invalid"); err != nil {
		return refuse("%w; give what is missing", err)
	}
	b.KID, b.Created, b.Bound, b.Account = rand.Text(), c.cfg.Now().UTC().Truncate(time.Second), time.Time{}, ""
	b.DNSNames = slices.Clone(b.DNSNames)
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, nil, err
	}
	c.binding.Lock()
	defer c.binding.Unlock()
	if err := c.putBinding(&storedBinding{b, key}); err != nil {
		return nil, nil, fmt.Errorf("record external account binding: %w", err)
	}
	return &b, key, nil
}

// Bindings returns all bindings, in order of key identifier.
func (c *CA) Bindings(ctx context.Context) ([]*Binding, error) {
	var all []*Binding
	err := c.records.store.Scan(bindingPrefix, func(value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := decodeBinding(value)
		if err != nil {
			return err
		}
		all = append(all, &b.Binding)
		return nil
	})
	return all, err
}

// DeleteBinding ends a binding, durably: its account gets no certificates any
// more. Those that it got are not revoked.
func (c *CA) DeleteBinding(ctx context.Context, kid string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.binding.Lock()
	defer c.binding.Unlock()
	if _, err := c.getBinding(kid); err != nil {
		return err
	}
	return c.records.store.Delete(bindingKey(kid))
}

// bind gives the binding to an account, durably: once only.
func (c *CA) bind(kid, account string) error {
	c.binding.Lock()
	defer c.binding.Unlock()
	b, err := c.getBinding(kid)
	if err != nil {
		return err
	}
	if b.Account == account {
		return nil
	}
	if !b.Bound.IsZero() {
		return fmt.Errorf("%w: it has an account already", ErrBinding)
	}
	// The account leads to the binding before the binding confirms it: what a
	// crash leaves behind in between means nothing.
	if err := c.records.store.Set(accountKey(account), []byte(kid)); err != nil {
		return err
	}
	b.Account, b.Bound, b.MACKey = account, c.cfg.Now().UTC().Truncate(time.Second), nil
	return c.putBinding(b)
}

// bindingOf returns the binding of an account, or ErrUnknownBinding.
func (c *CA) bindingOf(account string) (*Binding, error) {
	kid, err := c.records.store.Get(accountKey(account))
	if errors.Is(err, errNoKey) {
		return nil, ErrUnknownBinding
	}
	if err != nil {
		return nil, err
	}
	b, err := c.getBinding(string(kid))
	if err != nil {
		return nil, err
	}
	if b.Account != account {
		return nil, ErrUnknownBinding
	}
	return &b.Binding, nil
}

func bindingKey(kid string) []byte     { return append([]byte{bindingPrefix}, kid...) }
func accountKey(account string) []byte { return append([]byte{accountPrefix}, account...) }

func (c *CA) putBinding(b *storedBinding) error {
	value, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return c.records.store.Set(bindingKey(b.KID), value)
}

func (c *CA) getBinding(kid string) (*storedBinding, error) {
	value, err := c.records.store.Get(bindingKey(kid))
	if errors.Is(err, errNoKey) {
		return nil, ErrUnknownBinding
	}
	if err != nil {
		return nil, err
	}
	return decodeBinding(value)
}

func decodeBinding(value []byte) (*storedBinding, error) {
	b := new(storedBinding)
	if err := json.Unmarshal(value, b); err != nil {
		return nil, fmt.Errorf("stored external account binding: %w", err)
	}
	return b, nil
}
