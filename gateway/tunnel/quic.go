// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/singleflight"
)

// Transport is what carries messages between security servers.
type Transport int

const (
	// Auto is QUIC where a peer offers it and it gets through, HTTPS elsewhere.
	Auto  Transport = iota
	HTTPS           // HTTPS alone
	QUIC            // QUIC alone, for measurements: no other security server than Kontor answers
)

// ParseTransport reads auto, https or quic.
func ParseTransport(s string) (Transport, error) {
	i := slices.Index([]string{"auto", "https", "quic"}, s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not a transport; use auto, https or quic", s)
	}
	return Transport(i), nil
}

func (t Transport) String() string { return [...]string{"auto", "https", "quic"}[t] }

// Windows bound the bytes that a peer may send ahead of what was read, over
// QUIC: as much as is under way at once is needed, bandwidth times delay. They
// start small and grow up to these when the reader keeps up.
type Windows struct {
	Stream     int64 // one message; default 16 MiB: 1 Gbit/s over 130 ms
	Connection int64 // all messages of a connection; default 48 MiB
}

func (w Windows) withDefaults() Windows {
	if w.Stream == 0 {
		w.Stream = 16 << 20
	}
	if w.Connection == 0 {
		w.Connection = 48 << 20
	}
	return w
}

const (
	// firstStreamWindow and firstWindow are what windows start with.
	firstStreamWindow = 1 << 20
	firstWindow       = 2 << 20
	// maxGrown bounds what the windows of all connections have grown by.
	maxGrown = 512 << 20

	// keepAlive is after how much silence a peer is asked whether it is there;
	// one that does not answer gets no further exchanges after maxSilence, and
	// its connection ends after quicIdle: an interruption may pass before.
	keepAlive  = 2500 * time.Millisecond
	maxSilence = 4 * time.Second
	quicIdle   = 30 * time.Second
	// unusedTime is how long a connection is kept that nobody uses, spareTime
	// the same where the peer has others.
	unusedTime = 5 * time.Minute
	spareTime  = 30 * time.Second

	// handshakeIdle bounds the silence in a handshake, quicConnect all of it:
	// nobody waits for it, but a try costs memory.
	handshakeIdle = 3 * time.Second
	quicConnect   = 6 * time.Second
	// firstBackOff is how long QUIC is not tried again after a failure, at
	// first; it doubles up to lastBackOff. A connection that stood for less
	// than briefly counts as a failure.
	firstBackOff = 5 * time.Second
	lastBackOff  = 10 * time.Minute
	briefly      = 10 * time.Second

	// answerTime is how long at least a peer may be silent that has something to
	// acknowledge, and probes how many probe time-outs (RFC 9002, section 6.2):
	// one lost packet, or two, is no reason to go elsewhere.
	answerTime = 700 * time.Millisecond
	probes     = 3
	// ackDelay is the longest that a peer may put an acknowledgement off (RFC
	// 9000, section 18.2; the default).
	ackDelay = 25 * time.Millisecond

	// maxStreams bounds the exchanges of one connection. When so many that it is
	// crowded are under way on each, another connection is made, as one has no
	// more than one processor at each end.
	maxStreams = 256
	crowded    = 64
	// On a line that is not near, what a connection carries is its congestion
	// window per round trip: beyond one exchange per piece of it, in bytes, but no
	// fewer than minShare, another connection is made, and HTTPS used meanwhile.
	piece    = 8 << 10
	minShare = 2
	// maxTries bounds the connections that are made to one peer at once.
	maxTries = 8
	// MostConnections is the largest value of ClientConfig.Connections, and
	// defaultConnections its default.
	MostConnections    = 64
	defaultConnections = 32
	// maxUniStreams is more than the three that HTTP/3 has.
	maxUniStreams = 8
	// nearby is the round trip below which a large body goes over HTTPS: per byte
	// QUIC takes four times the processor time, which is what limits it there.
	nearby = 5 * time.Millisecond
	// maxOffers bounds the servers whose offers are remembered.
	maxOffers = 4096
)

