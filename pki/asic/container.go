// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"time"
)

// Names of a container's entries, in the order in which they are written;
// attachments follow as "attachment1", "attachment2", …
const (
	entryMimetype       = "mimetype"
	entryMessage        = "message.xml"
	entrySignatures     = "META-INF/signatures.xml"
	entrySigChainResult = "sig-hashchainresult.xml"
	entrySigChain       = "sig-hashchain.xml"
	entryTSChainResult  = "ts-hashchainresult.xml"
	entryTSChain        = "ts-hashchain.xml"
	entryManifest       = "META-INF/manifest.xml"
	entryASiCManifest   = "META-INF/ASiCManifest.xml"
	entryTimestamp      = "META-INF/timestamp.tst"

	entryAttachment = "attachment" // + N
	directoryMeta   = "META-INF/"
)

// MediaType is the media type of a container and the content of its entry
// "mimetype".
const MediaType = "application/vnd.etsi.asic-e+zip"

const zipComment = "mimetype=" + MediaType

// ErrContainer means that a file is not an ASiC-E container as X-Road writes
// them, or is damaged.
var ErrContainer = errors.New("not a sound ASiC-E container")

// Container is the evidence of one message: the message, its signature and
// its time-stamp.
type Container struct {
	Message    []byte // the SOAP message or the REST head
	Signatures []byte // the signature document

	// The hash chain through which the signature covers the message; nil
	// if it does so directly.
	SigChainResult, SigChain []byte

	// The hash chain through which the time-stamp covers the signature,
	// and the time-stamp token in DER. All nil if the signature document
	// holds its time-stamp itself.
	TSChainResult, TSChain, Timestamp []byte

	Attachments []Attachment // a REST body is the first

	// Modified is the date of the entries, the latest of those read; zero
	// for none.
	Modified time.Time

	read *readContainer // what Open found beside
}

// Attachment is a part of a message whose bytes are read when needed.
type Attachment struct {
	// Open returns the bytes. It is nil if a container that was read does
	// not hold this attachment, though it holds a later one.
	Open func() (io.ReadCloser, error)
	Size int64 // in bytes
}

// readContainer is what a container file holds beside the evidence.
type readContainer struct {
	mimetype, manifest, asicManifest []byte
	names                            map[string]bool
	problems                         []error
	unreadable                       bool // not even an archive
}

// part is one entry that is held in memory.
type part struct {
	name string
	data *[]byte
	max  int64
}

// parts lists the entries between mimetype and the attachments, in their
// order, apart from the manifests.
func (c *Container) parts() []part {
	return []part{
		{entryMessage, &c.Message, maxMessageEntry},
		{entrySignatures, &c.Signatures, maxEntry},
		{entrySigChainResult, &c.SigChainResult, maxEntry},
		{entrySigChain, &c.SigChain, maxEntry},
		{entryTSChainResult, &c.TSChainResult, maxEntry},
		{entryTSChain, &c.TSChain, maxEntry},
		{entryTimestamp, &c.Timestamp, maxEntry},
	}
}

// complete reports what a container lacks.
func (c *Container) complete() []error {
	var errs []error
	need := func(data []byte, name string) {
		if len(data) == 0 {
			errs = append(errs, fmt.Errorf("%w: %s is missing or empty", ErrContainer, name))
		}
	}
	need(c.Message, entryMessage)
	need(c.Signatures, entrySignatures)
	if c.SigChainResult != nil || c.SigChain != nil {
		need(c.SigChainResult, entrySigChainResult)
		need(c.SigChain, entrySigChain)
	}
	if c.TSChainResult != nil || c.TSChain != nil {
		need(c.TSChainResult, entryTSChainResult)
		need(c.TSChain, entryTSChain)
		need(c.Timestamp, entryTimestamp)
	}
	for i, a := range c.Attachments {
		if a.Open == nil {
			errs = append(errs, fmt.Errorf("%w: %s%d is missing", ErrContainer, entryAttachment, i+1))
		}
	}
	return errs
}

