// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"

	"kontor/pki"
)

// maxCSR bounds a certificate request; one with an RSA-4096 key has about 1.5 KB.
const maxCSR = 16 << 10

var (
	oidKeyUsage     = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidOCSPNoCheck  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidOCSPSigning  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

// profile is the part of a certificate that its use decides. Go marks key
// usage and basic constraints as critical and extended key usage as not; where
// the latter must be critical, it goes into extra.
type profile struct {
	keyUsage    x509.KeyUsage
	extKeyUsage []x509.ExtKeyUsage
	extra       []pkix.Extension
}

var (
	// authProfile and signProfile keep the two uses apart: X-Road refuses a
	// certificate that could serve as both.
	authProfile = profile{
		keyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageKeyAgreement,
		extKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	signProfile = profile{keyUsage: x509.KeyUsageContentCommitment}
	ocspProfile = profile{
		keyUsage: x509.KeyUsageDigitalSignature,
		// Nobody can ask the responder about itself.
		extra: []pkix.Extension{criticalExtKeyUsage(oidOCSPSigning), {Id: oidOCSPNoCheck, Value: asn1.NullBytes}},
	}
	tsaProfile = profile{
		keyUsage: x509.KeyUsageContentCommitment,
		extra:    []pkix.Extension{criticalExtKeyUsage(oidTimeStamping)},
	}
)

func criticalExtKeyUsage(usage asn1.ObjectIdentifier) pkix.Extension {
	value, err := asn1.Marshal([]asn1.ObjectIdentifier{usage})
	if err != nil {
		panic(err) // the argument is a constant
	}
	return pkix.Extension{Id: oidExtKeyUsage, Critical: true, Value: value}
}

// Request says what certificate to make of a certificate request.
type Request struct {
	// Usage chooses the profile: authentication or signing.
	Usage pki.Usage
	// Subject, if not nil, replaces the request's subject (DER of the
	// distinguished name): the authority, not the applicant, decides who
	// somebody is.
	Subject []byte
	// DNSNames replace the request's alternative names if not nil; an empty
	// slice means none.
	DNSNames []string
	// Validity, if not zero, replaces the configured one.
	Validity time.Duration
}

// Issue makes a certificate of a PKCS#10 request (DER). The request must be
// signed with its own key, and the key must be one that X-Road peers
// understand. The certificate is recorded durably before it is returned.
// Refusals are ErrRequest.
func (c *CA) Issue(ctx context.Context, csrDER []byte, req Request) (*x509.Certificate, error) {
	csr, tmpl, err := c.examine(csrDER, req)
	if err != nil {
		return nil, err
	}
	cert, err := sign(ctx, c.authority, csr, *tmpl)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if err := c.records.put(&Record{Certificate: cert, Usage: req.Usage, Issued: c.cfg.Now().UTC().Truncate(time.Second)}); err != nil {
		return nil, fmt.Errorf("record certificate: %w", err)
	}
	return cert, nil
}

// examine decides what an acceptable request becomes.
func (c *CA) examine(csrDER []byte, req Request) (*x509.CertificateRequest, *template, error) {
	refuse := func(format string, args ...any) (*x509.CertificateRequest, *template, error) {
		return nil, nil, fmt.Errorf("%w: %w", ErrRequest, fmt.Errorf(format, args...))
	}
	tmpl := &template{subject: req.Subject}
	switch req.Usage {
	case pki.Authentication:
		tmpl.profile = authProfile
	case pki.Signing:
		tmpl.profile = signProfile
	default:
		return refuse("usage %q is neither authentication nor signing", req.Usage)
	}
	if len(csrDER) > maxCSR {
		return refuse("it is larger than %d bytes", maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return refuse("not a PKCS#10 request in DER: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return refuse("its signature does not verify with its own key: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return refuse("%w", err)
	}
	for _, own := range []*x509.Certificate{c.cert, c.ocsp.cert, c.tsa.cert} {
		if bytes.Equal(own.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
			return refuse("its key is one of the authority's own")
		}
	}
	if tmpl.subject == nil {
		tmpl.subject = csr.RawSubject
	}
	if err := checkSubject(tmpl.subject); err != nil {
		return refuse("subject: %w", err)
	}
	if bytes.Equal(tmpl.subject, c.cert.RawSubject) {
		return refuse("subject: it is the authority's own name")
	}
	if tmpl.dnsNames = req.DNSNames; tmpl.dnsNames == nil {
		if len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
			return refuse("it asks for alternative names other than DNS names; name the wanted ones explicitly")
		}
		tmpl.dnsNames = csr.DNSNames
	}
	for _, name := range tmpl.dnsNames {
		if !validDNSName(name) {
			return refuse("alternative name %q is not a DNS name", name)
		}
	}
	validity := req.Validity
	if validity == 0 {
		validity = c.cfg.Validity
	}
	if err := c.date(tmpl, validity); err != nil {
		return refuse("%w", err)
	}
	if c.cfg.OCSPURL != "" {
		tmpl.ocspURLs = []string{c.cfg.OCSPURL}
	}
	return csr, tmpl, nil
}

// date sets the dates of a certificate, within those of the authority's own.
func (c *CA) date(t *template, validity time.Duration) error {
	now := c.cfg.Now().UTC().Truncate(time.Second)
	if validity < time.Second {
		return fmt.Errorf("a validity of %v is too short", validity)
	}
	if !now.Before(c.cert.NotAfter) {
		return fmt.Errorf("the authority's own certificate expired at %s; create a new authority", c.cert.NotAfter.Format(time.RFC3339))
	}
	t.notBefore, t.notAfter = now.Add(-backdate), now.Add(validity)
	if t.notBefore.Before(c.cert.NotBefore) {
		t.notBefore = c.cert.NotBefore
	}
	if t.notAfter.After(c.cert.NotAfter) {
		t.notAfter = c.cert.NotAfter
	}
	return nil
}

func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("its elliptic curve %s is not P-256 or P-384", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 {
			return fmt.Errorf("its RSA key has %d bits; 2048 to 4096 are accepted", n)
		}
		if k.E < 65537 {
			return fmt.Errorf("its RSA exponent %d is below 65537", k.E)
		}
	default:
		return fmt.Errorf("its key is of type %T; RSA, P-256 and P-384 are accepted", pub)
	}
	return nil
}

func checkSubject(der []byte) error {
	var rdn pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &rdn)
	if err != nil {
		return fmt.Errorf("not a distinguished name: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes follow the distinguished name", len(rest))
	}
	if len(rdn) == 0 {
		return fmt.Errorf("it is empty; name the holder")
	}
	return nil
}

// validDNSName accepts host names, and IP addresses too: Java security servers
// put their address into the only alternative name they know.
func validDNSName(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	for i, label := range strings.Split(name, ".") {
		if label == "*" && i == 0 {
			return false // one certificate stands for one server
		}
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

// template is a certificate before its serial number and signature.
type template struct {
	profile             profile
	subject             []byte
	dnsNames            []string
	addresses           []net.IP
	ocspURLs            []string
	notBefore, notAfter time.Time
}

// sign has the issuing core sign what t says and the request's key. Nothing
// else of the request gets into the certificate.
func sign(ctx context.Context, auth *authority.Authority, csr *x509.CertificateRequest, t template) (*x509.Certificate, error) {
	chain, err := auth.SignWithContext(ctx, csr, provisioner.SignOptions{}, t.modifier(csr))
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// modifier replaces whatever the issuing core has made of a request.
func (t template) modifier(csr *x509.CertificateRequest) provisioner.CertificateModifier {
	return provisioner.CertificateModifierFunc(func(crt *x509.Certificate, _ provisioner.SignOptions) error {
		serial, err := newSerial()
		if err != nil {
			return err
		}
		*crt = x509.Certificate{
			PublicKey:             csr.PublicKey,
			PublicKeyAlgorithm:    csr.PublicKeyAlgorithm,
			SerialNumber:          serial,
			RawSubject:            t.subject,
			NotBefore:             t.notBefore,
			NotAfter:              t.notAfter,
			BasicConstraintsValid: true,
			KeyUsage:              t.profile.keyUsage,
			ExtKeyUsage:           t.profile.extKeyUsage,
			ExtraExtensions:       t.profile.extra,
			OCSPServer:            t.ocspURLs,
			DNSNames:              t.dnsNames,
			IPAddresses:           t.addresses,
		}
		return nil
	})
}

// serialKey is a serial number as a key that sorts by value.
func serialKey(serial *big.Int) ([]byte, error) {
	if serial == nil || serial.Sign() <= 0 || serial.BitLen() > 160 {
		return nil, ErrUnknownSerial
	}
	return serial.FillBytes(make([]byte, 20)), nil
}
