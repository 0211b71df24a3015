// SPDX-License-Identifier: Apache-2.0

//go:build !race

package asic_test

import (
	"fmt"
	"testing"

	"kontor/pki/asic"
)

// TestAllocations: of a batch, only the first message costs a signature, and
// the others next to no memory.
func TestAllocations(t *testing.T) {
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	var batch [][][]byte
	for i := range 8 {
		batch = append(batch, [][]byte{fmt.Append(nil, "message ", i), []byte("body")})
	}
	all := w.sign(w.credentials(w.member(who.Member(), w.newKey())), batch...)
	v := asic.NewVerifier(w.clock)
	i := 0
	got := testing.AllocsPerRun(200, func() {
		if _, err := v.Signature(all[i%len(all)], who, w.trust, w.now); err != nil {
			t.Fatal(err)
		}
		i++
	})
	if got > 4 {
		t.Errorf("%v allocations for a message of a batch, at most 4 wanted", got)
	}
}
