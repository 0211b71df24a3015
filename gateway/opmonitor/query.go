// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"

	"go.uber.org/zap"

	"kontor/registry/id"
)

// Query chooses records.
type Query struct {
	From, To int64 // s since 1970, both included
	// Party, if not zero: only records in which it is client or provider, and
	// never the internal address of this server.
	Party id.Client
	// Provider, if not zero: only records of its services.
	Provider id.Client
	// Fields are the names of the fields that are wanted; none means all.
	Fields []string
	// MessageID, if not empty: only records of that message.
	MessageID string
	// Max is the most records; those of the last second come all. Default 10,000.
	Max int
}

// Result is what a query found.
type Result struct {
	Count int
	JSON  []byte // {"records":[…]}, compressed with gzip
	// NextFrom is the second from which on there are more; 0 if there are none.
	NextFrom int64
}

const defaultMax = 10_000

// Known tells whether there is a field of that name.
func Known(name string) bool {
	return slices.ContainsFunc(fields[:], func(f field) bool { return f.name == name })
}

// Find returns the records that q chooses, by the time they were stored.
func (s *Store) Find(ctx context.Context, q Query) (*Result, error) {
	if q.Max == 0 {
		q.Max = defaultMax
	}
	var places []int
	for i, f := range fields {
		if (len(q.Fields) == 0 || slices.Contains(q.Fields, f.name)) && (q.Party.IsZero() || f.name != internalIP) {
			places = append(places, i)
		}
	}
	// Records beyond their time may wait for the rest of their segment.
	q.From = max(q.From, s.cfg.Now().Add(-s.cfg.Keep).Unix())

	var out sliceWriter
	zip := gzip.NewWriter(&out)
	res := &Result{}
	buf := append([]byte(nil), `{"records":[`...)
	var last int64
	wanted := q.filter()
	err := s.scan(ctx, q.From, q.To, func(second int64, w *row) (bool, error) {
		if !wanted(w) {
			return true, nil
		}
		if res.Count >= q.Max && second != last {
			res.NextFrom = last + 1
			return false, nil
		}
		last = second
		if res.Count > 0 {
			buf = append(buf, ',')
		}
		buf = w.appendJSON(buf, places)
		res.Count++
		if len(buf) < 32<<10 {
			return true, nil
		}
		_, err := zip.Write(buf)
		buf = buf[:0]
		return true, err
	})
	if err == nil {
		_, err = zip.Write(append(buf, "]}"...))
	}
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		return nil, err
	}
	res.JSON = out
	return res, nil
}

type sliceWriter []byte

func (w *sliceWriter) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// filter returns what tells whether a record is chosen, times apart.
func (q *Query) filter() func(*row) bool {
	who, provider := partyOf(q.Party), partyOf(q.Provider)
	return func(w *row) bool {
		switch {
		case !q.Party.IsZero() && w.client() != who && w.provider() != who:
		case !q.Provider.IsZero() && w.provider() != provider:
		case q.MessageID != "" && w.texts[textMessageID] != cut(q.MessageID, maxText):
		default:
			return true
		}
		return false
	}
}

// scan calls f for the records of a time, until it returns false or an error.
func (s *Store) scan(ctx context.Context, from, to int64, f func(second int64, w *row) (bool, error)) error {
	s.mu.Lock()
	segments := slices.Clone(s.segments)
	s.mu.Unlock()
	// Should the clock have been put back, the later segments are not the last.
	slices.SortStableFunc(segments, func(a, b segment) int { return int(a.first - b.first) })
	for _, seg := range segments {
		if seg.last < from || seg.first > to {
			continue
		}
		more, err := s.scanSegment(ctx, seg, from, to, f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went in the meantime
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *Store) scanSegment(ctx context.Context, seg segment, from, to int64, f func(int64, *row) (bool, error)) (more bool, err error) {
	file, err := os.Open(s.path(seg.number))
	if err != nil {
		return false, err
	}
	defer file.Close()
	r := newBlockReader(file, seg.size)
	var block []byte
	for {
		second, size, err := r.head()
		if errors.Is(err, io.EOF) || errors.Is(err, errBlock) {
			return true, nil // what follows cannot be found
		}
		if err != nil {
			return false, err
		}
		if second < from || second > to {
			if err := r.skip(size); err != nil {
				return false, err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		more := true
		var failed error
		if block, err = r.read(block, size); err == nil {
			err = decodeBlock(block, func(w *row) bool {
				more, failed = f(second, w)
				return more && failed == nil
			})
		}
		switch {
		case failed != nil || !more:
			return false, failed
		case errors.Is(err, errBlock):
			s.cfg.Log.Error("operational data is damaged and passed over", zap.String("file", file.Name()), zap.Int64("before", r.offset))
		case err != nil:
			return false, err
		}
	}
}

// blockReader reads the blocks of a segment in their order.
type blockReader struct {
	r      *bufio.Reader
	sum    uint32
	time   [blockTime]byte
	offset int64 // behind the last block
}

// newBlockReader reads a segment up to size; 0 means to its end.
func newBlockReader(f *os.File, size int64) *blockReader {
	var in io.Reader = f
	if size > 0 {
		in = io.LimitReader(f, size)
	}
	return &blockReader{r: bufio.NewReaderSize(in, 32<<10)}
}

// head reads the head of the next block and its time. size is how much follows
// the time. Errors are io.EOF at the end, errBlock if there is no whole head,
// or those of the file.
func (b *blockReader) head() (second int64, size int, err error) {
	if b.offset == 0 {
		var start [len(magic)]byte
		if _, err := io.ReadFull(b.r, start[:]); err != nil || string(start[:]) != magic {
			return 0, 0, broken(err)
		}
		b.offset = int64(len(magic))
	}
	var head [blockHead + blockTime]byte
	if n, err := io.ReadFull(b.r, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return 0, 0, io.EOF
		}
		return 0, 0, broken(err)
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length < blockTime || length > maxBlock {
		return 0, 0, errBlock
	}
	b.sum = binary.LittleEndian.Uint32(head[4:])
	copy(b.time[:], head[blockHead:])
	b.offset += int64(blockHead + blockTime)
	return int64(binary.LittleEndian.Uint64(b.time[:])), int(length) - blockTime, nil
}

// skip passes over a block.
func (b *blockReader) skip(size int) error {
	n, err := b.r.Discard(size)
	b.offset += int64(n)
	if err != nil {
		return broken(err)
	}
	return nil
}

// read returns a block without its head, in buf if it fits.
func (b *blockReader) read(buf []byte, size int) ([]byte, error) {
	buf = append(buf[:0], b.time[:]...)
	buf = slices.Grow(buf, size)[:blockTime+size]
	n, err := io.ReadFull(b.r, buf[blockTime:])
	b.offset += int64(n)
	if err != nil {
		return buf, broken(err)
	}
	if crc32.Checksum(buf, castagnoli) != b.sum {
		return buf, errBlock
	}
	return buf, nil
}

// broken makes errBlock of the end of the file, or of no error.
func broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errBlock
	}
	return err
}
