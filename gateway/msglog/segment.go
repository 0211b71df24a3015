// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Segments are the log: files that are only appended to, in one order, and from
// which everything else can be made again. docs/design/message-log.md describes
// their format.

const (
	segmentMagic  = "kontorml"
	segmentSuffix = ".seg"
	// headerSize is where the groups begin: the header, and what it leaves of its
	// page.
	headerSize  = 4096
	markSize    = 8
	groupHeader = markSize + 8 + 4 + 4 + 4 // mark, first number, records, length, checksum

	// segmentSize is where a segment ends and the next one begins, and segmentAge
	// the age from which on the next record begins one: retention removes whole
	// segments.
	segmentSize = 64 << 20
	segmentAge  = 24 * time.Hour
	// zeroStep is how far zeros are written ahead of the groups: a flush that need
	// not change the length of the file nor find room for it takes a third less.
	zeroStep = 256 << 10
	// maxGroup bounds what is read as one group.
	maxGroup = maxRecord + maxPending + 64<<10
)

// The kinds of entries of a group.
const (
	entryRecord = 1 + iota // canonical form of a record; their numbers count on from that of the group
	entryStamp             // number of the last record covered, and the time-stamp
	entryState             // state from here on
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errEnd means that there is no group: the file ends, or zeros follow.
var errEnd = errors.New("end of segment")

// errDamaged means that what was read is not what was written.
var errDamaged = errors.New("damaged")

// segment is one file. Nothing but its size changes.
type segment struct {
	number  uint64 // 1, 2, 3, … without gaps
	first   uint64 // number of the first record in it or after it
	mark    [markSize]byte
	created time.Time
	state   state // as it was before the first group
	size    atomic.Int64
}

// state is what the log knows beside records and time-stamps. Every segment
// begins with it, so that older ones can be removed.
type state struct {
	pruned  uint64 // the last record removed by retention
	stamped uint64 // the last time-stamped record
	failing int64  // time of the first of the time-stamping failures that last, in nanoseconds; 0: none
	archive string // digest and name of the last archive file
}

func (s state) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, s.pruned)
	b = binary.BigEndian.AppendUint64(b, s.stamped)
	b = binary.BigEndian.AppendUint64(b, uint64(s.failing))
	return appendString(b, s.archive)
}

func (r *reader) state() state {
	return state{pruned: r.uint64(), stamped: r.uint64(), failing: int64(r.uint64()), archive: string(r.bytes())}
}

func decodeState(b []byte) (state, error) {
	r := reader{b: b}
	s := r.state()
	if len(r.b) != 0 {
		r.fail()
	}
	return s, r.err
}

// segmentName begins with the number of the segment, for order, and has that of
// its first record, for people.
func segmentName(number, first uint64) string {
	return fmt.Sprintf("%08x-%016x%s", number, first, segmentSuffix)
}

func parseSegmentName(name string) (number, first uint64, ok bool) {
	a, b, _ := strings.Cut(strings.TrimSuffix(name, segmentSuffix), "-")
	number, err := strconv.ParseUint(a, 16, 64)
	first, err2 := strconv.ParseUint(b, 16, 64)
	return number, first, err == nil && err2 == nil && segmentName(number, first) == name
}

func (l *Log) segmentDir() string { return filepath.Join(l.cfg.Dir, "segments") }

func (l *Log) segmentPath(s *segment) string {
	return filepath.Join(l.segmentDir(), segmentName(s.number, s.first))
}

// damaged names the place of an error in a segment.
func (s *segment) damaged(offset int64, format string, args ...any) error {
	return fmt.Errorf("segment %s is %w at offset %d: %w", segmentName(s.number, s.first), errDamaged, offset, fmt.Errorf(format, args...))
}

// header is the first page: magic, format, and a body with its length in front
// and its checksum behind.
func (s *segment) header() []byte {
	b := append(make([]byte, 0, headerSize), segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	var body []byte
	body = binary.BigEndian.AppendUint64(body, s.number)
	body = binary.BigEndian.AppendUint64(body, s.first)
	body = binary.BigEndian.AppendUint64(body, uint64(s.created.UnixNano()))
	body = append(body, s.mark[:]...)
	body = s.state.appendTo(body)
	b = appendBytes(b, body)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:headerSize]
}

// errFormat means that another version of the program is to read the log.
var errFormat = errors.New("cannot read this format")

