// SPDX-License-Identifier: Apache-2.0

// Package xades writes, reads and verifies the signature documents that travel
// with every message: one XAdES signature (ETSI TS 101 903 1.3.2) over detached
// data, in an ASiC envelope (ETSI TS 102 918), with the OCSP responses that
// vouch for the signing certificate.
//
// Sign writes one fixed form, chosen so that the bytes of ds:SignedInfo and
// xades:SignedProperties in the document are, but for the namespaces on their
// outermost tags, already their canonical form; no XML tree is ever built for
// it. Parse recognises exactly that form byte by byte. Any other document, such
// as those of X-Road security servers in Java, is read into a tree and
// canonicalised, by rules that leave no choice of which element was signed.
//
// The package judges the document alone. That the data references match the
// data, that the certificate belongs to the sender and was good at the time,
// is for the caller to establish.
package xades

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"time"

	"kontor/pki"
)

// URIs of the two data references that signature documents usually carry.
const (
	URIMessage     = "/message.xml"             // the message itself
	URIChainResult = "/sig-hashchainresult.xml" // the result of a hash chain over the parts
)

// Digest methods (XML Encryption, RFC 9231). No others are accepted.
const (
	DigestSHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
	DigestSHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
	DigestSHA512 = "http://www.w3.org/2001/04/xmlenc#sha512"
)

// MaxSize is the size in bytes of the largest document read or written.
const MaxSize = 1 << 20

// Bounds on what one document may hold. They are far above what real documents
// contain and keep the work that a hostile one can cause small.
const (
	maxDepth      = 20
	maxElements   = 4096
	maxAttributes = 16  // of one element
	maxNamespaces = 128 // declarations
	maxReferences = 512
	maxValues     = 32 // certificates, OCSP responses, time-stamps: of each
)

var (
	// ErrMalformed marks a document that is not well-formed, not shaped like a
	// signature document, ambiguous, or too large.
	ErrMalformed = errors.New("malformed signature document")
	// ErrUnsupported marks an algorithm, transform or construct that is not
	// accepted here, such as SHA-1.
	ErrUnsupported = errors.New("unsupported signature document")
	// ErrSignature marks a signature value that does not verify with the
	// certificate's key.
	ErrSignature = errors.New("signature does not verify")
	// ErrReference marks signed properties, or a signing certificate named in
	// them, that do not match their digest.
	ErrReference = errors.New("signed reference does not match")
)

// Reference is one signed digest of detached data.
type Reference struct {
	URI          string // as written in the document, for example URIMessage
	DigestMethod string // algorithm URI, for example DigestSHA512
	Digest       []byte
}

// Signature is a parsed signature document. It shares no memory with the bytes
// it was parsed from, is immutable, and safe for concurrent use. Slices it
// returns must not be changed.
type Signature struct {
	cert       *certificate
	extras     []*x509.Certificate
	ocsp       [][]byte
	ocspSums   [][sha256.Size]byte // of ocsp
	timestamps [][]byte
	refs       []Reference
	value      []byte
	time       time.Time

	method *signatureMethod
	info   []byte // digest of the canonical SignedInfo, by method

	props, propsWant     []byte // digest of the canonical SignedProperties, found and signed
	certDigest, certWant []byte // digest of the KeyInfo certificate, found and signed
	insertAt             int    // where a time-stamp goes in the document, 0 if nowhere
	prefix               string // of the XAdES namespace there, with its colon
	infoSum, propsSum    [64]byte

	// Room for what our own form usually holds, so that it is not allocated
	// piece by piece.
	refsRoom     [1]Reference
	ocspRoom     [1][]byte
	ocspSumsRoom [1][sha256.Size]byte
	valueRoom    [3*sha512.Size + 256 + 2]byte // the decoder wants 2 bytes more than it fills
}

// Certificate returns the signing certificate, the one in KeyInfo. It is not to
// be trusted before Verify has succeeded and a chain has been built for it.
func (s *Signature) Certificate() *x509.Certificate { return s.cert.cert }

// CertificateHash returns the hash of Certificate.
func (s *Signature) CertificateHash() pki.CertHash { return s.cert.hash }

// Extras returns the other certificates the document carries, unsigned, in
// document order: intermediates to build a chain from.
func (s *Signature) Extras() []*x509.Certificate { return s.extras }

// OCSPResponses returns the embedded OCSP responses (DER), unsigned, in
// document order.
func (s *Signature) OCSPResponses() [][]byte { return s.ocsp }

// OCSPHashes returns the SHA-256 of each of the OCSPResponses.
func (s *Signature) OCSPHashes() [][sha256.Size]byte { return s.ocspSums }

func (s *Signature) addOCSP(r *response) {
	s.ocsp, s.ocspSums = append(s.ocsp, r.der), append(s.ocspSums, r.sum256)
}

// SigningTime returns the time the signer claims.
func (s *Signature) SigningTime() time.Time { return s.time }

// References returns the references to detached data, in document order and
// with distinct URIs. Verify does not look at the data.
func (s *Signature) References() []Reference { return s.refs }

// Value returns the decoded ds:SignatureValue: what a time-stamp over a single
// signature stamps.
func (s *Signature) Value() []byte { return s.value }

// Timestamps returns the embedded signature time-stamp tokens (DER), unsigned,
// in document order.
func (s *Signature) Timestamps() [][]byte { return s.timestamps }

// strictBase64 refuses stray bits in the last character. It skips line ends, so
// callers that must not accept them look for them first.
var strictBase64 = base64.StdEncoding.Strict()
