// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"kontor/gateway/http1"
)

// h1 is a session of HTTP/1.1 over TLS, and then the body of its response.
type h1 struct {
	conn *http1.Conn
	host string
	key  poolKey
	max  int64 // of a response, in bytes

	ctx  context.Context
	body io.ReadCloser
}

func (c *h1) certificates() []*x509.Certificate { return c.conn.Certificates() }

// stapled returns nothing: over HTTPS, responses come from port 5577.
func (c *h1) stapled() []byte { return nil }

func (c *h1) at() (poolKey, Transport) { return c.key, HTTPS }

func (c *h1) discard() { c.conn.Discard() }

func (c *h1) release() { c.conn.Release() }

func (c *h1) exchange(ctx context.Context, header http.Header, body io.Reader) (*Response, error) {
	resp, err := c.conn.Exchange(ctx, &http1.Request{
		Method: http.MethodPost, Target: "/", Host: c.host, Body: body, Length: -1, MaxResponse: c.max,
		Fields: func(yield func(name, value string) bool) {
			for name, values := range header {
				for _, v := range values {
					if !yield(name, v) {
						return
					}
				}
			}
		},
	})
	if err != nil {
		return nil, responseError(err)
	}
	c.ctx, c.body = ctx, resp.Body
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: c}, nil
}

// Read reads the response.
func (c *h1) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if err != nil && err != io.EOF {
		err = explain(c.ctx, responseError(err))
	}
	return n, err
}

// Close ends the exchange.
func (c *h1) Close() error { return c.body.Close() }

func responseError(err error) error {
	if errors.Is(err, http1.ErrResponse) {
		return fmt.Errorf("%w: %w", ErrResponse, err)
	}
	return err
}

// checkHeader refuses what would break the request apart.
func checkHeader(header http.Header) error {
	for name, values := range header {
		for _, v := range values {
			if err := http1.CheckField(name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// What HTTP/3 needs for requests, too.
const (
	// synchronous is the size up to which a request that is all in memory is
	// written before the response is read: buffers and the peer's drain take it.
	synchronous = 128 << 10
	// sendPatience is how long the rest of a request in memory is sent although
	// the response is there.
	sendPatience = time.Second
	copySize     = 32 << 10
	// maxInterim bounds the 1xx responses before the real one.
	maxInterim = 4
)

var (
	errTooLarge = fmt.Errorf("%w: larger than allowed", ErrResponse)
	copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}
)

// sourceError marks an error that came from the caller's body.
type sourceError struct{ error }

// onlyWriter hides everything but Write, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }
