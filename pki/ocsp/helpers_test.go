// SPDX-License-Identifier: Apache-2.0

package ocsp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"testing"
	"time"
)

// noon is the instant at which these tests take place.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// certify makes a certificate for a new key, signed by parent or by itself.
func certify(t testing.TB, parent *signer, name string, edit func(*x509.Certificate)) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certifyKey(t, parent, key, name, edit)
}

func certifyKey(t testing.TB, parent *signer, key crypto.Signer, name string, edit func(*x509.Certificate)) *signer {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    noon.Add(-time.Hour),
		NotAfter:     noon.Add(time.Hour),
	}
	if edit != nil {
		edit(tmpl)
	}
	issuer, by := tmpl, key
	if parent != nil {
		issuer, by = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

// fixedKey signs without randomness, so that every process of a fuzzing run has
// the same certificates and can accept the seeds.
type fixedKey struct{ *ecdsa.PrivateKey }

func newFixedKey(t testing.TB, n byte) fixedKey {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return fixedKey{k}
}

func (k fixedKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.PrivateKey.Sign(nil, digest, opts)
}

// fixed makes a certificate for such a key.
func fixed(t testing.TB, parent *signer, n byte, edit func(*x509.Certificate)) *signer {
	t.Helper()
	return certifyKey(t, parent, newFixedKey(t, n), "fixed "+string('0'+n), func(c *x509.Certificate) {
		c.SerialNumber = big.NewInt(int64(n))
		if edit != nil {
			edit(c)
		}
	})
}

func asCA(c *x509.Certificate) {
	c.BasicConstraintsValid, c.IsCA = true, true
	c.KeyUsage = x509.KeyUsageCertSign
}

func forOCSP(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
}

// The structures of RFC 6960, 4.2.1, as this test writes them.
type (
	certID struct {
		Hash               pkix.AlgorithmIdentifier
		NameHash, IssuerID []byte
		Serial             *big.Int
	}
	single struct {
		ID         certID
		Status     asn1.RawValue
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	data struct {
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []single
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	basicResponse struct {
		Data      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	responseBytes struct {
		Type    asn1.ObjectIdentifier
		Content []byte
	}
	response struct {
		Status asn1.Enumerated
		Bytes  responseBytes `asn1:"explicit,tag:0"`
	}
)

var (
	oidSHA1       = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA1  = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidBasicOCSP  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	statusGood    = asn1.RawValue{Class: 2, Tag: 0}
	statusUnknown = asn1.RawValue{Class: 2, Tag: 2}
)

func statusRevoked(t testing.TB, at time.Time) asn1.RawValue {
	t.Helper()
	b, err := asn1.MarshalWithParams(at, "generalized")
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: 2, Tag: 1, IsCompound: true, Bytes: b}
}

func keyBits(t testing.TB, c *x509.Certificate) []byte {
	t.Helper()
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	return info.Key.Bytes
}

func idOf(t testing.TB, leaf, issuer *x509.Certificate) certID {
	t.Helper()
	name, key := sha1.Sum(issuer.RawSubject), sha1.Sum(keyBits(t, issuer))
	return certID{pkix.AlgorithmIdentifier{Algorithm: oidSHA1, Parameters: asn1.NullRawValue}, name[:], key[:], leaf.SerialNumber}
}

func byName(c *x509.Certificate) asn1.RawValue {
	return asn1.RawValue{Class: 2, Tag: 1, IsCompound: true, Bytes: c.RawSubject}
}

func byKey(t testing.TB, c *x509.Certificate) asn1.RawValue {
	t.Helper()
	sum := sha1.Sum(keyBits(t, c))
	b, _ := asn1.Marshal(sum[:])
	return asn1.RawValue{Class: 2, Tag: 2, IsCompound: true, Bytes: b}
}

// sign makes a response of d; edit may spoil it before it is encoded.
func sign(t testing.TB, d data, by *signer, embedded []*x509.Certificate, edit func(*basicResponse)) []byte {
	t.Helper()
	tbs, err := asn1.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	signature, err := by.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	b := basicResponse{
		Data:      asn1.RawValue{FullBytes: tbs},
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECDSA256},
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	}
	for _, c := range embedded {
		b.Certs = append(b.Certs, asn1.RawValue{FullBytes: c.Raw})
	}
	if edit != nil {
		edit(&b)
	}
	content, err := asn1.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(response{Bytes: responseBytes{oidBasicOCSP, content}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
