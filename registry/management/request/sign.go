// SPDX-License-Identifier: Apache-2.0

package request

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of signatures
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
)

// algorithms are the signature algorithms by their Java names.
var algorithms = map[string]x509.SignatureAlgorithm{
	"SHA256withRSA":        x509.SHA256WithRSA,
	"SHA384withRSA":        x509.SHA384WithRSA,
	"SHA512withRSA":        x509.SHA512WithRSA,
	"SHA256withRSAandMGF1": x509.SHA256WithRSAPSS,
	"SHA384withRSAandMGF1": x509.SHA384WithRSAPSS,
	"SHA512withRSAandMGF1": x509.SHA512WithRSAPSS,
	"SHA256withECDSA":      x509.ECDSAWithSHA256,
	"SHA384withECDSA":      x509.ECDSAWithSHA384,
	"SHA512withECDSA":      x509.ECDSAWithSHA512,
}

// Verify checks the signature over a request's SOAP with a certificate's key.
func (s *Signature) Verify(cert *x509.Certificate, soap []byte) error {
	algorithm, ok := algorithms[s.Algorithm]
	if !ok {
		return fmt.Errorf("signature algorithm %.40q is unknown or too weak", s.Algorithm)
	}
	return cert.CheckSignature(algorithm, soap, s.Value)
}

// Credential is a key with its certificate. OCSP is a fresh response about it
// in DER, needed of signing keys only.
type Credential struct {
	Key  crypto.Signer
	Cert *x509.Certificate
	OCSP []byte
}

func (c *Credential) sign(soap []byte) (*Signature, error) {
	digest := sha512.Sum512(soap)
	value, err := c.Key.Sign(rand.Reader, digest[:], crypto.SHA512)
	if err != nil {
		return nil, err
	}
	switch c.Key.Public().(type) {
	case *rsa.PublicKey:
		return &Signature{"SHA512withRSA", value}, nil
	case *ecdsa.PublicKey:
		return &Signature{"SHA512withECDSA", value}, nil
	}
	return nil, fmt.Errorf("a key of type %T cannot sign management requests", c.Key.Public())
}

// Seal makes the message of a request's SOAP and signs it as its service
// demands: AuthCertReg with the authentication key and the signing key of the
// server's owner; requests about a client with the signing key of the client's
// member (of OwnerChange: of the new owner); requests about the server with
// that of the owner; deletions not at all, they take nil.
func Seal(soap []byte, auth, member *Credential) (*Message, error) {
	r, err := Parse(soap)
	if err != nil {
		return nil, err
	}
	m := &Message{SOAP: soap, Request: r}
	if !r.Service.Signed() {
		return m, nil
	}
	if member == nil || len(member.OCSP) == 0 || r.Service == AuthCertReg && auth == nil {
		return nil, errors.New("a key to sign the management request, or its OCSP response, is missing")
	}
	if r.Service == AuthCertReg {
		if m.AuthSignature, err = auth.sign(soap); err != nil {
			return nil, fmt.Errorf("sign with authentication key: %w", err)
		}
		m.AuthCert = auth.Cert.Raw
	}
	if m.Signature, err = member.sign(soap); err != nil {
		return nil, fmt.Errorf("sign with signing key: %w", err)
	}
	m.Cert, m.OCSP = member.Cert.Raw, member.OCSP
	return m, nil
}
