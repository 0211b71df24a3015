// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"kontor/gateway/msglog"
)

// acked is a message whose Append has returned without error.
type acked struct {
	seq    uint64
	id     string
	bodies [][]byte
}

// ledger collects acknowledgements.
type ledger struct {
	mu   sync.Mutex
	list []acked
}

func (l *ledger) add(a acked) {
	l.mu.Lock()
	l.list = append(l.list, a)
	l.mu.Unlock()
}

func (l *ledger) snapshot() []acked {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// messages to log, made once: signing takes longer than anything else here.
var crashRecords = sync.OnceValue(func() []*msglog.Record {
	var rs []*msglog.Record
	for i := range 24 {
		rs = append(rs, record(fmt.Sprintf("m%d", i), crashBodies(i)...))
	}
	return rs
})

// crashBodies gives every third message no body, every third a small one and
// the others a large one or several of both sizes.
func crashBodies(i int) [][]byte {
	small, large := bytes.Repeat([]byte{byte(i)}, 100), bytes.Repeat([]byte{byte(i)}, 40_000)
	switch i % 6 {
	case 1, 4:
		return [][]byte{small}
	case 2:
		return [][]byte{large}
	case 5:
		return [][]byte{large, small, large[1:]}
	}
	return nil
}

// workload opens a log, appends with several goroutines, stamps, prunes,
// reopens. It stops at the first error and reports every acknowledgement.
func workload(fs vfs.FS, tune func(*pebble.Options), flush bool, led *ledger) error {
	c, f := newClock(), &fakeTSA{}
	cfg := config(c, f)
	records := crashRecords()
	for half := range 2 {
		l, err := msglog.OpenSized(cfg, fs, tune, 25_000)
		if err != nil {
			return err
		}
		err = fill(fs, l, led, records[half*12:half*12+12], half*12)
		if err == nil {
			err = l.StampNow(context.Background())
		}
		if err == nil && half == 1 && flush {
			err = l.Flush()
		}
		// A log that failed may take its time to close; the next process will
		// not wait for it either.
		if l.Stats().Failed != nil {
			go l.Close()
			return errors.Join(err, l.Stats().Failed)
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fill(fs vfs.FS, l *msglog.Log, led *ledger, records []*msglog.Record, first int) error {
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for g := range errs {
		wg.Go(func() {
			for i := g; i < len(records) && errs[g] == nil; i += len(errs) {
				errs[g] = appendOne(fs, l, led, records[i], first+i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func appendOne(fs vfs.FS, l *msglog.Log, led *ledger, proto *msglog.Record, i int) error {
	r := *proto
	bodies, err := sources(fs, l, r.MessageID, crashBodies(i))
	if err != nil {
		return err
	}
	for _, b := range bodies {
		if b.Path() != "" {
			defer fs.Remove(b.Path())
		}
	}
	if err := l.AppendSource(context.Background(), &r, bodies...); err != nil {
		return err
	}
	led.add(acked{r.Seq, r.MessageID, crashBodies(i)})
	return nil
}

// verify opens what a crash left and demands that nothing acknowledged is lost,
// that the numbers have no gap, that nothing contradicts itself, and that the
// log goes on.
func verify(t *testing.T, fs vfs.FS, want []acked, when string) {
	t.Helper()
	c, f := newClock(), &fakeTSA{}
	l, err := msglog.OpenFS(config(c, f), fs, smallTables)
	if err != nil {
		t.Fatalf("%s: open: %v", when, err)
	}
	defer closeLog(t, l)
	rep, err := l.Check(t.Context())
	if err != nil || !rep.Valid() {
		t.Fatalf("%s: check: %v %v", when, err, rep)
	}
	for _, a := range want {
		e, err := l.Get(t.Context(), a.seq)
		if err != nil {
			t.Fatalf("%s: lost record %d (%s): %v", when, a.seq, a.id, err)
		}
		if e.MessageID != a.id {
			t.Fatalf("%s: record %d is %s, acknowledged was %s", when, a.seq, e.MessageID, a.id)
		}
		if got := found(t, l, msglog.Query{MessageID: a.id}); !slices.Contains(got, a.seq) {
			t.Fatalf("%s: record %d is not found by its id", when, a.seq)
		}
		if got := readBodies(t, l, e); !slices.EqualFunc(got, a.bodies, bytes.Equal) {
			t.Fatalf("%s: record %d: %d bodies are not the %d logged", when, a.seq, len(got), len(a.bodies))
		}
	}
	r := *crashRecords()[0]
	appendRecord(t, l, &r, nil)
	if r.Seq != rep.Last+1 {
		t.Fatalf("%s: next number is %d after %d", when, r.Seq, rep.Last)
	}
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatalf("%s: stamp: %v", when, err)
	}
	if spool, err := fs.List(l.SpoolDir()); err != nil || len(spool) > 0 {
		t.Fatalf("%s: left in the spool: %v %v", when, spool, err)
	}
}

// readBodies reads what the log has of the attachments of e.
func readBodies(t testing.TB, l *msglog.Log, e *msglog.Entry) (bodies [][]byte) {
	t.Helper()
	for n := 0; ; n++ {
		f, err := l.OpenBody(t.Context(), e, n)
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			return bodies
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, b)
	}
}

// TestCrashAtEveryOperation cuts the power before each operation that changes
// the disk, losing nothing, half or all of what was not flushed.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	type crash struct {
		fs   *vfs.MemFS
		want []acked
		when string
	}
	for _, kept := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("kept%d", kept), func(t *testing.T) {
			t.Parallel()
			var led ledger
			var mu sync.Mutex
			var crashes []crash
			seen := 0
			mem := vfs.NewCrashableMem()
			rng := rand.New(rand.NewPCG(1, uint64(kept)))
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if seen++; seen%stride != 0 {
					return nil
				}
				want := led.snapshot()
				crashes = append(crashes, crash{
					mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng}), want,
					fmt.Sprintf("before operation %d (%d %s)", seen, op.Kind, op.Path)})
				return nil
			}))
			if err := workload(fs, smallTables, true, &led); err != nil {
				t.Fatal(err)
			}
			if n := len(led.snapshot()); n != len(crashRecords()) {
				t.Fatalf("%d acknowledged", n)
			}
			t.Logf("%d crashes", len(crashes))
			for _, c := range crashes {
				verify(t, c.fs, c.want, c.when)
			}
		})
	}
}

