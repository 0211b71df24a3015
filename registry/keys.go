// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"go.uber.org/zap"

	"kontor/pki"
)

// GenerateKey makes a further signing key for a source and makes it known to
// clients: the first step of a rotation. Clients read the new certificate from
// the shared parameters; when all have (two minutes at default intervals), the
// key can be activated (ActivateKey) and the old one retired (RetireKey). An
// empty algorithm means RSA-3072.
func (r *Registry) GenerateKey(ctx context.Context, by Author, src Source, alg pki.Algorithm) (Hash, error) {
	if src != Internal && src != External {
		return Hash{}, fmt.Errorf("there is no source %q; use internal or external", src)
	}
	if alg == "" {
		alg = pki.RSA3072
	}
	cert, err := newSourceKey(r.token, src, alg)
	if err != nil {
		return Hash{}, err
	}
	if _, err := r.Apply(ctx, by, []Change{&AddKey{src, cert, r.cfg.Node}}); err != nil {
		if key := tokenKey(r.token, cert); key != nil {
			err = errors.Join(err, r.token.RemoveKey(key.ID()))
		}
		return Hash{}, err
	}
	return hashOf(cert), nil
}

// newSourceKey makes a key in the token and its certificate, which is only a
// container for the public key; it has the form that X-Road's own central
// server gives it.
func newSourceKey(token *pki.Token, src Source, alg pki.Algorithm) ([]byte, error) {
	key, err := token.Generate(string(src)+"SigningKey", pki.Signing, alg)
	if err != nil {
		return nil, fmt.Errorf("make %s signing key: %w", src, err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: string(src) + "SigningKey"},
		NotBefore:             time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2038, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageContentCommitment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SignatureAlgorithm:    x509.SHA512WithRSA,
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		template.SignatureAlgorithm = x509.ECDSAWithSHA512
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.Signer())
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s signing key: %w", src, err)
	}
	return der, nil
}

// tokenKey finds the key of a certificate, or nil.
func tokenKey(token *pki.Token, der []byte) *pki.Key {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	for _, key := range token.Keys() {
		if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && pub.Equal(cert.PublicKey) {
			return key
		}
	}
	return nil
}

// checkKeys refuses to activate a key that this registry does not hold: it
// could not publish any more.
func (r *Registry) checkKeys(next *State, changes []Change) error {
	for _, c := range changes {
		a, ok := c.(*ActivateKey)
		if !ok {
			continue
		}
		k := next.key(a.Source, a.Key)
		if k != nil && k.Node != r.cfg.Node {
			return refuse(c, ErrUnknown, "it is a key of "+nodeName(k.Node), "activate it there, where its private key can be seen to exist")
		}
		if k != nil && tokenKey(r.token, k.Certificate) == nil {
			return refuse(c, ErrUnknown, "the registry does not hold the private key", "generate a key here")
		}
	}
	return nil
}

// nodeName says a node's name for people.
func nodeName(name string) string {
	if name == "" {
		return "the first node"
	}
	return "node " + name
}

// removeRetired deletes private keys that nothing needs any more. A key that
// cannot be deleted does no harm, so the change stands.
func (r *Registry) removeRetired(before *State, changes []Change) {
	for _, c := range changes {
		retired, ok := c.(*RetireKey)
		if !ok {
			continue
		}
		k := before.key(retired.Source, retired.Key)
		if k == nil {
			continue
		}
		if key := tokenKey(r.token, k.Certificate); key != nil {
			if err := r.token.RemoveKey(key.ID()); err != nil {
				r.cfg.Log.Warn("retired signing key remains in the token", zap.String("key", key.ID()), zap.Error(err))
			}
		}
	}
}

// signer returns the active key of a source with its certificate.
func (r *Registry) signer(st *State, src Source) (crypto.Signer, *x509.Certificate, error) {
	for _, k := range st.nodeKeys(r.cfg.Node, src) {
		if !k.Active {
			continue
		}
		cert, err := x509.ParseCertificate(k.Certificate)
		if err != nil {
			return nil, nil, err
		}
		key := tokenKey(r.token, k.Certificate)
		if key == nil {
			return nil, nil, fmt.Errorf("the token does not hold the active %s signing key", src)
		}
		return key.Signer(), cert, nil
	}
	return nil, nil, fmt.Errorf("no %s signing key is active; activate one", src)
}
