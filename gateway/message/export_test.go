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
