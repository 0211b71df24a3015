// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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
// loop begins. An error ends the loop.
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

// find returns nil when yield has asked to stop.
func (l *Log) find(ctx context.Context, q Query, yield func(*Entry, error) bool) (err error) {
	snap := l.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	lower, upper, err := l.bounds(snap, q)
	if err != nil {
		return err
	}
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first, next := it.First, it.Next
	if q.Newest {
		first, next = it.Last, it.Prev
	}
	found := 0
	for ok := first(); ok; ok = next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := l.get(snap, keyNumber(it.Key()))
		if err != nil {
			return err
		}
		if !q.matches(e) {
			continue
		}
		if !yield(e, nil) {
			return nil
		}
		if found++; found == q.Limit {
			return nil
		}
	}
	return it.Error()
}

// bounds chooses the index that narrows most and the range within it.
func (l *Log) bounds(r pebble.Reader, q Query) (lower, upper []byte, err error) {
	var prefix []byte
	switch {
	case q.MessageID != "":
		prefix = indexPrefix(prefixID, q.MessageID)
	case !q.Client.IsZero():
		prefix = indexPrefix(prefixClient, q.Client.String())
	case !q.Service.IsZero():
		prefix = indexPrefix(prefixService, q.Service.String())
	default:
		prefix = indexPrefix(prefixTime, "")
	}
	at := func(t time.Time, seq uint64) []byte {
		b := numberKey(0, uint64(t.UnixNano()))[1:]
		return append(append(append([]byte(nil), prefix...), b...), numberKey(0, seq)[1:]...)
	}
	lower, upper = prefix, prefixEnd(prefix)
	if !q.From.IsZero() && q.From.After(minTime) {
		lower = at(clampTime(q.From), 0)
	}
	if !q.To.IsZero() && q.To.Before(maxTime) {
		upper = at(clampTime(q.To), 0)
	}
	if q.After != 0 {
		e, err := l.get(r, q.After)
		if err != nil {
			return nil, nil, err
		}
		if q.Newest {
			upper = minKey(upper, at(e.Time, e.Seq))
		} else {
			lower = maxKey(lower, at(e.Time, e.Seq+1))
		}
	}
	if bytes.Compare(lower, upper) > 0 {
		lower = upper
	}
	return lower, upper, nil
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

func minKey(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}

func maxKey(a, b []byte) []byte {
	if bytes.Compare(a, b) > 0 {
		return a
	}
	return b
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
