// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"testing"
	"time"

	"kontor/pki"
)

func TestVerifyChain(t *testing.T) {
	t.Parallel()
	root := newCA(t, "root", nil, nil)
	rootTwin := newCA(t, "root", nil, nil) // same name, other key
	sub := newCA(t, "sub", root, nil)
	subsub := newCA(t, "subsub", sub, nil)
	noCA := newCA(t, "no CA", root, func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = 0 })
	noCertSign := newCA(t, "no certSign", root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	pathZero := newCA(t, "path zero", root, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	belowZero := newCA(t, "below zero", pathZero, nil)
	old := newCA(t, "old", root, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) })
	constrained := newCA(t, "constrained", root, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"a.example"} })
	oldRoot := newCA(t, "old root", nil, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) })
	leafKey := newKey(t)
	leaf := func(by *authority, edit func(*x509.Certificate)) *x509.Certificate {
		return certify(t, by, leafKey, edit)
	}
	deep := []*authority{root}
	for i := range 8 {
		deep = append(deep, newCA(t, fmt.Sprintf("deep %d", i), deep[i], nil))
	}
	certs := func(cas ...*authority) (cs []*x509.Certificate) {
		for _, ca := range cas {
			cs = append(cs, ca.cert)
		}
		return cs
	}
	critical := func(oid ...int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			value := []byte{0x30, 3, 0x80, 1, 0} // PolicyConstraints, well-formed
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier(oid), Critical: true, Value: value}}
		}
	}
	for _, tt := range []struct {
		name   string
		leaf   *x509.Certificate
		extras []*x509.Certificate
		trust  trust
		at     time.Time
		path   int // certificates below the anchor
		want   error
	}{
		{name: "direct", leaf: leaf(root, nil), trust: approve(root), path: 1},
		{name: "approved intermediate is an anchor", leaf: leaf(sub, nil), trust: approve(sub), path: 1},
		{name: "intermediate as extra", leaf: leaf(sub, nil), extras: certs(sub), trust: approve(root), path: 2},
		{name: "two intermediates, any order", leaf: leaf(subsub, nil), extras: certs(sub, root, subsub), trust: approve(root), path: 3},
		{name: "colliding name", leaf: leaf(root, nil), trust: approve(rootTwin, root), path: 1},
		{name: "anchor's dates do not matter", leaf: leaf(oldRoot, nil), trust: approve(oldRoot), path: 1},
		{name: "leaf is the anchor", leaf: root.cert, trust: approve(root), path: 1},
		{name: "longest path", leaf: leaf(deep[6], nil), extras: certs(deep[1:]...), trust: approve(root), path: 7},
		{name: "path too long", leaf: leaf(deep[7], nil), extras: certs(deep[1:]...), trust: approve(root), want: pki.ErrBadChain},
		{name: "first instant", leaf: leaf(root, nil), trust: approve(root), at: noon.Add(-time.Hour), path: 1},
		{name: "last instant", leaf: leaf(root, nil), trust: approve(root), at: noon.Add(time.Hour), path: 1},
		{name: "expired", leaf: leaf(root, nil), trust: approve(root), at: noon.Add(time.Hour + time.Second), want: pki.ErrExpired},
		{name: "not yet valid", leaf: leaf(root, nil), trust: approve(root), at: noon.Add(-time.Hour - time.Second), want: pki.ErrNotYetValid},
		{name: "intermediate expired", leaf: leaf(old, nil), extras: certs(old), trust: approve(root), want: pki.ErrExpired},
		{name: "nobody approved", leaf: leaf(root, nil), extras: certs(root), want: pki.ErrNoAuthority},
		{name: "extra is not trusted in itself", leaf: leaf(sub, nil), extras: certs(sub, root), trust: approve(subsub), want: pki.ErrNoAuthority},
		{name: "same name, other key", leaf: leaf(root, nil), trust: approve(rootTwin), want: pki.ErrBadChain},
		{name: "intermediate is no CA", leaf: leaf(noCA, nil), extras: certs(noCA), trust: approve(root), want: pki.ErrBadChain},
		{name: "anchor is no CA", leaf: leaf(noCA, nil), trust: approve(noCA), want: pki.ErrBadChain},
		{name: "issuer may not sign certificates", leaf: leaf(noCertSign, nil), extras: certs(noCertSign), trust: approve(root), want: pki.ErrBadChain},
		{name: "path length kept", leaf: leaf(pathZero, nil), extras: certs(pathZero), trust: approve(root), path: 2},
		{name: "path length exceeded", leaf: leaf(belowZero, nil), extras: certs(belowZero, pathZero), trust: approve(root), want: pki.ErrBadChain},
		{name: "name constraints", leaf: leaf(constrained, nil), extras: certs(constrained), trust: approve(root), want: pki.ErrBadChain},
		{name: "unknown critical extension", leaf: leaf(root, critical(1, 2, 3, 4)), trust: approve(root), want: pki.ErrBadChain},
		{name: "critical extension that Go knows and we do not", leaf: leaf(root, critical(2, 5, 29, 36)), trust: approve(root), want: pki.ErrBadChain},
		{name: "too many extras", leaf: leaf(root, nil), extras: make([]*x509.Certificate, 17), trust: approve(root), want: pki.ErrBadChain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := tt.at
			if at.IsZero() {
				at = noon
			}
			chain, err := pki.VerifyChain(tt.leaf, tt.extras, tt.trust, at)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			if len(chain.Certs) != tt.path || len(chain.Issuers) != tt.path || chain.Certs[0] != tt.leaf {
				t.Fatalf("path of %d certificates and %d issuers, want %d", len(chain.Certs), len(chain.Issuers), tt.path)
			}
			for i, c := range chain.Certs {
				if err := c.CheckSignatureFrom(chain.Issuers[i]); err != nil {
					t.Errorf("certificate %d: %v", i, err)
				}
			}
			if chain.Issuers[tt.path-1] != chain.Anchor.Cert {
				t.Error("the last issuer is not the anchor")
			}
		})
	}
}