func otherFormat(v uint64) error {
	return fmt.Errorf("%w: it was written in format %d, this program reads format %d", errFormat, v, formatVersion)
}

// decodeSegment reads a header strictly.
func decodeSegment(b []byte) (*segment, error) {
	r := reader{b: b}
	if string(r.take(uint64(len(segmentMagic)))) != segmentMagic {
		return nil, errors.New("this is not a segment of a message log")
	}
	if v := r.uint32(); r.err == nil && v != formatVersion {
		return nil, otherFormat(uint64(v))
	}
	body := reader{b: r.bytes()}
	sum := crc32.Checksum(b[:len(b)-len(r.b)], castagnoli)
	if r.uint32() != sum {
		r.fail()
	}
	s := &segment{number: body.uint64(), first: body.uint64(), created: time.Unix(0, int64(body.uint64())).UTC()}
	copy(s.mark[:], body.take(markSize))
	s.state = body.state()
	if len(body.b) != 0 || !zero(r.b) {
		r.fail()
	}
	return s, errors.Join(r.err, body.err)
}

func zero(b []byte) bool {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return len(b) == 0
}

// group is a piece of a segment that was written and flushed at once.
type group struct {
	first   uint64 // number of its first record, or of the next one if it has none
	records uint32
	payload []byte
	end     int64 // offset behind it
}

func (g *group) next() uint64 { return g.first + uint64(g.records) }

// seal fills in the header of a group, for which b begins with as many bytes.
func (s *segment) seal(b []byte, first uint64, records int) {
	copy(b, s.mark[:])
	binary.BigEndian.PutUint64(b[markSize:], first)
	binary.BigEndian.PutUint32(b[markSize+8:], uint32(records))
	binary.BigEndian.PutUint32(b[markSize+12:], uint32(len(b)-groupHeader))
	binary.BigEndian.PutUint32(b[markSize+16:], checksum(b))
}

// checksum is that of a group but for the place where it stands itself.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:groupHeader-4], castagnoli), castagnoli, b[groupHeader:])
}

func appendEntry(b []byte, kind byte, body ...[]byte) []byte {
	n := 1
	for _, p := range body {
		n += len(p)
	}
	b = append(binary.AppendUvarint(b, uint64(n)), kind)
	for _, p := range body {
		b = append(b, p...)
	}
	return b
}

// entries visits those of a group; the number is that of a record, or else of
// the next one.
func (g *group) entries(visit func(kind byte, seq uint64, body []byte) error) error {
	r := reader{b: g.payload}
	seq := g.first
	for len(r.b) > 0 && r.err == nil {
		e := r.bytes()
		if r.err != nil || len(e) == 0 || e[0] < entryRecord || e[0] > entryState {
			return errEncoding
		}
		if err := visit(e[0], seq, e[1:]); err != nil {
			return err
		}
		if e[0] == entryRecord {
			seq++
		}
	}
	if r.err != nil || seq != g.next() {
		return errEncoding
	}
	return nil
}

// readGroup reads the group at an offset. Its payload is in buf if that is large
// enough, and not read if skip says so. It returns errEnd where there is none.
func (s *segment) readGroup(f io.ReaderAt, offset int64, buf []byte, skip func(*group) bool) (*group, []byte, error) {
	var head [groupHeader]byte
	n, err := f.ReadAt(head[:], offset)
	if err != nil && err != io.EOF {
		return nil, buf, err
	}
	if zero(head[:n]) {
		return nil, buf, errEnd
	}
	if n < len(head) || !bytes.Equal(head[:markSize], s.mark[:]) {
		return nil, buf, s.damaged(offset, "no group begins here")
	}
	g := &group{first: binary.BigEndian.Uint64(head[markSize:]), records: binary.BigEndian.Uint32(head[markSize+8:])}
	length := int64(binary.BigEndian.Uint32(head[markSize+12:]))
	if length == 0 || length > maxGroup {
		return nil, buf, s.damaged(offset, "no group has %d bytes", length)
	}
	g.end = offset + groupHeader + length
	if skip != nil && skip(g) {
		return g, buf, nil
	}
	if buf, err = readAt(f, buf[:0], offset+groupHeader, length); err != nil {
		if err == io.EOF {
			err = s.damaged(offset, "the group ends too early")
		}
		return nil, buf, err
	}
	sum := crc32.Update(crc32.Checksum(head[:groupHeader-4], castagnoli), castagnoli, buf)
	if sum != binary.BigEndian.Uint32(head[markSize+16:]) {
		return nil, buf, s.damaged(offset, "wrong checksum")
	}
	g.payload = buf
	return g, buf, nil
}

