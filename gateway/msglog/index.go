// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kontor/registry/id"
)

// The index is made behind the commit: the committer leaves a note of each
// group, a goroutine puts them into Pebble, many at once and without a flush.
// What a crash takes from it Open reads from the segments again, from the place
// on that stands in the same batch as the keys.

const (
	// blockRecords and blockBytes are where a block ends.
	blockRecords = 256
	blockBytes   = 512 << 10
	// maxNoted is how many records the index may lag behind before the committer
	// waits for it.
	maxNoted = 1 << 15
)

// recordNote is what the index needs of a record.
type recordNote struct {
	id, client, service uint64 // hashes
	time                int64  // in nanoseconds since 1970
	bodies              []bodyNote
}

type bodyNote struct {
	name string
	size int64
}

// stampNote is a time-stamp.
type stampNote struct{ first, last uint64 }

// groupNote is what the index needs of a group.
type groupNote struct {
	segment     uint64
	offset, end int64
	first       uint64
	records     []recordNote
	count       int // of the records
	stamps      []stampNote
	state       state // behind the group
}

func noteOf(e *Entry, names *nameHashes) recordNote {
	n := recordNote{id: hashName(e.MessageID), client: names.client(e.Client), service: names.service(e.Service), time: e.Time.UnixNano()}
	for _, b := range e.Bodies {
		if b.State == BodyFile {
			n.bodies = append(n.bodies, bodyNote{string(b.data), b.Size})
		}
	}
	return n
}

// place is up to where the segments are in the index.
type place struct {
	segment uint64
	offset  int64
	next    uint64 // number of the first record that is not
	state   state  // there
}

func (p place) encode() []byte {
	v := binary.BigEndian.AppendUint64(nil, p.segment)
	v = binary.BigEndian.AppendUint64(v, uint64(p.offset))
	v = binary.BigEndian.AppendUint64(v, p.next)
	return p.state.appendTo(v)
}

func decodePlace(b []byte) (place, error) {
	r := reader{b: b}
	p := place{segment: r.uint64(), offset: int64(r.uint64()), next: r.uint64()}
	p.state = r.state()
	if len(r.b) != 0 || p.offset < headerSize || p.next == 0 {
		r.fail()
	}
	if r.err != nil {
		return p, fmt.Errorf("place of the index: %w", r.err)
	}
	return p, nil
}

// index builds the index.
type index struct {
	l *Log

	mu       sync.Mutex
	noted    []groupNote // their records stand in records
	records  []recordNote
	flush    bool          // somebody waits for the open block, too
	progress chan struct{} // closed when notes have been worked off

	added, visible atomic.Uint64 // groups noted, groups that are in Pebble

	wake, stop, stopped chan struct{}

	// of the goroutine
	working struct {
		groups  []groupNote
		records []recordNote
	}
	place place
	open  openBlock
	taken uint64 // groups up to those of the open block
}

// nameHashes remembers the hashes of clients and services, of which there are
// few.
type nameHashes struct {
	mu       sync.RWMutex
	clients  map[id.Client]uint64
	services map[id.Service]uint64
}

// maxNames bounds them, of each kind.
const maxNames = 4096

func (h *nameHashes) client(c id.Client) uint64 {
	return remember(&h.mu, &h.clients, c, id.Client.String)
}

func (h *nameHashes) service(s id.Service) uint64 {
	return remember(&h.mu, &h.services, s, id.Service.String)
}

func remember[K comparable](mu *sync.RWMutex, known *map[K]uint64, k K, name func(K) string) uint64 {
	mu.RLock()
	h, ok := (*known)[k]
	mu.RUnlock()
	if ok {
		return h
	}
	h = hashName(name(k))
	mu.Lock()
	defer mu.Unlock()
	if *known == nil || len(*known) >= maxNames {
		*known = map[K]uint64{}
	}
	(*known)[k] = h
	return h
}

// openBlock is a block that is not in Pebble yet, and what goes there with it.
type openBlock struct {
	block   block
	bytes   int64
	records []recordNote
	seqs    []uint64 // of records
	stamps  []stampEntry
	keys    map[indexValue]bool
}

type stampEntry struct {
	last  uint64
	place stampPlace
}

// indexValue is what a block is found by.
type indexValue struct {
	prefix       byte
	hash, second uint64
}

func (x *index) start() {
	x.progress = make(chan struct{})
	x.wake, x.stop, x.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go x.run()
}

