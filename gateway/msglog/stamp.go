// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"kontor/pki/asic"
	"kontor/pki/tsa"
	"kontor/pki/xades"
)

// Records are stamped in the order of their numbers, so the records that wait
// are those above one number, and a stamp covers a range.

// maxBatch is how many signatures one token covers at most, as in X-Road.
const maxBatch = 10_000

// stampTimeout bounds one request for a token: the connection, the answer and
// a second authority.
const stampTimeout = 3 * time.Minute

// stampState is what is known of time-stamping.
type stampState struct {
	turn  chan struct{} // held while stamping
	batch uint64        // maxBatch, less in tests
	full  chan struct{} // told when a batch waits
	upTo  atomic.Uint64 // the last stamped record
	// failing is the time of the first of the failures that last, in
	// nanoseconds since 1970; 0 if the last stamp succeeded.
	failing atomic.Int64

	mu        sync.Mutex
	lastError error
	lastStamp time.Time
	oldest    time.Time // of the waiting records; zero if none waits
	// leaves are the digests of the signature documents from the record first on,
	// so that stamping need not read them: of as many as fit into a batch.
	first  uint64
	leaves []asic.Digest
}

// admit refuses records when time-stamping has failed for too long.
func (s *stampState) admit(now time.Time, period time.Duration) error {
	since := s.failing.Load()
	if since == 0 || period < 0 || now.Sub(time.Unix(0, since)) <= period {
		return nil
	}
	s.mu.Lock()
	cause := s.lastError
	s.mu.Unlock()
	if cause == nil {
		cause = errors.New("not tried again since the start")
	}
	return fmt.Errorf("%w since %s, longer than the permitted %v: %w; check the time-stamping authority and the way to it, messages are accepted again with the next time-stamp that succeeds",
		ErrTimestamping, time.Unix(0, since).UTC().Format(time.RFC3339), period, cause)
}

// noteAppend remembers the records of a durable group, which wait. It is called
// in the order of the numbers; they may have been stamped already by then.
func (s *stampState) noteAppend(g *groupNote, leaves []asic.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upTo, last := s.upTo.Load(), g.first+uint64(len(leaves))-1
	for i, leaf := range leaves {
		seq := g.first + uint64(i)
		if seq <= upTo {
			continue
		}
		if s.oldest.IsZero() {
			s.oldest = time.Unix(0, g.records[i].time).UTC()
		}
		if len(s.leaves) == 0 {
			s.first = seq
		}
		if n := uint64(len(s.leaves)); n < s.batch && s.first+n == seq {
			s.leaves = append(s.leaves, leaf)
		}
	}
	if last > upTo && last-upTo >= s.batch {
		select {
		case s.full <- struct{}{}:
		default: // it has been told already
		}
	}
}

// remembered returns the digests of the records first…last, nil if they are not
// all known.
func (s *stampState) remembered(first, last uint64) []asic.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first < s.first || last >= s.first+uint64(len(s.leaves)) {
		return nil
	}
	return slices.Clone(s.leaves[first-s.first : last-s.first+1])
}

// forget drops the digests up to that of last.
func (s *stampState) forget(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last < s.first {
		return
	}
	n := min(last-s.first+1, uint64(len(s.leaves)))
	s.leaves = slices.Delete(s.leaves, 0, int(n))
	s.first += n
}

// loadStamps finds out which records wait and since when stamping fails.
func (l *Log) loadStamps(s state) error {
	l.stamps.turn, l.stamps.batch, l.stamps.full = make(chan struct{}, 1), maxBatch, make(chan struct{}, 1)
	l.stamps.upTo.Store(max(s.stamped, s.pruned))
	l.stamps.failing.Store(s.failing)
	return l.loadOldest()
}

// loadOldest finds out since when the first record waits that does. The lock,
// which the committer takes, too, is not held over a look into the log.
func (l *Log) loadOldest() error {
	first := l.stamps.upTo.Load() + 1
	l.stamps.mu.Lock()
	none := first > l.durable.Load()
	if none {
		l.stamps.oldest = time.Time{} // noteAppend sets it
	}
	l.stamps.mu.Unlock()
	if none {
		return nil
	}
	e, err := l.get(first)
	if err != nil {
		return err
	}
	l.stamps.mu.Lock()
	l.stamps.oldest = e.Time
	l.stamps.mu.Unlock()
	return nil
}