// TestErrorAtEveryOperation lets each operation fail, once or from then on. The
// log may refuse whatever it likes, but not lose what it acknowledged.
func TestErrorAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, persistent := range []bool{false, true} {
		t.Run(fmt.Sprintf("persistent=%v", persistent), func(t *testing.T) {
			t.Parallel()
			failed := 0
			for n := int64(0); ; n += stride {
				var led ledger
				var count atomic.Int64
				var off atomic.Bool
				var hit atomic.Value // Pebble deletes files behind our back
				hit.Store("nowhere")
				mem := vfs.NewCrashableMem()
				fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					// The end of a file is no error to Pebble's readers, so failing
					// closes of files that were only read prove nothing.
					if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose || off.Load() {
						return nil
					}
					k := count.Add(1) - 1
					if k == n {
						hit.Store(fmt.Sprintf("operation %d (%d %s)", k, op.Kind, op.Path))
					}
					if k == n || persistent && k > n {
						return errorfs.ErrInjected
					}
					return nil
				}))
				done := make(chan error, 1)
				go func() { done <- workload(fs, undisturbed, false, &led) }()
				select {
				case err := <-done:
					if err != nil {
						failed++
					}
				case <-time.After(time.Minute):
					t.Fatalf("hangs after an error at %s", hit.Load())
				}
				if count.Load() <= n {
					t.Logf("%d operations, %d of them stop the log", n, failed)
					return
				}
				clone := mem.CrashClone(vfs.CrashCloneCfg{})
				verify(t, clone, led.snapshot(), "after an error at "+hit.Load().(string))
				off.Store(true)
			}
		})
	}
}

// allOf is the source of a crash that loses nothing.
func allOf() *rand.Rand { return rand.New(rand.NewPCG(5, 6)) }
