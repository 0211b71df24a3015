// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
)

const (
	// settled is how long a role must be quiet at first, quiet how long
	// later: a pause between two bursts is not worth the work.
	settled = time.Second
	quiet   = 10 * time.Second
	// quietRate is how much a quiet role allocates, in bytes per second: it
	// polls, stamps and is asked for its metrics.
	quietRate = 1 << 20
	// worthwhile is how much must have been allocated since memory was given
	// back, in bytes.
	worthwhile = 32 << 20
)

// GiveBack gives memory back to the system that only the start of a role needed
// and, each time that it has become quiet, what only the load needed. The
// runtime alone would keep most of it for minutes, and the pages of the program
// that have been used once for good. Begin it when the role is ready; a start
// has pauses, too. It works for the whole process, until ctx is done; exchanges
// that come meanwhile are a few milliseconds slower.
func GiveBack(ctx context.Context, log *zap.Logger) {
	giveBack(ctx, allocated, func() {
		runtime.GC() // pools keep their buffers for one collection
		debug.FreeOSMemory()
		if err := dropProgram(); err != nil {
			log.Debug("the pages of the program stay in memory", zap.Error(err)) // nothing depends on it
		}
	})
}

// giveBack calls free when the process is quiet and it is worthwhile.
func giveBack(ctx context.Context, allocated func() uint64, free func()) {
	every := settled
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, enough := allocated(), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := last
		last = allocated()
		if last-before >= uint64(every)*quietRate/uint64(time.Second) || last < enough {
			continue
		}
		free()
		last = allocated()
		enough = last + worthwhile
		every = quiet
		tick.Reset(every)
	}
}

// allocated is how much the process has allocated since its start, in bytes.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
