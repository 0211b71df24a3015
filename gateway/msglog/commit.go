// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kontor/pki/asic"
)

// Whoever has something to log puts it into the group that is being filled, and
// waits. One goroutine, the committer, takes the group, writes it to the last
// segment with one write and one flush, and wakes all who wait for it; meanwhile
// the next group fills. So a group is written only when the one before it is
// durable, and a crash cuts off the end of the sequence and never a piece of its
// middle.

const (
	// maxPending bounds the bytes of a group; more wait for the next one.
	maxPending = 4 << 20
	// maxKept keeps one large group from holding its memory for ever.
	maxKept = 1 << 20
	// turnTimeout bounds the wait for a place in a group: groups take
	// milliseconds, so after that the log is as good as broken.
	turnTimeout = 30 * time.Second
	// maxState is more than a state takes.
	maxState = 1 << 10
)

// batch is a group that is being filled or written.
type batch struct {
	buf    []byte // the group, its header left open
	rotate bool   // begins a new segment
	before state  // state in front of it
	note   groupNote
	leaves []asic.Digest // digests of the signature documents of its records

	out *outcome
}

// outcome is what those wait for who have something in a group. It outlives the
// batch, which is used again.
type outcome struct {
	done chan struct{} // closed when the group is durable or has failed
	err  error
}

func (b *batch) empty() bool { return len(b.buf) <= groupHeader }

// reset makes b an empty group that begins with a number.
func (b *batch) reset(first uint64, s state) {
	if cap(b.buf) > maxKept {
		b.buf = nil
	}
	b.buf = append(b.buf[:0], make([]byte, groupHeader)...)
	b.rotate, b.before, b.out = false, s, &outcome{done: make(chan struct{})}
	clear(b.note.records)
	b.note = groupNote{first: first, state: s, records: b.note.records[:0]}
	b.leaves = b.leaves[:0]
}

// queue is where groups are filled. Its lock is taken before those of patterns
// and of stampState, and never held over disk operations.
type queue struct {
	mu      sync.Mutex
	filling *batch
	spare   *batch // the one that is being written, or will be next
	next    uint64 // number of the next record
	state   state  // behind the filling group
	first   uint64 // first record of the segment that the filling group goes to
	created time.Time
	end     int64         // expected end of that segment in front of the filling group
	room    chan struct{} // closed when the filling group is taken

	wake, stop, stopped chan struct{}
}

// start lets the committer go on behind what Open has found.
func (l *Log) start(s state, next uint64) {
	q := &l.queue
	q.next, q.state = next, s
	q.first, q.created, q.end = l.writer.seg.first, l.writer.seg.created, l.writer.end
	q.filling, q.spare, q.room = &batch{}, &batch{}, make(chan struct{})
	q.filling.reset(next, s)
	l.next.Store(next)
	l.segFirst.Store(q.first)
	q.wake, q.stop, q.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go l.commitGroups()
}

// state is that behind all entries so far.
func (l *Log) state() state {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	return l.queue.state
}

