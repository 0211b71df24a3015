// SPDX-License-Identifier: Apache-2.0

// Package asic builds and judges the evidence a signed message leaves behind:
// hash chains that let one signature or one time-stamp cover many messages
// and attachments, the check of such a signature, and the ASiC-E containers
// in which messages, signatures and time-stamps are handed to auditors.
//
// The forms are those of X-Road 7 (X-Road: Profile of High-Performance
// Digital Signatures; X-Road: Signed Document Download and Verification
// Manual; ETSI TS 102 918).
package asic

import (
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"strconv"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// Digest is a SHA-512 value, the digest of every part of a message.
type Digest = [sha512.Size]byte

// Errors of hash chains and of evidence. They are told apart with [errors.Is].
var (
	// ErrHashChain means that the chain does not compute to its result.
	ErrHashChain = errors.New("hash chain does not match its result")
	// ErrHashChainRef means that a reference of the chain does not fit the
	// part it names, or names a part that does not exist.
	ErrHashChainRef = errors.New("hash chain reference does not match")
	// ErrMalformedHashChain means that a chain or its result cannot be read.
	ErrMalformedHashChain = errors.New("malformed hash chain")
	// ErrUnusedInputs means that a part is not referenced by the chain.
	ErrUnusedInputs = errors.New("part not covered by the hash chain")
	// ErrCoverage means that a signature does not cover the whole message.
	ErrCoverage = errors.New("signature does not cover the whole message")
	// ErrSigner means that the signing certificate does not belong to the
	// signer, or is not one for signing.
	ErrSigner = errors.New("signing certificate does not belong to the signer")
)

// Evidence is what one message leaves behind, as received or as logged.
type Evidence struct {
	Message     Digest   // of the SOAP bytes or of the REST head
	Attachments []Digest // in order; a REST body is the first

	Signature []byte // the signature document
	// ChainResult and Chain are nil when the signature covers the parts
	// directly.
	ChainResult, Chain []byte
}

// part returns the index of the part a reference names and its digest.
func (e *Evidence) part(uri []byte) (int, *Digest) {
	if string(uri) == xades.URIMessage {
		return 0, &e.Message
	}
	if n, ok := attachmentNumber(uri, "/attachment"); ok && n <= len(e.Attachments) {
		return n, &e.Attachments[n-1]
	}
	return -1, nil
}

func (e *Evidence) partURI(i int) string {
	if i == 0 {
		return xades.URIMessage
	}
	return "/attachment" + strconv.Itoa(i)
}

// attachmentNumber reads prefix + N with N in 1…999999 and no leading zero.
func attachmentNumber[S string | []byte](name S, prefix string) (int, bool) {
	if len(name) <= len(prefix) || len(name) > len(prefix)+6 || string(name[:len(prefix)]) != prefix {
		return 0, false
	}
	n := 0
	for i := len(prefix); i < len(name); i++ {
		c := name[i]
		if c < '0' || c > '9' || n == 0 && c == '0' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// Trust is what the global configuration says about whom to trust. Values
// should be pointers, for verdicts are remembered per value; they must be safe
// for concurrent use.
type Trust interface {
	pki.Trust
	OCSPPolicy() ocsp.Policy
	// OCSPResponders returns the responders that an instance lists for an
	// issuer. What others list says nothing about its members.
	OCSPResponders(instance string, issuer *x509.Certificate) ocsp.Responders
	TSACertificates() []*x509.Certificate
}

// Verdict is the outcome of a successful check.
type Verdict struct {
	Signature *xades.Signature
	Member    id.Member      // whom the certificate names
	Authority *pki.Authority // who says so
	Chain     *pki.Chain
	OCSP      *ocsp.Response // of the signing certificate
}
