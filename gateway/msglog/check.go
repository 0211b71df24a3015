// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"kontor/pki/asic"
)

// CheckReport is the result of Check.
type CheckReport struct {
	First, Last uint64 // the numbers that were examined
	Records     int
	Stamped     int
	BodyFiles   int
	// Problems names what is wrong, at most maxProblems of it; More counts the
	// rest.
	Problems []string
	More     int
}

const maxProblems = 1000

// Valid reports whether nothing is wrong.
func (r *CheckReport) Valid() bool { return len(r.Problems) == 0 }

func (r *CheckReport) add(format string, args ...any) {
	if len(r.Problems) == maxProblems {
		r.More++
		return
	}
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Check reads the whole log and reports every contradiction: gaps, damaged
// segments and records, wrong digests, indexes without records and records
// without indexes, missing or surplus body files, time-stamps that do not cover
// what they claim. It does not verify signatures; exported containers are for
// that. An error means that the log could not be read, not that it is wrong.
func (l *Log) Check(ctx context.Context) (_ *CheckReport, err error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.exit()
	// While retention stands still and the numbers are taken before the
	// snapshot, everything up to them must be in it.
	select {
	case l.prune.turn <- struct{}{}:
		defer func() { <-l.prune.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c := &checker{l: l, ctx: ctx}
	c.report.First, c.report.Last = l.prune.upTo.Load()+1, l.durable.Load()
	c.stamped = l.stamps.upTo.Load()
	if c.src, err = l.source(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.src.close()) }()
	c.snap = l.db.NewSnapshot()
	defer func() { err = errors.Join(err, c.snap.Close()) }()
	c.src.r = c.snap
	for _, step := range []func() error{c.segments, c.indexes, c.blocks, c.bodyKeys, c.bodyFiles, c.stamps} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("check message log: %w", err)
		}
	}
	return &c.report, nil
}

type checker struct {
	l       *Log
	ctx     context.Context
	snap    *pebble.Snapshot
	src     *source
	stamped uint64
	want    uint64 // the next record
	block   *block // the last one looked up
	found   map[string]bool
	report  CheckReport
}

