// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"kontor/gateway/http1"
)

const (
	// plainTime is how long a peer is known to have HTTP/1.1 alone over TLS: its
	// connections are not waited for by exchanges that could share one.
	plainTime = 10 * time.Minute
	// maxPlain bounds the peers of which that is known.
	maxPlain = 4096
	// maxLinks bounds the links to a peer nearby; one serves about as many
	// exchanges as crowded.
	maxLinks = 4
)

// links keeps the links of a client: connections over TLS that carry many
// exchanges at once. An exchange makes the first one, or an ordinary connection,
// whatever the peer speaks.
type links struct {
	client  *Client
	windows Windows
	growth  *growth
	widest  int // links to any peer

	near    time.Duration // nearby
	piece   uint64        // piece
	answer  time.Duration // answerTime
	silence time.Duration // maxSilence
	alive   time.Duration // keepAlive
	unused  time.Duration // unusedTime
	spare   time.Duration // spareTime
	idle    time.Duration // quicIdle
	flights singleflight.Group
	life    context.Context // ends with the client

	mu     sync.RWMutex
	closed bool
	conns  map[poolKey][]*h3Conn
	making map[poolKey]bool     // another, in the background
	plain  map[string]time.Time // peers without, by address
}

func newLinks(cfg ClientConfig, c *Client, life context.Context) *links {
	l := &links{
		client: c, windows: cfg.Windows, growth: newGrowth(), widest: cfg.Connections,
		near: nearby, piece: piece, answer: answerTime, silence: maxSilence, alive: keepAlive, unused: unusedTime, spare: spareTime, idle: quicIdle,
		life: life, conns: map[poolKey][]*h3Conn{}, making: map[poolKey]bool{}, plain: map[string]time.Time{},
	}
	if l.widest == 0 {
		l.widest = defaultConnections
	}
	return l
}

// get starts an exchange on the link with the fewest, or returns nil: also when
// one more is too much for the line.
func (l *links) get(key poolKey, after time.Time) session {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.least(key, after)
	if c == nil {
		return nil
	}
	if r := l.room(c); !r.near && c.streams.Load() >= r.share {
		return nil
	}
	if s := c.open(); s != nil {
		return s
	}
	return nil
}

// least returns the link with the fewest exchanges of those that can be used. In
// doubt, those are believed on which something came since. l.mu is held.
func (l *links) least(key poolKey, after time.Time) *h3Conn {
	conns := l.conns[key]
	doubt := latestDoubt(conns)
	if after.After(doubt) {
		doubt = after
	}
	return fewest(conns, doubt)
}

// doubted tells since when a peer owes an answer for too long on one of its
// links, the zero time if it does on none.
func (l *links) doubted(key poolKey) time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return latestDoubt(l.conns[key])
}

// room is what the line to a peer asks for.
func (l *links) room(c *h3Conn) room {
	return c.room(l.near, l.piece, min(maxLinks, l.widest), l.widest)
}

// consider makes another link in the background when those that stand have
// their share.
func (l *links) consider(key poolKey, cert *tls.Certificate) {
	wanted := func() bool {
		c := l.least(key, time.Time{})
		if c == nil || l.closed || l.making[key] {
			return false
		}
		r := l.room(c)
		return c.streams.Load() >= r.share && len(l.conns[key]) < r.width
	}
	l.mu.RLock()
	want := wanted()
	l.mu.RUnlock()
	if !want {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !wanted() {
		return
	}
	l.making[key] = true
	go func() {
		_ = l.connect(key, cert) // those that stand serve meanwhile
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.making, key)
	}()
}

// enter returns an exchange over a link or an ordinary connection, made for it or
// with others that want the same. after is since when there is doubt about
// connections that stand.
func (l *links) enter(ctx context.Context, key poolKey, cert *tls.Certificate, after time.Time) (session, error) {
	l.mu.RLock()
	full, plain := l.least(key, after) != nil, l.client.now().Before(l.plain[key.address])
	l.mu.RUnlock()
	if full || plain {
		return l.dial(ctx, key, cert, plain)
	}
	result := l.flights.DoChan(key.address+string(key.identity[:]), func() (any, error) { return nil, l.connect(key, cert) })
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := l.get(key, after); s != nil {
		return s, nil
	}
	if s := l.client.plainIdle(key, after); s != nil {
		return s, nil
	}
	return l.dial(ctx, key, cert, false)
}

// dial opens a session over a connection of its own.
func (l *links) dial(ctx context.Context, key poolKey, cert *tls.Certificate, offer bool) (session, error) {
	link, plain, err := l.client.dialTLS(ctx, key, cert, offer)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return plain, nil
	}
	if s := link.open(); s != nil {
		return s, nil
	}
	return nil, errStreamLimit
}

// connect makes a connection and keeps it.
func (l *links) connect(key poolKey, cert *tls.Certificate) error {
	ctx, cancel := context.WithTimeout(l.life, l.client.connect)
	defer cancel()
	_, plain, err := l.client.dialTLS(ctx, key, cert, true)
	if plain != nil {
		plain.release()
	}
	return err
}

