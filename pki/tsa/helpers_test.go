// SPDX-License-Identifier: Apache-2.0

package tsa_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"kontor/pki/tsa"
)

// noon is the instant at which these tests take place.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var policy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func certify(t testing.TB, parent *signer, key crypto.Signer, name string, edit func(*x509.Certificate)) *signer {
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

func newCA(t testing.TB) *signer {
	t.Helper()
	return certify(t, nil, newKey(t, elliptic.P256()), "CA", func(c *x509.Certificate) {
		c.BasicConstraintsValid, c.IsCA, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.NotBefore, c.NotAfter = time.Now().AddDate(-2, 0, 0), time.Now().AddDate(20, 0, 0)
	})
}

// forStamping adds the extended key usage as RFC 3161 demands it.
func forStamping(c *x509.Certificate) { usages(true, 8)(c) }

// usages adds an extended key usage extension of {id-kp n}.
func usages(critical bool, kps ...int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		var oids []asn1.ObjectIdentifier
		for _, n := range kps {
			oids = append(oids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, n})
		}
		value, err := asn1.Marshal(oids)
		if err != nil {
			panic(err)
		}
		c.KeyUsage = x509.KeyUsageContentCommitment
		c.SubjectKeyId = []byte(c.Subject.CommonName)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}}
	}
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
func fixed(t testing.TB) *signer {
	t.Helper()
	return certify(t, nil, newFixedKey(t, 1), "fixed TSA", func(c *x509.Certificate) {
		c.SerialNumber = big.NewInt(1)
		forStamping(c)
	})
}

func newTSA(t testing.TB) *signer {
	t.Helper()
	return certify(t, newCA(t), newKey(t, elliptic.P256()), "TSA", forStamping)
}

func (s *signer) config() tsa.ServerConfig {
	return tsa.ServerConfig{Cert: s.cert, Signer: s.key, Policy: policy, Now: func() time.Time { return noon }}
}

func post(t testing.TB, h http.Handler, query []byte) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(query)))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/timestamp-reply" {
		t.Fatalf("status %d, %v", w.Code, w.Header())
	}
	return w.Body.Bytes()
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certs(signers ...*signer) (all []*x509.Certificate) {
	for _, s := range signers {
		all = append(all, s.cert)
	}
	return all
}
