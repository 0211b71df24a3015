// SPDX-License-Identifier: Apache-2.0

// Package ca is a small certification authority for ecosystems that have none:
// it issues authentication and signing certificates to security servers,
// answers OCSP requests about them and runs a time-stamping service.
//
// The issuing core is step-ca's authority, embedded: keys in its software key
// manager, no configuration file, no network. Everything the authority must
// remember lives in one directory:
//
//	ca.pem ca.key      the self-signed certificate and its key
//	ocsp.pem ocsp.key  the delegated OCSP responder
//	tsa.pem tsa.key    the time-stamping authority
//	db/                every certificate issued, with its status; the state of ACME
//
// Keys are PKCS#8, encrypted with the passphrase.
package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.uber.org/zap"

	"kontor/pki"
)

var (
	// ErrExists says that the directory already holds an authority.
	ErrExists = errors.New("a certification authority exists here already")
	// ErrNotFound says that the directory holds no authority.
	ErrNotFound = errors.New("no certification authority here")
	// ErrPassphrase says that the passphrase does not open the keys.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrRequest says that a certificate request was refused; the error's text says why.
	ErrRequest = errors.New("certificate request refused")
	// ErrUnknownSerial says that the authority never issued such a certificate.
	ErrUnknownSerial = errors.New("no certificate with this serial number was issued here")
	// ErrRevoked says that the certificate is revoked already.
	ErrRevoked = errors.New("certificate is revoked already")
	// ErrReason says that a revocation reason is not one of RFC 5280, 5.3.1 that can be given here.
	ErrReason = errors.New("revocation reason not allowed")
)

const (
	defaultValidity = 2 * 365 * 24 * time.Hour
	// backdate covers clocks of relying parties that run behind ours.
	backdate = 5 * time.Minute
)

// Config is what Open needs beside the directory.
type Config struct {
	// OCSPURL is written into issued certificates as their OCSP responder
	// (authority information access). Empty: relying parties learn the
	// responder from the global configuration alone.
	OCSPURL string
	// Validity of issued certificates; zero means two years. The authority's
	// own certificate bounds it.
	Validity time.Duration
	// OCSPValidity is how long an OCSP answer may be used; zero means an hour.
	OCSPValidity time.Duration
	// TSAPolicy is the policy under which time-stamps are made; nil means
	// anyPolicy (RFC 5280, 4.2.1.4), that is, none in particular.
	TSAPolicy asn1.ObjectIdentifier
	// ACME, if not nil, lets Handler issue certificates by RFC 8555.
	ACME *ACME
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives what an operator should act upon; nil discards it.
	Log *zap.Logger
}

// CA is an open certification authority. It is safe for concurrent use.
type CA struct {
	cfg       Config
	cert      *x509.Certificate
	ocsp      identity
	tsa       identity
	authority *authority.Authority
	records   *records

	acme *acmeServer // nil: off

	revoking sync.Mutex // makes read, change and write of one record a unit
	binding  sync.Mutex // likewise for bindings
}

// identity is a certificate with its key.
type identity struct {
	cert   *x509.Certificate
	signer crypto.Signer
}

