// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"crypto/sha256" // of values in foreign chains
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
)

const (
	nsHashChain = "http://cyber.ee/hashchain"
	nsDSig      = "http://www.w3.org/2000/09/xmldsig#"

	nameSigChain = "/sig-hashchain.xml"
	nameTSChain  = "/ts-hashchain.xml"

	uriSignatures = "/META-INF/signatures.xml"
)

// algorithm is a digest algorithm that chains may use.
type algorithm uint8

const (
	algNone algorithm = iota
	algSHA256
	algSHA384
	algSHA512
)

var algorithms = [...]struct {
	uri  string
	size int
}{
	algSHA256: {"http://www.w3.org/2001/04/xmlenc#sha256", sha256.Size},
	algSHA384: {"http://www.w3.org/2001/04/xmldsig-more#sha384", sha512.Size384},
	algSHA512: {"http://www.w3.org/2001/04/xmlenc#sha512", sha512.Size},
}

func (a algorithm) uri() string { return algorithms[a].uri }
func (a algorithm) size() int   { return algorithms[a].size }

func (a algorithm) new() hash.Hash {
	switch a {
	case algSHA256:
		return sha256.New()
	case algSHA384:
		return sha512.New384()
	}
	return sha512.New()
}

// sum computes the digest into out and returns its length.
func (a algorithm) sum(data []byte, out *Digest) int {
	switch a {
	case algSHA256:
		d := sha256.Sum256(data)
		return copy(out[:], d[:])
	case algSHA384:
		d := sha512.Sum384(data)
		return copy(out[:], d[:])
	}
	*out = sha512.Sum512(data)
	return len(out)
}

func algorithmByURI[S string | []byte](uri S) (algorithm, bool) {
	for a := algSHA256; a <= algSHA512; a++ {
		if algorithms[a].uri == string(uri) {
			return a, true
		}
	}
	return algNone, false
}

// appendSingleDigest appends the DER of
//
//	SingleDigest ::= SEQUENCE { digest OCTET STRING, uri UTF8String, transforms SEQUENCE {} }
func appendSingleDigest(b, digest []byte, a algorithm) []byte {
	uri := a.uri()
	n := 2 + len(digest) + 2 + len(uri) + 2 // every part is shorter than 128
	b = append(b, 0x30, byte(n), 0x04, byte(len(digest)))
	b = append(b, digest...)
	b = append(b, 0x0c, byte(len(uri)))
	b = append(b, uri...)
	return append(b, 0x30, 0x00)
}

