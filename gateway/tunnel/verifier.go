// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

const (
	// maxResponses bounds the OCSP responses that come with one message.
	maxResponses = 16
	// maxVerdicts bounds the memory that peers can make us use.
	maxVerdicts = 10_000
)

// Peer is an authenticated security server.
type Peer struct {
	Server *globalconf.Server
	Cert   *x509.Certificate // its authentication certificate
}

// VerifierConfig configures a PeerVerifier. The zero value is useful.
type VerifierConfig struct {
	Now func() time.Time // nil: time.Now
}

// PeerVerifier decides who a peer is. It remembers verdicts per certificate,
// for a minute at most, and while the global configuration stays the same and
// the OCSP responses stay fresh; what a peer sent in one direction serves in
// the other. It is safe for concurrent use.
type PeerVerifier struct {
	now func() time.Time

	mu       sync.RWMutex
	verdicts map[verdictKey]*verdict
}

// verdict says that a certificate was good: under one global configuration, by
// these responses.
type verdict struct {
	generation string // of the View
	extras     []*x509.Certificate
	responses  [][]byte
	until      time.Time
	stale      time.Time // when the responses go stale
}

// NewVerifier makes a verifier without verdicts.
func NewVerifier(cfg VerifierConfig) *PeerVerifier {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &PeerVerifier{now: cfg.Now, verdicts: map[verdictKey]*verdict{}}
}

// Verify authenticates the security server that presented chain (its
// certificate first, as TLS gives it) with the OCSP responses it sent: its
// certificate is for authentication, leads to an approved authority, is not
// revoked, and view registers it for a server that has the client need. The
// error is ErrPeer, and the cause.
func (v *PeerVerifier) Verify(_ context.Context, view *globalconf.View, chain []*x509.Certificate, responses [][]byte, need id.Client) (Peer, error) {
	if len(responses) > maxResponses {
		return Peer{}, refuse(fmt.Errorf("%w: %d responses", ocsp.ErrMalformed, len(responses)))
	}
	p, err := v.registered(view, chain, need)
	if err != nil {
		return Peer{}, err
	}
	at := v.now()
	if known := v.known(p); known != nil && known.serves(view, chain, at) && known.by(responses) {
		return p, nil
	}
	path, err := pki.VerifyChain(p.Cert, chain[1:], view, at)
	if err != nil {
		return Peer{}, refuse(err)
	}
	if err := v.judge(view, p, chain, path, responses, at); err != nil {
		return Peer{}, refuse(err)
	}
	return p, nil
}

// verifyHandshake authenticates whoever opens a connection over QUIC, before it
// costs us more: its certificate is registered for some security server, leads
// to an approved authority and is not revoked by the response that came with
// it. For what client it may speak shows with each message, and so do the
// responses about authorities above it.
func (v *PeerVerifier) verifyHandshake(view *globalconf.View, chain []*x509.Certificate, staple []byte) error {
	if len(chain) == 0 {
		return refuse(errors.New("no certificate presented"))
	}
	server, ok := view.ServerByCertificate(chain[0])
	switch {
	case !ok:
		return refuse(errors.New("certificate is not registered for any security server"))
	case !pki.IsAuthCert(chain[0]):
		return refuse(errors.New("certificate is not for authentication"))
	case len(staple) == 0:
		return refuse(fmt.Errorf("%w: none came with the handshake", ocsp.ErrUnavailable))
	}
	p, at := Peer{Server: server, Cert: chain[0]}, v.now()
	path, err := pki.VerifyChain(p.Cert, chain[1:], view, at)
	if err != nil {
		return refuse(err)
	}
	if len(path.Certs) == 1 { // then that is all there is to know
		err = v.judge(view, p, chain, path, [][]byte{staple}, at)
	} else {
		_, err = status(view, p, p.Cert, path.Issuers[0], [][]byte{staple}, at, view.OCSPPolicy())
	}
	if err != nil {
		return refuse(err)
	}
	return nil
}

// verifyFetching is Verify for whoever has no responses yet: those of an
// earlier verdict serve while they are fresh, then one that came with the
// handshake, if any, and fetch gets others.
func (v *PeerVerifier) verifyFetching(ctx context.Context, view *globalconf.View, chain []*x509.Certificate, staple []byte, need id.Client,
	fetch func(context.Context, []*x509.Certificate) ([][]byte, error),
) (Peer, error) {
	p, err := v.registered(view, chain, need)
	if err != nil {
		return Peer{}, err
	}
	at := v.now()
	known := v.known(p)
	if known != nil && known.serves(view, chain, at) {
		return p, nil
	}
	path, err := pki.VerifyChain(p.Cert, chain[1:], view, at)
	if err != nil {
		return Peer{}, refuse(err)
	}
	if known != nil && at.Before(known.stale) && v.judge(view, p, chain, path, known.responses, at) == nil {
		return p, nil
	}
	if len(staple) > 0 && v.judge(view, p, chain, path, [][]byte{staple}, at) == nil {
		return p, nil
	}
	responses, err := fetch(ctx, path.Certs)
	if err != nil {
		return Peer{}, refuse(err)
	}
	if err := v.judge(view, p, chain, path, responses, v.now()); err != nil {
		return Peer{}, refuse(err)
	}
	return p, nil
}

