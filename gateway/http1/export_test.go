// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"io"
)

// Chunked writes a head and pieces of a body, and returns what goes out.
func Chunked(head string, pieces [][]byte) ([]byte, error) {
	var out bytes.Buffer
	array := new(buffer)
	w := newChunkWriter(&out, array, append(array[:0], head...), true)
	for _, p := range pieces {
		if _, err := w.Write(p); err != nil {
			return nil, err
		}
	}
	err := w.finish(true)
	if _, e := w.Write([]byte("x")); e == nil {
		return nil, io.ErrShortWrite
	}
	return out.Bytes(), err
}

// Head returns the request line and header of a request.
func (r *Request) Head() (string, error) {
	b, err := r.appendHead(nil)
	return string(b), err
}

// Idle counts the idle connections.
func (c *Client) Idle() int { return c.pool.Idle() }
