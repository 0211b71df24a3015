// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kontor/pki/asic"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// Direction narrows a Query to requests or responses.
type Direction uint8

// The directions.
const (
	Both Direction = iota
	Requests
	Responses
)

// Query chooses records; a zero field does not narrow.
type Query struct {
	MessageID string
	From, To  time.Time // From ≤ Time < To
	Client    id.Client
	Service   id.Service
	Side      Side
	Direction Direction

	// After continues behind the record of that number, in the order asked for.
	// The record must still be in the log.
	After  uint64
	Limit  int
	Newest bool // newest first
}

// Find yields the chosen records in the order of their times, records of the
// same time in the order of their numbers. It sees the log as it is when the
// loop begins, but for records that retention removes meanwhile. An error ends
// the loop.
func (l *Log) Find(ctx context.Context, q Query) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		if err := l.enter(); err != nil {
			yield(nil, err)
			return
		}
		defer l.exit()
		if err := l.find(ctx, q, yield); err != nil {
			yield(nil, fmt.Errorf("search message log: %w", err))
		}
	}
}

// finder carries out one query.
type finder struct {
	Query
	client, owner, code, version string // of the query, as they stand in records

	src   *source
	last  uint64 // newest record that it sees
	from  found  // the first that it may yield, or the last with Newest
	limit int    // records still to yield; never 0 without a limit
	ctx   context.Context
	yield func(*Entry, error) bool
}

// found is a record in the order of Find.
type found struct {
	time int64
	seq  uint64
}

func compareFound(a, b found) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.seq, b.seq))
}

// errStop ends a search of which the caller has enough.
var errStop = errors.New("stop")

// find returns nil when yield has asked to stop.
func (l *Log) find(ctx context.Context, q Query, yield func(*Entry, error) bool) (err error) {
	last := l.durable.Load()
	src, err := l.source()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	snap := l.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	src.r = snap
	f := &finder{Query: q, src: src, last: last, limit: q.Limit, ctx: ctx, yield: yield}
	f.client = q.Client.String()
	if !q.Service.IsZero() {
		f.owner, f.code = q.Service.Owner().String(), q.Service.Code()
		f.version, _ = q.Service.Version()
	}
	if q.After != 0 {
		e, err := src.entry(q.After)
		if err != nil {
			return err
		}
		f.from = found{e.Time.UnixNano(), e.Seq}
	}
	if q.MessageID != "" {
		err = f.byID()
	} else {
		err = f.byBlocks()
	}
	if err == errStop {
		return nil
	}
	return err
}

// byID looks at the records that have the message id.
func (f *finder) byID() error {
	lower, upper := f.bounds(indexPrefix(prefixID, hashName(f.MessageID)), func(t int64) uint64 { return uint64(t) })
	return f.each(lower, upper, func(key []byte) error {
		r := reader{b: key[len(key)-16:]}
		at := found{int64(r.uint64()), r.uint64()}
		if f.passed(at) {
			return nil
		}
		return f.found(at)
	})
}

// byBlocks looks at the records of blocks, second by second.
func (f *finder) byBlocks() error {
	prefix := indexPrefix(prefixTime, 0)
	if !f.Client.IsZero() {
		prefix = indexPrefix(prefixClient, hashName(f.client))
	} else if !f.Service.IsZero() {
		prefix = indexPrefix(prefixService, hashName(f.Service.String()))
	}
	var now uint64
	var list []found
	done := func() error {
		slices.SortFunc(list, compareFound)
		if f.Newest {
			slices.Reverse(list)
		}
		for _, at := range list {
			if err := f.found(at); err != nil {
				return err
			}
		}
		list = list[:0]
		return nil
	}
	lower, upper := f.bounds(prefix, second)
	err := f.each(lower, upper, func(key []byte) error {
		r := reader{b: key[len(key)-16:]}
		t, first := r.uint64(), r.uint64()
		if t != now {
			if err := done(); err != nil {
				return err
			}
			now = t
		}
		b, err := f.src.locate(first)
		if err != nil {
			return err
		}
		if b == nil {
			return fmt.Errorf("block %d is missing in the index", first)
		}
		b.first, b.last = max(b.first, f.src.l.prune.upTo.Load()+1), min(b.last, f.last)
		err = f.src.scan(b, func(seq uint64, value []byte) error {
			r, err := readFields(seq, value)
			if err != nil {
				return err
			}
			if at := (found{r.nanos, seq}); second(r.nanos) == now && !f.passed(at) && f.mayMatch(&r) {
				list = append(list, at)
			}
			return f.ctx.Err()
		})
		if err != nil && b.last <= f.src.l.prune.upTo.Load() {
			return nil // removed meanwhile
		}
		return err
	})
	if err == nil {
		err = done()
	}
	return err
}

