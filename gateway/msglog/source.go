// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxSourcePatterns bounds the patterns that a source remembers.
const maxSourcePatterns = 16

// source reads records and time-stamps from the segments. It remembers the last
// group and the last patterns: records are often read one behind the other. It
// is for one goroutine, and must be closed.
type source struct {
	l *Log
	r pebble.Reader // the index

	seg  *segment
	file vfs.File
	buf  []byte

	group   *group   // nil if none is remembered
	records [][]byte // of group

	docs     map[uint64][]byte
	patterns *source // reads them, so that the last group stays
}

// source returns one that sees all that was acknowledged before.
func (l *Log) source() (*source, error) {
	if err := l.index.catchUp(); err != nil {
		return nil, err
	}
	return &source{l: l, r: l.db}, nil
}

func (s *source) close() error {
	var err error
	if s.patterns != nil {
		err = s.patterns.close()
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	s.file = nil
	return err
}

// block is a run of records in the index.
type block struct {
	first, last uint64
	segment     uint64
	offset      int64
	keys        [][]byte // of the block in other indexes, without its number at their ends
}

func (b *block) encode() []byte {
	v := binary.BigEndian.AppendUint64(nil, b.last)
	v = binary.BigEndian.AppendUint64(v, b.segment)
	v = binary.BigEndian.AppendUint64(v, uint64(b.offset))
	for _, k := range b.keys {
		v = appendBytes(v, k)
	}
	return v
}

func decodeBlock(key, value []byte) (*block, error) {
	r := reader{b: value}
	b := &block{first: keyNumber(key), last: r.uint64(), segment: r.uint64(), offset: int64(r.uint64())}
	for len(r.b) > 0 {
		b.keys = append(b.keys, bytes.Clone(r.bytes()))
	}
	if r.err != nil || b.last < b.first || b.offset < headerSize {
		return nil, fmt.Errorf("block %d of the index: %w", b.first, errEncoding)
	}
	return b, nil
}

// locate finds the block of a record, nil if there is none.
func (s *source) locate(seq uint64) (_ *block, err error) {
	it, err := s.r.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBlock}, UpperBound: numberKey(prefixBlock, seq+1)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return nil, it.Error()
	}
	b, err := decodeBlock(it.Key(), it.Value())
	if err != nil || b.last < seq {
		return nil, err
	}
	return b, nil
}

// record returns the canonical form of a record, valid until the next call. One
// that the index does not know is ErrNotFound.
func (s *source) record(seq uint64) ([]byte, error) {
	if s.group != nil && seq == s.group.next() {
		if err := s.forward(seq); err != nil && err != errEnd {
			return nil, err
		}
	}
	if s.group == nil || seq < s.group.first || seq >= s.group.next() {
		b, err := s.locate(seq)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return nil, fmt.Errorf("%w: number %d", ErrNotFound, seq)
		}
		if err := s.open(b.segment); err != nil {
			return nil, err
		}
		if err := s.read(b.offset, seq); err != nil {
			if err == errEnd {
				err = s.seg.damaged(b.offset, "record %d is missing", seq)
			}
			return nil, err
		}
	}
	return s.records[seq-s.group.first], nil
}

// forward reads on to the group of a record that follows those of the last one.
func (s *source) forward(seq uint64) error { return s.read(s.group.end, seq) }

// read reads the group of a record, which is at offset or behind it.
func (s *source) read(offset int64, seq uint64) error {
	s.group = nil
	skip := func(g *group) bool { return seq >= g.next() }
	for {
		g, buf, err := s.seg.readGroup(s.file, offset, s.buf, skip)
		if s.buf = buf; cap(buf) > maxPooled {
			s.buf = nil // of a large group that goes with it
		}
		if err != nil {
			return err
		}
		if skip(g) {
			offset = g.end
			continue
		}
		if seq < g.first {
			return s.seg.damaged(offset, "record %d is missing", seq)
		}
		s.records = s.records[:0]
		err = g.entries(func(kind byte, _ uint64, body []byte) error {
			if kind == entryRecord {
				s.records = append(s.records, body)
			}
			return nil
		})
		if err != nil {
			return s.seg.damaged(offset, "%w", err)
		}
		s.group = g
		return nil
	}
}