// without notes that a peer has no links.
func (l *links) without(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.plain) >= maxPlain {
		clear(l.plain) // it shows again with the next connection
	}
	l.plain[address] = l.client.now().Add(plainTime)
}

var errOldTLS = errors.New("a link over TLS older than 1.3")

// begin makes a link of a TLS connection on which both ends agreed on one, and
// keeps it. It stands when the peer's settings are there: then the peer has
// accepted our certificate, too.
func (l *links) begin(ctx context.Context, key poolKey, host string, conn *tls.Conn) (*h3Conn, error) {
	state := conn.ConnectionState()
	if state.Version < tls.VersionTLS13 {
		conn.NetConn().Close()
		return nil, errOldTLS
	}
	var handle func(receiveStream)
	q := newQMux(conn, true, l.windows, l.growth, 0, nil, func(s *qmuxStream) { go handle(s) })
	q.idle = l.idle
	c := &h3Conn{conn: q, key: key, host: host, certs: state.PeerCertificates, max: l.client.max, answer: l.answer, heard: time.Now()}
	c.refused = func() {}
	settings := make(chan struct{})
	handle = uniStreams(q, func() { close(settings) }, c.leave)
	go q.run()
	control, err := q.openUni()
	if err == nil {
		err = beginControl(control)
	}
	if err == nil {
		select {
		case <-settings:
		case <-q.ctx.Done():
			err = context.Cause(q.ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	l.keep(c, q)
	return c, nil
}

// keep adds a link to those that stand.
func (l *links) keep(c *h3Conn, q *qmux) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.leave()
		return
	}
	delete(l.plain, c.key.address)
	l.conns[c.key] = append(slices.Clip(l.conns[c.key]), c)
	p := &pulse{links: l, conn: c, qmux: q, used: time.Now()}
	c.busy = p.hurry
	p.next.Store(time.Now().Add(l.answer / 4).UnixNano())
	p.timer = time.AfterFunc(time.Hour, p.beat)
	p.timer.Reset(l.answer / 4)
	l.client.metrics.links.WithLabelValues("client").Inc()
	context.AfterFunc(q.ctx, func() {
		l.client.metrics.links.WithLabelValues("client").Dec()
		l.mu.Lock()
		defer l.mu.Unlock()
		dropConn(l.conns, c)
	})
}

// pulse looks after a link: whether its peer is there, whether anybody uses it.
type pulse struct {
	links *links
	conn  *h3Conn
	qmux  *qmux
	timer *time.Timer
	next  atomic.Int64 // when it beats, in Unix nanoseconds
	uses  int64        // of conn, at the last beat
	used  time.Time
}

// hurry has the next beat come soon, as an exchange begins.
func (p *pulse) hurry() {
	soon := time.Now().Add(p.links.answer / 4)
	if p.next.Load() > soon.UnixNano() {
		p.next.Store(soon.UnixNano())
		p.timer.Reset(p.links.answer / 4)
	}
}

// beat asks a peer that owes an answer, or is silent, whether it is there.
func (p *pulse) beat() {
	if p.qmux.ctx.Err() != nil {
		return
	}
	l, silence := p.links, p.qmux.silence()
	p.qmux.measure()
	if p.conn.owes(l.answer/4) || silence > l.alive {
		p.qmux.ping()
	}
	p.conn.silent.Store(silence > l.silence)
	wait := l.silence / 4
	if n := p.conn.used.Load(); n != p.uses || p.conn.streams.Load() > 0 {
		p.uses, p.used = n, time.Now()
		wait = min(wait, l.answer/4)
	}
	l.retire(p.conn, time.Since(p.used))
	p.next.Store(time.Now().Add(wait).UnixNano())
	p.timer.Reset(wait)
}

// retire ends a link that has not been used for some time, sooner if the peer
// has others.
func (l *links) retire(c *h3Conn, unused time.Duration) {
	if unused <= min(l.spare, l.unused) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if unused > l.unused || hasOther(l.conns[c.key], c) {
		c.leave()
	}
}

// close ends all links when their exchanges do.
func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, conns := range l.conns {
		for _, c := range conns {
			c.leave()
		}
	}
}

// dialTLS connects to whoever is at an address: over a link, which is kept, if
// offer is set and the peer has links, else over an ordinary connection.
func (c *Client) dialTLS(ctx context.Context, key poolKey, cert *tls.Certificate, offer bool) (*h3Conn, *h1, error) {
	host := c.host(key.address)
	raw, err := c.dialTCP(ctx, "tcp", host)
	if err != nil {
		return nil, nil, err
	}
	cfg := clientTLS(key.address, cert)
	if offer {
		cfg.NextProtos = []string{alpnLink, "http/1.1"}
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, err
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == alpnLink {
		link, err := c.links.begin(ctx, key, host, conn)
		return link, nil, err
	}
	if offer {
		c.links.without(key.address)
	}
	fresh := http1.NewConn(conn)
	c.pool.Add(key, fresh)
	return nil, &h1{conn: fresh, host: host, key: key, max: c.max}, nil
}