// derHeader is the tag and length of a SEQUENCE of n bytes.
func derHeader(n int) []byte {
	switch {
	case n < 0x80:
		return []byte{0x30, byte(n)}
	case n < 0x100:
		return []byte{0x30, 0x81, byte(n)}
	case n < 0x10000:
		return []byte{0x30, 0x82, byte(n >> 8), byte(n)}
	case n < 0x1000000:
		return []byte{0x30, 0x83, byte(n >> 16), byte(n >> 8), byte(n)}
	}
	return []byte{0x30, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// step computes one node: the SHA-512 of the list of its children's digests.
func step(children ...Digest) Digest {
	const single = 2 + 2 + sha512.Size + 2 + 39 + 2
	var room [6 + 4*single]byte // enough for nodes and most messages
	b := slices.Grow(room[:0], 6+len(children)*single)
	b = append(b, derHeader(len(children)*single)...)
	for i := range children {
		b = appendSingleDigest(b, children[i][:], algSHA512)
	}
	return sha512.Sum512(b)
}

// Leaf is the digest that stands for one message in the tree: the part's own
// if there is only one, else one step over all of them, in order.
func Leaf(parts []Digest) Digest {
	if len(parts) == 1 {
		return parts[0]
	}
	return step(parts...)
}

// tree holds the levels of a Merkle tree from its leaves to its root.
// Neighbours are paired from the left; an odd node at the right edge moves up
// unchanged.
type tree [][]Digest

func newTree(leaves []Digest) tree {
	t := tree{leaves}
	for level := leaves; len(level) > 1; {
		up := make([]Digest, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, step(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		t = append(t, up)
		level = up
	}
	return t
}

func (t tree) root() Digest { return t[len(t)-1][0] }

// BuildChains makes the hash chains of messages that are to share one
// signature. Each message is the list of its parts' digests, the message
// itself first, then its attachments. result is what gets signed; chains holds
// one document per message. A single message with a single part has no chain:
// it is signed directly.
func BuildChains(messages [][]Digest) (result []byte, chains [][]byte, err error) {
	switch {
	case len(messages) == 0:
		return nil, nil, errors.New("hash chain: no message")
	case len(messages) == 1 && len(messages[0]) == 1:
		return nil, nil, errors.New("hash chain: a single part needs none")
	}
	leaves := make([]Digest, len(messages))
	for i, parts := range messages {
		if len(parts) == 0 {
			return nil, nil, fmt.Errorf("hash chain: message %d has no part", i)
		}
		leaves[i] = Leaf(parts)
	}
	t := newTree(leaves)
	chains = make([][]byte, len(messages))
	for i, parts := range messages {
		if len(parts) == 1 {
			chains[i] = t.chain(i, "/message.xml", nil)
		} else {
			chains[i] = t.chain(i, "", parts)
		}
	}
	return resultDocument(nameSigChain, t.root()), chains, nil
}

// BuildTimestampChains makes the hash chains of signature documents that are
// to share one time-stamp; leaves are their SHA-512 digests, in the order of
// their records. At least two are needed: a single signature is stamped
// directly.
func BuildTimestampChains(leaves []Digest) (result []byte, chains [][]byte, err error) {
	if len(leaves) < 2 {
		return nil, nil, errTooFewLeaves
	}
	t := newTree(leaves)
	chains = make([][]byte, len(leaves))
	for i := range chains {
		chains[i] = t.chain(i, uriSignatures, nil)
	}
	return resultDocument(nameTSChain, t.root()), chains, nil
}

var errTooFewLeaves = errors.New("hash chain: a time-stamp chain needs two signatures")

// TimestampResult is the result document alone that [BuildTimestampChains]
// would return: the bytes to stamp.
func TimestampResult(leaves []Digest) ([]byte, error) {
	if len(leaves) < 2 {
		return nil, errTooFewLeaves
	}
	return resultDocument(nameTSChain, newTree(leaves).root()), nil
}

// TimestampChain is the chain of leaf i alone, for who keeps only the leaves
// of a batch.
func TimestampChain(leaves []Digest, i int) ([]byte, error) {
	if len(leaves) < 2 {
		return nil, errTooFewLeaves
	}
	if i < 0 || i >= len(leaves) {
		return nil, fmt.Errorf("hash chain: no leaf %d", i)
	}
	return newTree(leaves).chain(i, uriSignatures, nil), nil
}

const (
	xmlHead = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"

	// The attribute order and prefixes are those of X-Road's own writer.
	declarations = ` xmlns="` + nsDSig + `" xmlns:ns2="` + nsHashChain + `"`

	algSHA512Attribute = ` Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>` + "\n"
)

func appendDigestValue(b []byte, indent string, d *Digest) []byte {
	b = append(b, indent...)
	b = append(b, "<DigestValue>"...)
	b = base64.StdEncoding.AppendEncode(b, d[:])
	return append(b, "</DigestValue>\n"...)
}

func resultDocument(chainName string, root Digest) []byte {
	b := make([]byte, 0, 408)
	b = append(b, xmlHead+`<ns2:HashChainResult URI="`...)
	b = append(b, chainName...)
	b = append(b, `#STEP0"`+declarations+">\n    <DigestMethod"+algSHA512Attribute...)
	b = appendDigestValue(b, "    ", &root)
	return append(b, "</ns2:HashChainResult>\n"...)
}

// chain writes the path from the root to leaf i. With parts, a last step
// lists them; else the leaf is the one part dataURI.
func (t tree) chain(i int, dataURI string, parts []Digest) []byte {
	b := make([]byte, 0, 256+len(t)*340+len(parts)*210)
	b = append(b, xmlHead+`<ns2:HashChain`+declarations+">\n    <ns2:DefaultDigestMethod"+algSHA512Attribute...)

	steps := 0
	open := func() {
		b = append(b, `    <ns2:HashStep id="STEP`...)
		b = strconv.AppendInt(b, int64(steps), 10)
		b = append(b, "\">\n"...)
		steps++
	}
	dataRef := func(uri string, n int, d *Digest) {
		b = append(b, `        <ns2:DataRef URI="`...)
		b = append(b, uri...)
		if n > 0 {
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, "\">\n"...)
		b = appendDigestValue(b, "            ", d)
		b = append(b, "        </ns2:DataRef>\n"...)
	}

	// The lowest level on which leaf i has a neighbour: below it, the path
	// is the leaf itself, moved up.
	lowest := 0
	for lowest < len(t)-1 && (i>>lowest)^1 >= len(t[lowest]) {
		lowest++
	}
	for level := len(t) - 2; level >= lowest; level-- {
		own := i >> level
		if own^1 >= len(t[level]) {
			continue // moved up unchanged: no node here
		}
		open()
		for side := range 2 {
			switch node := own&^1 | side; {
			case node != own:
				b = append(b, "        <ns2:HashValue>\n"...)
				b = appendDigestValue(b, "            ", &t[level][node])
				b = append(b, "        </ns2:HashValue>\n"...)
			case level == lowest && parts == nil:
				dataRef(dataURI, 0, &t[level][node])
			default:
				b = append(b, `        <ns2:StepRef URI="#STEP`...)
				b = strconv.AppendInt(b, int64(steps), 10)
				b = append(b, "\"/>\n"...)
			}
		}
		b = append(b, "    </ns2:HashStep>\n"...)
	}
	if parts != nil {
		open()
		for n := range parts {
			if n == 0 {
				dataRef("/message.xml", 0, &parts[0])
			} else {
				dataRef("/attachment", n, &parts[n])
			}
		}
		b = append(b, "    </ns2:HashStep>\n"...)
	}
	return append(b, "</ns2:HashChain>\n"...)
}
