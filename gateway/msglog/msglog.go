// SPDX-License-Identifier: Apache-2.0

// Package msglog is the message log: the durable memory of what was signed.
//
// Append returns only when a record would survive the loss of power; records
// that are appended at the same time share one write and one flush of the disk.
// They stand in segments, files that are only appended to; a Pebble database
// beside them is their index and can be made again at any time. Time-stamps
// follow behind (Run): the signatures that wait become one hash tree, one
// token of a time-stamping authority covers them all. Container turns a record
// into the ASiC-E container that anybody can verify.
//
// After the first failed flush nobody knows what the disk holds, and asking it
// again may get a false "yes". So the log then refuses all further records
// until it is opened anew and reads back what there really is.
package msglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"kontor/pki/tsa"
)

// What the log refuses, for errors.Is.
var (
	ErrClosed       = errors.New("message log is closed")
	ErrFailed       = errors.New("message log stopped after a failed write")
	ErrDiskFull     = errors.New("disk is full")
	ErrTimestamping = errors.New("time-stamping fails")
	ErrNoTSA        = errors.New("no time-stamping authority is configured")
	ErrNotStamped   = errors.New("message is not time-stamped yet")
	ErrNotFound     = errors.New("no such record in the message log")
	ErrInvalid      = errors.New("record is incomplete or contradicts itself")
)

// BodyPolicy says what the log keeps of message bodies.
type BodyPolicy uint8

// The policies. Without bodies a container proves less: its message and
// attachment can no longer be compared with what was signed.
const (
	FullBodies BodyPolicy = iota
	// NoBodies keeps no body; of a SOAP envelope all but the content of its
	// body, and of a REST head only the method, the path up to the service code
	// and the x-road- headers.
	NoBodies
)

// Defaults and bounds of Config.
const (
	DefaultInterval      = time.Minute
	MaxInterval          = 24 * time.Hour
	DefaultFailurePeriod = 4 * time.Hour
	DefaultReserve       = 256 << 20
)

// Config describes a message log. Dir is required.
type Config struct {
	// Dir holds everything; the log creates it and locks it against a second
	// process.
	Dir string

	// Stamp obtains a time-stamp token over data from one of the configured
	// authorities. Nil means that there is none.
	Stamp func(ctx context.Context, data []byte) (*tsa.Token, error)
	// HasTSA reports whether an authority is configured at present; nil means
	// always. It is asked on every Append and must be quick.
	HasTSA func() bool
	// Interval is the longest time a signature waits for its time-stamp, as the
	// global configuration says. Nil means DefaultInterval.
	Interval func() time.Duration
	// MinInterval and MaxInterval bound the interval; 0 means a minute and a day.
	MinInterval, MaxInterval time.Duration
	// RetryInterval is the pause after a failed time-stamp; 0 means a minute.
	RetryInterval time.Duration
	// FailurePeriod is how long time-stamping may fail before Append refuses;
	// 0 means DefaultFailurePeriod, negative for ever.
	FailurePeriod time.Duration

	BodyPolicy BodyPolicy
	// Reserve is the free space in bytes that Append leaves on the disk; 0 means
	// DefaultReserve, negative no reserve.
	Reserve   int64
	Retention Retention

	// ObserveSync, if set, is told how long each flush of the log took.
	ObserveSync func(time.Duration)
	Now         func() time.Time // nil means time.Now
	Log         *zap.Logger      // nil means silence
}

// tuning is what tests change.
type tuning struct {
	index         func(*pebble.Options)
	segment, step int64 // segmentSize, zeroStep
	noted         int   // maxNoted
}

// Log is an open message log, safe for concurrent use.
type Log struct {
	cfg    Config
	tuning tuning
	fs     *watchFS
	db     *pebble.DB // the index

	segs     segments
	queue    queue
	writer   segmentWriter // the committer's
	index    index
	next     atomic.Uint64 // the next sequence number; that of queue, for those who only estimate
	segFirst atomic.Uint64 // likewise the first record of the last segment
	durable  atomic.Uint64 // the last record that is durable, and so visible

	inFlight atomic.Int64 // appends now waiting for the disk
	appended atomic.Uint64

	stalled    atomic.Int64 // since when the committer waits for the index, in nanoseconds; 0: it does not
	stalls     atomic.Int64 // how long that was before, in nanoseconds
	complained atomic.Int64 // when the disk was last reported, in nanoseconds

	failOnce sync.Once
	failed   chan struct{} // closed when failure is set
	failure  error

	mu     sync.Mutex
	closed bool
	users  int
	idle   *sync.Cond

	space    spaceGuard
	bodies   bodyStore
	patterns patterns
	names    nameHashes
	leaves   recentLeaves
	stamps   stampState
	prune    pruneState
}

// Open opens the log in cfg.Dir or creates it, brings the index up to date and
// clears away what an interrupted Append left behind. Where something that was
// acknowledged cannot be read any more, it says where and refuses.
func Open(cfg Config) (*Log, error) {
	return open(cfg, vfs.Default, tuning{func(*pebble.Options) {}, segmentSize, zeroStep, maxNoted})
}