// Open opens the authority that Create made in dir. Only one process can have
// it open.
func Open(dir string, pass []byte, cfg Config) (*CA, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Validity == 0 {
		cfg.Validity = defaultValidity
	}
	if cfg.OCSPValidity == 0 {
		cfg.OCSPValidity = time.Hour
	}
	if cfg.TSAPolicy == nil {
		cfg.TSAPolicy = asn1.ObjectIdentifier{2, 5, 29, 32, 0}
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ids, err := loadIdentities(dir, pass)
	if err != nil {
		return nil, fmt.Errorf("open certification authority %s: %w", dir, err)
	}
	recs, err := openRecords(filepath.Join(dir, dbDir), cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("open certification authority %s: %w", dir, err)
	}
	c := &CA{cfg: cfg, cert: ids.ca.cert, ocsp: ids.ocsp, tsa: ids.tsa, records: recs}
	if c.authority, err = embed(ids.ca, authority.WithDatabase(revocations{c})); err == nil && cfg.ACME != nil {
		c.acme, err = newACMEServer(c, *cfg.ACME)
	}
	if err := errors.Join(err, new(c.responder()).Check(), new(c.stamper()).Check()); err != nil {
		return nil, errors.Join(fmt.Errorf("open certification authority %s: %w", dir, err), recs.Close())
	}
	return c, nil
}

func (cfg Config) validate() error {
	if cfg.Validity < 0 || cfg.OCSPValidity < 0 {
		return errors.New("ca: a validity cannot be negative")
	}
	if cfg.ACME != nil {
		if err := cfg.ACME.validate(); err != nil {
			return err
		}
	}
	if cfg.OCSPURL == "" {
		return nil
	}
	u, err := url.Parse(cfg.OCSPURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("ca: OCSP address %q is not an http(s) URL", cfg.OCSPURL)
	}
	return nil
}

// embed builds step-ca's authority around one key, without files or network.
func embed(id identity, more ...authority.Option) (*authority.Authority, error) {
	keys, err := softkms.New(context.Background(), apiv1.Options{Type: apiv1.SoftKMS})
	if err != nil {
		return nil, err
	}
	return authority.NewEmbedded(append([]authority.Option{
		authority.WithConfig(&config.Config{}),
		authority.WithKeyManager(keys),
		authority.WithX509RootCerts(id.cert),
		authority.WithX509Signer(id.cert, id.signer),
		authority.WithQuietInit(),
	}, more...)...)
}

// Close releases the directory. Handlers of the authority must not be used any more.
func (c *CA) Close() error { return c.records.Close() }

// Certificate is the authority's self-signed certificate.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// OCSPCertificate is the delegated responder's certificate.
func (c *CA) OCSPCertificate() *x509.Certificate { return c.ocsp.cert }

// TSACertificate is the time-stamping authority's certificate.
func (c *CA) TSACertificate() *x509.Certificate { return c.tsa.cert }

// Record is what the authority remembers of one certificate.
type Record struct {
	Certificate *x509.Certificate
	Usage       pki.Usage // empty for the authority's own: OCSP, time-stamping, its server
	Issued      time.Time
	Revoked     time.Time // zero: not revoked
	Reason      int       // RFC 5280, 5.3.1; meaningful if revoked
}

// Get returns the record of the certificate with this serial number, or
// ErrUnknownSerial.
func (c *CA) Get(ctx context.Context, serial *big.Int) (*Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.records.get(serial)
}

// List returns every certificate issued, in order of serial number.
func (c *CA) List(ctx context.Context) ([]*Record, error) {
	return c.records.list(ctx)
}

// Revoke marks a certificate as revoked, durably, from now on. reason is the
// code of RFC 5280, 5.3.1; a hold cannot be given, since X-Road has no notion
// of a certificate that comes back.
func (c *CA) Revoke(ctx context.Context, serial *big.Int, reason int) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.revoking.Lock()
	defer c.revoking.Unlock()
	rec, err := c.records.get(serial)
	if err != nil {
		return fmt.Errorf("revoke %x: %w", serial, err)
	}
	if !rec.Revoked.IsZero() {
		return fmt.Errorf("revoke %x: %w", serial, ErrRevoked)
	}
	rec.Revoked, rec.Reason = c.cfg.Now().UTC().Truncate(time.Second), reason
	if err := c.records.put(rec); err != nil {
		return fmt.Errorf("revoke %x: %w", serial, err)
	}
	return nil
}

func checkReason(reason int) error {
	switch reason {
	case 0, 1, 3, 4, 5, 9:
		return nil
	}
	return fmt.Errorf("%w: %d; use 0 (unspecified), 1 (key compromise), 3 (affiliation changed), 4 (superseded), 5 (cessation of operation) or 9 (privilege withdrawn)", ErrReason, reason)
}
