// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"archive/zip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kontor/pki/xades"
)

const vectorDir = "../../../shared/vectors/asic"

var at = time.Date(2024, 12, 5, 12, 37, 37, 117_900_000, time.FixedZone("", 7200))

// ca issues test certificates. Its name needs every kind of escape.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB, name pkix.Name) *ca {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, IsCA: true, BasicConstraintsValid: true,
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour)}
	return &ca{issue(t, template, template, key.Public(), key), key}
}

func (c *ca) issue(t testing.TB, serial int64, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	return issue(t, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "signer"},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), KeyUsage: x509.KeyUsageContentCommitment}, c.cert, pub, c.key)
}

func issue(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is made once: it is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func testName() pkix.Name {
	return pkix.Name{Country: []string{"FI"}, Organization: []string{"Smith & <Sons>, Inc"}, CommonName: " Õpetaja #1",
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "NTREE-1"}}}
}

// credentials returns credentials with intermediates and one OCSP response
// (which nobody here reads) per certificate.
func credentials(t testing.TB, key crypto.Signer, intermediates int) *xades.Credentials {
	t.Helper()
	authority := newCA(t, testName())
	c := &xades.Credentials{Key: key, Cert: authority.issue(t, 18, key.Public()), OCSP: [][]byte{[]byte("response for the signer")}}
	for range intermediates {
		c.Intermediates = append(c.Intermediates, authority.cert)
		c.OCSP = append(c.OCSP, []byte("response for an intermediate"))
	}
	return c
}

func message() xades.Reference {
	digest := sha512.Sum512([]byte("the message"))
	return xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: digest[:]}
}

func sign(t testing.TB, c *xades.Credentials, ref xades.Reference) []byte {
	t.Helper()
	doc, err := xades.Sign(c, ref, at)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// vector returns the signature document of a container, skipping the test
// where the vectors are not present.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join(vectorDir, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Skip("the X-Road test vectors are not here")
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("META-INF/signatures.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestVectors(t *testing.T) {
	for _, test := range []struct {
		name       string
		err        error
		refs       []string
		timestamps int
		subject    string
	}{
		{"valid-signed-message.asice", nil, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		{"valid-batch-ts.asice", nil, []string{"/message.xml"}, 0, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		{"valid-non-batch-rest.asice", nil, []string{"/message.xml", "/attachment1"}, 0, "SERIALNUMBER=DEV/SS0/COM,CN=1234,O=Test member,C=FI"},
		// The signing time was changed.
		{"invalid-digest.asice", xades.ErrReference, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		// The fault is in the container, the signature document is good.
		{"wrong-message.asice", nil, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
	} {
		t.Run(test.name, func(t *testing.T) {
			doc := vector(t, test.name)
			s, err := xades.Parse(doc)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(); !errors.Is(err, test.err) {
				t.Errorf("Verify: %v, want %v", err, test.err)
			}
			var refs []string
			for _, r := range s.References() {
				refs = append(refs, r.URI)
			}
			if len(refs) != len(test.refs) || refs[0] != test.refs[0] {
				t.Errorf("references %v, want %v", refs, test.refs)
			}
			if got := s.Certificate().Subject.String(); got != test.subject {
				t.Errorf("subject %s, want %s", got, test.subject)
			}
			if len(s.Timestamps()) != test.timestamps || len(s.OCSPResponses()) != 1 {
				t.Errorf("%d time-stamps, %d OCSP responses", len(s.Timestamps()), len(s.OCSPResponses()))
			}
		})
	}
	t.Run("invalid-incorrect-references.asice", func(t *testing.T) {
		s, err := xades.Parse(vector(t, "invalid-incorrect-references.asice"))
		if err != nil {
			t.Fatal(err)
		}
		t.Log(s.Verify(), s.References()[0].URI)
	})
}

func TestSignVerify(t *testing.T) {
	for _, test := range []struct {
		name          string
		key           crypto.Signer
		intermediates int
	}{
		{"RSA", rsaKey(), 0},
		{"P-256", ecKey(t, elliptic.P256()), 2},
		{"P-384", ecKey(t, elliptic.P384()), 0},
		{"P-521", ecKey(t, elliptic.P521()), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := credentials(t, test.key, test.intermediates)
			doc := sign(t, c, message())
			s, err := xades.Parse(doc)
			if err != nil {
				t.Fatalf("%v\n%s", err, doc)
			}
			if err := s.Verify(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
