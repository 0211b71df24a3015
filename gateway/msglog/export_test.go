// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// OpenFS is Open on another file system, which need not carry many zeros.
func OpenFS(cfg Config, fs vfs.FS, tune func(*pebble.Options)) (*Log, error) {
	return OpenSized(cfg, fs, tune, segmentSize)
}

// OpenSized is OpenFS with segments of another size.
func OpenSized(cfg Config, fs vfs.FS, tune func(*pebble.Options), size int64) (*Log, error) {
	return open(cfg, fs, tuning{tune, size, 2 << 10, maxNoted})
}

// OpenLagging is OpenFS with an index that may lag behind by fewer records.
func OpenLagging(cfg Config, fs vfs.FS, tune func(*pebble.Options), records int) (*Log, error) {
	return open(cfg, fs, tuning{tune, segmentSize, 2 << 10, records})
}

// BodySource is what Append needs of a body.
type BodySource = bodySource

// AppendSource is Append with bodies that are not on the real file system. It
// passes over those that are nil.
func (l *Log) AppendSource(ctx context.Context, r *Record, bodies ...BodySource) error {
	return l.append(ctx, r, slices.DeleteFunc(bodies, func(b BodySource) bool { return b == nil }))
}

// SetBodies gives e bodies as Append would.
func (e *Entry) SetBodies(state BodyState, bodies ...[]byte) {
	for _, b := range bodies {
		body := Body{State: state, Size: int64(len(b)), data: b}
		if state == BodyWithheld {
			body.data = nil
		}
		e.Bodies = append(e.Bodies, body)
		e.BodySize += body.Size
	}
}

// Flush writes the index to tables.
func (l *Log) Flush() error { return errors.Join(l.index.catchUp(), l.db.Flush()) }

// Tamper changes the index behind the log's back.
func (l *Log) Tamper(change func(*pebble.Batch) error) error {
	if err := l.index.catchUp(); err != nil {
		return err
	}
	b := l.db.NewBatch()
	if err := change(b); err != nil {
		return err
	}
	return b.Commit(pebble.Sync)
}

// Place tells where the group with a record is: its file, where it begins and
// where it ends.
func (l *Log) Place(seq uint64) (path string, from, to int64) {
	for _, seg := range l.segs.all() {
		f, err := l.fs.Open(l.segmentPath(seg))
		if err != nil {
			panic(err)
		}
		defer f.Close()
		for offset := int64(headerSize); ; {
			g, _, err := seg.readGroup(f, offset, nil, nil)
			if err != nil {
				break
			}
			if g.first <= seq && seq < g.next() {
				return l.segmentPath(seg), offset, g.end
			}
			offset = g.end
		}
	}
	panic("no such record")
}

// Rewrite changes a record where it stands, with all checksums right.
func (l *Log) Rewrite(seq uint64, change func(value []byte)) error {
	path, from, to := l.Place(seq)
	f, err := l.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	number, _, _ := parseSegmentName(filepath.Base(path))
	seg := l.segs.get(number)
	g, _, err := seg.readGroup(f, from, nil, nil)
	if err != nil {
		return err
	}
	err = g.entries(func(kind byte, at uint64, body []byte) error {
		if kind == entryRecord && at == seq {
			change(body)
		}
		return nil
	})
	b := append(make([]byte, groupHeader, to-from), g.payload...)
	seg.seal(b, g.first, int(g.records))
	_, err2 := f.WriteAt(b, from)
	return errors.Join(err, err2, f.Close())
}

// Groups reads a segment as Open does, from its first byte on, and writes each
// group again; it returns all of it.
func Groups(b []byte) ([]byte, error) {
	head, err := readAt(bytes.NewReader(b), nil, 0, headerSize)
	if err != nil {
		return nil, err
	}
	seg, err := decodeSegment(head)
	if err != nil {
		return nil, err
	}
	all := seg.header()
	for {
		offset := int64(len(all))
		g, _, err := seg.readGroup(bytes.NewReader(b), offset, nil, nil)
		if err != nil {
			if next, err := seg.findGroup(bytes.NewReader(b), offset); next == offset {
				return nil, errors.Join(errors.New("found what cannot be read"), err)
			}
			return all, nil
		}
		if _, err := noteGroup(seg, offset, g, state{}, new(nameHashes)); err != nil {
			return all, nil
		}
		all = append(all, make([]byte, groupHeader)...)
		all = append(all, g.payload...)
		seg.seal(all[offset:], g.first, int(g.records))
	}
}

// ReadGroup reads a payload as that of a group with all checksums right.
func ReadGroup(first uint64, records uint32, payload []byte) error {
	seg := &segment{number: 1, first: 1}
	b := append(make([]byte, groupHeader), payload...)
	seg.seal(b, first, int(records))
	g, _, err := seg.readGroup(bytes.NewReader(b), 0, nil, nil)
	if err != nil {
		return err
	}
	n, err := noteGroup(seg, 0, g, state{}, new(nameHashes))
	if err == nil && len(n.records) != int(records) {
		return errors.New("not as many records as the group says")
	}
	return nil
}

// EntryOf is an entry of a group.
func EntryOf(kind byte, body []byte) []byte { return appendEntry(nil, kind, body) }

// StampKey is the key of the time-stamp that ends with record last.
func StampKey(last uint64) []byte { return numberKey(prefixStamp, last) }

// BlockKey is the key of the block that begins with a record.
func BlockKey(first uint64) []byte { return numberKey(prefixBlock, first) }

// IDKey is the key by which e is found by its message id.
func IDKey(e *Entry) []byte {
	return appendIndexKey(nil, prefixID, hashName(e.MessageID), uint64(e.Time.UnixNano()), e.Seq)
}

// TimeKey is the key by which the block of e is found by time.
func TimeKey(e *Entry, block uint64) []byte {
	return appendIndexKey(nil, prefixTime, 0, second(e.Time.UnixNano()), block)
}

// Encode and Decode are the canonical form of records.
func Encode(e *Entry) []byte { return e.appendTo(nil, nil) }

// Decode reads the canonical form.
func Decode(seq uint64, b []byte) (*Entry, error) { return decodeEntry(seq, b, nil) }

// DecodeStamp reads a time-stamp and writes it again.
func DecodeStamp(last uint64, b []byte) ([]byte, error) {
	s, err := decodeStamp(last, b)
	if err != nil {
		return nil, err
	}
	return s.encode(), nil
}

// SetBatch changes how many signatures one token covers.
func (l *Log) SetBatch(n uint64) { l.stamps.batch = n }

// Terse and FromTerse are the form of hash chain documents in the log.
func Terse(doc []byte) []byte { return appendTerse(nil, doc) }

// FromTerse reads it.
func FromTerse(b []byte) ([]byte, error) { return fromTerse(b) }

// Difference tells how doc differs from a pattern.
func Difference(pattern, doc []byte) ([]byte, bool) { return appendDifference(nil, pattern, doc) }

// ApplyDifference makes doc again.
func ApplyDifference(pattern, diff []byte) ([]byte, error) { return applyDifference(pattern, diff) }

// Stored returns the bytes that the log has of a record.
func (l *Log) Stored(seq uint64) ([]byte, error) {
	s, err := l.source()
	if err != nil {
		return nil, err
	}
	v, err := s.record(seq)
	return bytes.Clone(v), errors.Join(err, s.close())
}
