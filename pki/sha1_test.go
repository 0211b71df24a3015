// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"testing"
)

// sha1Signed signs c anew by sha1WithRSAEncryption, which Go refuses to make.
func sha1Signed(t testing.TB, c *x509.Certificate, key *rsa.PrivateKey) []byte {
	t.Helper()
	sha256OID := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	sha1OID := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05}
	tbs := bytes.Replace(c.RawTBSCertificate, sha256OID, sha1OID, 1)
	sum := sha1.Sum(tbs)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		asn1.RawValue{FullBytes: append(append([]byte{0x30, 0x0d, 0x06, 0x09}, sha1OID...), 5, 0)},
		asn1.BitString{Bytes: signature, BitLength: len(signature) * 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
