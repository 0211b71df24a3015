// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kontor/cmd/roles"
)

// TestGiveBack: memory is given back soon after the start, when that is over,
// and later only after work and a rest.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const mib = 1 << 20
		var allocated uint64
		start := time.Now()
		var freed []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			roles.GiveBackAs(ctx, func() uint64 { return allocated }, func() {
				freed = append(freed, time.Since(start))
				allocated += mib / 2
			})
		}()
		time.Sleep(time.Second / 2)
		for second := range 120 {
			switch {
			case second < 2: // start
				allocated += 9 * mib
			case second < 20: // nothing but what goes on always
				allocated += mib / 4
			case second < 40: // load
				allocated += 3 * mib
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		stop()
		<-done
		if want := []time.Duration{3 * time.Second, 53 * time.Second}; !slices.Equal(freed, want) {
			t.Errorf("given back after %v, want %v", freed, want)
		}
	})
}
