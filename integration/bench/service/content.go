// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Content is a body of a given size whose every byte is known, so that the
// receiver can compare it for the price of a memory comparison. Up to 64 KiB it
// is one JSON document; a larger one repeats a block.
type Content struct {
	Size  int64
	block []byte
}

const blockSize = 64 << 10

// NewContent returns the content of a size in bytes.
func NewContent(size int64) Content {
	n := int(min(size, blockSize))
	const head, tail = `{"text":"`, `"}`
	fill := "The quick brown fox jumps over the lazy dog. 0123456789 "
	if n < len(head)+len(tail) {
		return Content{size, []byte(strings.Repeat("1", n))}
	}
	body := strings.Repeat(fill, n/len(fill)+1)[:n-len(head)-len(tail)]
	return Content{size, []byte(head + body + tail)}
}

// Reader returns the bytes.
func (c Content) Reader() io.Reader { return &contentReader{c: c} }

// Bytes returns the bytes of a small content.
func (c Content) Bytes() []byte {
	if c.Size > blockSize {
		panic("service: too large for one piece")
	}
	return c.block
}

type contentReader struct {
	c  Content
	at int64
}

func (r *contentReader) Read(p []byte) (int, error) {
	if r.at == r.c.Size {
		return 0, io.EOF
	}
	n := copy(p, r.c.at(r.at))
	r.at += int64(n)
	return n, nil
}

// WriteTo implements [io.WriterTo]: blocks are written without being copied.
func (r *contentReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for r.at < r.c.Size {
		n, err := w.Write(r.c.at(r.at))
		r.at, total = r.at+int64(n), total+int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// at returns the bytes from an offset to the end of its block.
func (c Content) at(offset int64) []byte {
	b := c.block[offset%int64(len(c.block)):]
	return b[:min(int64(len(b)), c.Size-offset)]
}

// Checker returns a writer that compares what it is given with the content.
func (c Content) Checker() *Checker { return &Checker{c: c} }

// Checker compares what it is given with a content.
type Checker struct {
	c  Content
	at int64
}

// Write fails at the first difference.
func (k *Checker) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if k.at == k.c.Size {
			return 0, fmt.Errorf("more than the %d bytes that were sent", k.c.Size)
		}
		want := k.c.at(k.at)
		want = want[:min(len(want), len(p))]
		if !bytes.Equal(want, p[:len(want)]) {
			return 0, fmt.Errorf("other bytes than those that were sent, in the %d bytes from %d", len(want), k.at)
		}
		k.at, p = k.at+int64(len(want)), p[len(want):]
	}
	return n, nil
}

// Close fails if something is missing.
func (k *Checker) Close() error {
	if k.at != k.c.Size {
		return fmt.Errorf("%d bytes instead of %d", k.at, k.c.Size)
	}
	return nil
}