// maxConnections bounds the connections to one peer nearby.
func maxConnections() int { return max(1, min(4, runtime.GOMAXPROCS(0)/2)) }

// growth bounds what flow-control windows grow to together.
type growth struct {
	mu   sync.Mutex
	left int64
	by   map[any]int64 // connections
}

func newGrowth() *growth { return &growth{left: maxGrown, by: map[any]int64{}} }

func (g *growth) allow(conn any, delta uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if delta > uint64(g.left) {
		return false
	}
	g.left -= int64(delta)
	g.by[conn] += int64(delta)
	return true
}

func (g *growth) release(conn any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left += g.by[conn]
	delete(g.by, conn)
}

// quicConfig is that of both ends. There is no 0-RTT: neither end asks for it.
func quicConfig(w Windows, g *growth) *quic.Config {
	w = w.withDefaults()
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeIdle,
		MaxIdleTimeout:                 quicIdle,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     uint64(min(firstStreamWindow, w.Stream)),
		MaxStreamReceiveWindow:         uint64(w.Stream),
		InitialConnectionReceiveWindow: uint64(min(firstWindow, w.Connection)),
		MaxConnectionReceiveWindow:     uint64(w.Connection),
		AllowConnectionWindowIncrease:  func(conn *quic.Conn, delta uint64) bool { return g.allow(conn, delta) },
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          maxUniStreams,
	}
}

// offer is what is known of a server's QUIC.
type offer struct {
	port      int       // 0: not offered
	until     time.Time // then it is forgotten
	failures  int       // in a row
	notBefore time.Time // of the next try
}

// quicPool keeps connections over QUIC and makes them: in the background, so
// that no exchange waits for one that may never come about.
type quicPool struct {
	config *quic.Config
	growth *growth
	forced bool
	dialer func(ctx context.Context, address string) (net.PacketConn, net.Addr, error)
	staple func(*tls.Certificate) []byte
	port   int   // of peers that made no offer
	most   int64 // bytes of a response
	now    func() time.Time
	metric *Metrics

	width    int                                          // connections to a peer nearby: maxConnections
	widest   int                                          // connections to any peer
	piece    uint64                                       // piece
	nearby   time.Duration                                // nearby
	answer   time.Duration                                // answerTime
	silence  time.Duration                                // maxSilence
	unused   time.Duration                                // unusedTime
	spare    time.Duration                                // spareTime
	patience func() (context.Context, context.CancelFunc) // for one connection to be made; ends with the client
	flights  singleflight.Group

	mu     sync.RWMutex
	closed bool
	offers map[string]*offer // by address
	conns  map[poolKey][]*h3Conn
	trying map[poolKey]int
}

// newQUICPool makes the pool of a client whose life ends with life.
func newQUICPool(cfg ClientConfig, c *Client, life context.Context) *quicPool {
	q := &quicPool{
		growth: newGrowth(), forced: cfg.Transport == QUIC, dialer: cfg.DialUDP, staple: staples(cfg.OCSP),
		port: c.port, most: c.max, now: c.now, metric: c.metrics, widest: cfg.Connections, piece: piece,
		nearby: nearby, answer: answerTime, silence: maxSilence, unused: unusedTime, spare: spareTime,
		offers: map[string]*offer{}, conns: map[poolKey][]*h3Conn{}, trying: map[poolKey]int{},
	}
	if q.widest == 0 {
		q.widest = defaultConnections
	}
	q.width = min(q.widest, maxConnections())
	q.config = quicConfig(cfg.Windows, q.growth)
	q.patience = func() (context.Context, context.CancelFunc) { return context.WithTimeout(life, quicConnect) }
	if q.dialer == nil {
		q.dialer = DialUDP(nil)
	}
	return q
}