// WriteTo writes the container as X-Road's message log does: all entries
// deflated, "mimetype" included, with the media type as the archive's comment
// (X-Road: Signed Document Download and Verification Manual).
func (c *Container) WriteTo(w io.Writer) (int64, error) {
	if err := errors.Join(c.complete()...); err != nil {
		return 0, err
	}
	count := &countingWriter{w: w}
	z := zip.NewWriter(count)
	if err := z.SetComment(zipComment); err != nil {
		return count.n, err
	}
	add := func(name string, data io.Reader) error {
		const utf8Names = 0x800 // as X-Road's writer has it
		e, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Flags: utf8Names, Modified: c.Modified})
		if err == nil {
			_, err = io.Copy(e, data)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}

	entries := []struct {
		name string
		data []byte
	}{
		{entryMimetype, []byte(MediaType)},
		{entryMessage, c.Message},
		{entrySignatures, c.Signatures},
		{entrySigChainResult, c.SigChainResult},
		{entrySigChain, c.SigChain},
		{entryTSChainResult, c.TSChainResult},
		{entryTSChain, c.TSChain},
		{entryManifest, manifest(c.listed())},
		{entryASiCManifest, asicManifest(c.TSChainResult)},
		{entryTimestamp, c.Timestamp},
	}
	for _, e := range entries {
		if e.data == nil {
			continue
		}
		if err := add(e.name, bytes.NewReader(e.data)); err != nil {
			return count.n, err
		}
	}
	for i, a := range c.Attachments {
		r, err := a.Open()
		if err != nil {
			return count.n, fmt.Errorf("attachment %d: %w", i+1, err)
		}
		err = add(entryAttachment+strconv.Itoa(i+1), r)
		if err := errors.Join(err, r.Close()); err != nil {
			return count.n, err
		}
	}
	err := z.Close()
	return count.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Bounds on containers, which may come from anyone.
const (
	maxEntries      = 2048
	maxEntry        = 1 << 20  // of signatures, chains, manifests and tokens
	maxMessageEntry = 64 << 20 // of a SOAP message
	maxAttachments  = 64 << 30 // all together; they are only streamed
)

// Open reads a container. Whatever is not exactly one sound archive with the
// entries X-Road knows is refused with an error that wraps [ErrContainer]:
// unknown or doubled names, names with paths, bytes between the entries,
// entries whose two headers disagree, sizes beyond all reason. The order of
// the entries is free. Attachments are read from r when they are opened.
func Open(r io.ReaderAt, size int64) (*Container, error) {
	c := open(r, size)
	if err := errors.Join(c.read.problems...); err != nil {
		return nil, err
	}
	if err := errors.Join(c.complete()...); err != nil {
		return nil, err
	}
	return c, nil
}

// open reads what can be read and notes what is wrong.
func open(r io.ReaderAt, size int64) *Container {
	c := &Container{read: &readContainer{names: make(map[string]bool)}}
	problem := func(format string, args ...any) {
		c.read.problems = append(c.read.problems, fmt.Errorf("%w: %w", ErrContainer, fmt.Errorf(format, args...)))
	}
	files, err := readArchive(r, size)
	if err != nil {
		problem("%w", err)
		c.read.unreadable = true
		return c
	}
	inMemory := append(c.parts(),
		part{entryMimetype, &c.read.mimetype, maxEntry},
		part{entryManifest, &c.read.manifest, maxEntry},
		part{entryASiCManifest, &c.read.asicManifest, maxEntry})
	var attached uint64
	for _, f := range files {
		if c.read.names[f.Name] {
			problem("entry %q occurs twice", f.Name)
			continue
		}
		c.read.names[f.Name] = true
		if f.Modified.After(c.Modified) {
			c.Modified = f.Modified
		}
		if f.Name == directoryMeta {
			if f.UncompressedSize64 != 0 || f.CompressedSize64 > 2 {
				problem("directory %q has content", f.Name)
			}
			continue
		}
		if i := slices.IndexFunc(inMemory, func(p part) bool { return p.name == f.Name }); i >= 0 {
			if *inMemory[i].data, err = readEntry(f, inMemory[i].max); err != nil {
				problem("%s: %w", f.Name, err)
			}
			continue
		}
		n, ok := attachmentNumber(f.Name, entryAttachment)
		if !ok || n > maxEntries {
			problem("unknown entry %.100q", f.Name)
			continue
		}
		if attached += f.UncompressedSize64; attached > maxAttachments {
			problem("attachments of more than %d bytes", int64(maxAttachments))
			continue
		}
		if len(c.Attachments) < n {
			c.Attachments = append(c.Attachments, make([]Attachment, n-len(c.Attachments))...)
		}
		c.Attachments[n-1] = Attachment{Open: f.Open, Size: int64(f.UncompressedSize64)}
	}
	return c
}