// Run stamps what waits, one interval at the latest after it was logged or as
// soon as it fills a batch, and does the work of retention, until ctx ends; then
// it returns nil. It returns an error only when the log has failed and must be
// opened anew.
func (l *Log) Run(ctx context.Context) error {
	retention := l.cfg.Now()
	wait := l.untilDue()
	for {
		timer := time.NewTimer(wait)
		full := l.stamps.full
		if l.stamps.failing.Load() != 0 {
			full = nil // the authority is asked again when it is time
		}
		stamp := l.StampNow
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-l.failed:
			timer.Stop()
			return l.failure
		case <-timer.C:
			if wait = l.untilDue(); wait > 0 {
				stamp = nil
			}
		case <-full:
			timer.Stop()
			stamp = l.stampFull
		}
		if stamp != nil {
			wait = l.round(ctx, stamp)
		}
		if l.retentionDue(retention) {
			retention = l.cfg.Now()
			if _, err := l.Prune(ctx); err != nil && ctx.Err() == nil {
				l.cfg.Log.Error("message log: old records were not removed", zap.Error(err))
			}
		}
	}
}

// round stamps and returns the pause before the next round. A failed batch is
// tried again as it is: for the authority a tree of ten thousand signatures is
// no more work than one signature.
func (l *Log) round(ctx context.Context, stamp func(context.Context) error) time.Duration {
	err := stamp(ctx)
	if err == nil {
		return l.untilDue()
	}
	if ctx.Err() == nil {
		s := l.Stats()
		l.cfg.Log.Warn("message log: time-stamping fails", zap.Error(err),
			zap.Uint64("waiting", s.Unstamped), zap.Time("since", s.FailingSince), zap.Time("refuse_messages_at", s.RefuseAt))
	}
	return min(l.interval(), l.cfg.RetryInterval)
}

func (l *Log) interval() time.Duration {
	return min(max(l.cfg.Interval(), l.cfg.MinInterval), l.cfg.MaxInterval)
}

// untilDue returns the time until the oldest waiting record must be stamped;
// it is looked at anew at least once per interval.
func (l *Log) untilDue() time.Duration {
	interval := l.interval()
	l.stamps.mu.Lock()
	oldest := l.stamps.oldest
	l.stamps.mu.Unlock()
	if oldest.IsZero() {
		return interval
	}
	return min(interval, oldest.Add(interval).Sub(l.cfg.Now()))
}

// StampNow stamps every record that was appended before the call.
func (l *Log) StampNow(ctx context.Context) error { return l.stampTo(ctx, l.durable.Load()) }

// stampFull stamps the records that fill a batch.
func (l *Log) stampFull(ctx context.Context) error {
	upTo := l.stamps.upTo.Load()
	waiting := l.durable.Load() - upTo
	return l.stampTo(ctx, upTo+waiting-waiting%l.stamps.batch)
}