// add notes a durable group, of which it keeps nothing. Where the index lags far
// behind, it waits.
func (x *index) add(g *groupNote) {
	x.mu.Lock()
	x.records = append(x.records, g.records...)
	x.noted = append(x.noted, *g)
	last := &x.noted[len(x.noted)-1]
	last.count, last.records = len(g.records), nil
	records := len(x.records)
	x.added.Add(1)
	x.mu.Unlock()
	if records >= blockRecords {
		x.signal()
	}
	if records < x.l.tuning.noted {
		return
	}
	began := time.Now()
	x.l.stalled.Store(began.UnixNano())
	_ = x.await(func() bool { // a failure is the log's, and known
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.records) < x.l.tuning.noted
	}, 0)
	x.l.stalled.Store(0)
	x.l.stalls.Add(int64(time.Since(began)))
}

func (x *index) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// catchUp returns when every group that was durable before is in Pebble.
func (x *index) catchUp() error {
	want := x.added.Load()
	if x.visible.Load() >= want {
		return nil
	}
	x.mu.Lock()
	x.flush = true
	x.mu.Unlock()
	x.signal()
	return x.await(func() bool { return x.visible.Load() >= want }, closeTimeout)
}

// await waits for the goroutine until done; when the log has failed, as long as
// is given at most.
func (x *index) await(done func() bool, patience time.Duration) error {
	failed := x.l.failed
	var timeout <-chan time.Time
	for {
		x.mu.Lock()
		progress := x.progress
		x.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-progress:
		case <-x.stopped:
			if done() {
				return nil
			}
			return errors.Join(x.l.failedErr(), errors.New("the index of the message log has stopped"))
		case <-failed:
			failed = nil
			timer := time.NewTimer(patience)
			defer timer.Stop()
			timeout = timer.C
		case <-timeout:
			return x.l.failure
		}
	}
}

// run works off notes until it is stopped or Pebble fails.
func (x *index) run() {
	defer close(x.stopped)
	for {
		select {
		case <-x.wake:
			if err := x.work(false); err != nil {
				x.l.fail(fmt.Errorf("write index: %w", err))
				return
			}
		case <-x.stop:
			if err := x.work(true); err != nil {
				x.l.fail(fmt.Errorf("write index: %w", err))
			}
			return
		}
	}
}

// work puts what is noted into Pebble; the open block only if somebody waits.
func (x *index) work(flush bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	w := &x.working
	x.mu.Lock()
	x.noted, w.groups = w.groups[:0], x.noted
	x.records, w.records = w.records[:0], x.records
	flush = flush || x.flush
	x.flush = false
	x.mu.Unlock()
	at := 0
	for i := range w.groups {
		g := &w.groups[i]
		g.records = w.records[at : at+g.count]
		at += g.count
		if err := x.take(g); err != nil {
			return err
		}
	}
	clear(w.groups)
	clear(w.records)
	if cap(w.records) > maxNoted/8 {
		w.groups, w.records = nil, nil
	}
	if flush {
		if err := x.flushBlock(); err != nil {
			return err
		}
	}
	x.mu.Lock()
	close(x.progress)
	x.progress = make(chan struct{})
	x.mu.Unlock()
	return nil
}

// take adds a group to the open block, or to a new one where that is full.
func (x *index) take(g *groupNote) error {
	b := &x.open
	n := len(b.records)
	if n > 0 && (n+len(g.records) > blockRecords || b.bytes >= blockBytes || b.block.segment != g.segment) {
		if err := x.flushBlock(); err != nil {
			return err
		}
	}
	if len(b.records) == 0 && len(g.records) > 0 {
		b.block = block{first: g.first, segment: g.segment, offset: g.offset}
	}
	for i := range g.records {
		seq := g.first + uint64(i)
		b.records, b.seqs = append(b.records, g.records[i]), append(b.seqs, seq)
		b.block.last = seq
		b.find(&g.records[i])
	}
	b.bytes += g.end - g.offset
	for _, s := range g.stamps {
		b.stamps = append(b.stamps, stampEntry{s.last, stampPlace{s.first, g.segment, g.offset}})
	}
	pruned := x.place.state.pruned
	x.place = place{g.segment, g.end, g.first + uint64(len(g.records)), g.state}
	x.taken++
	if g.state.pruned == pruned {
		return nil
	}
	// The records go from the index before the place says so.
	x.place.state.pruned = pruned
	if err := x.flushBlock(); err != nil {
		return err
	}
	return x.prune(g.state.pruned)
}

