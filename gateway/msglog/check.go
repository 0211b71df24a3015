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
// records, wrong digests, indexes without records and records without indexes,
// missing or surplus body files, time-stamps that do not cover what they claim.
// It does not verify signatures; exported containers are for that. An error
// means that the log could not be read, not that it is wrong.
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
	c.report.First, c.report.Last = l.prune.upTo.Load()+1, l.next.Load()-1
	c.stamped = l.stamps.upTo.Load()
	c.snap = l.db.NewSnapshot()
	c.patterns = &patternSource{r: c.snap}
	defer func() { err = errors.Join(err, c.snap.Close()) }()
	for _, step := range []func() error{c.records, c.indexes, c.bodyKeys, c.bodyFiles, c.stamps} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("check message log: %w", err)
		}
	}
	return &c.report, nil
}

type checker struct {
	l        *Log
	ctx      context.Context
	snap     *pebble.Snapshot
	patterns *patternSource
	stamped  uint64
	report   CheckReport
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

func (c *checker) records() error {
	want := c.report.First
	err := c.each(prefixRecord, func(key, value []byte) error {
		seq := keyNumber(key)
		if seq != want && want <= c.report.Last {
			c.report.add("records %d to %d are missing", want, seq-1)
		}
		want = seq + 1
		c.report.Records++
		if seq <= c.stamped {
			c.report.Stamped++
		}
		e, err := decodeEntry(seq, value, c.patterns)
		if err != nil {
			c.report.add("%v", err)
			return nil
		}
		return c.record(e)
	})
	if want <= c.report.Last {
		c.report.add("records %d to %d are missing", want, c.report.Last)
	}
	return err
}

func (c *checker) record(e *Entry) error {
	if !e.HeadWithheld && sha512.Sum512(e.Head) != e.Evidence.Message {
		c.report.add("record %d: head does not match its digest", e.Seq)
	}
	if len(e.Evidence.Signature) == 0 {
		c.report.add("record %d: no signature", e.Seq)
	}
	for i, key := range indexKeys(e) {
		if ok, err := c.has(key); err != nil {
			return err
		} else if !ok {
			c.report.add("record %d: missing in index %c", e.Seq, [4]byte{prefixID, prefixClient, prefixService, prefixTime}[i])
		}
	}
	for i := range e.Bodies {
		if err := c.body(e, i); err != nil {
			return err
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

// indexes looks for entries that lead nowhere: every record was found in every
// index before, so the numbers must agree.
func (c *checker) indexes() error {
	for _, prefix := range []byte{prefixID, prefixClient, prefixService, prefixTime} {
		n := 0
		err := c.each(prefix, func(key, _ []byte) error {
			n++
			if ok, err := c.has(numberKey(prefixRecord, keyNumber(key))); err != nil {
				return err
			} else if !ok {
				c.report.add("index %c names record %d, which does not exist", prefix, keyNumber(key))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n != c.report.Records {
			c.report.add("index %c has %d entries for %d records", prefix, n, c.report.Records)
		}
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
		v, err := get(c.snap, numberKey(prefixRecord, ref.seq))
		if err != nil {
			return err
		}
		e, err := decodeEntry(ref.seq, v, c.patterns)
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
			garbage, err := c.has(nameKey(prefixGarbage, name))
			if err != nil {
				return err
			}
			if !known && !garbage {
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
		s, err := decodeStamp(last, value)
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
		v, err := get(c.snap, numberKey(prefixRecord, seq))
		if err != nil {
			return err
		}
		e, err := decodeEntry(seq, v, c.patterns)
		if err != nil || sha512.Sum512(e.Evidence.Signature) != s.leaves[seq-s.first] {
			c.report.add("record %d is not what its time-stamp covers", seq)
		}
	}
	return nil
}
