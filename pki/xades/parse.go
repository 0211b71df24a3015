// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"bytes"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"sync"
)

// maxCertificates bounds a Parser's memory of certificates; maxCertificateText
// the base64 of each.
const (
	maxCertificates    = 512
	maxCertificateText = 12 << 10
)

// Parser parses signature documents and remembers the certificates in them,
// which one sender repeats in every document. It is safe for concurrent use; a
// nil Parser remembers nothing.
type Parser struct {
	mu    sync.RWMutex
	certs map[string]*certificate // by their base64 text
}

// certificate is a parsed certificate and the SHA-512 of its DER.
type certificate struct {
	cert   *x509.Certificate
	sum512 [sha512.Size]byte
}

// NewParser returns a Parser.
func NewParser() *Parser {
	return &Parser{certs: make(map[string]*certificate)}
}

// Parse parses doc without remembering certificates. See Parser.Parse.
func Parse(doc []byte) (*Signature, error) {
	return (*Parser)(nil).Parse(doc)
}

// Parse reads a signature document of at most MaxSize bytes: a ds:Signature,
// alone or as the only one in an ASiC envelope. It accepts only documents in
// which there is no doubt what is signed and by whom; that the signature is
// good only Verify says. Errors are ErrMalformed or ErrUnsupported.
func (p *Parser) Parse(doc []byte) (*Signature, error) {
	if len(doc) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(doc))
	}
	if s := p.scan(doc); s != nil {
		return s, nil
	}
	return p.readTree(doc)
}

// certificate decodes text, the base64 of a certificate without white space.
func (p *Parser) certificate(text []byte) (*certificate, error) {
	if p != nil {
		p.mu.RLock()
		known := p.certs[string(text)]
		p.mu.RUnlock()
		if known != nil {
			return known, nil
		}
	}
	der, err := decodeBase64(nil, text)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %v", ErrMalformed, err)
	}
	c := &certificate{cert: cert, sum512: sha512.Sum512(der)}
	if p != nil && len(text) <= maxCertificateText {
		p.mu.Lock()
		if len(p.certs) >= maxCertificates {
			clear(p.certs) // the busy ones are soon back
		}
		p.certs[string(text)] = c
		p.mu.Unlock()
	}
	return c, nil
}

// decodeBase64 appends to dst what text encodes: at least one byte, in standard
// base64 with padding and no other character.
func decodeBase64(dst, text []byte) ([]byte, error) {
	if len(text) == 0 || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, fmt.Errorf("%w: base64 value", ErrMalformed)
	}
	b, err := strictBase64.AppendDecode(dst, text)
	if err != nil {
		return nil, fmt.Errorf("%w: base64 value", ErrMalformed)
	}
	return b, nil
}

// Verify checks the signature: that the certificate is the one the signed
// properties name, that the signed properties are those of SignedInfo, and that
// the signature value over SignedInfo was made with the certificate's key. It
// does not check the data references, the certificate's issuer or validity, nor
// anything unsigned. Errors are ErrReference, ErrSignature or ErrUnsupported.
func (s *Signature) Verify() error {
	if subtle.ConstantTimeCompare(s.certDigest, s.certWant) != 1 {
		return fmt.Errorf("%w: signing certificate", ErrReference)
	}
	if subtle.ConstantTimeCompare(s.props, s.propsWant) != 1 {
		return fmt.Errorf("%w: signed properties", ErrReference)
	}
	return s.method.verify(s.cert.cert.PublicKey, s.info, s.value)
}