func (l *Log) stampTo(ctx context.Context, last uint64) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	select {
	case l.stamps.turn <- struct{}{}:
		defer func() { <-l.stamps.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for l.stamps.upTo.Load() < last {
		if err := l.stampBatch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stampBatch stamps the first records that wait, a batch at most.
func (l *Log) stampBatch(ctx context.Context) error {
	if err := l.failedErr(); err != nil {
		return err
	}
	first := l.stamps.upTo.Load() + 1
	last := min(l.durable.Load(), first+l.stamps.batch-1)
	s, data, err := l.prepareStamp(ctx, first, last)
	if err != nil {
		return l.stampFailed(ctx, fmt.Errorf("prepare time-stamp of records %d to %d: %w", first, last, err))
	}
	token, err := l.requestStamp(ctx, data)
	if err != nil {
		return l.stampFailed(ctx, err)
	}
	s.time, s.token = token.Time, token.Raw
	if err := l.commitStamp(context.WithoutCancel(ctx), last, s); err != nil {
		return err
	}
	if l.stamps.failing.Swap(0) != 0 {
		l.cfg.Log.Info("message log: time-stamping succeeds again")
	}
	l.stamps.mu.Lock()
	l.stamps.lastError, l.stamps.lastStamp = nil, l.cfg.Now()
	l.stamps.mu.Unlock()
	l.stamps.upTo.Store(last)
	l.stamps.forget(last)
	return l.loadOldest()
}

func (l *Log) requestStamp(ctx context.Context, data []byte) (*tsa.Token, error) {
	if l.cfg.Stamp == nil {
		return nil, ErrNoTSA
	}
	ctx, cancel := context.WithTimeout(ctx, stampTimeout)
	defer cancel()
	return l.cfg.Stamp(ctx, data)
}

// stampFailed notes a failure; the first of a row is made durable, so that a
// restart does not begin the permitted period anew.
func (l *Log) stampFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // whoever asked gave up; that says nothing of the authority
	}
	l.stamps.mu.Lock()
	l.stamps.lastError = err
	l.stamps.mu.Unlock()
	err = fmt.Errorf("%w: %w", ErrTimestamping, err)
	now := l.cfg.Now().UnixNano()
	if l.stamps.failing.CompareAndSwap(0, now) {
		err = errors.Join(err, l.commitState(ctx, func(s *state) { s.failing = now }))
	}
	return err
}

// stamp is one time-stamp and what it covers: the value of the signature of
// one record (leaves is nil) or the hash tree over the signature documents of
// the records first, first+1, ….
type stamp struct {
	first  uint64
	time   time.Time
	token  []byte
	result []byte
	leaves []asic.Digest
}

const stampVersion = 1

// prepareStamp collects what a stamp of the records first…last covers and
// returns the data to be stamped.
func (l *Log) prepareStamp(ctx context.Context, first, last uint64) (*stamp, []byte, error) {
	s := &stamp{first: first}
	if first == last {
		e, err := l.get(first)
		if err != nil {
			return nil, nil, err
		}
		if value := stampable(e.Evidence.Signature); value != nil {
			return s, value, nil
		}
	}
	if s.leaves = l.stamps.remembered(first, last); s.leaves == nil {
		if err := l.readLeaves(ctx, s, first, last); err != nil {
			return nil, nil, err
		}
	}
	if len(s.leaves) == 1 {
		s.leaves = append(s.leaves, s.leaves[0]) // a tree needs two
	}
	result, err := asic.TimestampResult(s.leaves)
	if err != nil {
		return nil, nil, err
	}
	s.result = result
	return s, result, nil
}

// stampable returns the signature value of a document that can take up a token,
// nil for others: one in an unforeseen form must not hold up the queue, and a
// hash tree needs nothing but its bytes.
func stampable(doc []byte) []byte {
	sig, err := xades.Parse(doc)
	if err != nil {
		return nil
	}
	if _, err := xades.InsertTimestamp(doc, []byte{0}); err != nil {
		return nil
	}
	return sig.Value()
}

// readLeaves hashes the signature documents as they stand in the log.
func (l *Log) readLeaves(ctx context.Context, s *stamp, first, last uint64) (err error) {
	src, err := l.source()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	s.leaves = make([]asic.Digest, 0, last-first+1)
	for seq := first; seq <= last; seq++ {
		e, err := src.entry(seq)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		s.leaves = append(s.leaves, sha512.Sum512(e.Evidence.Signature))
	}
	return nil
}

// encode writes version, first number, time in nanoseconds, token, result and
// leaves.
func (s *stamp) encode() []byte {
	b := make([]byte, 0, 64+len(s.token)+len(s.result)+len(s.leaves)*sha512.Size)
	b = append(b, stampVersion)
	b = binary.BigEndian.AppendUint64(b, s.first)
	b = binary.BigEndian.AppendUint64(b, uint64(s.time.UnixNano()))
	b = appendBytes(b, s.token)
	b = appendBytes(b, s.result)
	b = binary.AppendUvarint(b, uint64(len(s.leaves)))
	for i := range s.leaves {
		b = append(b, s.leaves[i][:]...)
	}
	return b
}

func decodeStamp(last uint64, b []byte) (*stamp, error) {
	r := reader{b: b}
	if v := r.byte(); v != stampVersion {
		r.fail()
	}
	s := &stamp{first: r.uint64()}
	s.time = time.Unix(0, int64(r.uint64())).UTC()
	s.token, s.result = r.bytes(), r.bytes()
	n := r.uvarint()
	if n != uint64(len(r.b))/sha512.Size || len(r.b)%sha512.Size != 0 {
		r.fail()
	}
	want := uint64(0)
	if s.result != nil {
		want = max(2, last-s.first+1)
	}
	if r.err != nil || s.first == 0 || s.first > last || n != want || s.result == nil && s.first != last {
		return nil, fmt.Errorf("time-stamp of record %d: %w", last, errEncoding)
	}
	if n > 0 {
		s.leaves = make([]asic.Digest, n)
		for i := range s.leaves {
			copy(s.leaves[i][:], r.take(sha512.Size))
		}
	}
	return s, nil
}

// stampOf returns the stamp that covers a record and the number of the last
// record it covers, nil if there is none.
func (l *Log) stampOf(seq uint64) (_ *stamp, _ uint64, err error) {
	src, err := l.source()
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: numberKey(prefixStamp, seq), UpperBound: []byte{prefixStamp + 1}})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		return nil, 0, it.Error()
	}
	last := keyNumber(it.Key())
	s, err := src.stamp(last, it.Value())
	if err != nil || s.first > seq {
		return nil, last, err
	}
	return s, last, nil
}

// chainCache keeps the hash chains of one batch for an export, which usually
// asks for the records of a batch one after the other. Thousands of chains take
// much memory, so they are built only when a batch is asked for twice.
type chainCache struct {
	last   uint64
	chains [][]byte
}

// chain returns the hash chain of a record within its batch.
func (c *chainCache) chain(s *stamp, last, seq uint64) ([]byte, error) {
	if c.last != last {
		*c = chainCache{last: last}
		return asic.TimestampChain(s.leaves, int(seq-s.first))
	}
	if c.chains == nil {
		_, chains, err := asic.BuildTimestampChains(s.leaves)
		if err != nil {
			return nil, err
		}
		c.chains = chains
	}
	return c.chains[seq-s.first], nil
}