// add puts entries into the filling group as put does it, and returns where to
// wait for that group. It waits while there is no room for n bytes; ctx can end that.
func (l *Log) add(ctx context.Context, n int, put func(q *queue, b *batch) error) (*outcome, error) {
	q := &l.queue
	q.mu.Lock()
	for !q.filling.empty() && len(q.filling.buf)+n > maxPending {
		room := q.room
		q.mu.Unlock()
		if err := l.waitTurn(ctx, room); err != nil {
			return nil, err
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if err := l.failedErr(); err != nil {
		return nil, err
	}
	b := q.filling
	fresh := b.empty()
	if fresh {
		l.beginGroup(q)
	}
	if err := put(q, b); err != nil {
		return nil, err
	}
	if fresh {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return b.out, nil
}

func (l *Log) waitTurn(ctx context.Context, room <-chan struct{}) error {
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no turn to write within %v", turnTimeout)
	case <-l.failed:
		return l.failure
	}
}

// beginGroup decides to which segment the filling group goes.
func (l *Log) beginGroup(q *queue) {
	if q.next == q.first {
		return // the segment has no record yet
	}
	if q.end < l.tuning.segment && l.cfg.Now().Sub(q.created) < l.segmentAge() {
		return
	}
	q.filling.rotate = true
	l.segFirst.Store(q.next)
	q.first, q.created, q.end = q.next, l.cfg.Now(), headerSize
}

// segmentAge lets retention get at the records of a quiet log, too.
func (l *Log) segmentAge() time.Duration {
	if keep := l.cfg.Retention.Keep; keep > 0 {
		return min(segmentAge, keep)
	}
	return segmentAge
}

// wait returns when the group is on the disk.
func (o *outcome) wait() error {
	<-o.done
	return o.err
}

// commitStamp logs a time-stamp of the records up to last.
func (l *Log) commitStamp(ctx context.Context, last uint64, s *stamp) error {
	body := s.encode()
	out, err := l.add(ctx, len(body), func(q *queue, b *batch) error {
		q.state.stamped, q.state.failing = last, 0
		b.buf = appendEntry(b.buf, entryStamp, numberKey(0, last)[1:], body)
		b.note.stamps = append(b.note.stamps, stampNote{s.first, last})
		b.note.state = q.state
		return nil
	})
	if err != nil {
		return err
	}
	return out.wait()
}

// commitState logs a change of the state.
func (l *Log) commitState(ctx context.Context, change func(*state)) error {
	out, err := l.add(ctx, maxState, func(q *queue, b *batch) error {
		change(&q.state)
		b.buf = appendEntry(b.buf, entryState, q.state.appendTo(nil))
		b.note.state = q.state
		return nil
	})
	if err != nil {
		return err
	}
	return out.wait()
}

// commitGroups is the committer. When the log has failed it goes on to say so.
func (l *Log) commitGroups() {
	q := &l.queue
	defer close(q.stopped)
	for {
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
		q.mu.Lock()
		b := q.filling
		if b.empty() {
			q.mu.Unlock()
			continue
		}
		q.filling, q.spare = q.spare, b
		q.filling.reset(q.next, q.state)
		q.end += int64(len(b.buf))
		close(q.room)
		q.room = make(chan struct{})
		q.mu.Unlock()

		err := l.failedErr()
		if err == nil {
			if err := l.commit(b); err != nil {
				l.fail(err)
			}
			// A flush that succeeds after one that failed proves nothing.
			err = l.failedErr()
		}
		if err == nil {
			l.publish(b)
		}
		b.out.err = err
		close(b.out.done)
		if d := l.syncInterval(); d > 0 {
			time.Sleep(d)
		}
	}
}

// commit writes a group durably.
func (l *Log) commit(b *batch) error {
	w := &l.writer
	if b.rotate {
		if err := w.begin(b.note.first, b.before); err != nil {
			return fmt.Errorf("begin segment: %w", err)
		}
	}
	w.seg.seal(b.buf, b.note.first, len(b.note.records))
	b.note.segment, b.note.offset = w.seg.number, w.end
	if err := w.write(b.buf); err != nil {
		return err
	}
	b.note.end = w.end
	return nil
}

// publish makes a durable group known to readers.
func (l *Log) publish(b *batch) {
	l.index.add(&b.note)
	if n := len(b.note.records); n > 0 {
		l.durable.Store(b.note.first + uint64(n) - 1)
		l.stamps.noteAppend(&b.note, b.leaves)
	}
}

// stopCommitter ends the committer; nobody may wait for it any more.
func (l *Log) stopCommitter() error {
	if l.queue.stop == nil {
		return nil
	}
	close(l.queue.stop)
	if l.failedErr() != nil {
		// It may stand in an operation of a disk that does not answer.
		timer := time.NewTimer(closeTimeout)
		defer timer.Stop()
		select {
		case <-l.queue.stopped:
		case <-timer.C:
			return errors.New("the failed disk does not answer; end the process")
		}
	}
	<-l.queue.stopped
	return nil
}