// get starts an exchange on the connection with the fewest, or returns nil: also
// when one more is too much for the line, as HTTPS has windows of its own.
func (q *quicPool) get(key poolKey) session {
	q.mu.RLock()
	defer q.mu.RUnlock()
	c := q.least(key)
	if c == nil {
		return nil
	}
	if r := q.room(c); !q.forced && !r.near && c.streams.Load() >= r.share {
		return nil
	}
	if s := c.open(); s != nil {
		return s
	}
	return nil
}

// near tells whether a peer is so near that QUIC does nothing for large bodies.
func (q *quicPool) near(key poolKey) bool {
	if q.forced {
		return false
	}
	q.mu.RLock()
	defer q.mu.RUnlock()
	c := q.least(key)
	return c != nil && q.room(c).near
}

// room is what the line to a peer asks for.
type room struct {
	near  bool
	share int32 // exchanges on one connection, beyond which another is made
	width int   // connections
}

func (q *quicPool) room(c *h3Conn) room { return c.room(q.nearby, q.piece, q.width, q.widest) }

// room takes the line for near below a round trip, and has exchanges share a
// connection by pieces of its window elsewhere. Width is that to a peer nearby,
// widest that to any.
func (c *h3Conn) room(nearby time.Duration, piece uint64, width, widest int) room {
	p := c.conn.path()
	if p.minRTT < nearby {
		return room{near: true, share: crowded, width: width}
	}
	return room{share: int32(max(minShare, min(p.window/piece, crowded))), width: widest}
}

// least returns the connection with the fewest exchanges of those that can be
// used, nil if none can. If the peer is in doubt on one, others are believed that
// have received something since. q.mu is held.
func (q *quicPool) least(key poolKey) *h3Conn {
	return fewest(q.conns[key], latestDoubt(q.conns[key]))
}

// doubted tells since when a peer owes an answer for too long on one of its
// connections, the zero time if it does on none.
func (q *quicPool) doubted(key poolKey) time.Time {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return latestDoubt(q.conns[key])
}

// learn takes note of what an answer over HTTPS says about QUIC. What is
// malformed says nothing.
func (q *quicPool) learn(address string, values []string) {
	if len(values) == 0 {
		return
	}
	alt, err := parseAltSvc(values)
	if err != nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.offers[address]
	switch {
	case alt.port == 0 && o == nil:
		return
	case alt.port == 0: // taken back
		for key, conns := range q.conns {
			if key.address == address {
				for _, c := range conns {
					c.leave()
				}
			}
		}
	case o == nil:
		o = q.remember(address)
	}
	o.port, o.until = alt.port, q.now().Add(alt.fresh)
}

// remember makes room for another offer. q.mu is held.
func (q *quicPool) remember(address string) *offer {
	if len(q.offers) >= maxOffers {
		for a := range q.offers { // any will do: it is made again with the next answer
			delete(q.offers, a)
			break
		}
	}
	o := new(offer)
	q.offers[address] = o
	return o
}

// offered returns the port that a server offers, 0 if it offers none.
func (q *quicPool) offered(address string) int {
	o := q.offers[address]
	if o == nil || !q.now().Before(o.until) {
		return 0
	}
	return o.port
}

