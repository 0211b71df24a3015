// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"testing"

	"kontor/pki"
)

// algorithmOf returns the DER AlgorithmIdentifier of a certificate's signature.
func algorithmOf(t testing.TB, c *x509.Certificate) []byte {
	t.Helper()
	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	return outer.Algorithm.FullBytes
}

// TestSignatureAlgorithms compares with what Go writes into certificates.
func TestSignatureAlgorithms(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for _, tt := range []struct {
		key  crypto.Signer
		alg  x509.SignatureAlgorithm
		hash crypto.Hash // what SignatureAlgorithmFor chooses, if it chooses alg
	}{
		{rsaKey, x509.SHA256WithRSA, crypto.SHA256},
		{rsaKey, x509.SHA384WithRSA, 0},
		{rsaKey, x509.SHA512WithRSA, 0},
		{rsaKey, x509.SHA256WithRSAPSS, 0},
		{rsaKey, x509.SHA384WithRSAPSS, 0},
		{rsaKey, x509.SHA512WithRSAPSS, 0},
		{newKey(t), x509.ECDSAWithSHA256, crypto.SHA256},
		{p384, x509.ECDSAWithSHA384, crypto.SHA384},
		{p521, x509.ECDSAWithSHA512, crypto.SHA512},
		{ed, x509.PureEd25519, 0},
	} {
		c := certify(t, nil, tt.key, func(c *x509.Certificate) { c.SignatureAlgorithm = tt.alg })
		der := algorithmOf(t, c)
		if got, err := pki.ParseSignatureAlgorithm(der); err != nil || got != tt.alg {
			t.Errorf("%v: got %v, %v", tt.alg, got, err)
		}
		if tt.hash == 0 {
			continue
		}
		hash, id, err := pki.SignatureAlgorithmFor(tt.key.Public())
		if err != nil || hash != tt.hash || string(id) != string(der) {
			t.Errorf("%v: chose %v, %x, %v", tt.alg, hash, id, err)
		}
	}
	sha1 := algorithmOf(t, parse(t, sha1Signed(t, certify(t, nil, rsaKey, nil), rsaKey)))
	for name, der := range map[string][]byte{"SHA-1": sha1, "nothing": nil, "no DER": {0x30, 5}, "trailing": append(algorithmOf(t, certify(t, nil, rsaKey, nil)), 0)} {
		if got, err := pki.ParseSignatureAlgorithm(der); !errors.Is(err, pki.ErrAlgorithm) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	if _, _, err := pki.SignatureAlgorithmFor(ed.Public()); !errors.Is(err, pki.ErrAlgorithm) {
		t.Errorf("Ed25519: %v", err)
	}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
