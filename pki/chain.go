// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors of VerifyChain.
var (
	// ErrNoAuthority: no approved authority bears the issuer's name.
	ErrNoAuthority = errors.New("no approved certification authority")
	// ErrExpired: a certificate of the path was past its validity.
	ErrExpired = errors.New("certificate expired")
	// ErrNotYetValid: a certificate of the path was not valid yet.
	ErrNotYetValid = errors.New("certificate not yet valid")
	// ErrBadChain: a signature, a constraint or an extension of the path is
	// wrong, or the path is too long.
	ErrBadChain = errors.New("certificate chain does not verify")
)

const (
	// maxPath bounds the certificates between leaf and anchor, both excluded.
	maxPath = 6
	// maxExtras bounds the certificates a peer may offer to build a path.
	maxExtras = 16
	// maxChecks bounds the signatures verified for one leaf, so that many
	// certificates of one name cannot keep a processor busy.
	maxChecks = 32
)

// Authority is an approved certification authority as the global configuration
// lists it, top or intermediate.
type Authority struct {
	Cert               *x509.Certificate
	Instance           string      // the instance that approves it
	Name               string      // the display name of its certification service
	Profile            Profile     // nil if the configured class is unknown
	AuthenticationOnly bool        // its certificates must not sign messages
	Responders         []Responder // OCSP responders in configured order
}

// Responder is an OCSP responder of an authority.
type Responder struct {
	URL  string
	Cert *x509.Certificate // nil if none is configured
}

// Trust names the approved authorities. Implementations are safe for concurrent
// use and do not change: one Trust judges one exchange.
type Trust interface {
	// Authorities returns the authorities whose certificate has exactly this
	// DER subject; several if names collide.
	Authorities(rawSubject []byte) []*Authority
}

// Chain is a verified path from a leaf to an approved authority.
type Chain struct {
	Certs   []*x509.Certificate // the leaf first, the anchor left out
	Issuers []*x509.Certificate // Issuers[i] issued Certs[i]; the last is the anchor
	Anchor  *Authority
}

// VerifyChain finds a path from leaf to an approved authority and verifies it
// as of the instant at. Extras are certificates that came with the leaf; they
// may serve as intermediates and are not trusted in themselves. An approved
// authority that issued the leaf directly is an anchor even if it is itself an
// intermediate, and the anchor's own dates are not judged: approval is.
//
// Whether the anchor is for authentication only, whether a certificate may sign
// and whether it was revoked is the caller's to judge. Errors are ErrExpired,
// ErrNotYetValid, ErrNoAuthority and ErrBadChain. Source: X-Road security
// architecture; RFC 5280, section 6, without policies and name constraints
// (certificates that demand them are refused).
func VerifyChain(leaf *x509.Certificate, extras []*x509.Certificate, trust Trust, at time.Time) (*Chain, error) {
	if len(extras) > maxExtras {
		return nil, fmt.Errorf("%w: %d certificates offered, at most %d considered", ErrBadChain, len(extras), maxExtras)
	}
	if err := checkCertificate(leaf, at); err != nil {
		return nil, err
	}
	p := path{extras: extras, trust: trust, at: at}
	if c := p.extend([]*x509.Certificate{leaf}); c != nil {
		return c, nil
	}
	if p.err != nil {
		return nil, p.err
	}
	return nil, fmt.Errorf("%w: %q issued by %q", ErrNoAuthority, leaf.Subject, leaf.Issuer)
}

// path is one search; err keeps the first reason why a candidate was refused.
type path struct {
	extras []*x509.Certificate
	trust  Trust
	at     time.Time
	checks int
	err    error
}

// extend looks for the issuer of the last of certs, anchors first, and returns
// the completed chain or nil.
func (p *path) extend(certs []*x509.Certificate) *Chain {
	last := certs[len(certs)-1]
	for _, a := range p.trust.Authorities(last.RawIssuer) {
		if !bytes.Equal(a.Cert.RawSubject, last.RawIssuer) || !p.issued(a.Cert, last, certs) {
			continue
		}
		c := &Chain{Certs: slices.Clone(certs), Anchor: a}
		c.Issuers = append(slices.Clone(certs[1:]), a.Cert)
		return c
	}
	if len(certs) > maxPath {
		p.refuse(fmt.Errorf("%w: more than %d intermediates", ErrBadChain, maxPath))
		return nil
	}
	for _, e := range p.extras {
		if !bytes.Equal(e.RawSubject, last.RawIssuer) || slices.ContainsFunc(certs, e.Equal) {
			continue
		}
		if err := checkCertificate(e, p.at); err != nil {
			p.refuse(err)
			continue
		}
		if !p.issued(e, last, certs) {
			continue
		}
		if c := p.extend(append(certs, e)); c != nil {
			return c
		}
	}
	return nil
}

// issued reports whether issuer may issue certificates and issued c, the last
// of certs.
func (p *path) issued(issuer, c *x509.Certificate, certs []*x509.Certificate) bool {
	if p.checks++; p.checks > maxChecks {
		p.refuse(fmt.Errorf("%w: too many candidates", ErrBadChain))
		return false
	}
	if !issuer.BasicConstraintsValid || !issuer.IsCA {
		p.refuse(fmt.Errorf("%w: %q is not a certification authority", ErrBadChain, issuer.Subject))
		return false
	}
	if issuer.MaxPathLen > 0 || issuer.MaxPathLenZero {
		if below := intermediates(certs); below > issuer.MaxPathLen {
			p.refuse(fmt.Errorf("%w: %q allows %d intermediates, not %d", ErrBadChain, issuer.Subject, issuer.MaxPathLen, below))
			return false
		}
	}
	if err := c.CheckSignatureFrom(issuer); err != nil { // refuses SHA-1 and missing keyCertSign
		p.refuse(fmt.Errorf("%w: %q by %q: %w", ErrBadChain, c.Subject, issuer.Subject, err))
		return false
	}
	return true
}

// intermediates counts the certificates after the leaf that are not self-issued
// (RFC 5280, 4.2.1.9).
func intermediates(certs []*x509.Certificate) int {
	n := 0
	for _, c := range certs[1:] {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			n++
		}
	}
	return n
}

func (p *path) refuse(err error) {
	if p.err == nil {
		p.err = err
	}
}

var (
	// understood are the extensions that may be critical: this package, or the
	// check of usages by its caller, acts on each of them.
	understood = []asn1.ObjectIdentifier{
		{2, 5, 29, 15}, // keyUsage
		{2, 5, 29, 17}, // subjectAltName
		{2, 5, 29, 19}, // basicConstraints
		{2, 5, 29, 32}, // certificatePolicies
		{2, 5, 29, 37}, // extKeyUsage
	}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// checkCertificate judges one certificate alone: dates and extensions.
func checkCertificate(c *x509.Certificate, at time.Time) error {
	if at.Before(c.NotBefore) {
		return fmt.Errorf("%w: %q before %s", ErrNotYetValid, c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	if at.After(c.NotAfter) {
		return fmt.Errorf("%w: %q on %s", ErrExpired, c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, e := range c.Extensions {
		if e.Critical && !slices.ContainsFunc(understood, e.Id.Equal) {
			return fmt.Errorf("%w: %q has the unknown critical extension %v", ErrBadChain, c.Subject, e.Id)
		}
		// Ignoring even a non-critical one would accept names the issuer of
		// this intermediate meant to exclude.
		if e.Id.Equal(oidNameConstraints) {
			return fmt.Errorf("%w: %q has name constraints, which are not supported", ErrBadChain, c.Subject)
		}
	}
	return nil
}
