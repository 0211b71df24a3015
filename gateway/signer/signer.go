// SPDX-License-Identifier: Apache-2.0

// Package signer signs messages for the members that a security server
// serves, gives the server its TLS identity, and keeps the OCSP responses
// fresh without which neither is worth anything.
//
// A key is usable for a member if its certificate is active and registered,
// names the member, lies inside its validity, leads to an approved authority,
// and has an OCSP response that says "good" and is fresh. The first such key
// in token order is used (X-Road security server architecture).
//
// Responses are fetched in the background by [Signer.Run]; the last good one
// per certificate is kept on disk, so that a restart while the OCSP responder
// is down costs nothing within the response's freshness.
package signer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// Errors of Sign and Auth. They wrap why each candidate was passed over.
var (
	// ErrNoKey: no key of the token may sign for the member now.
	ErrNoKey = errors.New("no usable signing key")
	// ErrNoAuthKey: no authentication certificate is active and registered for
	// this security server.
	ErrNoAuthKey = errors.New("no usable authentication key")
	// ErrNoOCSP: the authentication certificate has no good and fresh OCSP
	// response.
	ErrNoOCSP = errors.New("no valid OCSP response")
	// ErrNoView: there is no global configuration to judge by.
	ErrNoView = errors.New("no global configuration")
)

const (
	// recheck bounds how long a choice of key is kept, so that a change to the
	// token takes effect soon although nobody announces it.
	recheck = 5 * time.Second
	// fetchPatience bounds how long Sign waits for a first OCSP response: the
	// caller's own client is waiting, too.
	fetchPatience = 10 * time.Second
	// fetchPause keeps Sign from asking a failing responder once per message.
	fetchPause = 5 * time.Second
	// maxClimb bounds the intermediates above an anchor that are presented.
	maxClimb = 6
)

// Config holds what a Signer needs.
type Config struct {
	Token  *pki.Token
	OCSP   *ocsp.Client
	View   func() *globalconf.View // the newest; may return nil
	Server id.SecurityServer
	// Dir is the folder for the last good OCSP responses; it is made if
	// missing. Empty: none are kept.
	Dir string
	// Batching says when messages share a signature; empty means Auto.
	Batching Batching
	// FetchInterval overrides the interval of the global configuration.
	FetchInterval time.Duration
	Now           func() time.Time // nil: time.Now
	Log           *zap.Logger      // nil: nothing is logged
}

// Signer is safe for concurrent use. Signatures are made in parallel.
type Signer struct {
	token    *pki.Token
	client   *ocsp.Client
	view     func() *globalconf.View
	server   id.SecurityServer
	dir      string
	interval time.Duration
	batching Batching
	now      func() time.Time
	log      *zap.Logger
	flights  singleflight.Group // of fetches, by certificate
	counts   counts

	mu        sync.RWMutex
	chosen    choices
	responses map[pki.CertHash]*response
	failures  map[pki.CertHash]failure
	names     map[string]pki.CertHash // of own certificates, by SHA-1 and SHA-256 in hex
	own       map[pki.CertHash]link
}

// choices are the outcomes of choosing keys under one global configuration.
type choices struct {
	generation string
	members    map[id.Member]*credentials
	auth       *identity
}

// credentials is a chosen signing key. It serves until the given instant.
type credentials struct {
	xades *xades.Credentials
	press *press
	until time.Time
}

type identity struct {
	AuthIdentity
	until time.Time
}

// AuthIdentity is who this security server is towards its peers.
type AuthIdentity struct {
	// Certificate holds the authentication certificate and the intermediates
	// above it that have OCSP responses; the root is left out.
	Certificate tls.Certificate
	// OCSP holds one DER response per certificate, in the same order.
	OCSP [][]byte
}

// link is a certificate and its issuer.
type link struct{ cert, issuer *x509.Certificate }

