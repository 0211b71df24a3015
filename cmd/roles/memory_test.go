// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"context"
	"slices"
	"sync/atomic"
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
		var allocated atomic.Uint64
		start := time.Now()
		var freed []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			roles.GiveBackAs(ctx, allocated.Load, func() {
				freed = append(freed, time.Since(start))
				allocated.Add(mib / 2)
			})
		}()
		time.Sleep(time.Second / 4)
		for step := range 240 {
			switch {
			case step < 4: // start
				allocated.Add(5 * mib)
			case step < 40: // nothing but what goes on always
				allocated.Add(mib / 8)
			case step < 80: // load
				allocated.Add(mib * 3 / 2)
			}
			time.Sleep(time.Second / 2)
			synctest.Wait()
		}
		stop()
		<-done
		if want := []time.Duration{3 * time.Second, 53 * time.Second}; !slices.Equal(freed, want) {
			t.Errorf("given back after %v, want %v", freed, want)
		}
	})
}
