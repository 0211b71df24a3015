// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// OpenFS is Open on another file system.
func OpenFS(cfg Config, fs vfs.FS, tune func(*pebble.Options)) (*Log, error) {
	return open(cfg, fs, tune)
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

// Flush writes all records to tables.
func (l *Log) Flush() error { return l.db.Flush() }

// Tamper applies changes behind the log's back.
func (l *Log) Tamper(change func(*pebble.Batch) error) error {
	b := l.db.NewBatch()
	if err := change(b); err != nil {
		return err
	}
	return b.Commit(pebble.Sync)
}

// RecordKey is the key of a record.
func RecordKey(seq uint64) []byte { return numberKey(prefixRecord, seq) }

// StampKey is the key of the time-stamp that ends with record last.
func StampKey(last uint64) []byte { return numberKey(prefixStamp, last) }

// IndexKeys are the keys of the index entries of e.
func IndexKeys(e *Entry) [4][]byte { return indexKeys(e) }

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

// Has reports whether a key is in the log.
func (l *Log) Has(key []byte) (bool, error) {
	v, err := get(l.db, key)
	return v != nil, err
}

// Stored returns the bytes that the log has of a record.
func (l *Log) Stored(seq uint64) ([]byte, error) { return get(l.db, numberKey(prefixRecord, seq)) }

// PatternKey is the key of the pattern that record seq gave.
func PatternKey(seq uint64) []byte { return numberKey(prefixPattern, seq) }

// DeletePatterns removes the patterns that serve only records up to pruned.
func DeletePatterns(b *pebble.Batch, pruned uint64) error { return deletePatterns(b, pruned) }
