// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"io"
	"net/http"
	"time"
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

// Idle tells whether no connection over QUIC is being made.
func (c *Client) Idle() bool {
	c.quic.mu.RLock()
	defer c.quic.mu.RUnlock()
	return len(c.quic.trying) == 0
}

// Hurry has a client notice sooner that nothing is heard of a peer.
func Hurry(c *Client) {
	c.quic.silence = 300 * time.Millisecond
	c.quic.config.KeepAlivePeriod, c.quic.config.MaxIdleTimeout = 100*time.Millisecond, time.Second
}
