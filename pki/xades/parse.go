// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"sync"

	"kontor/pki"
)

// Bounds on a Parser's memory: the number of certificates, and of OCSP
// responses, and the base64 of each.
const (
	maxMemories   = 512
	maxMemoryText = 12 << 10
)

// Parser parses signature documents and remembers the certificates and OCSP
// responses in them, which one sender repeats in every document. It is safe for
// concurrent use; a nil Parser remembers nothing.
type Parser struct {
	certs     memory[*certificate]
	responses memory[*response]
}

// certificate is a parsed certificate and the digests of its DER.
type certificate struct {
	cert   *x509.Certificate
	hash   pki.CertHash
	sum512 [sha512.Size]byte
}

// response is an OCSP response, which is not looked into, and its digest.
type response struct {
	der    []byte
	sum256 [sha256.Size]byte
}

// memory holds values by the base64 text they were decoded from.
type memory[V any] struct {
	mu sync.RWMutex
	of map[string]V
}

func (m *memory[V]) get(text []byte) (V, bool) {
	m.mu.RLock()
	v, ok := m.of[string(text)]
	m.mu.RUnlock()
	return v, ok
}

func (m *memory[V]) put(text []byte, v V) {
	if len(text) > maxMemoryText {
		return
	}
	m.mu.Lock()
	if m.of == nil || len(m.of) >= maxMemories {
		m.of = make(map[string]V) // the busy ones are soon back
	}
	m.of[string(text)] = v
	m.mu.Unlock()
}

// NewParser returns a Parser.
func NewParser() *Parser { return &Parser{} }

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
		if known, ok := p.certs.get(text); ok {
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
	c := &certificate{cert: cert, hash: pki.HashOf(cert), sum512: sha512.Sum512(der)}
	if p != nil {
		p.certs.put(text, c)
	}
	return c, nil
}

// response decodes text, the base64 of an OCSP response without white space.
func (p *Parser) response(text []byte) (*response, error) {
	if p != nil {
		if known, ok := p.responses.get(text); ok {
			return known, nil
		}
	}
	der, err := decodeBase64(nil, text)
	if err != nil {
		return nil, err
	}
	r := &response{der, sha256.Sum256(der)}
	if p != nil {
		p.responses.put(text, r)
	}
	return r, nil
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