// find notes by what the open block is found for the sake of a record.
func (b *openBlock) find(n *recordNote) {
	if b.keys == nil {
		b.keys = map[indexValue]bool{}
	}
	s := second(n.time)
	for _, v := range [3]indexValue{{prefixClient, n.client, s}, {prefixService, n.service, s}, {prefixTime, 0, s}} {
		if !b.keys[v] {
			b.keys[v] = true
			key := appendIndexKey(nil, v.prefix, v.hash, v.second, 0)
			b.block.keys = append(b.block.keys, key[:len(key)-8])
		}
	}
}

// flushBlock puts the open block and the place behind it into Pebble.
func (x *index) flushBlock() error {
	if x.taken == x.visible.Load() {
		return nil
	}
	b := &x.open
	batch := x.l.db.NewBatchWithSize(len(b.records)*40 + 1024)
	var err error
	var key []byte
	for i := range b.records {
		n, seq := &b.records[i], b.seqs[i]
		key = appendIndexKey(key[:0], prefixID, n.id, uint64(n.time), seq)
		err = errors.Join(err, batch.Set(key, nil, nil))
		for _, body := range n.bodies {
			err = errors.Join(err, batch.Set(nameKey(prefixBody, body.name), bodyRef{seq, body.size}.encode(), nil))
		}
	}
	if len(b.records) > 0 {
		err = errors.Join(err, batch.Set(numberKey(prefixBlock, b.block.first), b.block.encode(), nil))
		for _, k := range b.block.keys {
			err = errors.Join(err, batch.Set(binary.BigEndian.AppendUint64(slices.Clip(k), b.block.first), nil, nil))
		}
	}
	for _, s := range b.stamps {
		err = errors.Join(err, batch.Set(numberKey(prefixStamp, s.last), s.place.encode(), nil))
	}
	if err = errors.Join(err, x.apply(batch)); err != nil {
		return err
	}
	clear(b.records)
	clear(b.keys)
	*b = openBlock{records: b.records[:0], seqs: b.seqs[:0], stamps: b.stamps[:0], keys: b.keys}
	x.visible.Store(x.taken)
	return nil
}

// apply puts a batch and the place into Pebble.
func (x *index) apply(b *pebble.Batch) error {
	return errors.Join(b.Set(keyIndexed, x.place.encode(), nil), x.l.db.Apply(b, pebble.NoSync), b.Close())
}

// prune takes the records up to last out of the index. Their segments are still
// there: they are removed only when this is durable.
func (x *index) prune(last uint64) (err error) {
	s := &source{l: x.l, r: x.l.db}
	defer func() { err = errors.Join(err, s.close()) }()
	b := x.l.db.NewBatch()
	first := max(x.place.state.pruned+1, x.l.segs.all()[0].first)
	for seq := first; seq <= last; seq++ {
		v, err := s.record(seq)
		if err != nil {
			return errors.Join(err, b.Close())
		}
		f, err := readFields(seq, v)
		if err == nil {
			err = b.Delete(appendIndexKey(nil, prefixID, hashName(string(f.messageID)), uint64(f.nanos), seq), nil)
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
		if b.Count() >= pruneBatch {
			x.place.state.pruned = seq
			if err := x.apply(b); err != nil {
				return err
			}
			b = x.l.db.NewBatch()
		}
	}
	err = b.DeleteRange(numberKey(prefixStamp, 0), numberKey(prefixStamp, last+1), nil)
	it, err2 := x.l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBlock}, UpperBound: numberKey(prefixBlock, last+1)})
	if err = errors.Join(err, err2); err != nil {
		return errors.Join(err, b.Close())
	}
	for it.First(); err == nil && it.Valid(); it.Next() {
		var old *block
		if old, err = decodeBlock(it.Key(), it.Value()); err != nil || old.last > last {
			break
		}
		err = b.Delete(bytes.Clone(it.Key()), nil)
		for _, k := range old.keys {
			err = errors.Join(err, b.Delete(binary.BigEndian.AppendUint64(k, old.first), nil))
		}
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		return errors.Join(err, b.Close())
	}
	x.place.state.pruned = last
	return x.apply(b)
}

// sync makes all that is in Pebble durable.
func (x *index) sync() error {
	if err := x.catchUp(); err != nil {
		return err
	}
	return x.l.guard(func() error { return x.l.db.LogData(nil, pebble.Sync) })
}

// close works off what is left and ends the goroutine.
func (x *index) close() error {
	if x.stop == nil {
		return nil
	}
	close(x.stop)
	if x.l.failedErr() == nil {
		select {
		case <-x.stopped:
			return x.l.failedErr()
		case <-x.l.failed:
		}
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-x.stopped:
		return nil
	case <-timer.C:
		return errors.New("the failed index does not answer; end the process")
	}
}
