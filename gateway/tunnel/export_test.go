// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"io"
	"net"
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

// LinkProtocol is what a link is called in handshakes.
const LinkProtocol = alpnLink

// LinkSettings is the first record of whoever makes a link.
func LinkSettings() []byte {
	w := uint64(1 << 20)
	return appendSettings(nil, qxSettings{idle: quicIdle, data: w, local: w, remote: w, uni: w, unis: maxUniStreams, streams: maxStreams, record: recordSize})
}

// ReadFrames reads the frames of a record, of which none is empty, and returns
// their types.
func ReadFrames(record []byte) (kinds []uint64, err error) {
	for len(record) > 0 {
		var f qxFrame
		if record, err = f.next(record); err != nil {
			return nil, err
		}
		kinds = append(kinds, f.kind)
	}
	return kinds, nil
}

// ReadLinkSettings reads transport parameters and writes them again.
func ReadLinkSettings(b []byte) ([]byte, error) {
	s, err := readSettings(b)
	if err != nil {
		return nil, err
	}
	return s.append(nil)[8:], nil
}

// ServeQMux has the streams of a connection echo what comes, until it ends.
func ServeQMux(conn net.Conn) {
	q := newQMux(conn, false, Windows{Stream: 1 << 10, Connection: 4 << 10}, newGrowth(), 8, func(s *qmuxStream) {
		go func() {
			if _, err := io.Copy(s, s); err != nil {
				s.CancelWrite(1)
			}
			s.CancelRead(0)
			s.Close()
		}()
	}, func(s *qmuxStream) { go io.Copy(io.Discard, s) })
	q.run()
}

// QMuxEnd is one end of a connection for tests of streams.
type QMuxEnd struct{ *qmux }

// NewQMux begins a connection that takes streams of the peer.
func NewQMux(conn net.Conn, client bool, w Windows, streams uint64, take func(io.ReadWriteCloser)) *QMuxEnd {
	q := newQMux(conn, client, w, newGrowth(), streams, func(s *qmuxStream) { take(s) }, func(s *qmuxStream) { take(s) })
	go q.run()
	return &QMuxEnd{q}
}

// Open starts a stream when the peer allows it.
func (e *QMuxEnd) Open() (io.ReadWriteCloser, error) {
	<-e.ready
	return e.open()
}

// Streams counts those that have not ended.
func (e *QMuxEnd) Streams() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// Links counts a client's links.
func (c *Client) Links() int {
	c.links.mu.RLock()
	defer c.links.mu.RUnlock()
	n := 0
	for _, list := range c.links.conns {
		n += len(list)
	}
	return n
}

// MaxLinks is how many a client makes to a peer nearby.
const MaxLinks = maxLinks

// FarLinks has a client take all peers for far ones, over lines that lose much.
func FarLinks(c *Client) { c.links.near, c.links.piece = 0, 1<<40 }

// NearLinks has a client take all peers for near ones.
func NearLinks(c *Client) { c.links.near = time.Hour }

// DoubtLinks has a client go elsewhere soon when a peer owes an answer, and give
// up links on which nothing is heard for some time.
func DoubtLinks(c *Client) { c.links.answer, c.links.idle = DoubtTime, 3*time.Second }

// ThriftyLinks has a client keep links that nobody uses but briefly.
func ThriftyLinks(c *Client) {
	c.links.unused, c.links.silence = time.Millisecond, 100*time.Millisecond
}
