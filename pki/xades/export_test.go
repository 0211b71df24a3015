// SPDX-License-Identifier: Apache-2.0

package xades

// What the tests need to see of the inside.

const (
	CanonInfo   = canonInfo
	CanonProps  = canonProps
	MaxDepth    = maxDepth
	MaxElements = maxElements
)

var (
	DistinguishedName = distinguishedName
	EncodeECDSA       = encodeECDSA
	DecodeECDSA       = decodeECDSA
)

// Scan reads by the fast path only, nil if it does not apply.
func Scan(p *Parser, doc []byte) *Signature { return p.scan(doc) }

// ReadTree reads by the slow path only.
func ReadTree(p *Parser, doc []byte) (*Signature, error) { return p.readTree(doc) }

// Digests returns what the signature was found to cover: the digests of the
// canonical SignedInfo and SignedProperties and of the certificate, and the
// signed ones of the latter two.
func (s *Signature) Digests() [][]byte {
	return [][]byte{s.info, s.props, s.propsWant, s.certDigest, s.certWant}
}

// InsertAt returns the offset and prefix for a time-stamp.
func (s *Signature) InsertAt() (int, string) { return s.insertAt, s.prefix }

// IssuerText reports whether the fast path takes name, escaped, for an issuer.
func IssuerText(name string) bool { return plainText([]byte(escape.Replace(name))) }