// New returns a signer and loads the OCSP responses kept in cfg.Dir.
func New(cfg Config) (*Signer, error) {
	if cfg.Token == nil || cfg.OCSP == nil || cfg.View == nil {
		return nil, errors.New("signer: incomplete configuration")
	}
	s := &Signer{
		token: cfg.Token, client: cfg.OCSP, view: cfg.View, server: cfg.Server, dir: cfg.Dir,
		interval: cfg.FetchInterval, batching: cfg.Batching, now: cfg.Now, log: cfg.Log,
		responses: map[pki.CertHash]*response{}, failures: map[pki.CertHash]failure{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("load OCSP responses: %w", err)
	}
	return s, nil
}

// Sign signs one message for a member: its digest alone if that is all, else a
// hash chain over the message and its attachments in order, and over the other
// messages that waited for the same key (see Batching). If no OCSP response
// is there yet it fetches one, for at most 10 s. The error is ErrNoKey, or what
// the key or ctx gave.
func (s *Signer) Sign(ctx context.Context, view *globalconf.View, member id.Member, message asic.Digest, attachments []asic.Digest) (*asic.Evidence, error) {
	if view == nil {
		return nil, ErrNoView
	}
	c, err := s.credentials(ctx, view, member)
	if err != nil {
		return nil, err
	}
	j := &job{evidence: &asic.Evidence{Message: message, Attachments: attachments}}
	c.press.sign(c.xades, j, s.now)
	if j.err != nil {
		return nil, fmt.Errorf("sign for %s: %w", member, j.err)
	}
	return j.evidence, nil
}

// credentials returns what to sign with for a member, from the cache if it
// still serves.
func (s *Signer) credentials(ctx context.Context, view *globalconf.View, member id.Member) (*credentials, error) {
	at := s.now()
	s.mu.RLock()
	var known *credentials
	if s.chosen.generation == view.Generation() {
		known = s.chosen.members[member]
	}
	s.mu.RUnlock()
	if known != nil && at.Before(known.until) {
		return known, nil
	}
	c, err := s.choose(ctx, view, member, at, false)
	if err != nil {
		// Nothing usable as it is: what a fetch can mend is fetched.
		c, err = s.choose(ctx, view, member, at, true)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known != nil && sameCredentials(known.xades, c.xades) {
		c.xades = known.xades // which holds prepared pieces of the document
		c.press = known.press
	}
	if cache := s.cache(view); cache != nil {
		cache.members[member] = c
	}
	return c, nil
}

// cache returns the choices under view, or nil if view is an old one that is
// not worth remembering. s.mu is held for writing.
func (s *Signer) cache(view *globalconf.View) *choices {
	generation := view.Generation()
	if s.chosen.generation != generation {
		if newest := s.view(); newest == nil || newest.Generation() != generation {
			return nil
		}
		s.chosen = choices{generation: generation, members: map[id.Member]*credentials{}}
	}
	return &s.chosen
}

func sameCredentials(a, b *xades.Credentials) bool {
	return a.Cert.Equal(b.Cert) && slices.EqualFunc(a.OCSP, b.OCSP, slices.Equal)
}

// choose finds the first usable signing key of a member in token order.
func (s *Signer) choose(ctx context.Context, view *globalconf.View, member id.Member, at time.Time, fetch bool) (*credentials, error) {
	var reasons []error
	for _, key := range s.token.Keys() {
		if key.Usage() != pki.Signing {
			continue
		}
		for _, tc := range key.Certificates() {
			if !tc.Status.Active || tc.Status.State != pki.StateRegistered {
				continue
			}
			chain, err := signingChain(tc.Cert, view, member, at)
			if errors.Is(err, errOtherMember) {
				continue
			}
			var p *presented
			if err == nil {
				p, err = s.present(ctx, view, chain, at, fetch)
			}
			if err != nil {
				reasons = append(reasons, fmt.Errorf("key %s, certificate %s: %w", key.ID(), pki.HashOf(tc.Cert).Hex(), err))
				continue
			}
			return &credentials{
				xades: &xades.Credentials{Key: key.Signer(), Cert: tc.Cert, Intermediates: p.certs[1:], OCSP: p.ocsp},
				press: &press{batching: s.batching, counts: &s.counts},
				until: p.until,
			}, nil
		}
	}
	if len(reasons) == 0 {
		return nil, fmt.Errorf("%w for %s: no active, registered certificate names it", ErrNoKey, member)
	}
	return nil, fmt.Errorf("%w for %s: %w", ErrNoKey, member, errors.Join(reasons...))
}

var (
	errOtherMember = errors.New("the certificate belongs to another member")
	errAuthOnly    = errors.New("the authority is approved for authentication only")
	errProfile     = errors.New("the authority's certificate profile is not known")
)

// signingChain verifies a signing certificate and that it names the member.
func signingChain(c *x509.Certificate, view *globalconf.View, member id.Member, at time.Time) (*pki.Chain, error) {
	chain, err := pki.VerifyChain(c, nil, view, at)
	if err != nil {
		return nil, err
	}
	switch {
	case chain.Anchor.AuthenticationOnly:
		return nil, errAuthOnly
	case chain.Anchor.Profile == nil:
		return nil, errProfile
	}
	named, err := chain.Anchor.Profile.Member(c, view.Instance())
	if err != nil {
		return nil, err
	}
	if named != member {
		return nil, errOtherMember
	}
	return chain, nil
}

// Auth returns this server's TLS identity under view: the first active
// authentication certificate, in token order, that view registers for this
// server and that has a good OCSP response. The value stays the same pointer
// while nothing changes; it must not be modified. Errors: ErrNoView,
// ErrNoAuthKey, ErrNoOCSP.
func (s *Signer) Auth(view *globalconf.View) (*AuthIdentity, error) {
	if view == nil {
		return nil, ErrNoView
	}
	at := s.now()
	s.mu.RLock()
	var known *identity
	if s.chosen.generation == view.Generation() {
		known = s.chosen.auth
	}
	s.mu.RUnlock()
	if known != nil && at.Before(known.until) {
		return &known.AuthIdentity, nil
	}
	fresh, err := s.chooseAuth(view, at)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cache := s.cache(view); cache != nil {
		if old := cache.auth; old != nil && old.same(fresh) {
			old.until = fresh.until
			return &old.AuthIdentity, nil
		}
		cache.auth = fresh
	}
	return &fresh.AuthIdentity, nil
}

func (i *identity) same(o *identity) bool {
	return slices.EqualFunc(i.Certificate.Certificate, o.Certificate.Certificate, slices.Equal) &&
		slices.EqualFunc(i.OCSP, o.OCSP, slices.Equal)
}

func (s *Signer) chooseAuth(view *globalconf.View, at time.Time) (*identity, error) {
	result := ErrNoAuthKey
	var reasons []error
	for _, key := range s.token.Keys() {
		if key.Usage() != pki.Authentication {
			continue
		}
		for _, tc := range key.Certificates() {
			if !tc.Status.Active {
				continue
			}
			p, err := s.authCertificate(view, tc.Cert, at)
			if err != nil {
				if errors.Is(err, ErrNoOCSP) {
					result = ErrNoOCSP
				}
				reasons = append(reasons, fmt.Errorf("key %s, certificate %s: %w", key.ID(), pki.HashOf(tc.Cert).Hex(), err))
				continue
			}
			i := &identity{until: p.until}
			i.OCSP = p.ocsp
			i.Certificate = tls.Certificate{PrivateKey: key.Signer(), Leaf: tc.Cert}
			for _, c := range p.certs {
				i.Certificate.Certificate = append(i.Certificate.Certificate, c.Raw)
			}
			return i, nil
		}
	}
	if len(reasons) == 0 {
		return nil, fmt.Errorf("%w: no authentication certificate is active", ErrNoAuthKey)
	}
	return nil, fmt.Errorf("%w: %w", result, errors.Join(reasons...))
}

func (s *Signer) authCertificate(view *globalconf.View, c *x509.Certificate, at time.Time) (*presented, error) {
	server, ok := view.ServerByCertificate(c)
	switch {
	case !ok:
		return nil, errors.New("not registered for any security server")
	case server.ID != s.server:
		return nil, fmt.Errorf("registered for another security server, %s", server.ID)
	}
	chain, err := pki.VerifyChain(c, nil, view, at)
	if err != nil {
		return nil, err
	}
	p, err := s.present(context.Background(), view, chain, at, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoOCSP, err)
	}
	return p, nil
}

// presented is what a peer is shown of a certificate: it, the intermediates
// above it, and an OCSP response for each.
type presented struct {
	certs []*x509.Certificate
	ocsp  [][]byte
	until time.Time
}

// present collects the certificates and responses to show. Those up to the
// anchor must be there; an anchor that is itself an intermediate, and what is
// above it, are shown as X-Road does, as far as there are responses.
func (s *Signer) present(ctx context.Context, view *globalconf.View, chain *pki.Chain, at time.Time, fetch bool) (*presented, error) {
	p := &presented{until: at.Add(recheck)}
	for i, l := range climb(chain, view) {
		der, until, err := s.good(view, l, at)
		if err != nil && fetch && i < len(chain.Certs) {
			if e := s.fetchSoon(ctx, view, l, at); e != nil {
				err = fmt.Errorf("%w; %w", err, e)
			} else {
				der, until, err = s.good(view, l, at)
			}
		}
		if err != nil {
			if i < len(chain.Certs) {
				return nil, err
			}
			break
		}
		p.certs = append(p.certs, l.cert)
		p.ocsp = append(p.ocsp, der)
		p.until = earliest(p.until, until, l.cert.NotAfter)
	}
	return p, nil
}

// climb returns the certificates of a chain and the intermediates above its
// anchor, root excluded, each with its issuer.
func climb(chain *pki.Chain, trust pki.Trust) []link {
	var links []link
	for i, c := range chain.Certs {
		links = append(links, link{c, chain.Issuers[i]})
	}
	top := chain.Anchor.Cert
	for range maxClimb {
		if string(top.RawIssuer) == string(top.RawSubject) {
			break
		}
		above := slices.IndexFunc(trust.Authorities(top.RawIssuer), func(a *pki.Authority) bool {
			return top.CheckSignatureFrom(a.Cert) == nil
		})
		if above < 0 {
			break
		}
		issuer := trust.Authorities(top.RawIssuer)[above].Cert
		links = append(links, link{top, issuer})
		top = issuer
	}
	return links
}

func earliest(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.Before(t) {
			t = o
		}
	}
	return t
}