// each visits all keys under a prefix.
func (c *checker) each(prefix byte, visit func(key, value []byte) error) error {
	it, err := c.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return err
	}
	for it.First(); err == nil && it.Valid(); it.Next() {
		if err = c.ctx.Err(); err == nil {
			err = visit(it.Key(), it.Value())
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// segments reads all of them from their first byte to their last.
func (c *checker) segments() error {
	list := c.l.segs.all()
	c.want = list[0].first
	for _, seg := range list {
		c.reach(seg.first)
		if err := c.segment(seg); err != nil {
			return err
		}
	}
	c.reach(c.report.Last + 1)
	return nil
}

// reach notes that the records up to the one in front of seq should have come.
func (c *checker) reach(seq uint64) {
	if from, to := max(c.want, c.report.First), min(seq-1, c.report.Last); from <= to {
		c.report.add("records %d to %d are missing", from, to)
	}
	c.want = max(c.want, seq)
}

func (c *checker) segment(named *segment) (err error) {
	f, err := c.l.fs.Open(c.l.segmentPath(named))
	if err != nil {
		c.report.add("%v", err)
		return nil
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, _, err := c.l.readSegment(named); err != nil {
		c.report.add("%v", err)
	}
	offset := int64(headerSize)
	var buf []byte
	for {
		if c.want > c.report.Last && c.l.segs.get(named.number+1) == nil {
			return nil // what follows is being written
		}
		g, b, err := named.readGroup(f, offset, buf, nil)
		buf = b
		if err != nil {
			if err != errEnd && !errors.Is(err, errDamaged) {
				return err
			}
			next, err2 := named.findGroup(f, offset)
			if err2 != nil {
				return err2
			}
			if err != errEnd {
				c.report.add("%v", err)
			} else if next >= 0 {
				c.report.add("%v", named.damaged(offset, "zeros instead of a group"))
			}
			if next < 0 {
				return nil
			}
			offset = next
			continue
		}
		if err := c.group(named, offset, g); err != nil {
			return err
		}
		offset = g.end
	}
}

func (c *checker) group(seg *segment, offset int64, g *group) error {
	if g.first < c.want {
		c.report.add("%v", seg.damaged(offset, "record %d comes again", g.first))
		return nil
	}
	c.reach(g.first)
	var failed error
	err := g.entries(func(kind byte, seq uint64, body []byte) error {
		switch kind {
		case entryRecord:
			if seq >= c.report.First && seq <= c.report.Last && failed == nil {
				failed = c.record(seq, body)
			}
		case entryStamp:
			_, _, err := decodeStampEntry(body)
			return err
		case entryState:
			_, err := decodeState(body)
			return err
		}
		return nil
	})
	if err != nil {
		c.report.add("%v", seg.damaged(offset, "%w", err))
	}
	c.want = g.next()
	return failed
}

func (c *checker) record(seq uint64, value []byte) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	c.report.Records++
	if seq <= c.stamped {
		c.report.Stamped++
	}
	e, err := decodeEntry(seq, value, c.src)
	if err != nil {
		c.report.add("%v", err)
		return nil
	}
	if !e.HeadWithheld && sha512.Sum512(e.Head) != e.Evidence.Message {
		c.report.add("record %d: head does not match its digest", e.Seq)
	}
	if len(e.Evidence.Signature) == 0 {
		c.report.add("record %d: no signature", e.Seq)
	}
	if err := c.indexed(e); err != nil {
		return err
	}
	for i := range e.Bodies {
		if err := c.body(e, i); err != nil {
			return err
		}
	}
	return nil
}

// indexed looks for a record in all indexes.
func (c *checker) indexed(e *Entry) (err error) {
	if c.block == nil || e.Seq > c.block.last {
		if c.block, err = c.src.locate(e.Seq); err != nil {
			return err
		}
		c.found = map[string]bool{}
	}
	first := uint64(0)
	if c.block == nil {
		c.report.add("record %d: missing in index %c", e.Seq, prefixBlock)
	} else {
		first = c.block.first
	}
	n := noteOf(e, &c.l.names)
	s := second(n.time)
	for _, key := range [][]byte{
		appendIndexKey(nil, prefixID, n.id, uint64(n.time), e.Seq),
		appendIndexKey(nil, prefixClient, n.client, s, first),
		appendIndexKey(nil, prefixService, n.service, s, first),
		appendIndexKey(nil, prefixTime, 0, s, first),
	} {
		if c.found[string(key)] {
			continue
		}
		ok, err := c.has(key)
		if err != nil {
			return err
		}
		if !ok {
			c.report.add("record %d: missing in index %c", e.Seq, key[0])
		} else if key[0] != prefixID {
			c.found[string(key)] = true // as those of the block's next records
		}
	}
	return nil
}

func (c *checker) body(e *Entry, i int) error {
	b := e.Bodies[i]
	switch b.State {
	case BodyFile:
		v, err := get(c.snap, nameKey(prefixBody, string(b.data)))
		if err != nil {
			return err
		}
		if ref, err := decodeBodyRef(v); err != nil || ref != (bodyRef{e.Seq, b.Size}) {
			c.report.add("record %d: body file %s is not noted", e.Seq, b.data)
		}
	case BodyWithheld:
		return nil
	}
	f, err := c.l.OpenBody(c.ctx, e, i)
	if err != nil {
		c.report.add("%v", err)
		return nil
	}
	h := sha512.New()
	n, err := io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		c.report.add("record %d: body: %v", e.Seq, err)
	} else if n != b.Size || asic.Digest(h.Sum(nil)) != e.Evidence.Attachments[i] {
		c.report.add("record %d: body does not match its digest", e.Seq)
	}
	return nil
}

func (c *checker) has(key []byte) (bool, error) {
	_, closer, err := c.snap.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

// indexes looks for message ids that lead nowhere: every record was found in the
// index before, so the numbers must agree.
func (c *checker) indexes() error {
	n := 0
	err := c.each(prefixID, func(key, _ []byte) error {
		switch seq := keyNumber(key); {
		case seq < c.report.First:
			c.report.add("index %c names record %d, which does not exist", prefixID, seq)
		case seq <= c.report.Last:
			n++
		}
		return nil
	})
	if n != c.report.Records {
		c.report.add("index %c has %d entries for %d records", prefixID, n, c.report.Records)
	}
	return err
}

// blocks compares them with the entries by which they are found.
func (c *checker) blocks() error {
	next, listed := uint64(0), 0
	err := c.each(prefixBlock, func(key, value []byte) error {
		b, err := decodeBlock(key, value)
		if err != nil {
			c.report.add("%v", err)
			return nil
		}
		if next == 0 && b.first > c.report.First || next != 0 && b.first != next {
			c.report.add("block %d of the index does not follow the one before it", b.first)
		}
		next = b.last + 1
		listed += len(b.keys)
		return nil
	})
	if err != nil {
		return err
	}
	n := 0
	for _, prefix := range []byte{prefixClient, prefixService, prefixTime} {
		err := c.each(prefix, func(key, _ []byte) error {
			n++
			if ok, err := c.has(numberKey(prefixBlock, keyNumber(key))); err != nil {
				return err
			} else if !ok {
				c.report.add("index %c names block %d, which does not exist", prefix, keyNumber(key))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if n != listed {
		c.report.add("the index has %d entries for blocks instead of %d", n, listed)
	}
	return nil
}

func (c *checker) bodyKeys() error {
	return c.each(prefixBody, func(key, value []byte) error {
		c.report.BodyFiles++
		ref, err := decodeBodyRef(value)
		if err != nil {
			c.report.add("body %s: %v", key[1:], err)
			return nil
		}
		if ref.seq > c.report.Last {
			return nil
		}
		e, err := c.src.entry(ref.seq)
		if err != nil || !slices.ContainsFunc(e.Bodies, func(b Body) bool {
			return b.State == BodyFile && string(b.data) == string(key[1:])
		}) {
			c.report.add("body %s is noted for record %d, which has no such body", key[1:], ref.seq)
		}
		return nil
	})
}

// bodyFiles looks for files that no record names. Files as new as the check
// may belong to messages that are being appended.
func (c *checker) bodyFiles() error {
	shards, err := c.l.fs.List(c.l.bodyDir())
	if err != nil {
		return err
	}
	opened, err := c.l.getNumber(keyCollect)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		names, err := c.l.fs.List(filepath.Join(c.l.bodyDir(), shard))
		if err != nil {
			return err
		}
		for _, name := range names {
			n, ok := bodyNumber(name)
			if !ok || shardName(n) != shard {
				c.report.add("foreign file %s among the bodies", filepath.Join(shard, name))
				continue
			}
			if n >= opened {
				continue
			}
			known, err := c.has(nameKey(prefixBody, name))
			if err != nil {
				return err
			}
			if !known {
				c.report.add("body %s belongs to no record", name)
			}
		}
	}
	return nil
}

// stamps compares what the time-stamps claim to cover with the records. The
// records of the first stamp may have been removed in part.
func (c *checker) stamps() error {
	next := uint64(0)
	err := c.each(prefixStamp, func(key, value []byte) error {
		last := keyNumber(key)
		s, err := c.src.stamp(last, value)
		if err != nil {
			c.report.add("%v", err)
			next = last + 1
			return nil
		}
		if next == 0 && s.first > c.report.First || next != 0 && s.first != next {
			c.report.add("time-stamp of records %d to %d does not follow the one before it", s.first, last)
		}
		next = last + 1
		return c.stamp(s, last)
	})
	if next != 0 && next <= c.stamped || next == 0 && c.stamped >= c.report.First {
		c.report.add("records up to %d should be time-stamped", c.stamped)
	}
	return err
}

func (c *checker) stamp(s *stamp, last uint64) error {
	if len(s.token) == 0 {
		c.report.add("time-stamp of record %d is empty", last)
	}
	if s.result == nil {
		return nil
	}
	result, err := asic.TimestampResult(s.leaves)
	if err != nil || string(result) != string(s.result) {
		c.report.add("time-stamp of records %d to %d does not match its hash tree", s.first, last)
	}
	for seq := max(s.first, c.report.First); seq <= last; seq++ {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		e, err := c.src.entry(seq)
		if err != nil || sha512.Sum512(e.Evidence.Signature) != s.leaves[seq-s.first] {
			c.report.add("record %d is not what its time-stamp covers", seq)
		}
	}
	return nil
}
