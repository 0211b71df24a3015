// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"time"

	"kontor/pki/asic"
	"kontor/pki/xades"
)

// NewPress returns a function that signs a message as the messages of one key
// are signed.
func NewPress(b Batching, c *xades.Credentials) func(asic.Digest) (*asic.Evidence, error) {
	p := &press{batching: b, counts: new(counts)}
	return func(d asic.Digest) (*asic.Evidence, error) {
		j := &job{evidence: &asic.Evidence{Message: d}}
		p.sign(c, j, time.Now)
		return j.evidence, j.err
	}
}
