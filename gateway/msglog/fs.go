// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchFS reports every failed flush before the caller learns of it, and so
// before any later flush of the same file can seem to succeed. It also times
// the flushes of segments.
type watchFS struct {
	vfs.FS
	failed  func(error)
	observe func(time.Duration) // may be nil
}

func (w *watchFS) wrap(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchFile{File: f, fs: w, name: name, wal: isWAL(name), segment: filepath.Ext(name) == segmentSuffix}, nil
}

func (w *watchFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, c)
	return w.wrap(f, name, err)
}

func (w *watchFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.Open(name, opts...)
	return w.wrap(f, name, err)
}

func (w *watchFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.OpenReadWrite(name, c, opts...)
	return w.wrap(f, name, err)
}

func (w *watchFS) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	return w.wrap(f, name, err)
}

func (w *watchFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(from, to, c)
	return w.wrap(f, to, err)
}

// syncDir makes the names in a folder durable.
func (w *watchFS) syncDir(dir string) error {
	d, err := w.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (w *watchFS) Unwrap() vfs.FS { return w.FS }

// pebbleFS makes up for habits of Pebble. Where Pebble would end the process
// over a disk that fails, in a goroutine of its own or with its locks in
// disorder, it lets that goroutine stand still: the log has failed already, and
// whoever asks it can still be told so.
type pebbleFS struct{ *watchFS }

// Create flushes the names of a folder before it gets a marker, a file whose
// name refers to another one. A file system that keeps the one name and loses
// the other in a crash would make the log unreadable.
func (p pebbleFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(filepath.Base(name), "marker.") {
		if err := p.syncDir(filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	f, err := p.watchFS.Create(name, c)
	return f, p.beginWAL(name, err)
}

func (p pebbleFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := p.watchFS.ReuseForWrite(from, to, c)
	return f, p.beginWAL(to, err)
}

// beginWAL does not return if a write-ahead log cannot be begun.
func (p pebbleFS) beginWAL(name string, err error) error {
	if err != nil && isWAL(name) {
		p.failed(fmt.Errorf("begin write-ahead log: %w", err))
		select {}
	}
	return err
}

func (p pebbleFS) OpenDir(name string) (vfs.File, error) {
	f, err := p.watchFS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return pebbleDir{f}, nil
}

// pebbleDir is a folder whose flush does not return if it fails.
type pebbleDir struct{ vfs.File }

func (d pebbleDir) Sync() error {
	if d.File.Sync() != nil {
		select {}
	}
	return nil
}

func isWAL(name string) bool { return filepath.Ext(name) == ".log" }

type watchFile struct {
	vfs.File
	fs           *watchFS
	name         string
	wal, segment bool
}

// Write reports a write-ahead log of the index that ends in the middle at once,
// so that nothing further is handed to it.
func (f *watchFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil && f.wal {
		f.fs.failed(fmt.Errorf("write %s: %w", f.name, err))
	}
	return n, err
}

func (f *watchFile) Sync() error     { return f.flush(f.File.Sync) }
func (f *watchFile) SyncData() error { return f.flush(f.File.SyncData) }

func (f *watchFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	if err != nil {
		f.fs.failed(fmt.Errorf("flush %s: %w", f.name, err))
	}
	return full, err
}

func (f *watchFile) flush(sync func() error) error {
	if !f.segment || f.fs.observe == nil {
		return f.report(sync())
	}
	start := time.Now()
	err := sync()
	f.fs.observe(time.Since(start))
	return f.report(err)
}

func (f *watchFile) report(err error) error {
	if err != nil {
		f.fs.failed(fmt.Errorf("flush %s: %w", f.name, err))
	}
	return err
}

// spaceInterval is how long a look at the free space stays good.
const spaceInterval = 200 * time.Millisecond

// spaceGuard keeps a reserve of the disk free.
type spaceGuard struct {
	checked atomic.Int64 // when, in nanoseconds
	budget  atomic.Int64 // what may be written before the next look
}

// admitSpace returns ErrDiskFull if n bytes more would touch the reserve. They are
// written once; what the index takes is far less than the room that admit allows
// for a body.
func (l *Log) admitSpace(n int64) error {
	if l.cfg.Reserve < 0 {
		return nil
	}
	now := l.cfg.Now().UnixNano()
	if age := now - l.space.checked.Load(); age >= 0 && age < int64(spaceInterval) && l.space.budget.Add(-n) > 0 {
		return nil
	}
	usage, err := l.fs.GetDiskUsage(l.cfg.Dir)
	if err != nil {
		return nil // a file system that cannot tell cannot be guarded
	}
	l.space.checked.Store(now)
	free := int64(min(usage.AvailBytes, 1<<62))
	l.space.budget.Store(free - l.cfg.Reserve - n)
	if free-n < l.cfg.Reserve {
		return fmt.Errorf("%w: %d MiB free on the file system of %s, %d MiB are held in reserve; free some space, archive old records or enlarge the disk",
			ErrDiskFull, free>>20, l.cfg.Dir, l.cfg.Reserve>>20)
	}
	return nil
}
