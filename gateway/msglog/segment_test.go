// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"kontor/gateway/msglog"
)

// segmentFiles lists the segments of a log.
func segmentFiles(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names := must(fs.List("log/segments"))
	slices.Sort(names)
	return names
}

// crashed returns the disk after a loss of power, with all that was flushed.
func crashed(fs *vfs.MemFS) *vfs.MemFS { return fs.CrashClone(vfs.CrashCloneCfg{}) }

// TestTornGroup cuts off the last group at each of its bytes: it was never
// acknowledged, so the log opens without it and goes on in its place.
func TestTornGroup(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	cfg := config(newClock(), &fakeTSA{})
	l := openMem(t, cfg, fs)
	defer closeLog(t, l)
	for i := range 4 {
		r := *crashRecords()[i*6]
		appendRecord(t, l, &r)
	}
	path, from, to := l.Place(4)
	for cut := from; cut < to; cut += stride {
		for i, torn := range []string{"end", "beginning"} {
			if i > 0 && cut%16 != 0 {
				continue
			}
			disk := crashed(fs)
			b := must(disk.UnsafeGetFileDataBuffer(path))
			if torn == "end" {
				clear(b[cut:to])
			} else {
				clear(b[from : cut+1])
			}
			l := openMem(t, cfg, disk)
			rep := checkLog(t, l)
			r := *crashRecords()[0]
			appendRecord(t, l, &r)
			if rep.Last != 3 || r.Seq != 4 {
				t.Errorf("%s at %d of %d: %d records, the next is %d", torn, cut-from, to-from, rep.Last, r.Seq)
			}
			closeLog(t, l)
			if cut%16 == 0 {
				l = openMem(t, cfg, disk)
				if rep := checkLog(t, l); rep.Records != 4 {
					t.Errorf("%s at %d of %d: %d records in the end", torn, cut-from, to-from, rep.Records)
				}
				closeLog(t, l)
			}
		}
	}
}

// TestDamagedGroup flips each byte of a group that others follow, and of the
// last one when the index knows it: neither is a torn end.
func TestDamagedGroup(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		seq     uint64
		indexed bool
	}{{2, false}, {4, true}} {
		t.Run(fmt.Sprint(test.seq), func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewCrashableMem()
			cfg := config(newClock(), &fakeTSA{})
			l := openMem(t, cfg, fs)
			for i := range 4 {
				r := *crashRecords()[i*6]
				appendRecord(t, l, &r)
			}
			path, from, to := l.Place(test.seq)
			if test.indexed {
				closeLog(t, l)
			} else {
				defer closeLog(t, l)
			}
			for at := from; at < to; at += 7 * stride {
				disk := crashed(fs)
				if test.indexed {
					disk = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: allOf()})
				}
				must(disk.UnsafeGetFileDataBuffer(path))[at] ^= 0x10
				_, err := msglog.OpenFS(cfg, disk, smallTables)
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s is damaged at offset %d", fs.PathBase(path), from)) {
					t.Fatalf("byte %d of %d: %v", at-from, to-from, err)
				}
			}
		})
	}
}

