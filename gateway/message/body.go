// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Defaults of Spool.
const (
	DefaultMemoryLimit = 64 << 10
	DefaultReserve     = 256 << 20
)

// Spool makes bodies and says how much they may take. Its fields must not
// change once it is in use; it is safe for concurrent use.
type Spool struct {
	// Dir holds the files of large bodies. See Clean.
	Dir string
	// MemoryLimit is the size in bytes up to which a body stays in memory.
	// 0 means DefaultMemoryLimit.
	MemoryLimit int64
	// MaxSize bounds one body, in bytes. 0 means no bound but the disk.
	MaxSize int64
	// Reserve is how many bytes spooling leaves free on the disk, for the
	// message log and others. 0 means DefaultReserve, less than 0 none.
	Reserve int64
	// Free returns the bytes that are free at dir; nil asks the file system.
	Free func(dir string) (int64, error)
}

// Names of spool files. Whoever adopts one must move or link it to another name.
const (
	spoolPrefix = "body-"
	spoolSuffix = ".spool"
)

// Clean makes the directory, if need be, and removes the files that a crash
// left behind. Call it before the first body is made. Adopted files must have
// been moved or linked to a name outside the pattern body-*.spool.
func (s *Spool) Clean() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("clean spool: %w", err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("clean spool: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), spoolPrefix) && strings.HasSuffix(e.Name(), spoolSuffix) {
			errs = append(errs, os.Remove(filepath.Join(s.Dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean spool: %w", err)
	}
	return nil
}

func (s *Spool) memoryLimit() int64 {
	if s.MemoryLimit <= 0 {
		return DefaultMemoryLimit
	}
	return s.MemoryLimit
}

// checkSpace refuses when n more bytes would touch the reserve.
func (s *Spool) checkSpace(n int64) error {
	reserve := s.Reserve
	if reserve == 0 {
		reserve = DefaultReserve
	}
	if reserve < 0 {
		return nil
	}
	free := s.Free
	if free == nil {
		free = freeSpace
	}
	have, err := free(s.Dir)
	if err != nil {
		return fmt.Errorf("free space of the spool: %w", err)
	}
	if have-n < reserve {
		return fmt.Errorf("%w: %d bytes free in %s, %d are kept in reserve", ErrNoSpace, have, s.Dir, reserve)
	}
	return nil
}

// New returns a body without a byte. It is not Present until something is
// written or MarkPresent is called. Close it.
func (s *Spool) New() *Body { return &Body{spool: s} }

// Body is the one copy of a body's bytes. It is hashed while it is written,
// stays in memory up to the spool's limit and beyond it lives in one file.
//
// First one goroutine writes, with Write or ReadFrom; to stream a body to a peer
// at the same time, read it through an [io.TeeReader] or write to both with an
// [io.MultiWriter]. The first call of Digest, Bytes, Open or Sync seals the
// body; from then on it may be read by several goroutines, until Close.
//
// All methods but the writing ones accept a nil Body, which is an absent body.
type Body struct {
	spool   *Spool
	present bool
	size    int64
	mem     *[]byte // pooled; nil if empty or in a file
	file    *os.File
	path    string
	checked int64 // size up to which the free space was checked
	hash    *hasher
	err     error // first error of writing

	mu     sync.Mutex // guards the rest
	sealed bool
	closed bool
	kept   bool
	digest [sha512.Size]byte
}

// chunk is how much is handed to the hasher at once; spaceStep how much may be
// written before the disk is asked again.
const (
	chunk     = 64 << 10
	spaceStep = 1 << 20
)

// Write appends p. Errors wrap ErrTooLarge or ErrNoSpace, or are those of the
// file; the first is repeated by all later calls.
func (b *Body) Write(p []byte) (int, error) {
	if err := b.writable(int64(len(p))); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.file == nil {
		if b.size+int64(len(p)) <= b.spool.memoryLimit() {
			b.grow(int(b.size) + len(p))
			*b.mem = append(*b.mem, p...)
			b.size += int64(len(p))
			return len(p), nil
		}
		if err := b.spill(); err != nil {
			return 0, b.fail(err)
		}
	}
	if err := b.writeFile(p); err != nil {
		return 0, b.fail(err)
	}
	b.hash.write(p)
	return len(p), nil
}

// ReadFrom appends all that r gives, without a copy in between for large
// bodies.
func (b *Body) ReadFrom(r io.Reader) (n int64, err error) {
	if err := b.writable(0); err != nil {
		return 0, err
	}
	for {
		var m int
		if b.file == nil {
			m, err = b.readMemory(r)
		} else {
			m, err = b.readChunk(r)
		}
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// readMemory reads once into memory, or spills when there is no room.
func (b *Body) readMemory(r io.Reader) (int, error) {
	limit := b.spool.memoryLimit()
	if b.size == limit {
		// Whether anything follows is only known after reading it.
		return b.readChunk(r)
	}
	b.grow(int(min(limit, max(b.size+1, smallBuffer))))
	mem := *b.mem
	free := mem[len(mem):min(cap(mem), int(limit))]
	n, err := r.Read(free)
	if werr := b.writable(int64(n)); werr != nil {
		return 0, werr
	}
	*b.mem = mem[:len(mem)+n]
	b.size += int64(n)
	b.present = b.present || n > 0
	return n, err
}

// readChunk reads once into a buffer that goes to the file and then to the
// hasher.
func (b *Body) readChunk(r io.Reader) (int, error) {
	buf := getBuffer(chunk)
	n, err := r.Read((*buf)[:chunk])
	*buf = (*buf)[:n]
	if n == 0 {
		putBuffer(buf)
		return 0, err
	}
	if werr := b.writable(int64(n)); werr != nil {
		putBuffer(buf)
		return 0, werr
	}
	if b.file == nil {
		if werr := b.spill(); werr != nil {
			putBuffer(buf)
			return 0, b.fail(werr)
		}
	}
	if werr := b.writeFile(*buf); werr != nil {
		putBuffer(buf)
		return 0, b.fail(werr)
	}
	b.hash.hand(buf)
	return n, err
}

// writable checks that n more bytes may be written.
func (b *Body) writable(n int64) error {
	if b.err != nil {
		return b.err
	}
	if b.sealed || b.closed {
		return ErrSealed
	}
	if b.spool.MaxSize > 0 && b.size+n > b.spool.MaxSize {
		return b.fail(fmt.Errorf("%w: body longer than %d bytes", ErrTooLarge, b.spool.MaxSize))
	}
	if n > 0 {
		b.present = true
	}
	return nil
}

func (b *Body) fail(err error) error {
	b.err = err
	return err
}

// grow makes room for n bytes in memory.
func (b *Body) grow(n int) {
	if b.mem != nil && cap(*b.mem) >= n {
		return
	}
	if b.mem != nil {
		n = max(n, 2*cap(*b.mem))
	}
	buf := getBuffer(n)
	if b.mem != nil {
		*buf = append(*buf, *b.mem...)
		putBuffer(b.mem)
	}
	b.mem = buf
}

// spill moves the body from memory to a file.
func (b *Body) spill() error {
	if err := b.space(b.size); err != nil {
		return err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails
	path := filepath.Join(b.spool.Dir, spoolPrefix+hex.EncodeToString(random[:])+spoolSuffix)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spoolError(err)
	}
	b.file, b.path = f, path
	b.hash = newHasher()
	if b.mem == nil {
		return nil
	}
	if _, err := f.Write(*b.mem); err != nil {
		return spoolError(err)
	}
	b.hash.write(*b.mem)
	putBuffer(b.mem)
	b.mem = nil
	return nil
}

func (b *Body) writeFile(p []byte) error {
	if err := b.space(int64(len(p))); err != nil {
		return err
	}
	if _, err := b.file.Write(p); err != nil {
		return spoolError(err)
	}
	b.size += int64(len(p))
	return nil
}

// space checks the disk every spaceStep bytes.
func (b *Body) space(n int64) error {
	if b.file != nil && b.size+n <= b.checked {
		return nil
	}
	ahead := max(n, spaceStep)
	if err := b.spool.checkSpace(ahead); err != nil {
		return err
	}
	b.checked = b.size + ahead
	return nil
}

func spoolError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("spool: %w", err)
}

// MarkPresent makes an empty body one that exists: a service's answer of length
// zero is a body, an answer without content is none.
func (b *Body) MarkPresent() { b.present = true }

// Present reports whether there is a body, empty or not.
func (b *Body) Present() bool { return b != nil && b.present }

// Size returns the length in bytes.
func (b *Body) Size() int64 {
	if b == nil {
		return 0
	}
	return b.size
}

// Digest seals the body and returns its SHA-512.
func (b *Body) Digest() [sha512.Size]byte {
	if b == nil {
		return sha512.Sum512(nil)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seal()
	return b.digest
}

// seal ends writing and computes the digest. The caller holds mu.
func (b *Body) seal() {
	if b.sealed {
		return
	}
	b.sealed = true
	switch {
	case b.hash != nil:
		b.digest = b.hash.sum()
	case b.mem != nil:
		b.digest = sha512.Sum512(*b.mem)
	default:
		b.digest = sha512.Sum512(nil)
	}
}

// Bytes seals the body and returns it if it is in memory. The bytes must not be
// changed, nor used after Close.
func (b *Body) Bytes() (p []byte, inMemory bool) {
	if b == nil {
		return nil, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seal()
	if b.file != nil {
		return nil, false
	}
	if b.mem == nil {
		return nil, true
	}
	return *b.mem, true
}

// Path returns the name of the file, or "" if the body is in memory. After
// adoption it is the name that the file had before.
func (b *Body) Path() string {
	if b == nil {
		return ""
	}
	return b.path
}

// Open seals the body and returns a reader of its own position. It must not be
// used after the body is closed. A large body that still has its name comes as
// an *os.File, so that the kernel can copy it to a socket.
func (b *Body) Open() (io.ReadSeekCloser, error) {
	if b == nil {
		return nopCloser{bytes.NewReader(nil)}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrSealed
	}
	if b.err != nil {
		return nil, b.err
	}
	b.seal()
	if b.file == nil {
		var p []byte
		if b.mem != nil {
			p = *b.mem
		}
		return nopCloser{bytes.NewReader(p)}, nil
	}
	if !b.kept {
		if f, err := os.Open(b.path); err == nil {
			return f, nil
		}
	}
	// Renamed by its new owner: read through our own handle.
	return sectionCloser{io.NewSectionReader(b.file, 0, b.size)}, nil
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

type sectionCloser struct{ *io.SectionReader }

func (sectionCloser) Close() error { return nil }

// Sync seals the body and makes its file durable, name included. A body in
// memory is durable only where its bytes are written next.
func (b *Body) Sync() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrSealed
	}
	if b.err != nil {
		return b.err
	}
	b.seal()
	if b.file == nil {
		return nil
	}
	if err := b.file.Sync(); err != nil {
		return b.fail(spoolError(err))
	}
	dir, err := os.Open(b.spool.Dir)
	if err != nil {
		return b.fail(spoolError(err))
	}
	err = dir.Sync()
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return b.fail(spoolError(err))
	}
	return nil
}

// Keep tells that the file at Path has a new owner, who has moved or is about
// to move it: Close no longer removes it. An owner who made a hard link need not
// call it.
func (b *Body) Keep() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.kept = true
	b.mu.Unlock()
}

// Close frees the memory and removes the file, unless it was adopted. It may be
// called again.
func (b *Body) Close() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.seal()
	b.closed = true
	if b.mem != nil {
		putBuffer(b.mem)
		b.mem = nil
	}
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	if !b.kept {
		if rerr := os.Remove(b.path); err == nil {
			err = rerr
		}
	}
	return err
}

// hasher computes SHA-512 beside the transfer: hashing takes longer than
// receiving or writing, so it must not stand in line with them.
type hasher struct {
	work chan *[]byte
	done chan [sha512.Size]byte
	part *[]byte // not yet handed over
}

// hashAhead bounds the chunks that wait for the hasher.
const hashAhead = 4

func newHasher() *hasher {
	h := &hasher{work: make(chan *[]byte, hashAhead), done: make(chan [sha512.Size]byte, 1)}
	go h.run()
	return h
}

func (h *hasher) run() {
	d := sha512.New()
	for buf := range h.work {
		d.Write(*buf)
		putBuffer(buf)
	}
	var sum [sha512.Size]byte
	d.Sum(sum[:0])
	h.done <- sum
}

// write copies p.
func (h *hasher) write(p []byte) {
	for len(p) > 0 {
		if h.part == nil {
			h.part = getBuffer(chunk)
		}
		n := min(len(p), chunk-len(*h.part))
		*h.part = append(*h.part, p[:n]...)
		p = p[n:]
		if len(*h.part) == chunk {
			h.flush()
		}
	}
}

// hand takes over a buffer.
func (h *hasher) hand(buf *[]byte) {
	h.flush()
	h.work <- buf
}

func (h *hasher) flush() {
	if h.part != nil {
		h.work <- h.part
		h.part = nil
	}
}

// sum ends the hasher.
func (h *hasher) sum() [sha512.Size]byte {
	h.flush()
	close(h.work)
	return <-h.done
}

// Buffers are pooled by size: many bodies are small, and a 64 KiB buffer for
// each would cost more memory than the messages themselves.
const (
	smallBuffer  = 4 << 10
	mediumBuffer = 16 << 10
	largeBuffer  = 64 << 10
)

var small, medium, large sync.Pool

func pool(n int) (*sync.Pool, int) {
	switch {
	case n <= smallBuffer:
		return &small, smallBuffer
	case n <= mediumBuffer:
		return &medium, mediumBuffer
	case n <= largeBuffer:
		return &large, largeBuffer
	}
	return nil, max(n, 2*largeBuffer)
}

// getBuffer returns an empty buffer with a capacity of at least n.
func getBuffer(n int) *[]byte {
	p, size := pool(n)
	if p != nil {
		if b, ok := p.Get().(*[]byte); ok {
			*b = (*b)[:0]
			return b
		}
	}
	b := make([]byte, 0, size)
	return &b
}

// putBuffer gives a buffer back; one of an unusual size is left to the
// garbage collector.
func putBuffer(b *[]byte) {
	if p, size := pool(cap(*b)); p != nil && cap(*b) == size {
		p.Put(b)
	}
}
