// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"io"
	"net/http"
)

// What the tests look into.
var (
	ReadOCSP    = readOCSP
	CheckHeader = checkHeader
	OCSPQuery   = ocspQuery
)

// Answers asks the OCSP handler's look-up.
func Answers(query string, lookup func(string) ([]byte, bool)) ([][]byte, error) {
	return answers(query, lookup)
}

// Chunked writes pieces as the body of a request and returns what goes out.
func Chunked(host string, header http.Header, pieces [][]byte) ([]byte, error) {
	var out bytes.Buffer
	w := newChunkWriter(&out, requestHead(host, header))
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

// IdleConnections counts the pooled connections.
func (c *Client) IdleConnections() int {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	n := 0
	for _, list := range c.pool.idle {
		n += len(list)
	}
	return n
}