// open is Open with tuning for tests.
func open(cfg Config, fs vfs.FS, t tuning) (*Log, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open message log: no folder given")
	}
	cfg.setDefaults()
	l := &Log{cfg: cfg, tuning: t, failed: make(chan struct{})}
	l.idle = sync.NewCond(&l.mu)
	l.index.l, l.writer.l = l, l
	l.fs = &watchFS{FS: fs, failed: l.fail, observe: cfg.ObserveSync}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open message log %s: %w", cfg.Dir, errors.Join(err, l.end()))
	}
	return l, nil
}

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Interval == nil {
		c.Interval = func() time.Duration { return DefaultInterval }
	}
	if c.MinInterval == 0 {
		c.MinInterval = DefaultInterval
	}
	if c.MaxInterval == 0 {
		c.MaxInterval = MaxInterval
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = DefaultInterval
	}
	if c.FailurePeriod == 0 {
		c.FailurePeriod = DefaultFailurePeriod
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	c.Retention.setDefaults()
}

func (l *Log) open() error {
	if _, err := l.fs.Stat(filepath.Join(l.cfg.Dir, "records")); !notExist(err) {
		return errors.Join(err, fmt.Errorf("%w: the folder records was written in format 2 or before, this program reads format %d; "+
			"keep it for the program that wrote it, and begin with an empty folder", errFormat, formatVersion))
	}
	for _, dir := range []string{l.cfg.Dir, l.bodyDir(), l.SpoolDir(), l.segmentDir()} {
		if err := l.mkdir(dir); err != nil {
			return err
		}
	}
	if err := l.create(); err != nil {
		return err
	}
	if err := l.openDB(l.dbDir()); err != nil {
		if pebble.IsCorruptionError(err) || notExist(err) {
			err = fmt.Errorf("the index is damaged; remove the folder %s, it is made again from the segments: %w", l.dbDir(), err)
		}
		return err
	}
	if err := l.checkFormat(); err != nil {
		return err
	}
	if err := l.recover(); err != nil {
		return err
	}
	l.prune.turn = make(chan struct{}, 1)
	if err := l.loadStamps(l.index.place.state); err != nil {
		return err
	}
	if err := l.collect(); err != nil {
		return err
	}
	if err := l.failedErr(); err != nil {
		return err
	}
	l.index.start()
	l.start(l.index.place.state, l.index.place.next)
	return nil
}

// create makes the index if there is none, under another name until it is
// whole: Pebble cannot open what a crash leaves of its own first steps.
func (l *Log) create() error {
	if _, err := l.fs.Stat(l.dbDir()); !notExist(err) {
		return err
	}
	dir := l.dbDir() + ".new"
	if err := l.fs.RemoveAll(dir); err != nil && !notExist(err) {
		return err
	}
	if err := l.openDB(dir); err != nil {
		return err
	}
	err := l.guard(func() error { return l.db.Set(keyFormat, numberKey(0, formatVersion)[1:], pebble.Sync) })
	if err = errors.Join(err, l.closeDB()); err != nil {
		return err
	}
	if err := l.fs.Rename(dir, l.dbDir()); err != nil {
		return err
	}
	return l.fs.syncDir(l.cfg.Dir)
}

// openDB turns Pebble's panics over a failing disk into errors, and gives up
// where Pebble would try for ever.
func (l *Log) openDB(dir string) error {
	type opened struct {
		db  *pebble.DB
		err error
	}
	done := make(chan opened, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- opened{err: fmt.Errorf("%v", p)}
			}
		}()
		o := l.options()
		l.tuning.index(o)
		db, err := pebble.Open(dir, o)
		done <- opened{db, err}
	}()
	select {
	case o := <-done:
		l.db = o.db
		return o.err
	case <-l.failed:
		return l.failure
	}
}

func (l *Log) dbDir() string   { return filepath.Join(l.cfg.Dir, "index") }
func (l *Log) bodyDir() string { return filepath.Join(l.cfg.Dir, "bodies") }

// SpoolDir is the folder in which the bodies of messages under way should be
// spooled: on the same file system, so that the log can adopt them without a
// copy. Open empties it.
func (l *Log) SpoolDir() string { return filepath.Join(l.cfg.Dir, "spool") }

// mkdir creates dir and makes its name durable.
func (l *Log) mkdir(dir string) error {
	if err := l.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return l.fs.syncDir(filepath.Dir(dir))
}

