// SPDX-License-Identifier: Apache-2.0

package message

import "io"

// NewEncoderWithBoundary is NewEncoder with a boundary that a test can know.
func NewEncoderWithBoundary(w io.Writer, boundary string) *Encoder {
	e := NewEncoder(w)
	e.boundary = boundary
	return e
}

// Letters are the ranges of letters outside ASCII that XML names may have.
var Letters = letters

// Answering returns the envelope with a request hash.
func (e *Envelope) Answering(hash string) (*Envelope, error) { return e.answering(hash) }

// Raw returns the document.
func (e *Envelope) Raw() []byte { return e.raw }

// PlainMedia reads a content type in the common form.
func PlainMedia(s string) (name, boundary, charset string, hasCharset, ok bool) {
	m, ok := plainMedia(s)
	return m.name, m.boundary, m.charset, m.charsets, ok
}
