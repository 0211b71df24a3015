// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"kontor/pki"
)

// noon is the instant at which these tests take place.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// certify makes a certificate from a template by edit, signed by parent, or by
// itself if parent is nil.
func certify(t testing.TB, parent *authority, key crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "leaf"},
		NotBefore:    noon.Add(-time.Hour),
		NotAfter:     noon.Add(time.Hour),
	}
	if edit != nil {
		edit(tmpl)
	}
	issuer, signer := tmpl, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newCA(t testing.TB, name string, parent *authority, edit func(*x509.Certificate)) *authority {
	t.Helper()
	key := newKey(t)
	return &authority{key: key, cert: certify(t, parent, key, func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.BasicConstraintsValid, c.IsCA = true, true
		c.MaxPathLen = -1
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		if edit != nil {
			edit(c)
		}
	})}
}

func forSigning(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }

func forAuthentication(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

// trust approves authorities, in order.
type trust []*pki.Authority

func (t trust) Authorities(raw []byte) []*pki.Authority {
	var found []*pki.Authority
	for _, a := range t {
		if string(a.Cert.RawSubject) == string(raw) {
			found = append(found, a)
		}
	}
	return found
}

func approve(cas ...*authority) trust {
	var t trust
	for _, ca := range cas {
		t = append(t, &pki.Authority{Cert: ca.cert, Name: ca.cert.Subject.CommonName})
	}
	return t
}
