// SPDX-License-Identifier: Apache-2.0

package renewal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/globalconf"
)

// change is the change to one new certificate.
type change struct {
	hash pki.CertHash
	// everywhere is when no peer can have a valid global configuration any
	// more that does not list the certificate.
	everywhere time.Time

	// The registry is not asked again before next; failures are in a row.
	next     time.Time
	failures int
}

// ask asks the registry for something, unless that failed just now.
func (c *change) ask(e *entry, do func() error) error {
	now := e.cfg.Now()
	if now.Before(c.next) {
		return nil
	}
	err := do()
	if err == nil {
		c.next, c.failures = time.Time{}, 0
		return nil
	}
	c.next = now.Add(min(askAgain<<min(c.failures, 10), askAtLeast))
	c.failures++
	return err
}

// step does what can be done now to bring the newest certificate into use, and
// to end those that it has replaced.
func (c *change) step(ctx context.Context, e *entry, r *enrol.Renewer, view *globalconf.View, token Token) error {
	cert := r.Status().Certificate
	if cert == nil {
		return nil
	}
	taken := e.tookOver(e)
	if taken.Certificate == pki.HashOf(cert).Hex() {
		return c.unlist(ctx, e, taken, view, token)
	}
	if hash := pki.HashOf(cert); c.hash != hash {
		*c = change{hash: hash}
	}
	key, tc, ok := e.cfg.Token.Certificate(c.hash)
	if !ok {
		return nil
	}
	if e.Usage == pki.Authentication {
		if server, ok := view.ServerByCertificate(cert); !ok || server.ID != e.cfg.Server {
			c.everywhere = time.Time{}
			return c.register(ctx, e, tc, token)
		}
		if c.everywhere.IsZero() {
			c.everywhere = view.Expires()
		}
	}
	if !tc.Status.Active {
		if err := token.SetActive(c.hash, true, "renewed by ACME"); err != nil {
			return err
		}
	}
	var old []signer.KeyStatus
	usable, oldUsable := false, false
	for _, s := range e.cfg.Signer.Status() {
		hash, err := pki.ParseCertHash(s.Hash)
		if err != nil || s.Usage != e.Usage || !s.Active {
			continue
		}
		if hash == c.hash {
			usable = s.Usable
			continue
		}
		k, other, ok := e.cfg.Token.Certificate(hash)
		// What an operator got after it is his choice. An expired certificate
		// names no member any more, but its key is known.
		if !ok || other.Cert.NotBefore.After(cert.NotBefore) || e.Usage == pki.Signing && s.Member != e.Member && !r.Owns(k) {
			continue
		}
		old = append(old, s)
		oldUsable = oldUsable || s.Usable
	}
	if !usable {
		e.wait("waits until certificate " + c.hash.Hex()[:16] + " can be used, with a good OCSP response")
		return nil
	}
	if oldUsable && e.cfg.Now().Before(c.everywhere) {
		e.wait("waits until all peers know certificate " + c.hash.Hex()[:16] + ", at " + c.everywhere.UTC().Format(time.RFC3339))
		return nil
	}
	// What will be replaced is known before it is, also after a crash.
	if e.Usage == pki.Authentication && len(old) > 0 {
		if taken.Replaced == nil {
			taken.Replaced = map[string]time.Time{}
		}
		for _, s := range old {
			taken.Replaced[s.Hash] = e.cfg.Now()
		}
		if err := e.takeOver(e, taken); err != nil {
			return err
		}
	}
	for _, s := range old {
		hash, err := pki.ParseCertHash(s.Hash)
		if err == nil {
			err = token.SetActive(hash, false, "replaced by "+c.hash.Hex())
		}
		if err != nil {
			return fmt.Errorf("deactivate certificate %s: %w", s.Hash, err)
		}
	}
	taken.Certificate = c.hash.Hex()
	if err := e.takeOver(e, taken); err != nil {
		return err
	}
	e.cfg.Log.Info("new certificate in use", zap.String("usage", string(e.Usage)), zap.Stringer("member", e.Member), zap.String("key", key.ID()),
		zap.String("certificate", c.hash.Hex()), zap.Int("deactivated", len(old)))
	return nil
}

// register asks the registry to list the newest certificate, once, and says
// what is waited for.
func (c *change) register(ctx context.Context, e *entry, tc pki.TokenCert, token Token) error {
	short := c.hash.Hex()[:16]
	if tc.Status.State != pki.StateSaved {
		c.next, c.failures = time.Time{}, 0
		e.wait("waits until the registry lists certificate " + short)
		return nil
	}
	err := c.ask(e, func() error { return token.Register(ctx, c.hash, "renewed by ACME") })
	switch {
	case errors.Is(err, ErrDeclined):
		e.wait(err.Error() + "; see to that, then send a new request (kontor cert register " + short + ")")
		return nil
	case err != nil:
		return fmt.Errorf("certificate %s is not registered yet: %w", short, err)
	}
	return nil
}

// unlist asks the registry to remove what was replaced long enough ago. A
// certificate that an operator has activated again stays.
func (c *change) unlist(ctx context.Context, e *entry, taken takeover, view *globalconf.View, token Token) error {
	if len(taken.Replaced) == 0 {
		return nil
	}
	before := len(taken.Replaced)
	var failed error
	for text, since := range taken.Replaced {
		hash, err := pki.ParseCertHash(text)
		if err != nil {
			return err
		}
		_, tc, ok := e.cfg.Token.Certificate(hash)
		listed := false
		if ok {
			server, known := view.ServerByCertificate(tc.Cert)
			listed = known && server.ID == e.cfg.Server
		}
		switch {
		case !listed || tc.Status.Active:
			delete(taken.Replaced, text)
		case tc.Status.State == pki.StateDeletionInProgress || e.cfg.Now().Before(since.Add(keepListed)):
		default:
			failed = errors.Join(failed, c.ask(e, func() error { return token.Unregister(ctx, hash, "replaced by "+taken.Certificate) }))
		}
	}
	if len(taken.Replaced) < before {
		failed = errors.Join(failed, e.takeOver(e, taken))
	}
	return failed
}

// sweep removes keys of ours whose certificates have ended long ago.
func (e *entry) sweep(r *enrol.Renewer, view *globalconf.View, token Token) {
	for _, k := range e.cfg.Token.Keys() {
		if !r.Owns(k) || !ended(k, view, e.cfg.Now()) {
			continue
		}
		if err := token.RemoveKey(k.ID(), "its certificates ended long ago"); err != nil {
			e.cfg.Log.Warn("an old key could not be removed", zap.String("key", k.ID()), zap.Error(err))
		}
	}
}

// ended tells whether nobody needs a key any more. A key without certificates
// waits for one.
func ended(k *pki.Key, view *globalconf.View, now time.Time) bool {
	certs := k.Certificates()
	for _, tc := range certs {
		if _, listed := view.ServerByCertificate(tc.Cert); listed || tc.Status.Active || now.Before(tc.Cert.NotAfter.Add(keepKeys)) {
			return false
		}
	}
	return len(certs) > 0
}