func (l *Log) options() *pebble.Options {
	o := &pebble.Options{
		FS:                 pebbleFS{l.fs},
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             pebbleLogger{l},
		// What a crash takes from the memtable is read from the segments again.
		MemTableSize: 4 << 20,
		CacheSize:    2 << 20,
		// Keys are written once and seldom read: merging tables later and in
		// larger steps saves CPU.
		L0CompactionThreshold: 10,
		L0StopWritesThreshold: 40,
		LBaseMaxBytes:         512 << 20,
		// Without it the first flush after a burst writes megabytes at once.
		WALBytesPerSync: 256 << 10,
	}
	// Hashes are random: harder compression costs more than it gains.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	for i := range o.Levels {
		o.Levels[i].BlockSize, o.Levels[i].IndexBlockSize = 32<<10, 32<<10
	}
	var flushErr atomic.Pointer[error]
	listener := pebble.EventListener{
		// A flush may also end with an error that is none, for an empty table;
		// only true ones come here too.
		FlushEnd: func(info pebble.FlushInfo) { flushErr.Store(&info.Err) },
		BackgroundError: func(err error) {
			if last := flushErr.Load(); last != nil && errors.Is(err, *last) {
				// Pebble will try again at once and for ever, while the records
				// wait in memory until that is full.
				l.fail(fmt.Errorf("write table: %w", err))
			}
			l.background("background work failed", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			l.background("corrupt data in "+info.Path, info.Details)
		},
	}
	o.EventListener = &listener
	return o
}

// background reports what is wrong with the disk; Pebble may come across the
// same thing many times a second.
func (l *Log) background(what string, err error) {
	now := l.cfg.Now().UnixNano()
	if last := l.complained.Load(); last == 0 || now-last > int64(time.Minute) {
		l.complained.Store(now)
		l.cfg.Log.Error("message log: "+what, zap.Error(err))
	}
}

// syncInterval trades a little latency for larger groups per flush when many
// appends wait anyway. Few writers would only be slowed down.
func (l *Log) syncInterval() time.Duration {
	switch n := l.inFlight.Load(); {
	case n < 16:
		return 0
	case n < 128:
		return 500 * time.Microsecond
	default:
		return 2 * time.Millisecond
	}
}

const formatVersion = 3

func (l *Log) checkFormat() error {
	v, err := l.getNumber(keyFormat)
	switch {
	case err != nil:
		return err
	case v == 0:
		return errors.New("this is not a message log")
	case v != formatVersion:
		return otherFormat(v)
	}
	return nil
}

// get returns a copy of a value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, len(v)), v...)
	return b, closer.Close()
}

// getNumber returns a single value, 0 if it was never set.
func (l *Log) getNumber(key []byte) (uint64, error) {
	v, err := get(l.db, key)
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("value of %q is damaged", key)
	}
	return binary.BigEndian.Uint64(v), nil
}

// fail stops the log for good; the first reason stays.
func (l *Log) fail(err error) {
	l.failOnce.Do(func() {
		l.failure = fmt.Errorf("%w and must be opened anew (restart the gateway; records acknowledged so far are safe): %w", ErrFailed, err)
		close(l.failed)
		l.cfg.Log.Error("message log: stopped, no message will be accepted until the gateway is restarted", zap.Error(err))
	})
}

func (l *Log) failedErr() error {
	select {
	case <-l.failed:
		return l.failure
	default:
		return nil
	}
}

// enter registers a use of the database, which Close waits for.
func (l *Log) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.users++
	return nil
}

func (l *Log) exit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.idle.Broadcast()
	}
}

// Close waits for calls under way, loops over Find among them, and closes the
// log. Later calls return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	for l.users > 0 {
		l.idle.Wait()
	}
	l.mu.Unlock()
	if err := l.end(); err != nil {
		return fmt.Errorf("close message log: %w", err)
	}
	return nil
}

// end stops what runs and closes what is open.
func (l *Log) end() error {
	err := l.stopCommitter()
	if err == nil {
		err = l.writer.close()
	}
	err = errors.Join(err, l.index.close())
	if l.db != nil {
		err = errors.Join(err, l.closeDB())
	}
	return err
}

// closeTimeout bounds the closing of a database that has failed: locks that
// the failure left behind may never be released.
const closeTimeout = time.Second

func (l *Log) closeDB() error {
	db := l.db
	l.db = nil
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%v", p)
			}
		}()
		done <- db.Close()
	}()
	if l.failedErr() == nil {
		return <-done
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errors.New("the failed database does not close; end the process")
	}
}

// guard does something to the index. Pebble panics, or only tells its logger, or
// stands still when its write-ahead log is beyond repair; all end as an error
// here.
func (l *Log) guard(do func() error) error {
	if err := l.failedErr(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("index: %v", p)
			}
		}()
		done <- do()
	}()
	select {
	case err := <-done:
		if err != nil {
			l.fail(err)
		}
		return l.failedErr()
	case <-l.failed:
		return l.failure
	}
}

// pebbleLogger passes on what an operator should know.
type pebbleLogger struct{ l *Log }

func (p pebbleLogger) Infof(string, ...any) {}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.cfg.Log.Error("message log: " + fmt.Sprintf(format, args...))
}

// Fatalf is Pebble's word for "state unknown". It returns, unlike what Pebble
// is used to; the log accepts nothing afterwards.
func (p pebbleLogger) Fatalf(format string, args ...any) {
	p.l.fail(fmt.Errorf(format, args...))
}

// notExist reports whether err says that a file is missing.
func notExist(err error) bool { return errors.Is(err, os.ErrNotExist) }