// consider makes a connection in the background where one is worthwhile and
// may come about: the first, or another when there is too much for those that
// stand. It reports whether a peer that offers QUIC has none that can be used.
func (q *quicPool) consider(key poolKey, cert *tls.Certificate) (without bool) {
	q.mu.RLock()
	port, wanted := q.wanted(key)
	none := q.least(key) == nil
	q.mu.RUnlock()
	without = none && port != 0 && !q.forced
	if !wanted {
		return without
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if port, wanted = q.wanted(key); !wanted {
		return without
	}
	q.trying[key]++
	go func() {
		ctx, cancel := q.patience()
		defer cancel()
		err := q.connect(ctx, key, cert, port)
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.trying[key]--; q.trying[key] == 0 {
			delete(q.trying, key)
		}
		if err != nil {
			q.failed(key.address)
		}
	}()
	return without
}

// wanted tells whether another connection is worthwhile, and to which port: 0
// is none. q.mu is held.
func (q *quicPool) wanted(key poolKey) (port int, wanted bool) {
	port = q.offered(key.address)
	standing, trying := len(q.conns[key]), q.trying[key]
	if q.forced {
		port = q.port
	}
	o := q.offers[key.address]
	switch {
	case port == 0 || q.closed || o != nil && q.now().Before(o.notBefore):
		return port, false
	case standing == 0: // enter makes the first one if there is nothing else
		return port, trying == 0 && !q.forced
	}
	best := q.least(key)
	if best == nil {
		return port, false
	}
	r := q.room(best)
	tries := 1
	if !r.near {
		tries = min(standing, maxTries)
	}
	return port, best.streams.Load() >= r.share && trying < tries && standing+trying < r.width
}

// failed forgets a server's offer and puts off the next try. q.mu is held.
func (q *quicPool) failed(address string) {
	o := q.offers[address]
	if o == nil {
		o = q.remember(address)
	}
	pause := min(firstBackOff<<min(o.failures, 10), lastBackOff)
	o.port = 0
	o.failures++
	o.notBefore = q.now().Add(pause/2 + rand.N(pause)) // peers that failed together do not return together
}

// enter returns an exchange over QUIC, waiting for it.
func (q *quicPool) enter(ctx context.Context, key poolKey, cert *tls.Certificate) (session, error) {
	for {
		if s := q.get(key); s != nil {
			return s, nil
		}
		q.mu.RLock()
		c, closed := q.least(key), q.closed
		enough := c != nil && len(q.conns[key]) >= q.room(c).width
		q.mu.RUnlock()
		if closed {
			return nil, ErrClosed
		}
		if enough && c.conn.Context().Err() == nil {
			s, err := c.conn.(quicLine).OpenStreamSync(ctx)
			if err != nil {
				return nil, lost(err)
			}
			return c.session(s), nil
		}
		result := q.flights.DoChan(key.address+string(key.identity[:]), func() (any, error) {
			ctx, cancel := q.patience()
			defer cancel()
			return nil, q.connect(ctx, key, cert, q.port)
		})
		select {
		case r := <-result:
			if r.Err != nil {
				return nil, r.Err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// connect makes a connection and keeps it. It stands only when the peer's
// settings are there: then the peer has accepted our certificate, too.
func (q *quicPool) connect(ctx context.Context, key poolKey, cert *tls.Certificate, port int) error {
	c, err := q.dial(ctx, key, cert, port)
	if err != nil {
		q.metric.handshakesFailed.WithLabelValues("client").Inc()
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		c.close()
		return ErrClosed
	}
	q.conns[key] = append(slices.Clip(q.conns[key]), c)
	born := time.Now()
	q.metric.connections.WithLabelValues("client").Inc()
	go func() {
		q.watch(c)
		q.metric.connections.WithLabelValues("client").Dec()
		q.mu.Lock()
		defer q.mu.Unlock()
		dropConn(q.conns, c)
		switch o := q.offers[key.address]; {
		case o == nil:
		case time.Since(born) >= briefly:
			o.failures = 0
		case !c.leaving.Load():
			q.failed(key.address)
		}
	}()
	return nil
}

// dropConn takes a connection out of those that stand.
func dropConn(conns map[poolKey][]*h3Conn, c *h3Conn) {
	rest := slices.DeleteFunc(slices.Clone(conns[c.key]), func(o *h3Conn) bool { return o == c })
	if conns[c.key] = rest; len(rest) == 0 {
		delete(conns, c.key)
	}
}

func (q *quicPool) dial(ctx context.Context, key poolKey, cert *tls.Certificate, port int) (*h3Conn, error) {
	host := net.JoinHostPort(key.address, strconv.Itoa(port))
	socket, to, err := q.dialer(ctx, host)
	if err != nil {
		return nil, err
	}
	// Each connection has its socket, so that each is read on its own.
	t := &quic.Transport{Conn: socket}
	end := func() {
		_ = t.Close()
		_ = socket.Close()
	}
	cfg := clientTLS(key.address, stapled(cert, q.staple))
	cfg.MinVersion, cfg.NextProtos = tls.VersionTLS13, []string{alpn}
	conn, err := t.Dial(ctx, to, cfg, q.config)
	if err != nil {
		end()
		return nil, lost(err)
	}
	go func() {
		<-conn.Context().Done()
		q.growth.release(conn)
		end()
	}()
	state := conn.ConnectionState().TLS
	c := &h3Conn{conn: quicLine{conn}, key: key, host: host, certs: state.PeerCertificates, staple: state.OCSPResponse, max: q.most, answer: q.answer, heard: time.Now()}
	c.refused = func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.failed(key.address)
	}
	ready := make(chan struct{})
	go acceptUni(conn, func() { close(ready) }, c.leave)
	control, err := conn.OpenUniStream()
	if err == nil {
		err = beginControl(control)
	}
	if err != nil {
		c.close()
		return nil, lost(err)
	}
	select {
	case <-ready:
		return c, nil
	case <-conn.Context().Done():
		return nil, lost(context.Cause(conn.Context()))
	case <-ctx.Done():
		c.close()
		return nil, ctx.Err()
	}
}

// stapled returns a certificate with a fresh OCSP response, if there is one.
func stapled(cert *tls.Certificate, staple func(*tls.Certificate) []byte) *tls.Certificate {
	with := *cert
	with.OCSPStaple = staple(cert)
	return &with
}

// acceptUni takes the streams that the peer alone writes until the connection
// ends.
func acceptUni(conn *quic.Conn, settings, goAway func()) {
	handle := uniStreams(conn, settings, goAway)
	for {
		s, err := conn.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		go handle(s)
	}
}

// watch sees whether the peer is still heard of and whether anybody uses the
// connection, until it ends.
func (q *quicPool) watch(c *h3Conn) {
	tick := time.NewTicker(q.silence / 4)
	defer tick.Stop()
	var received uint64
	var uses int64
	heard, used := time.Now(), time.Now()
	for {
		select {
		case <-c.conn.Context().Done():
			return
		case <-tick.C:
		}
		if n := c.conn.received(); n != received {
			received, heard = n, time.Now()
		}
		c.silent.Store(time.Since(heard) > q.silence)
		if n := c.used.Load(); n != uses || c.streams.Load() > 0 {
			uses, used = n, time.Now()
		}
		q.retire(c, time.Since(used))
	}
}

// retire ends a connection that has not been used for some time, sooner if the
// peer has others.
func (q *quicPool) retire(c *h3Conn, unused time.Duration) {
	if unused <= min(q.spare, q.unused) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if unused > q.unused || hasOther(q.conns[c.key], c) {
		c.leave()
	}
}

// close ends all connections and waits for what it began.
func (q *quicPool) close() {
	q.mu.Lock()
	q.closed = true
	for _, conns := range q.conns {
		for _, c := range conns {
			c.leave()
		}
	}
	q.mu.Unlock()
}

// DialUDP returns a function that opens sockets on a local address, nil being
// the system's choice.
func DialUDP(local net.IP) func(ctx context.Context, address string) (net.PacketConn, net.Addr, error) {
	return func(ctx context.Context, address string) (net.PacketConn, net.Addr, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, nil, err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, nil, err
		}
		ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
		if err != nil {
			return nil, nil, err
		}
		i := 0
		if local != nil { // an address of its family
			i = slices.IndexFunc(ips, func(a net.IPAddr) bool { return (a.IP.To4() == nil) == (local.To4() == nil) })
		}
		if i < 0 || i >= len(ips) {
			return nil, nil, &net.AddrError{Err: "no address of the family of ours", Addr: host}
		}
		to := &net.UDPAddr{IP: ips[i].IP, Port: n, Zone: ips[i].Zone}
		network := "udp4"
		if to.IP.To4() == nil {
			network = "udp6"
		}
		socket, err := net.ListenUDP(network, &net.UDPAddr{IP: local})
		if err != nil {
			return nil, nil, err
		}
		return socket, to, nil
	}
}