// each visits the keys of a range in the order asked for.
func (f *finder) each(lower, upper []byte, visit func(key []byte) error) error {
	it, err := f.src.r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	first, next := it.First, it.Next
	if f.Newest {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok && err == nil; ok = next() {
		if err = f.ctx.Err(); err == nil {
			err = visit(it.Key())
		}
	}
	if e := errors.Join(it.Error(), it.Close()); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// bounds returns the range of keys under a prefix that the query's times leave;
// unit is that of the keys.
func (f *finder) bounds(prefix []byte, unit func(int64) uint64) (lower, upper []byte) {
	at := func(t uint64) []byte { return binary.BigEndian.AppendUint64(slices.Clip(prefix), t) }
	lower, upper = prefix, prefixEnd(prefix)
	from, to := clampTime(f.From).UnixNano(), clampTime(f.To).UnixNano()
	if f.From.IsZero() {
		from = 0
	}
	if f.To.IsZero() {
		to = maxTime.UnixNano()
	}
	if f.After != 0 && f.Newest {
		to = min(to, f.from.time)
	} else {
		from = max(from, f.from.time)
	}
	if from > 0 {
		lower = at(unit(from))
	}
	if to < maxTime.UnixNano() {
		upper = at(unit(to) + 1)
	}
	if bytes.Compare(lower, upper) > 0 {
		lower = upper
	}
	return lower, upper
}

// passed reports whether a record lies in front of where the query continues.
func (f *finder) passed(at found) bool {
	if f.After == 0 {
		return false
	}
	if f.Newest {
		return compareFound(at, f.from) >= 0
	}
	return compareFound(at, f.from) <= 0
}

// found yields a record if it is one that the query asks for.
func (f *finder) found(at found) error {
	if at.seq > f.last || at.seq <= f.src.l.prune.upTo.Load() {
		return nil
	}
	if err := f.ctx.Err(); err != nil {
		return err
	}
	e, err := f.src.entry(at.seq)
	if err != nil {
		if at.seq <= f.src.l.prune.upTo.Load() {
			return nil
		}
		return err
	}
	if !f.matches(e) {
		return nil
	}
	if !f.yield(e, nil) {
		return errStop
	}
	if f.limit--; f.limit == 0 {
		return errStop
	}
	return nil
}

// mayMatch compares without decoding; matches has the last word.
func (f *finder) mayMatch(r *fields) bool {
	switch {
	case !f.Client.IsZero() && f.client != string(r.client),
		f.code != "" && (f.owner != string(r.owner) || f.code != string(r.code) || f.version != string(r.version)),
		f.Side != 0 && (f.Side == Server) != (r.flags&flagServer != 0),
		f.Direction == Requests && r.flags&flagResponse != 0,
		f.Direction == Responses && r.flags&flagResponse == 0,
		!f.From.IsZero() && r.nanos < clampTime(f.From).UnixNano(),
		!f.To.IsZero() && f.To.Before(maxTime) && r.nanos >= f.To.UnixNano():
		return false
	}
	return true
}

func clampTime(t time.Time) time.Time {
	if t.Before(minTime) {
		return minTime
	}
	if t.After(maxTime) {
		return maxTime
	}
	return t
}

func (q *Query) matches(e *Entry) bool {
	switch {
	case q.MessageID != "" && q.MessageID != e.MessageID,
		!q.Client.IsZero() && q.Client != e.Client,
		!q.Service.IsZero() && q.Service != e.Service,
		q.Side != 0 && q.Side != e.Side,
		q.Direction == Requests && e.Response,
		q.Direction == Responses && !e.Response,
		!q.From.IsZero() && e.Time.Before(q.From),
		!q.To.IsZero() && !e.Time.Before(q.To):
		return false
	}
	return true
}

// Container assembles the ASiC-E container of a record. Without a time-stamp it
// returns ErrNotStamped or, with force, obtains one first. The log must stay
// open while the container is written.
func (l *Log) Container(ctx context.Context, seq uint64, force bool) (*asic.Container, error) {
	e, err := l.Get(ctx, seq)
	if err != nil {
		return nil, err
	}
	return l.container(ctx, e, force, new(chainCache))
}

func (l *Log) container(ctx context.Context, e *Entry, force bool, cache *chainCache) (*asic.Container, error) {
	if e.Seq > l.stamps.upTo.Load() {
		if !force {
			return nil, fmt.Errorf("%w: record %d", ErrNotStamped, e.Seq)
		}
		if err := l.StampNow(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.exit()
	s, last, err := l.stampOf(e.Seq)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("%w: number %d was removed meanwhile", ErrNotFound, e.Seq)
	}
	c := &asic.Container{
		Message:        e.Head,
		Signatures:     e.Evidence.Signature,
		SigChainResult: e.Evidence.ChainResult,
		SigChain:       e.Evidence.Chain,
		Modified:       e.Time,
	}
	if s.result == nil {
		c.Signatures, err = xades.InsertTimestamp(e.Evidence.Signature, s.token)
	} else {
		c.Timestamp, c.TSChainResult = s.token, s.result
		c.TSChain, err = cache.chain(s, last, e.Seq)
	}
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", e.Seq, err)
	}
	for i, b := range e.Bodies {
		if b.State == BodyWithheld {
			continue // and so are all others
		}
		open := func() (io.ReadCloser, error) { return l.OpenBody(ctx, e, i) }
		c.Attachments = append(c.Attachments, asic.Attachment{Open: open, Size: b.Size})
	}
	return c, nil
}
