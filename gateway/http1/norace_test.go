// SPDX-License-Identifier: Apache-2.0

//go:build !race

package http1_test

import "testing"

// TestAllocations keeps exchanges from costing more, unnoticed, than they do. It
// counts what net/http does for the response, and the request of the test.
func TestAllocations(t *testing.T) {
	for _, tt := range []struct {
		size int
		most float64
	}{{0, 18}, {8 << 10, 19}} {
		do, _ := exchange(t, tt.size)
		n := testing.AllocsPerRun(500, func() {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		})
		if n > tt.most {
			t.Errorf("an exchange with a body of %d bytes takes %v allocations, at most %v are expected", tt.size, n, tt.most)
		}
	}
}