func TestVerifyChainRefusesSHA1(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	root := &authority{key: key, cert: certify(t, nil, key, func(c *x509.Certificate) {
		c.BasicConstraintsValid, c.IsCA, c.Subject.CommonName = true, true, "root"
	})}
	leaf := certify(t, root, newKey(t), nil)
	if _, err := pki.VerifyChain(leaf, nil, approve(root), noon); err != nil {
		t.Fatal(err)
	}
	der := sha1Signed(t, leaf, key)
	weak, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if weak.SignatureAlgorithm != x509.SHA1WithRSA {
		t.Fatalf("signed with %v", weak.SignatureAlgorithm)
	}
	if _, err := pki.VerifyChain(weak, nil, approve(root), noon); !errors.Is(err, pki.ErrBadChain) {
		t.Fatalf("got %v", err)
	}
}

// TestVerifyChainBounded offers many twins of each intermediate: without a bound
// the search would try 4^5 paths.
func TestVerifyChainBounded(t *testing.T) {
	t.Parallel()
	root := newCA(t, "root", nil, nil)
	var extras []*x509.Certificate
	parents := []*authority{root}
	for level := range 4 {
		var next []*authority
		for range 4 {
			next = append(next, newCA(t, fmt.Sprint("level ", level), parents[0], nil))
		}
		for _, ca := range next {
			extras = append(extras, ca.cert)
		}
		parents = next
	}
	leaf := certify(t, parents[3], newKey(t), nil)
	start := time.Now()
	_, err := pki.VerifyChain(leaf, extras, approve(newCA(t, "other", nil, nil)), noon)
	if err == nil {
		t.Fatal("accepted")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("refused only after %s", d)
	}
}

func TestUsages(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, tt := range []struct {
		name       string
		usage      x509.KeyUsage
		ext        []x509.ExtKeyUsage
		auth, sign bool
	}{
		{name: "nothing"},
		{name: "nonRepudiation", usage: x509.KeyUsageContentCommitment, sign: true},
		{name: "nonRepudiation and keyCertSign", usage: x509.KeyUsageContentCommitment | x509.KeyUsageCertSign, sign: true},
		{name: "digitalSignature", usage: x509.KeyUsageDigitalSignature, auth: true},
		{name: "keyEncipherment", usage: x509.KeyUsageKeyEncipherment, auth: true},
		{name: "dataEncipherment", usage: x509.KeyUsageDataEncipherment, auth: true},
		{name: "keyAgreement", usage: x509.KeyUsageKeyAgreement},
		{name: "clientAuth", ext: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, auth: true},
		{name: "serverAuth", ext: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		{name: "both", usage: x509.KeyUsageContentCommitment | x509.KeyUsageDigitalSignature, auth: true, sign: true},
	} {
		c := certify(t, nil, key, func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = tt.usage, tt.ext })
		if auth, sign := pki.IsAuthCert(c), pki.IsSignCert(c); auth != tt.auth || sign != tt.sign {
			t.Errorf("%s: authentication %v, signing %v", tt.name, auth, sign)
		}
	}
}

func BenchmarkVerifyChain(b *testing.B) {
	root := newCA(b, "root", nil, nil)
	sub := newCA(b, "sub", root, nil)
	for _, bb := range []struct {
		name   string
		leaf   *x509.Certificate
		extras []*x509.Certificate
	}{
		{"direct", certify(b, root, newKey(b), forSigning), nil},
		{"intermediate", certify(b, sub, newKey(b), forSigning), []*x509.Certificate{sub.cert}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			tr := approve(root)
			for b.Loop() {
				if _, err := pki.VerifyChain(bb.leaf, bb.extras, tr, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
