// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// CSR makes a PKCS#10 certificate request (DER) for the key with the given DER
// subject. It asks, not critically, for the key usages of an X-Road security
// server: digitalSignature, keyEncipherment and dataEncipherment for
// authentication, nonRepudiation and keyCertSign for signing; and for dnsNames
// as subject alternative names, if there are any.
func (k *Key) CSR(rawSubject []byte, dnsNames []string) ([]byte, error) {
	if _, err := parseSubject(rawSubject); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	usage := asn1.BitString{Bytes: []byte{1<<7 | 1<<5 | 1<<4}, BitLength: 4}
	if k.usage == Signing {
		usage = asn1.BitString{Bytes: []byte{1<<6 | 1<<2}, BitLength: 6}
	}
	value, err := asn1.Marshal(usage)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject:      rawSubject,
		DNSNames:        dnsNames,
		ExtraExtensions: []pkix.Extension{{Id: oidKeyUsage, Value: value}},
	}, k.Signer())
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return der, nil
}
