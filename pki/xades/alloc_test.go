// SPDX-License-Identifier: Apache-2.0

//go:build !race

package xades_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"kontor/pki/xades"
)

// TestAllocations keeps the hot paths lean: what they allocate beyond the
// cryptography is counted.
func TestAllocations(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	c, ref, p := credentials(t, key, 0), message(), xades.NewParser()
	doc := sign(t, c, ref)
	digest := make([]byte, 64)
	bare := testing.AllocsPerRun(100, func() {
		if _, err := key.Sign(rand.Reader, digest, crypto.SHA512); err != nil {
			t.Fatal(err)
		}
	})
	s, err := p.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	verify := testing.AllocsPerRun(100, func() {
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
	})
	for _, budget := range []struct {
		name string
		most float64
		f    func()
	}{
		{"Sign beyond the key's", bare + 5, func() { sign(t, c, ref) }},
		{"Parse of our own form", 3, func() {
			if _, err := p.Parse(doc); err != nil {
				t.Fatal(err)
			}
		}},
		{"Parse and Verify", 3 + verify, func() {
			if s, err := p.Parse(doc); err != nil || s.Verify() != nil {
				t.Fatal(err)
			}
		}},
	} {
		if got := testing.AllocsPerRun(100, budget.f); got > budget.most {
			t.Errorf("%s: %v allocations, at most %v wanted", budget.name, got, budget.most)
		} else {
			t.Logf("%s: %v allocations of %v", budget.name, got, budget.most)
		}
	}
}