// open makes a segment the one that is read.
func (s *source) open(number uint64) error {
	if s.file != nil && s.seg.number == number {
		return nil
	}
	seg := s.l.segs.get(number)
	if seg == nil {
		return fmt.Errorf("%w: segment %d is missing", ErrNotFound, number)
	}
	f, err := s.l.fs.Open(s.l.segmentPath(seg))
	if err != nil {
		return err
	}
	if s.file != nil {
		err = s.file.Close()
	}
	s.seg, s.file, s.group = seg, f, nil
	return err
}

// entry returns a record.
func (s *source) entry(seq uint64) (*Entry, error) {
	if seq <= s.l.prune.upTo.Load() || seq > s.l.durable.Load() {
		return nil, fmt.Errorf("%w: number %d", ErrNotFound, seq)
	}
	v, err := s.record(seq)
	if err != nil {
		if seq <= s.l.prune.upTo.Load() {
			err = fmt.Errorf("%w: number %d was removed meanwhile", ErrNotFound, seq)
		}
		return nil, err
	}
	e, err := decodeEntry(seq, bytes.Clone(v), s)
	if err != nil {
		return nil, err
	}
	e.Stamped = seq <= s.l.stamps.upTo.Load()
	return e, nil
}

// pattern returns the signature document of a record that has it whole.
func (s *source) pattern(seq uint64) ([]byte, error) {
	if doc := s.docs[seq]; doc != nil {
		return doc, nil
	}
	if s.patterns == nil {
		s.patterns = &source{l: s.l, r: s.r}
	}
	v, err := s.patterns.record(seq)
	if err != nil {
		return nil, fmt.Errorf("the pattern of record %d: %w", seq, err)
	}
	f, err := readFields(seq, v)
	if err != nil || f.pattern != 0 || len(f.signature) == 0 {
		return nil, errors.Join(fmt.Errorf("record %d has no pattern", seq), err)
	}
	if len(s.docs) >= maxSourcePatterns || s.docs == nil {
		s.docs = map[uint64][]byte{}
	}
	doc := bytes.Clone(f.signature)
	s.docs[seq] = doc
	return doc, nil
}

// stampPlace is the value of a time-stamp in the index.
type stampPlace struct {
	first, segment uint64
	offset         int64 // of the group
}

func (p stampPlace) encode() []byte {
	v := binary.BigEndian.AppendUint64(nil, p.first)
	v = binary.BigEndian.AppendUint64(v, p.segment)
	return binary.BigEndian.AppendUint64(v, uint64(p.offset))
}

func decodeStampPlace(b []byte) (stampPlace, error) {
	r := reader{b: b}
	p := stampPlace{first: r.uint64(), segment: r.uint64(), offset: int64(r.uint64())}
	if len(r.b) != 0 || p.offset < headerSize {
		r.fail()
	}
	return p, r.err
}

// stamp reads the time-stamp that ends with record last.
func (s *source) stamp(last uint64, value []byte) (*stamp, error) {
	p, err := decodeStampPlace(value)
	if err != nil {
		return nil, fmt.Errorf("time-stamp of record %d in the index: %w", last, err)
	}
	if err := s.open(p.segment); err != nil {
		return nil, fmt.Errorf("time-stamp of record %d: %w", last, err)
	}
	g, _, err := s.seg.readGroup(s.file, p.offset, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("time-stamp of record %d: %w", last, err)
	}
	var found *stamp
	err = g.entries(func(kind byte, _ uint64, body []byte) error {
		if kind != entryStamp || found != nil {
			return nil
		}
		number, st, err := decodeStampEntry(body)
		if err == nil && number == last {
			found = st
		}
		return err
	})
	if err != nil {
		return nil, s.seg.damaged(p.offset, "%w", err)
	}
	if found == nil {
		return nil, s.seg.damaged(p.offset, "the time-stamp of record %d is missing", last)
	}
	return found, nil
}

// decodeStampEntry reads the entry of a time-stamp.
func decodeStampEntry(body []byte) (last uint64, _ *stamp, err error) {
	r := reader{b: body}
	last = r.uint64()
	if r.err != nil {
		return 0, nil, r.err
	}
	s, err := decodeStamp(last, r.b)
	return last, s, err
}

// scan visits the records of a block in the order of their numbers.
func (s *source) scan(b *block, visit func(seq uint64, value []byte) error) error {
	for seq := b.first; seq <= b.last; seq++ {
		v, err := s.record(seq)
		if err != nil {
			return err
		}
		if err := visit(seq, v); err != nil {
			return err
		}
	}
	return nil
}