// TestDamagedFolder: what is missing or does not belong is named.
func TestDamagedFolder(t *testing.T) {
	t.Parallel()
	cfg := config(newClock(), &fakeTSA{})
	for name, test := range map[string]struct {
		change func(fs *vfs.MemFS, segments []string) error
		want   string
	}{
		"gap": {func(fs *vfs.MemFS, s []string) error { return fs.Remove("log/segments/" + s[1]) }, "a segment between " + "00000001-"},
		"end": {func(fs *vfs.MemFS, s []string) error { return fs.Remove("log/segments/" + s[len(s)-1]) }, "is missing, up to which"},
		"all": {func(fs *vfs.MemFS, s []string) error { return fs.RemoveAll("log/segments") }, "is missing, up to which"},
		"foreign": {func(fs *vfs.MemFS, s []string) error {
			f, err := fs.Create("log/segments/notes.txt", vfs.WriteCategoryUnspecified)
			return errors.Join(err, f.Close())
		}, "notes.txt is no segment"},
		"swapped": {func(fs *vfs.MemFS, s []string) error {
			a, b := must(fs.UnsafeGetFileDataBuffer("log/segments/"+s[0])), must(fs.UnsafeGetFileDataBuffer("log/segments/"+s[1]))
			copy(a, b)
			return nil
		}, "header: it is that of"},
		"other format": {func(fs *vfs.MemFS, s []string) error {
			must(fs.UnsafeGetFileDataBuffer("log/segments/" + s[0]))[11]++
			return nil
		}, "it was written in format 4, this program reads format 3"},
		"older format": {func(fs *vfs.MemFS, s []string) error { return fs.MkdirAll("log/records", 0o700) }, "was written in format 2"},
		"index": {func(fs *vfs.MemFS, s []string) error {
			for _, name := range must(fs.List("log/index")) {
				if strings.HasPrefix(name, "MANIFEST-") {
					b := must(fs.UnsafeGetFileDataBuffer("log/index/" + name))
					for i := range b {
						b[i] ^= 0x55
					}
				}
			}
			return nil
		}, "remove the folder log/index, it is made again from the segments"},
		"index in part": {func(fs *vfs.MemFS, s []string) error {
			for _, name := range must(fs.List("log/index")) {
				if strings.HasPrefix(name, "MANIFEST-") {
					if err := fs.Remove("log/index/" + name); err != nil {
						return err
					}
				}
			}
			return nil
		}, "remove the folder log/index, it is made again from the segments"},
		"cut off": {func(fs *vfs.MemFS, s []string) error {
			name := "log/segments/" + s[len(s)-1]
			b := must(fs.UnsafeGetFileDataBuffer(name))[:4096]
			f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			_, err = f.Write(b)
			return errors.Join(err, f.Close())
		}, "is damaged at offset 4096: it ends here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			l, err := msglog.OpenSized(cfg, fs, smallTables, 10_000)
			if err != nil {
				t.Fatal(err)
			}
			for range 30 {
				appendRecord(t, l, record("m"))
			}
			closeLog(t, l)
			if err := test.change(fs, segmentFiles(t, fs)); err != nil {
				t.Fatal(err)
			}
			_, err = msglog.OpenFS(cfg, fs, smallTables)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestIndexIsMadeAgain removes the index after everything that a log does.
func TestIndexIsMadeAgain(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	c := newClock()
	cfg := config(c, &fakeTSA{})
	cfg.Retention = msglog.Retention{Keep: 10 * time.Hour, ArchiveDir: "archive", MaxArchive: 12_000}
	if err := fs.MkdirAll("archive", 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := msglog.OpenSized(cfg, fs, smallTables, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fillOld(fs, l, 20), l.StampNow(t.Context())); err != nil {
		t.Fatal(err)
	}
	c.Advance(15*time.Hour + time.Minute)
	if n, err := l.Prune(t.Context()); n != 6 || err != nil {
		t.Fatalf("pruned %d: %v", n, err)
	}
	for range 3 {
		appendRecord(t, l, record("late"))
	}
	queries := []msglog.Query{{}, {MessageID: "m8"}, {MessageID: "late"}, {Client: client("DEV/GOV/111/sub"), Newest: true},
		{Service: service("DEV/COM/222/sub/svc"), From: epoch.Add(9 * time.Hour)}}
	var want [][]uint64
	for _, q := range queries {
		want = append(want, found(t, l, q))
	}
	stats := l.Stats()
	for range 2 {
		closeLog(t, l)
		if err := fs.RemoveAll("log/index"); err != nil {
			t.Fatal(err)
		}
		l = openMem(t, cfg, fs)
		checkLog(t, l)
		for i, q := range queries {
			if got := found(t, l, q); !slices.Equal(got, want[i]) {
				t.Errorf("%+v: got %v, want %v", q, got, want[i])
			}
		}
		if s := l.Stats(); s.First != stats.First || s.Last != stats.Last || s.Unstamped != stats.Unstamped ||
			s.BodyFiles != stats.BodyFiles || s.BodyBytes != stats.BodyBytes {
			t.Errorf("got %+v, want %+v", s, stats)
		}
		if _, err := l.Container(t.Context(), 7, false); err != nil {
			t.Error(err)
		}
	}
	c.Advance(1000 * time.Hour)
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Prune(t.Context()); n != 17 || err != nil {
		t.Errorf("pruned %d: %v", n, err)
	}
	if got := archived(t, fs, "archive"); len(got) != 23 {
		t.Errorf("archived %q", got)
	}
	closeLog(t, l)
}

// TestSegmentsGoWithTheirRecords: retention removes segments, all but the last,
// and age ends one that is not full.
func TestSegmentsGoWithTheirRecords(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	c := newClock()
	cfg := config(c, &fakeTSA{})
	cfg.Retention = msglog.Retention{Keep: 48 * time.Hour}
	l, err := msglog.OpenSized(cfg, fs, smallTables, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closeLog(t, l) }()
	add := func() (path string) {
		t.Helper()
		r := record("m")
		r.Time = time.Time{}
		appendRecord(t, l, r)
		path, _, _ = l.Place(r.Seq)
		return fs.PathBase(path)
	}
	for range 30 {
		add()
	}
	begun := add()
	for full := begun; begun == full; {
		begun = add()
	}
	full := segmentFiles(t, fs)
	if len(full) < 3 {
		t.Fatalf("segments %q", full)
	}
	old := l.Stats().Last
	c.Advance(23 * time.Hour)
	if name := add(); name != begun {
		t.Errorf("in %s after less than a day", name)
	}
	c.Advance(2 * time.Hour)
	if name := add(); name == begun {
		t.Error("a segment took records for more than a day")
	}
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := l.Stats().Bytes
	c.Advance(24 * time.Hour)
	if n, err := l.Prune(t.Context()); n != int(old) || err != nil {
		t.Errorf("pruned %d of %d: %v", n, old, err)
	}
	if left := segmentFiles(t, fs); left[0] != begun {
		t.Errorf("left %q of %q", left, full)
	}
	if after := l.Stats().Bytes; after >= before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	// A quiet log gives up its last segment, too.
	c.Advance(1000 * time.Hour)
	if n, err := l.Prune(t.Context()); n != 2 || err != nil {
		t.Errorf("pruned %d: %v", n, err)
	}
	if left := segmentFiles(t, fs); len(left) != 1 {
		t.Errorf("left %q", left)
	}
	checkLog(t, l)
	closeLog(t, l)
	l = openMem(t, cfg, fs)
	if s := l.Stats(); s.Last != old+2 || s.Records != 0 || s.Unstamped != 0 {
		t.Errorf("stats %+v", s)
	}
	checkLog(t, l)
}

// gate is a file system that holds up writes to segments, or ends them early.
type gate struct {
	vfs.FS
	mu    sync.Mutex
	short int // writes to let through before one that ends in the middle; negative: all
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &gateFile{f, g}, nil
}

type gateFile struct {
	vfs.File
	g *gate
}

func (f *gateFile) WriteAt(p []byte, offset int64) (int, error) {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	if f.g.short == 0 {
		n, err := f.File.WriteAt(p[:len(p)/2], offset)
		return n, errors.Join(err, syscall.ENOSPC)
	}
	f.g.short--
	return f.File.WriteAt(p, offset)
}

// TestFullInTheMiddle: a disk that is full in the middle of a group takes
// nothing from those before it.
func TestFullInTheMiddle(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	g := &gate{FS: mem, short: -1}
	cfg := config(newClock(), &fakeTSA{})
	l := openMem(t, cfg, g)
	for range 3 {
		appendRecord(t, l, record("m"))
	}
	g.mu.Lock()
	g.short = 0
	g.mu.Unlock()
	if err := l.Append(t.Context(), record("hit")); !errors.Is(err, msglog.ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if err := l.Append(t.Context(), record("after")); !errors.Is(err, msglog.ErrFailed) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Get(t.Context(), 3); err != nil {
		t.Errorf("reading: %v", err)
	}
	_ = l.Close()
	for _, disk := range []vfs.FS{crashed(mem), mem} {
		l := openMem(t, cfg, disk)
		if rep := checkLog(t, l); rep.Last != 3 {
			t.Errorf("%d records", rep.Last)
		}
		appendRecord(t, l, record("again"))
		closeLog(t, l)
	}
}

// TestGroups: who waits at the same time shares a flush, and a wait for a place
// in a group can be given up, but not one for the disk.
func TestGroups(t *testing.T) {
	t.Parallel()
	g := &gate{FS: vfs.NewMem(), short: -1}
	var syncs atomic.Int64
	cfg := config(newClock(), &fakeTSA{})
	cfg.ObserveSync = func(time.Duration) { syncs.Add(1) }
	l := openMem(t, cfg, g)
	defer closeLog(t, l)
	before := syncs.Load()
	g.mu.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	proto := record("m", make([]byte, 1<<20))
	errs := make(chan error, 20)
	for range cap(errs) {
		wg.Go(func() {
			r := *proto
			errs <- l.AppendSource(ctx, &r, &memBody{data: make([]byte, 1<<20)})
		})
	}
	for l.Stats().InFlight < int64(cap(errs)) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	gaveUp := 0
	for range cap(errs) - 8 { // there is room for three in each of two groups
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		gaveUp++
	}
	g.mu.Unlock()
	wg.Wait()
	close(errs)
	logged := 0
	for err := range errs {
		switch {
		case err == nil:
			logged++
		case errors.Is(err, context.Canceled):
			gaveUp++
		default:
			t.Error(err)
		}
	}
	if s := l.Stats(); int(s.Records) != logged || logged < 2 || logged+gaveUp != cap(errs) {
		t.Errorf("%d logged, %d gave up, %d in the log", logged, gaveUp, s.Records)
	}
	if n := int(syncs.Load() - before); n >= logged {
		t.Errorf("%d flushes for %d records", n, logged)
	}
	checkLog(t, l)
}

// TestUnusedSegment: a crash between the name of a segment and its first group
// leaves nothing that matters.
func TestUnusedSegment(t *testing.T) {
	t.Parallel()
	for _, left := range [][]byte{nil, make([]byte, 4096), append(make([]byte, 100), "torn"...)} {
		fs := vfs.NewMem()
		cfg := config(newClock(), &fakeTSA{})
		l := openMem(t, cfg, fs)
		appendRecord(t, l, record("m"))
		closeLog(t, l)
		f := must(fs.Create("log/segments/00000002-0000000000000002.seg", vfs.WriteCategoryUnspecified))
		if _, err := f.Write(left); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		l = openMem(t, cfg, fs)
		if files := segmentFiles(t, fs); len(files) != 1 {
			t.Errorf("segments %q", files)
		}
		appendRecord(t, l, record("m"))
		checkLog(t, l)
		closeLog(t, l)
	}
}

// How long the committer waits for the index is what an operator sees of it.
func TestStallsAreCounted(t *testing.T) {
	t.Parallel()
	var hold sync.Mutex
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".log") {
			hold.Lock()
			defer hold.Unlock()
		}
		return nil
	}))
	l, err := msglog.OpenLagging(config(newClock(), &fakeTSA{}), fs, func(o *pebble.Options) { o.MemTableSize = 64 << 10 }, 512)
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Stats().Stalled; s != 0 {
		t.Errorf("%s before anything was written", s)
	}
	hold.Lock()
	var wg sync.WaitGroup
	proto := record("m")
	var left atomic.Int64
	left.Store(5000)
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				r := *proto
				if err := l.Append(t.Context(), &r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for l.Stats().Stalled == 0 {
		time.Sleep(time.Millisecond)
	}
	during := l.Stats().Stalled
	hold.Unlock()
	wg.Wait()
	if after := l.Stats().Stalled; after < during || after != l.Stats().Stalled {
		t.Errorf("%s during a stall, %s after it", during, after)
	}
	checkLog(t, l)
	closeLog(t, l)
}

// FuzzSegment: of any file only what was written so is read.
func FuzzSegment(f *testing.F) {
	fs := vfs.NewMem()
	l := openMem(f, config(newClock(), &fakeTSA{}), fs)
	for i := range 4 {
		r := *crashRecords()[i*6]
		appendRecord(f, l, &r)
	}
	if err := l.StampNow(f.Context()); err != nil {
		f.Fatal(err)
	}
	path, _, _ := l.Place(1)
	whole := slices.Clone(must(fs.UnsafeGetFileDataBuffer(path)))
	closeLog(f, l)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(whole[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := msglog.Groups(b)
		if err == nil && (len(got) > len(b) || string(got) != string(b[:len(got)])) {
			t.Errorf("read %x\nwrote %x", b, got)
		}
	})
}

// FuzzGroup: what is inside a group whose checksum is right is foreign, too.
func FuzzGroup(f *testing.F) {
	e := msglog.Encode(&msglog.Entry{Record: *record("m")})
	stamp := append([]byte{0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, 1, 'T', 0, 0)
	f.Add(uint64(7), uint32(2), append(msglog.EntryOf(1, e), msglog.EntryOf(1, e)...))
	f.Add(uint64(1), uint32(1), append(msglog.EntryOf(1, e), msglog.EntryOf(2, stamp)...))
	f.Add(uint64(1), uint32(0), msglog.EntryOf(3, append(make([]byte, 24), 1, 'a')))
	f.Fuzz(func(t *testing.T, first uint64, records uint32, payload []byte) {
		if err := msglog.ReadGroup(first, records, payload); err != nil && strings.Contains(err.Error(), "as many") {
			t.Error(err)
		}
	})
}

// BenchmarkReplay makes the index again; an operation is a record.
func BenchmarkReplay(b *testing.B) {
	cfg := config(newClock(), &fakeTSA{})
	cfg.Dir, cfg.Now = b.TempDir(), nil
	l, err := msglog.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	proto := record("m")
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				r := *proto
				r.MessageID, r.Time = fmt.Sprint("message-", n/2), time.Time{}
				if err := l.Append(context.Background(), &r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	closeLog(b, l)
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	if l, err = msglog.Open(cfg); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	closeLog(b, l)
}