func readEntry(f *zip.File, limit int64) ([]byte, error) {
	if f.UncompressedSize64 > uint64(limit) {
		return nil, fmt.Errorf("%d bytes are more than %d", f.UncompressedSize64, limit)
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// The size field may lie: the reader stops there, and so do we.
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if uint64(len(data)) != f.UncompressedSize64 {
		return nil, errors.New("its size is not the stated one")
	}
	return data, nil
}

// readArchive lists the entries of an archive that reads the same from its
// beginning, entry by entry, as from the directory at its end: tools that
// differ in which of the two they follow must not see different messages.
func readArchive(r io.ReaderAt, size int64) ([]*zip.File, error) {
	directory, err := findDirectory(r, size)
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	if z.Comment != "" && z.Comment != zipComment {
		return nil, fmt.Errorf("archive comment %.100q", z.Comment)
	}
	files := slices.Clone(z.File)
	starts := make(map[*zip.File]int64, len(files))
	for _, f := range files {
		if starts[f], err = f.DataOffset(); err != nil {
			return nil, fmt.Errorf("%.100q: %w", f.Name, err)
		}
	}
	slices.SortFunc(files, func(a, b *zip.File) int {
		if starts[a] < starts[b] {
			return -1
		}
		return 1
	})
	pos := int64(0)
	for _, f := range files {
		if pos, err = checkEntry(r, f, pos, starts[f]); err != nil {
			return nil, fmt.Errorf("%.100q: %w", f.Name, err)
		}
	}
	if pos != directory || len(files) == 0 {
		return nil, errors.New("bytes outside the entries")
	}
	return files, nil
}

var le = binary.LittleEndian

// findDirectory returns where the directory starts. It bounds the number of
// entries before the archive is read, and demands that the directory is the
// last thing in it.
func findDirectory(r io.ReaderAt, size int64) (int64, error) {
	const end = 22
	var buf [end]byte
	for _, comment := range []int{0, len(zipComment)} {
		at := size - end - int64(comment)
		if at < 0 {
			break
		}
		if _, err := r.ReadAt(buf[:], at); err != nil {
			return 0, err
		}
		if string(buf[:4]) != "PK\x05\x06" || int(le.Uint16(buf[20:])) != comment {
			continue
		}
		if le.Uint16(buf[10:]) == 0xffff || le.Uint32(buf[16:]) == 1<<32-1 {
			return findDirectory64(r, at)
		}
		return directoryAt(uint64(le.Uint16(buf[10:])), uint64(le.Uint32(buf[16:])), uint64(le.Uint32(buf[12:])), at)
	}
	return 0, zip.ErrFormat
}

// findDirectory64 is findDirectory for an archive of more than 4 GiB, whose
// ordinary end record starts at.
func findDirectory64(r io.ReaderAt, at int64) (int64, error) {
	const locator, record = 20, 56
	var buf [record]byte
	if at < locator+record {
		return 0, zip.ErrFormat
	}
	if _, err := r.ReadAt(buf[:locator], at-locator); err != nil {
		return 0, err
	}
	start := at - locator - record
	if string(buf[:4]) != "PK\x06\x07" || le.Uint64(buf[8:]) != uint64(start) {
		return 0, zip.ErrFormat
	}
	if _, err := r.ReadAt(buf[:], start); err != nil {
		return 0, err
	}
	if string(buf[:4]) != "PK\x06\x06" {
		return 0, zip.ErrFormat
	}
	return directoryAt(le.Uint64(buf[32:]), le.Uint64(buf[48:]), le.Uint64(buf[40:]), start)
}

func directoryAt(entries, offset, length uint64, end int64) (int64, error) {
	if entries > maxEntries {
		return 0, fmt.Errorf("%d entries", entries)
	}
	if offset > uint64(end) || length != uint64(end)-offset {
		return 0, errors.New("bytes around the directory")
	}
	return int64(offset), nil
}

// checkEntry compares the local header of f, which must stand at pos, with the
// directory's, and returns where the next one must stand.
func checkEntry(r io.ReaderAt, f *zip.File, pos, dataAt int64) (int64, error) {
	const (
		header        = 30
		descriptor    = 0x8
		allowedFlags  = descriptor | 0x800 | 0x6 // UTF-8 names, deflate levels
		zip64Extra    = 0x0001
		maxNameLength = 64
	)
	if f.Flags&^allowedFlags != 0 {
		return 0, fmt.Errorf("archive flags %#x", f.Flags)
	}
	if f.Method != zip.Store && f.Method != zip.Deflate {
		return 0, fmt.Errorf("compression method %d", f.Method)
	}
	if len(f.Name) > maxNameLength {
		return 0, errors.New("name too long")
	}
	if t := f.Mode().Type(); t != 0 && t != fs.ModeDir {
		return 0, fmt.Errorf("special file %v", t)
	}
	b := make([]byte, header+len(f.Name))
	if _, err := r.ReadAt(b, pos); err != nil {
		return 0, err
	}
	extraLen := int64(le.Uint16(b[28:]))
	if string(b[:4]) != "PK\x03\x04" || le.Uint16(b[6:]) != f.Flags || le.Uint16(b[8:]) != f.Method ||
		int(le.Uint16(b[26:])) != len(f.Name) || string(b[header:]) != f.Name ||
		dataAt != pos+int64(len(b))+extraLen {
		return 0, errors.New("its two headers differ")
	}
	extra := make([]byte, extraLen)
	if _, err := r.ReadAt(extra, pos+int64(len(b))); err != nil && extraLen > 0 {
		return 0, err
	}
	for _, x := range [][]byte{extra, f.Extra} {
		if err := checkExtra(x); err != nil {
			return 0, err
		}
	}
	if f.CompressedSize64 > uint64(1)<<62-uint64(dataAt) {
		return 0, zip.ErrFormat
	}
	next := dataAt + int64(f.CompressedSize64)
	if f.Flags&descriptor == 0 {
		if large := le.Uint32(b[18:]) == 1<<32-1 || le.Uint32(b[22:]) == 1<<32-1; large {
			return next, nil // sizes in the extra field; the next header tells
		}
		if le.Uint32(b[14:]) != f.CRC32 || uint64(le.Uint32(b[18:])) != f.CompressedSize64 ||
			uint64(le.Uint32(b[22:])) != f.UncompressedSize64 {
			return 0, errors.New("its two headers differ")
		}
		return next, nil
	}
	n, err := checkDescriptor(r, f, next)
	return next + n, err
}

// checkDescriptor reads the sizes that follow a streamed entry.
func checkDescriptor(r io.ReaderAt, f *zip.File, at int64) (int64, error) {
	want := binary.LittleEndian.AppendUint32(nil, f.CRC32)
	short := le.AppendUint32(slices.Clone(want), uint32(f.CompressedSize64))
	short = le.AppendUint32(short, uint32(f.UncompressedSize64))
	long := le.AppendUint64(slices.Clone(want), f.CompressedSize64)
	long = le.AppendUint64(long, f.UncompressedSize64)
	var buf [24]byte
	n, err := r.ReadAt(buf[:], at)
	if err != nil && err != io.EOF {
		return 0, err
	}
	for _, d := range [][]byte{long, short} {
		for _, mark := range []string{"PK\x07\x08", ""} {
			if rest, ok := bytes.CutPrefix(buf[:n], []byte(mark)); ok && bytes.HasPrefix(rest, d) {
				return int64(len(mark) + len(d)), nil
			}
		}
	}
	return 0, errors.New("its sizes differ")
}

// checkExtra refuses extra fields that could give an entry another name or
// content than it seems to have; dates and owners are harmless.
func checkExtra(b []byte) error {
	for len(b) >= 4 {
		id, n := le.Uint16(b), int(le.Uint16(b[2:]))
		if n > len(b)-4 {
			return zip.ErrFormat
		}
		switch id {
		case 0x0001, 0x000a, 0x5455, 0x5855, 0x7855, 0x7875, 0xcafe:
		default:
			return fmt.Errorf("extra field %#04x", id)
		}
		b = b[4+n:]
	}
	if len(b) > 0 {
		return zip.ErrFormat
	}
	return nil
}
