// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// recover finds the segments, reads what the index does not know yet, cuts off a
// group that a crash has torn, and lets the writer go on behind the last one.
//
// A group is written only when the one before it is durable, so a crash tears at
// most the last group. Anything else that cannot be read is damage, and so is an
// end in front of what the index knows.
func (l *Log) recover() error {
	if err := l.listSegments(); err != nil {
		return err
	}
	v, err := get(l.db, keyIndexed)
	if err != nil {
		return err
	}
	list := l.segs.all()
	x := &l.index
	switch {
	case v != nil:
		if x.place, err = decodePlace(v); err != nil {
			return err
		}
		if l.segs.get(x.place.segment) == nil {
			return fmt.Errorf("segment %d is missing, up to which the index has been made", x.place.segment)
		}
	case len(list) == 0:
		if err := l.writer.begin(1, state{}); err != nil {
			return err
		}
		x.place = place{1, headerSize, 1, state{}}
		l.durable.Store(0)
		return nil
	default:
		x.place = place{list[0].number, headerSize, list[0].first, list[0].state}
	}
	// What is read now may be read as records by the index's own work.
	l.durable.Store(x.place.next - 1)
	l.prune.upTo.Store(x.place.state.pruned)
	if err := l.checkPlace(); err != nil {
		return err
	}
	for _, seg := range list {
		if seg.number < x.place.segment {
			continue
		}
		if err := l.replay(seg, seg == list[len(list)-1]); err != nil {
			return err
		}
	}
	l.durable.Store(x.place.next - 1)
	l.prune.upTo.Store(x.place.state.pruned)
	return l.guard(x.flushBlock)
}

// checkPlace makes sure that the segments go as far as the index knows.
func (l *Log) checkPlace() (err error) {
	p := l.index.place
	if seg := l.segs.get(p.segment); seg.size.Load() < p.offset {
		return seg.damaged(seg.size.Load(), "it ends here, and has been read up to %d", p.offset)
	}
	if p.next-1 <= p.state.pruned {
		return nil
	}
	s := &source{l: l, r: l.db}
	defer func() { err = errors.Join(err, s.close()) }()
	if l.segs.all()[0].first >= p.next {
		return nil // nothing has been read
	}
	_, err = s.record(p.next - 1)
	return err
}