// registered finds the server that a certificate is registered for. It costs
// little and depends on need, so it is done for every request.
func (v *PeerVerifier) registered(view *globalconf.View, chain []*x509.Certificate, need id.Client) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, refuse(errors.New("no certificate presented"))
	}
	server, ok := view.ServerIn(need.Instance(), chain[0])
	if !ok { // then it can only be refused: another instance does not speak for need
		server, ok = view.ServerByCertificate(chain[0])
	}
	switch {
	case !ok:
		return Peer{}, refuse(fmt.Errorf("certificate of %q is not registered for any security server", chain[0].Subject))
	case !view.Registered(server.ID, need):
		return Peer{}, refuse(fmt.Errorf("client %s is not registered at security server %s", need, server.ID))
	case !pki.IsAuthCert(chain[0]):
		return Peer{}, refuse(fmt.Errorf("certificate of security server %s is not for authentication", server.ID))
	}
	return Peer{Server: server, Cert: chain[0]}, nil
}

// judge checks that every certificate of a verified path is good by one of the
// responses, and remembers the verdict.
func (v *PeerVerifier) judge(view *globalconf.View, p Peer, chain []*x509.Certificate, path *pki.Chain, responses [][]byte, at time.Time) error {
	policy := view.OCSPPolicy()
	w := &verdict{generation: view.Generation(), extras: chain[1:], responses: responses, until: at.Add(verdictLifetime)}
	for i, c := range path.Certs {
		r, err := status(view, p, c, path.Issuers[i], responses, at, policy)
		if err != nil {
			return err
		}
		until := freshUntil(r, policy)
		if i == 0 || until.Before(w.stale) {
			w.stale = until
		}
		if c.NotAfter.Before(w.until) {
			w.until = c.NotAfter
		}
	}
	if w.stale.Before(w.until) {
		w.until = w.stale
	}
	v.remember(p, w)
	return nil
}

// status finds the response that is about c. The first such decides.
func status(view *globalconf.View, p Peer, c, issuer *x509.Certificate, responses [][]byte, at time.Time, policy ocsp.Policy) (*ocsp.Response, error) {
	responders := view.OCSPResponders(p.Server.ID.Owner().Instance(), issuer)
	for _, der := range responses {
		r, err := ocsp.Verify(der, c, issuer, responders, at, policy)
		if errors.Is(err, ocsp.ErrMismatch) {
			continue
		}
		return r, err
	}
	return nil, fmt.Errorf("%w: no response about the certificate of %q", ocsp.ErrUnavailable, c.Subject)
}

// freshUntil returns the instant at which a response goes stale.
func freshUntil(r *ocsp.Response, p ocsp.Policy) time.Time {
	freshness := p.Freshness
	if freshness <= 0 {
		freshness = ocsp.DefaultFreshness
	}
	until := r.ThisUpdate.Add(freshness)
	if !p.IgnoreNextUpdate && !r.NextUpdate.IsZero() && r.NextUpdate.Before(until) {
		until = r.NextUpdate
	}
	return until
}

func (v *PeerVerifier) known(p Peer) *verdict {
	key := keyOf(p)
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.verdicts[key]
}

// serves tells whether a verdict still holds for what the peer presents now.
func (w *verdict) serves(view *globalconf.View, chain []*x509.Certificate, at time.Time) bool {
	return w.generation == view.Generation() && at.Before(w.until) &&
		slices.EqualFunc(w.extras, chain[1:], (*x509.Certificate).Equal)
}

// by tells whether these responses led to the verdict.
func (w *verdict) by(responses [][]byte) bool {
	return slices.EqualFunc(w.responses, responses, bytes.Equal)
}

func (v *PeerVerifier) remember(p Peer, w *verdict) {
	key := keyOf(p)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verdicts) >= maxVerdicts {
		for h := range v.verdicts { // any will do: it is made again when needed
			delete(v.verdicts, h)
			break
		}
	}
	v.verdicts[key] = w
}

// verdictKey is what a verdict is about: a certificate by the word of one
// instance.
type verdictKey struct {
	instance string
	cert     pki.CertHash
}

func keyOf(p Peer) verdictKey { return verdictKey{p.Server.ID.Owner().Instance(), pki.HashOf(p.Cert)} }

// refuse marks an error as the peer's.
func refuse(cause error) error { return fmt.Errorf("%w: %w", ErrPeer, cause) }
