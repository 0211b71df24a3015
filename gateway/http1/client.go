// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ClientConfig holds what a Client needs; all of it has defaults.
type ClientConfig struct {
	// Dial opens connections. Default: a net.Dialer with a time-out of 30 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is for https; the name of the server is added. HTTP/2 is not spoken, so
	// it should not offer protocols. Nil: Go's defaults.
	TLS *tls.Config
	// HandshakeTimeout bounds that of TLS. Default 30 s.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long an idle connection is kept; default 90 s.
	IdleTimeout time.Duration
	// MaxIdle bounds the idle connections to one host; default 256.
	MaxIdle int
}

// Client sends requests to the servers of http and https URLs, over connections
// that it keeps. There are no proxies, redirects, cookies or compression. It is
// safe for concurrent use.
type Client struct {
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	tls       *tls.Config
	handshake time.Duration
	pool      Pool[server]
}

// server names connections that can stand for each other.
type server struct {
	tls  bool
	host string // as in the URL
}

// NewClient returns a client for cfg.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{
		dial: cfg.Dial, tls: cfg.TLS, handshake: cfg.HandshakeTimeout,
		pool: Pool[server]{Timeout: cfg.IdleTimeout, Most: cfg.MaxIdle},
	}
	if c.dial == nil {
		c.dial = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	}
	if c.tls == nil {
		c.tls = new(tls.Config)
	}
	if c.handshake == 0 {
		c.handshake = 30 * time.Second
	}
	if c.pool.Timeout == 0 {
		c.pool.Timeout = 90 * time.Second
	}
	if c.pool.Most == 0 {
		c.pool.Most = 256
	}
	return c
}

// Close closes the idle connections; those in use close when their exchange
// ends, and so does every later one.
func (c *Client) Close() { c.pool.Close() }

// Do sends r to the server of u and returns the head of the response; the caller
// closes its body. The Host of r is set from u. It is as [Conn.Exchange] but that
// a connection which was idle may turn out to have been closed just then, so a
// request that may be repeated (RFC 9110, section 9.2.2: of a safe method, and
// here without a body) is sent once more over a new one if nothing of a response
// came.
//
// Errors: those of Exchange; *net.OpError of "dial" if there is no connection;
// those of TLS; the cause of ctx, alone, if that ended.
func (c *Client) Do(ctx context.Context, u *url.URL, r *Request) (*http.Response, error) {
	resp, err := c.do(ctx, u, r)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return resp, err
}

func (c *Client) do(ctx context.Context, u *url.URL, r *Request) (_ *http.Response, err error) {
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%w: %q is not the URL of a server", errRequest, u.Redacted())
	}
	if r.Host, err = ascii(u.Host); err != nil {
		return nil, err
	}
	key := server{u.Scheme == "https", u.Host}
	if conn := c.pool.Get(key, time.Time{}); conn != nil {
		resp, err := conn.Exchange(ctx, r)
		if !errors.Is(err, errUnanswered) || !repeatable(r) || ctx.Err() != nil {
			return resp, err
		}
	}
	conn, err := c.connect(ctx, key)
	if err != nil {
		return nil, err
	}
	return conn.Exchange(ctx, r)
}

// repeatable tells whether sending a request twice is as sending it once.
func repeatable(r *Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil
	}
	return false
}

// connect makes a connection that returns to the pool.
func (c *Client) connect(ctx context.Context, to server) (*Conn, error) {
	authority := url.URL{Host: to.host}
	host, port := authority.Hostname(), authority.Port()
	if !strings.Contains(host, "%") { // the zone of an IPv6 address is for dialling
		var err error
		if host, err = ascii(host); err != nil {
			return nil, err
		}
	}
	if port == "" {
		port = "80"
		if to.tls {
			port = "443"
		}
	}
	raw, err := c.dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	conn := raw
	if to.tls {
		cfg := c.tls
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		secure := tls.Client(raw, cfg)
		limit, cancel := context.WithTimeout(ctx, c.handshake)
		defer cancel()
		if err := secure.HandshakeContext(limit); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		conn = secure
	}
	fresh := NewConn(conn)
	c.pool.Add(to, fresh)
	return fresh, nil
}

// ascii spells the host of a URL for a Host field, as net/http does: names in
// other scripts become Punycode, zones of IPv6 addresses go.
func ascii(host string) (string, error) {
	if !strings.ContainsFunc(host, notOfHost) {
		return host, nil
	}
	var wire bytes.Buffer
	r := http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}, Host: host}
	err := r.Write(&wire)
	if err == nil {
		var back *http.Request
		if back, err = http.ReadRequest(bufio.NewReader(&wire)); err == nil && back.Host != "" {
			return back.Host, nil
		}
	}
	return "", errors.Join(fmt.Errorf("%w: host %q", errRequest, host), err)
}
