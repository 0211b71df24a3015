// SPDX-License-Identifier: Apache-2.0

// Package opmonitor keeps operational data, one record of every exchange on
// each side, and tells what X-Road's monitoring services tell: operational
// data, health data, and the state of the security server's machine.
//
// The message path gives its records to [Store.Add], which copies them into a
// bounded buffer and never waits; [Store.Run] writes them in the background, a
// block a second. What does not fit is counted and lost. A crash loses what was
// added since the last block, at most a second of records.
//
// Anyone can have requests refused, even a peer that is not authenticated. Their
// records get a quarter of the buffer and a quarter of each segment, so that
// nobody pushes out what tells of exchanges that took place.
//
// Records are in segment files that are only appended to, the oldest of which
// go when they are too old or all are too large. They are no evidence: that is
// the message log's.
//
// Sources: X-Road Operational Monitoring Protocol, Monitoring Messages, and the
// behaviour of X-Road 7.8 servers.
package opmonitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"kontor/registry/id"
)

// Config says how much is kept. Zero values mean the defaults.
type Config struct {
	Dir string // of the segment files; made if need be

	Keep     time.Duration // older records go; default 7 days
	MaxBytes int64         // the oldest records go before there is more; default 1 GiB
	Buffer   int           // records that may wait to be written; default 20,000
	Flush    time.Duration // how often they are; default 1 s

	// InternalIP is the address of this server in its own network.
	InternalIP string
	// Endpoint returns the pattern of the endpoint of a service that a method
	// and a raw path belong to, "" if to none. It is asked in the background.
	// Nil: to none.
	Endpoint func(service id.Service, method, path string) string

	Now func() time.Time // nil: time.Now
	Log *zap.Logger      // nil: nothing is logged
}

func (c Config) withDefaults() Config {
	if c.Keep == 0 {
		c.Keep = 7 * 24 * time.Hour
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.Buffer == 0 {
		c.Buffer = 20_000
	}
	if c.Flush == 0 {
		c.Flush = time.Second
	}
	if c.Endpoint == nil {
		c.Endpoint = func(id.Service, string, string) string { return "" }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Stats count since the store was opened, but for what they say is there now.
type Stats struct {
	Stored   uint64    // records written
	Lost     uint64    // records that found the buffer or the share of refused requests full, or could not be written
	Bytes    int64     // size of the segment files now
	Segments int       // number of them now
	Oldest   time.Time // of the oldest record now; zero if there is none
}

// Store keeps records. It is safe for concurrent use; one goroutine runs Run.
type Store struct {
	cfg    Config
	health *health

	wake    chan struct{}
	waiting struct {
		sync.Mutex
		records []Record
		refused int // of them
		lost    uint64
	}
	// The writer's own.
	spare []Record
	enc   encoder
	block []byte
	file  *os.File // of the last segment; nil before the first write
	// Bytes of records of refused requests in the last segment and in the block
	// that is being made.
	refused, refusedNow int64

	mu       sync.Mutex // guards what follows
	segments []segment  // by their numbers
	next     uint64     // number of the next segment
	stored   uint64
	lost     uint64 // by failed writes, or because the share of refused requests was full
	failed   bool   // the last write failed; it is logged once
}

// segment is a file of blocks. Times within one do not go back.
type segment struct {
	number      uint64
	first, last int64 // s since 1970
	size        int64 // as far as it is whole
}

const (
	suffix = ".opdata"
	magic  = "KOPDATA1"
)

func (s *Store) path(number uint64) string {
	return filepath.Join(s.cfg.Dir, fmt.Sprintf("%016x%s", number, suffix))
}

// Open opens the store in cfg.Dir. What a crash left half written is passed
// over.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, wake: make(chan struct{}, 1), enc: encoder{table: map[string]uint64{}}, health: newHealth(cfg.Now())}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		number, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil || e.Name() != filepath.Base(s.path(number)) {
			continue // not ours
		}
		s.next = max(s.next, number+1)
		seg, err := survey(s.path(number))
		if err != nil {
			return nil, err
		}
		if seg.size <= int64(len(magic)) {
			if err := os.Remove(s.path(number)); err != nil {
				return nil, err
			}
			continue
		}
		seg.number = number
		s.segments = append(s.segments, seg)
	}
	slices.SortFunc(s.segments, func(a, b segment) int { return int(a.number) - int(b.number) })
	return s, nil
}

// survey finds how far a segment is whole, without reading its records.
func survey(path string) (segment, error) {
	var seg segment
	f, err := os.Open(path)
	if err != nil {
		return seg, err
	}
	defer f.Close()
	r := newBlockReader(f, 0)
	for {
		second, size, err := r.head()
		if err == nil {
			err = r.skip(size)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, errBlock) {
			return seg, nil
		}
		if err != nil {
			return seg, err
		}
		if seg.size == 0 {
			seg.first = second
		}
		seg.last, seg.size = second, r.offset
	}
}

// Add gives a record to the store, which copies it. It does not wait.
func (s *Store) Add(r *Record) {
	w := &s.waiting
	w.Lock()
	n := len(w.records)
	refused := r.refused()
	if n == s.cfg.Buffer || refused && w.refused >= refusedShare(s.cfg.Buffer) {
		w.lost++
		w.Unlock()
		return
	}
	w.records = append(w.records, *r)
	if refused {
		w.refused++
	}
	w.Unlock()
	if n == s.cfg.Buffer/2 {
		s.Wake()
	}
}

// Wake has what waits written without delay.
func (s *Store) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// Run writes records until ctx is done, and then what is left.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Flush)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return s.closeFile()
		case <-tick.C:
		case <-s.wake:
		}
		s.flush()
	}
}

// flush writes what waits, and removes what is too old or too much.
func (s *Store) flush() {
	w := &s.waiting
	w.Lock()
	records := w.records
	w.records, w.refused = s.spare[:0], 0
	w.Unlock()
	now := s.cfg.Now()
	if len(records) > 0 {
		s.write(records, now)
	}
	clear(records) // lets go of their texts
	s.spare = records
	s.expire(now)
}

// Bounds of a block: a reader holds it in memory.
const (
	blockRecords = 5000
	blockBytes   = 4 << 20
)

func (s *Store) write(records []Record, now time.Time) {
	for i := range records {
		r := &records[i]
		r.InternalIP = s.cfg.InternalIP
		if r.ServerType == Producer && r.Path != "" {
			r.RESTPath = s.cfg.Endpoint(r.Service, r.RESTMethod, r.Path)
		}
		if r.ServerType == Producer && !r.Service.IsZero() {
			s.health.add(r, now)
		}
		if refused := r.refused(); !refused || s.refused+s.refusedNow < refusedShare(s.segmentBytes()) {
			before := len(s.enc.body)
			w := r.row()
			s.enc.add(&w)
			if refused {
				s.refusedNow += int64(len(s.enc.body) - before)
			}
		} else {
			s.mu.Lock()
			s.lost++
			s.mu.Unlock()
		}
		if s.enc.n > 0 && (i+1 == len(records) || s.enc.n == blockRecords || len(s.enc.body) > blockBytes) {
			s.writeBlock(now)
		}
	}
}

// refused reports whether the request was refused before anybody was asked.
func (r *Record) refused() bool { return !r.Succeeded && r.RequestOut == 0 }

// refusedShare is what refused requests may take of so much room.
func refusedShare[N int | int64](room N) N { return room / 4 }

// segmentBytes is the size of a segment: a sixteenth of what is kept.
func (s *Store) segmentBytes() int64 { return s.cfg.MaxBytes / 16 }

func (s *Store) writeBlock(now time.Time) {
	n := uint64(s.enc.n)
	s.block = s.enc.appendBlock(s.block[:0], now.Unix())
	err := s.append(s.block, now.Unix())
	s.refused, s.refusedNow = s.refused+s.refusedNow, 0
	s.mu.Lock()
	if err == nil {
		s.stored += n
	} else {
		s.lost += n
	}
	first := err != nil && !s.failed
	s.failed = err != nil
	s.mu.Unlock()
	if first {
		s.cfg.Log.Error("operational data cannot be written and is lost; free space on the disk", zap.Error(err))
	}
}

// append writes a block to the last segment, or to a new one.
func (s *Store) append(block []byte, second int64) error {
	s.mu.Lock()
	var last segment
	if len(s.segments) > 0 {
		last = s.segments[len(s.segments)-1]
	}
	s.mu.Unlock()
	// A segment holds a sixteenth of what is kept, in bytes and in time.
	full := last.size+int64(len(block)) > s.segmentBytes() || second-last.first > int64(s.cfg.Keep.Seconds()/16)
	if s.file == nil || full || second < last.last {
		if err := s.rotate(); err != nil {
			return err
		}
		last = segment{number: s.next - 1, first: second, size: int64(len(magic))}
	}
	if _, err := s.file.WriteAt(block, last.size); err != nil {
		// What was written of it will be passed over.
		err = errors.Join(err, s.closeFile())
		if last.size == int64(len(magic)) { // a new segment, which nobody knows of: it would never go
			err = errors.Join(err, os.Remove(s.path(last.number)))
		}
		return err
	}
	last.last = second
	last.size += int64(len(block))
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.segments); n > 0 && s.segments[n-1].number == last.number {
		s.segments[n-1] = last
	} else {
		s.segments = append(s.segments, last)
	}
	return nil
}

// rotate starts a new segment.
func (s *Store) rotate() error {
	if err := s.closeFile(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(s.next), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.next++
	if _, err := f.WriteString(magic); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	s.file, s.refused = f, 0
	return nil
}

func (s *Store) closeFile() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// expire removes whole segments; what is too old in the others is not shown.
func (s *Store) expire(now time.Time) {
	s.mu.Lock()
	var total int64
	for _, seg := range s.segments {
		total += seg.size
	}
	var gone []segment
	old := now.Add(-s.cfg.Keep).Unix()
	for len(s.segments) > 0 && (s.segments[0].last < old || len(s.segments) > 1 && total > s.cfg.MaxBytes) {
		gone = append(gone, s.segments[0])
		total -= s.segments[0].size
		s.segments = s.segments[1:]
	}
	none := len(s.segments) == 0
	s.mu.Unlock()
	if none { // the one that was written to is among them
		if err := s.closeFile(); err != nil {
			s.cfg.Log.Error("operational data cannot be closed", zap.Error(err))
		}
	}
	for _, seg := range gone {
		if err := os.Remove(s.path(seg.number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Log.Error("old operational data cannot be removed", zap.Error(err))
		}
	}
}

// Stats returns what the store did and holds.
func (s *Store) Stats() Stats {
	s.waiting.Lock()
	lost := s.waiting.lost
	s.waiting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Stored: s.stored, Lost: lost + s.lost, Segments: len(s.segments)}
	for i, seg := range s.segments {
		st.Bytes += seg.size
		if i == 0 {
			st.Oldest = time.Unix(seg.first, 0)
		}
	}
	return st
}
