// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
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

// IdleConnections counts the pooled connections.
func (c *Client) IdleConnections() int { return c.pool.Idle() }

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

// ParseAltSvc returns the port of an offer and how long it lasts.
func ParseAltSvc(values ...string) (int, time.Duration, error) {
	a, err := parseAltSvc(values)
	return a.port, a.fresh, err
}

// ReadMessage reads a message as it comes on a stream.
func ReadMessage(r io.Reader) (http.Header, []byte, error) {
	c := h3Content{frames: frames{r: r}, budget: 1 << 20}
	f, err := c.head()
	if err != nil {
		return nil, nil, err
	}
	c.length = f.length
	content, err := io.ReadAll(&c)
	return f.header, content, err
}

// ReadControl reads a control stream and counts the peer's good-byes.
func ReadControl(r io.Reader) (goAways int, err error) {
	err = control(&frames{r: r, control: true}, func() {}, func() { goAways++ })
	return goAways, err
}

// WriteMessage writes a response as it goes out on a stream.
func WriteMessage(header http.Header, content []byte) []byte {
	b := appendHead(nil, status200, header)
	b = append(b, frameData, 0, 0, 0, 0)
	putLength(b[len(b)-4:], len(content))
	return append(b, content...)
}

// WriteHead writes the head of a response.
func WriteHead(b []byte, header http.Header) []byte { return appendHead(b, status200, header) }

func status200(b []byte) []byte { return appendIndexed(b, indexStatus200) }

// MaxPeerConnections is how many connections one peer may have to a server.
const MaxPeerConnections = maxPeerConnections

// Occupy has a server believe that so many handshakes are under way.
func Occupy(s *QUICServer, n int32) { s.handshakes.total.Store(n) }

// The numbers of handshakes from which on clients must prove their address, and
// are refused.
const (
	ManyHandshakes = manyHandshakes
	MaxHandshakes  = maxHandshakes
)

// Widen has a client make up to n connections to a peer.
func Widen(c *Client, n int) { c.quic.width, c.quic.widest = n, n }

// Far has a client take all peers for far ones, over lines that lose much.
func Far(c *Client) { c.quic.nearby, c.quic.piece = 0, 1<<40 }

// MinShare is how many exchanges a connection has there before it gets company.
const MinShare = minShare

// Thrift has a client keep spare connections but briefly.
func Thrift(c *Client) { c.quic.spare, c.quic.silence = time.Millisecond, 100*time.Millisecond }

// DoubtTime is what Doubt sets.
const DoubtTime = 50 * time.Millisecond

// Doubt has a client go elsewhere soon when a peer owes an answer, and never
// because of silence alone.
func Doubt(c *Client) {
	c.quic.answer, c.quic.silence = DoubtTime, time.Hour
	c.quic.config.KeepAlivePeriod, c.quic.config.MaxIdleTimeout = time.Hour, time.Hour
}

// QUICConnections counts a client's connections.
func (c *Client) QUICConnections() int {
	c.quic.mu.RLock()
	defer c.quic.mu.RUnlock()
	n := 0
	for _, list := range c.quic.conns {
		n += len(list)
	}
	return n
}

// Near sets what a client takes for near.
func Near(c *Client, d time.Duration) { c.quic.nearby = d }
