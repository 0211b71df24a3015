// SPDX-License-Identifier: Apache-2.0

package renewal

import (
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
}

// step does what can be done now to bring the newest certificate into use.
func (c *change) step(e *entry, r *enrol.Renewer, view *globalconf.View, token Token) error {
	cert := r.Status().Certificate
	if cert == nil || e.tookOver(e) == pki.HashOf(cert).Hex() {
		return nil
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
			e.wait("waits until the registry lists certificate " + c.hash.Hex()[:16] + "; have it registered, unless that was asked for already")
			return nil
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
	for _, s := range old {
		hash, err := pki.ParseCertHash(s.Hash)
		if err == nil {
			err = token.SetActive(hash, false, "replaced by "+c.hash.Hex())
		}
		if err != nil {
			return fmt.Errorf("deactivate certificate %s: %w", s.Hash, err)
		}
	}
	if err := e.takeOver(e, c.hash.Hex()); err != nil {
		return err
	}
	e.cfg.Log.Info("new certificate in use", zap.String("usage", string(e.Usage)), zap.Stringer("member", e.Member), zap.String("key", key.ID()),
		zap.String("certificate", c.hash.Hex()), zap.Int("deactivated", len(old)))
	return nil
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
