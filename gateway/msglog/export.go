// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"archive/zip"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
)

// maxEscapedID is where X-Road cuts the message id in a file name.
const maxEscapedID = 226

// FileName returns the name of a record's container, as X-Road gives it:
// message id, direction and the record's number in base 32.
func FileName(e *Entry) string {
	name := escape(e.MessageID)
	if len(name) > maxEscapedID {
		name = name[:maxEscapedID]
	}
	return name + "-" + direction(e.Response) + "-" + strconv.FormatUint(e.Seq, 32) + ".asice"
}

func direction(response bool) string {
	if response {
		return "response"
	}
	return "request"
}

// escape encodes as Java's URLEncoder does, which differs from Go's in "*" and
// "~".
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '*', c == '_':
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// ExportZip writes a zip of the containers of all records that q chooses, and
// returns how many they are. Without force it stops with ErrNotStamped at the
// first that is not time-stamped yet; with force it obtains the time-stamps.
// Nothing is written before the first container is complete in memory but for
// its body, so an error of (0, err) leaves w untouched.
func (l *Log) ExportZip(ctx context.Context, w io.Writer, q Query, force bool) (int, error) {
	return l.writeZip(ctx, w, l.Find(ctx, q), force)
}

func (l *Log) writeZip(ctx context.Context, w io.Writer, entries iter.Seq2[*Entry, error], force bool) (n int, err error) {
	z := newZip(w)
	var cache chainCache
	for e, err := range entries {
		if err != nil {
			return n, err
		}
		c, err := l.container(ctx, e, force, &cache)
		if err != nil {
			return n, err
		}
		f, err := z.CreateHeader(&zip.FileHeader{Name: FileName(e), Method: zip.Deflate, Modified: e.Time})
		if err != nil {
			return n, err
		}
		if _, err := c.WriteTo(f); err != nil {
			return n, fmt.Errorf("record %d: %w", e.Seq, err)
		}
		n++
	}
	if n == 0 {
		return 0, ErrNotFound
	}
	return n, z.Close()
}

// newZip returns a writer for containers, which are compressed already: like
// X-Road's it deflates at level 0.
func newZip(w io.Writer) *zip.Writer {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.NoCompression)
	})
	return z
}