// readAt reads n bytes into buf, and no more memory than there is to read is
// taken for what a damaged length says.
func readAt(f io.ReaderAt, buf []byte, offset, n int64) ([]byte, error) {
	const step = 1 << 20
	for n > 0 {
		k := int(min(n, step))
		buf = slices.Grow(buf, k)
		m, err := f.ReadAt(buf[len(buf):len(buf)+k], offset)
		buf = buf[:len(buf)+m]
		if m < k {
			if err == nil {
				err = io.EOF
			}
			return buf, err
		}
		offset, n = offset+int64(k), n-int64(k)
	}
	return buf, nil
}

// findGroup returns the offset of the first whole group behind one that cannot
// be read, -1 if there is none. Nobody who sends messages knows the mark.
func (s *segment) findGroup(f io.ReaderAt, offset int64) (int64, error) {
	const step = 1 << 20
	buf := make([]byte, step+markSize-1)
	for {
		n, err := f.ReadAt(buf, offset)
		if err != nil && err != io.EOF {
			return -1, err
		}
		for at := 0; ; at++ {
			i := bytes.Index(buf[at:n], s.mark[:])
			if i < 0 {
				break
			}
			at += i
			if _, _, err := s.readGroup(f, offset+int64(at), nil, nil); err == nil {
				return offset + int64(at), nil
			}
		}
		if n < len(buf) {
			return -1, nil
		}
		offset += step
	}
}

// segments are those on the disk, oldest first, without gaps. There is always
// one, the last, to which groups are appended.
type segments struct {
	mu   sync.RWMutex
	list []*segment
}

func (s *segments) get(number uint64) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.list) == 0 || number < s.list[0].number || number-s.list[0].number >= uint64(len(s.list)) {
		return nil
	}
	return s.list[number-s.list[0].number]
}

func (s *segments) all() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.list)
}

// bytes is the size of all of them.
func (s *segments) bytes() (n int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, seg := range s.list {
		n += seg.size.Load()
	}
	return n
}

func (s *segments) add(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, seg)
}

// removable returns the oldest segment if all its records are among those that
// retention has removed, else nil. The last one always stays: it has the state.
func (s *segments) removable(pruned uint64) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.list) < 2 || s.list[1].first > pruned+1 {
		return nil
	}
	return s.list[0]
}

func (s *segments) removeFirst() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.Clone(s.list[1:])
}

// segmentWriter appends groups to the last segment; it belongs to the committer.
type segmentWriter struct {
	l      *Log
	seg    *segment
	file   vfs.File
	end    int64 // behind the last group
	zeroed int64 // zeros have been written up to here
	zeros  []byte
}

// begin makes a new segment the last one; its name and header are durable when
// it returns.
func (w *segmentWriter) begin(first uint64, s state) error {
	seg := &segment{number: 1, first: first, created: w.l.cfg.Now(), state: s}
	if w.seg != nil {
		seg.number = w.seg.number + 1
	}
	rand.Read(seg.mark[:])
	f, err := w.l.fs.OpenReadWrite(w.l.segmentPath(seg), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(seg.header(), 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), w.l.fs.syncDir(w.l.segmentDir())); err != nil {
		return errors.Join(err, f.Close())
	}
	err = w.close()
	w.seg, w.file, w.end, w.zeroed = seg, f, headerSize, headerSize
	seg.size.Store(headerSize)
	w.l.segs.add(seg)
	return err
}

// write appends one group durably.
func (w *segmentWriter) write(b []byte) error {
	if end := w.end + int64(len(b)); end > w.zeroed {
		if w.zeros == nil {
			w.zeros = make([]byte, w.l.tuning.step)
		}
		// Where there is no room for zeros, there may be some for the group.
		if _, err := w.file.WriteAt(w.zeros, end); err == nil {
			w.zeroed = end + int64(len(w.zeros))
		}
		w.seg.size.Store(max(end, w.zeroed))
	}
	n, err := w.file.WriteAt(b, w.end)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", w.l.segmentPath(w.seg), err)
	}
	if err := w.file.SyncData(); err != nil {
		return fmt.Errorf("flush %s: %w", w.l.segmentPath(w.seg), err)
	}
	w.end += int64(len(b))
	return nil
}

func (w *segmentWriter) close() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}
