// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"math/bits"
	"sync"

	"kontor/pki/asic"
)

// Nine tenths of a signature document are the same in all that one key makes
// within an hour: certificate, OCSP responses, XML. So one record has such a
// document whole, as a pattern, and later ones have what differs. A pattern
// serves the records of its own segment alone, so it is there as long as they
// are.

const (
	// patternSpan is how many numbers after its own a pattern serves: long
	// enough to cost nothing, short enough that one that fits better gets its turn.
	patternSpan = 1 << 13
	// maxPatterns bounds the patterns in memory, and what is known of documents
	// that may become some.
	maxPatterns = 512
	// maxPattern bounds one, in bytes.
	maxPattern = 32 << 10

	patternSample = 64
	wordLen       = 8
)

// patternKey tells documents apart that cannot serve as each other's pattern:
// by their length and by a piece of what is usually an OCSP response.
type patternKey struct {
	length int
	sample [patternSample]byte
}

type pattern struct {
	seq uint64 // of the record it was taken from
	doc []byte
}

// patterns are those in use. A nil pattern under a key means that one such
// document has been seen.
type patterns struct {
	mu    sync.RWMutex
	known map[patternKey]*pattern
}

func keyOfPattern(doc []byte) (patternKey, bool) {
	k := patternKey{length: len(doc)}
	at := len(doc) / 4 * 3
	if at < patternSample || len(doc) > maxPattern {
		return k, false
	}
	copy(k.sample[:], doc[at-patternSample:])
	return k, true
}

// find returns the pattern for doc if there is one that serves the number next
// in a segment that begins with first, or else whether doc should become one.
func (p *patterns) find(doc []byte, first, next uint64) (found *pattern, learn bool) {
	k, ok := keyOfPattern(doc)
	if !ok {
		return nil, false
	}
	p.mu.RLock()
	found, seen := p.known[k]
	p.mu.RUnlock()
	if found != nil && found.seq >= first && next-found.seq < patternSpan {
		return found, false
	}
	if !seen {
		p.set(k, nil) // most documents that differ in length are never seen again
	}
	return nil, seen
}

// learn makes doc, of the record seq that is on its way to the disk, a pattern.
func (p *patterns) learn(doc []byte, seq uint64) {
	if k, ok := keyOfPattern(doc); ok {
		p.set(k, &pattern{seq, bytes.Clone(doc)})
	}
}

func (p *patterns) set(k patternKey, v *pattern) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[patternKey]*pattern{}
	}
	_, ok := p.known[k]
	if ok && v == nil {
		return // somebody was faster
	}
	if !ok && len(p.known) >= maxPatterns {
		for other := range p.known { // any will do: it is learnt again when needed
			delete(p.known, other)
			break
		}
	}
	p.known[k] = v
}

// appendDifference appends what doc has that a pattern of the same length has
// not: pairs of a number of bytes to keep and a number of bytes that follow. It
// reports false if that would not be much less than doc.
func appendDifference(b, pattern, doc []byte) ([]byte, bool) {
	limit := len(b) + len(doc)/2
	for at := 0; at < len(doc); {
		keep := commonPrefix(pattern[at:], doc[at:])
		from := at + keep
		to := nextAgreement(pattern, doc, from)
		if len(b)+to-from+2*binary.MaxVarintLen32 > limit {
			return b, false
		}
		b = binary.AppendUvarint(b, uint64(keep))
		b = appendBytes(b, doc[from:to])
		at = to
	}
	return b, true
}

// nextAgreement returns the first index from at on where a word agrees, or where
// too few bytes for a word are left: in base64 single letters agree now and then.
func nextAgreement(a, b []byte, at int) int {
	for at+wordLen <= len(a) {
		x := binary.LittleEndian.Uint64(a[at:]) ^ binary.LittleEndian.Uint64(b[at:])
		if x == 0 {
			return at
		}
		at += wordLen - bits.LeadingZeros64(x)/8 // behind the last that differs
	}
	return len(a)
}

// commonPrefix compares slices of the same length.
func commonPrefix(a, b []byte) int {
	const block = 256 // compared as fast as the machine can
	n := 0
	for n+block <= len(a) && bytes.Equal(a[n:n+block], b[n:n+block]) {
		n += block
	}
	for ; n+wordLen <= len(a); n += wordLen {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// applyDifference is the inverse of appendDifference.
func applyDifference(pattern, diff []byte) ([]byte, error) {
	doc := make([]byte, 0, len(pattern))
	r := reader{b: diff}
	for len(doc) < len(pattern) && r.err == nil {
		keep := r.uvarint()
		if keep > uint64(len(pattern)-len(doc)) {
			return nil, errEncoding
		}
		doc = append(doc, pattern[len(doc):len(doc)+int(keep)]...)
		piece := r.bytes()
		if len(piece) > len(pattern)-len(doc) || keep == 0 && len(piece) == 0 {
			return nil, errEncoding
		}
		doc = append(doc, piece...)
	}
	if r.err != nil || len(r.b) != 0 {
		return nil, errEncoding
	}
	return doc, nil
}

// recentLeaves remembers the digests of the last signature documents: the
// messages of a batch share one, and it is longer than a message.
type recentLeaves struct {
	mu   sync.Mutex
	next int
	last [4]struct {
		doc    []byte
		digest asic.Digest
	}
}

// digest returns the SHA-512 of doc, which must not change any more.
func (r *recentLeaves) digest(doc []byte) asic.Digest {
	r.mu.Lock()
	for i := range r.last {
		if d := &r.last[i]; bytes.Equal(d.doc, doc) {
			digest := d.digest
			r.mu.Unlock()
			return digest
		}
	}
	r.mu.Unlock()
	digest := asic.Digest(sha512.Sum512(doc))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[r.next].doc, r.last[r.next].digest = doc, digest
	r.next = (r.next + 1) % len(r.last)
	return digest
}
