// SPDX-License-Identifier: Apache-2.0

//go:build !race

package msglog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/gateway/msglog"
)

// TestAllocations holds the cost of a record. Run beside nothing else: the
// count is of the whole process.
func TestAllocations(t *testing.T) {
	l := openMem(t, config(newClock(), &fakeTSA{}), vfs.NewMem())
	defer closeLog(t, l)
	body := []byte("body")
	source := []msglog.BodySource{&memBody{data: body}}
	var records []*msglog.Record
	for i := range 64 {
		records = append(records, record(fmt.Sprintf("m%02d", i), body))
	}
	n := 0
	one := func() {
		r := *records[n%len(records)]
		n++
		r.Seq, r.Time = 0, time.Time{}
		if err := l.AppendSource(t.Context(), &r, source...); err != nil {
			t.Error(err)
		}
	}
	for range records { // learn the pattern, fill the pools
		one()
	}
	if got := testing.AllocsPerRun(500, one); got > 12 {
		t.Errorf("%v allocations per record", got)
	}
	if b := must(l.Stored(uint64(n))); len(b) > 800 {
		t.Errorf("%d bytes for a small message", len(b))
	}
}