// listSegments reads the headers of all segments. The last one has none if a
// crash came before it was used.
func (l *Log) listSegments() error {
	names, err := l.fs.List(l.segmentDir())
	if err != nil {
		return err
	}
	var list []*segment
	for _, name := range names {
		number, first, ok := parseSegmentName(name)
		if !ok {
			return fmt.Errorf("%s is no segment", filepath.Join(l.segmentDir(), name))
		}
		list = append(list, &segment{number: number, first: first})
	}
	slices.SortFunc(list, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	for i, named := range list {
		if i > 0 && (named.number != list[i-1].number+1 || named.first < list[i-1].first) {
			return fmt.Errorf("a segment between %s and %s is missing",
				segmentName(list[i-1].number, list[i-1].first), segmentName(named.number, named.first))
		}
		seg, unused, err := l.readSegment(named)
		if err != nil && unused && i == len(list)-1 {
			return errors.Join(l.fs.Remove(l.segmentPath(named)), l.fs.syncDir(l.segmentDir()))
		}
		if err != nil {
			return err
		}
		l.segs.add(seg)
	}
	return nil
}

// readSegment reads the header of a segment, and says of one that has none
// whether there is nothing behind it either.
func (l *Log) readSegment(named *segment) (seg *segment, unused bool, err error) {
	f, err := l.fs.Open(l.segmentPath(named))
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := readAt(f, nil, 0, headerSize)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if seg, err = decodeSegment(b); err == nil && (seg.number != named.number || seg.first != named.first) {
		err = fmt.Errorf("it is that of %s", segmentName(seg.number, seg.first))
	}
	if err != nil {
		if errors.Is(err, errFormat) {
			return nil, false, fmt.Errorf("segment %s: %w", segmentName(named.number, named.first), err)
		}
		return nil, info.Size() <= headerSize, named.damaged(0, "header: %w", err)
	}
	seg.size.Store(info.Size())
	return seg, false, nil
}

// replay puts the groups of a segment from the place of the index on into it.
func (l *Log) replay(seg *segment, last bool) (err error) {
	x := &l.index
	var f vfs.File
	if last {
		f, err = l.fs.OpenReadWrite(l.segmentPath(seg), vfs.WriteCategoryUnspecified)
	} else {
		f, err = l.fs.Open(l.segmentPath(seg))
	}
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	offset := int64(headerSize)
	if seg.number == x.place.segment {
		offset = x.place.offset
	} else if seg.first != x.place.next {
		return l.missing(x.place.next, seg.first)
	}
	var buf, lastGroup []byte
	lastOffset := int64(-1)
	for {
		g, b, err := seg.readGroup(f, offset, buf, nil)
		buf = b
		if err != nil {
			if err != errEnd && !errors.Is(err, errDamaged) {
				return err
			}
			next, err2 := seg.findGroup(f, offset)
			if err2 != nil {
				return err2
			}
			if next >= 0 {
				return fmt.Errorf("%w; the next group that can be read is at %d", seg.damaged(offset, "%w", err), next)
			}
			if !last && err != errEnd {
				return err
			}
			break
		}
		if g.first != x.place.next {
			return seg.damaged(offset, "record %d follows where %d should", g.first, x.place.next)
		}
		note, err := noteGroup(seg, offset, g, x.place.state, &l.names)
		if err != nil {
			return err
		}
		x.added.Add(1)
		if err := l.guard(func() error { return x.take(note) }); err != nil {
			return err
		}
		lastOffset, offset = offset, g.end
		lastGroup = append(lastGroup[:0], make([]byte, groupHeader)...)
		lastGroup = append(lastGroup, g.payload...)
		seg.seal(lastGroup, g.first, int(g.records))
	}
	if !last {
		return nil
	}
	if err := l.cut(seg, f, offset); err != nil {
		return err
	}
	// What was read may stand in memory alone: the flush of the last group may
	// be what has failed. Written again, it is flushed again.
	if lastOffset < 0 {
		lastOffset, lastGroup = 0, seg.header()
	}
	if _, err := f.WriteAt(lastGroup, lastOffset); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), l.fs.syncDir(l.segmentDir())); err != nil {
		return err
	}
	l.writer.seg, l.writer.file, l.writer.end, l.writer.zeroed = seg, f, offset, max(offset, seg.size.Load())
	f = nil
	return nil
}

// missing is what an end says that comes too early.
func (l *Log) missing(from, to uint64) error {
	return fmt.Errorf("records %d to %d are missing at the end of a segment", from, to-1)
}

// cut overwrites with zeros what a crash has left of a group.
func (l *Log) cut(seg *segment, f vfs.File, end int64) error {
	buf := make([]byte, 64<<10)
	for offset := end; ; offset += int64(len(buf)) {
		n, err := f.ReadAt(buf, offset)
		if err != nil && err != io.EOF {
			return err
		}
		if !zero(buf[:n]) {
			l.cfg.Log.Info("message log: removed the unfinished end of the last segment")
			clear(buf)
			if _, err := f.WriteAt(buf[:n], offset); err != nil {
				return err
			}
		}
		if n < len(buf) {
			return nil
		}
	}
}

// noteGroup makes the note that the committer made of a group.
func noteGroup(seg *segment, offset int64, g *group, s state, names *nameHashes) (*groupNote, error) {
	n := &groupNote{segment: seg.number, offset: offset, end: g.end, first: g.first, state: s}
	err := g.entries(func(kind byte, seq uint64, body []byte) (err error) {
		switch kind {
		case entryRecord:
			f, err := readFields(seq, body)
			if err != nil {
				return err
			}
			e, err := f.entry(seq)
			if err != nil {
				return fmt.Errorf("record %d: %w", seq, err)
			}
			n.records = append(n.records, noteOf(e, names))
		case entryStamp:
			last, st, err := decodeStampEntry(body)
			if err != nil {
				return err
			}
			n.stamps = append(n.stamps, stampNote{st.first, last})
			n.state.stamped, n.state.failing = last, 0
		case entryState:
			n.state, err = decodeState(body)
		}
		return err
	})
	if err != nil {
		return nil, seg.damaged(offset, "%w", err)
	}
	return n, nil
}
