// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"go.uber.org/zap"

	"kontor/pki"
	"kontor/registry/globalconf"
)

const (
	// maxHandshakes bounds the handshakes under way, maxHandshakesFrom those
	// from one address. From manyHandshakes on, a client must first prove that
	// its address is its own (RFC 9000, section 8.1), which costs it a round
	// trip and us no memory.
	maxHandshakes     = 512
	maxHandshakesFrom = 32
	manyHandshakes    = 32
	// maxStaple bounds the OCSP response in a handshake; real ones have 0.5 to 4 KB.
	maxStaple = 8 << 10
	// maxPeerConnections bounds the connections of one certificate: what a
	// client makes, and old ones that it has lost.
	maxPeerConnections = 2 * MostConnections
	// headTimeout bounds the wait for a request on a stream.
	headTimeout = 15 * time.Second
	// workerRest is how long a goroutine waits for another request.
	workerRest = 5 * time.Second
	// lastRequests is how long requests still come after a peer was asked to
	// make no more.
	lastRequests = time.Second
)

// ServerConfig holds what a QUICServer needs. Handler, Identity, View, Verifier
// and OCSP are mandatory.
type ServerConfig struct {
	Handler  http.Handler
	Identity func(*globalconf.View) (*tls.Certificate, error) // as that of [ServerTLS]
	View     func() *globalconf.View
	Verifier *PeerVerifier
	// OCSP gives the fresh response for a certificate of ours by its SHA-256 in
	// hex; it goes with the handshake.
	OCSP    func(hash string) ([]byte, bool)
	Windows Windows
	// ResetKey lets peers know at once that we have lost our connections, if it
	// is the same after a start. Secret, 32 bytes; nil: random.
	ResetKey *[32]byte
	Metrics  *Metrics    // nil: none
	Log      *zap.Logger // nil: silence
}

// QUICServer answers peers over HTTP/3. It is safe for concurrent use.
type QUICServer struct {
	h3Server
	tls     *tls.Config
	quic    *quic.Config
	growth  *growth
	reset   *quic.StatelessResetKey
	metrics *Metrics

	handshakes handshakes
	served     chan struct{} // closed when Serve returns
	conns      sync.WaitGroup

	mu      sync.Mutex
	serving bool
	closed  bool                 // by Shutdown
	peers   map[pki.CertHash]int // connections
	open    map[*quic.Conn]struct{}
}

// NewQUICServer returns a server for cfg.
func NewQUICServer(cfg ServerConfig) (*QUICServer, error) {
	if cfg.Handler == nil || cfg.Identity == nil || cfg.View == nil || cfg.Verifier == nil || cfg.OCSP == nil {
		return nil, errors.New("tunnel: incomplete configuration")
	}
	s := &QUICServer{
		h3Server: h3Server{handler: cfg.Handler, log: cfg.Log, leaving: make(chan struct{})},
		growth:   newGrowth(), metrics: cfg.Metrics, served: make(chan struct{}),
		peers: map[pki.CertHash]int{}, open: map[*quic.Conn]struct{}{},
	}
	if s.metrics == nil {
		s.metrics = NewMetrics()
	}
	s.exchanges = s.metrics.exchanges.server[QUIC]
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if cfg.ResetKey != nil {
		key := quic.StatelessResetKey(*cfg.ResetKey)
		s.reset = &key
	}
	s.handshakes.failed, s.handshakes.from = s.metrics.handshakesFailed.WithLabelValues("server"), map[string]int{}
	s.quic = quicConfig(cfg.Windows, s.growth)
	s.quic.MaxIncomingStreams = maxStreams
	s.tls = quicTLS(cfg)
	return s, nil
}

// quicTLS is the configuration of the QUIC listener: TLS 1.3, both ends with a
// certificate and its OCSP response. No authorities are named, as our own
// clients do not look and handshakes are limited to 16 KiB; there are no
// session tickets, hence no 0-RTT.
func quicTLS(cfg ServerConfig) *tls.Config {
	staple := staples(cfg.OCSP)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			v := cfg.View()
			if v == nil {
				return nil, errNoView
			}
			cert, err := cfg.Identity(v)
			if err != nil {
				return nil, err
			}
			return stapled(cert, staple), nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			v := cfg.View()
			if v == nil {
				return errNoView
			}
			return cfg.Verifier.verifyHandshake(v, cs.PeerCertificates, cs.OCSPResponse)
		},
	}
}

// staples makes the look-up of a certificate's OCSP response.
func staples(ocsp func(hash string) ([]byte, bool)) func(*tls.Certificate) []byte {
	return func(cert *tls.Certificate) []byte {
		if ocsp == nil || len(cert.Certificate) == 0 {
			return nil
		}
		der, _ := ocsp(pki.CertHash(sha256.Sum256(cert.Certificate[0])).Hex())
		if len(der) > maxStaple {
			return nil
		}
		return der
	}
}

// Serve answers on socket until Shutdown and closes it. The error is then
// http.ErrServerClosed. It may be called once.
func (s *QUICServer) Serve(socket net.PacketConn) error {
	s.mu.Lock()
	if s.closed || s.serving {
		s.mu.Unlock()
		return errors.Join(http.ErrServerClosed, socket.Close())
	}
	s.serving = true
	s.mu.Unlock()
	defer close(s.served)
	defer s.conns.Wait()
	t := &quic.Transport{
		Conn: socket, ConnectionIDLength: 8, StatelessResetKey: s.reset,
		ConnContext:         s.handshakes.begin,
		VerifySourceAddress: func(net.Addr) bool { return s.handshakes.many() },
	}
	defer socket.Close()
	defer t.Close()
	l, err := t.Listen(s.tls, s.quic)
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			s.conns.Wait()
			return http.ErrServerClosed
		}
		handshakeDone(conn)
		if release := s.admit(conn); release != nil {
			s.conns.Go(func() {
				defer release()
				s.serve(conn)
			})
		}
	}
}

// Shutdown asks peers to make no more requests and waits for those under way.
// When ctx ends, they are broken off.
func (s *QUICServer) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.leaving)
	}
	serving := s.serving
	s.mu.Unlock()
	if !serving {
		return nil
	}
	select {
	case <-s.served:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for conn := range s.open {
		_ = conn.CloseWithError(codeNoError, "shutdown")
	}
	s.mu.Unlock()
	<-s.served
	return ctx.Err()
}

// admit counts a connection to its peer; nil means that it has too many.
func (s *QUICServer) admit(conn *quic.Conn) (release func()) {
	hash := pki.HashOf(conn.ConnectionState().TLS.PeerCertificates[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[hash] >= maxPeerConnections {
		_ = conn.CloseWithError(codeExcessiveLoad, "too many connections")
		return nil
	}
	s.peers[hash]++
	s.open[conn] = struct{}{}
	s.metrics.connections.WithLabelValues("server").Inc()
	return func() {
		s.metrics.connections.WithLabelValues("server").Dec()
		s.growth.release(conn)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, conn)
		if s.peers[hash]--; s.peers[hash] == 0 {
			delete(s.peers, hash)
		}
	}
}

// h3Server is what answers requests, whatever their streams are of.
type h3Server struct {
	handler   http.Handler
	exchanges prometheus.Counter // nil: handler counts them
	log       *zap.Logger
	leaving   chan struct{} // closed when peers shall make no more requests
}

// serverConn is a connection of a peer.
type serverConn struct {
	server   *h3Server
	conn     carrier
	tls      *tls.ConnectionState
	remote   atomic.Pointer[remote]
	requests sync.WaitGroup // and what else serves the connection
	streams  chan stream    // to goroutines that wait for another

	mu      sync.Mutex
	pending int  // requests
	closing bool // takes no more
}

// serve answers the requests of one connection until it ends.
func (s *QUICServer) serve(conn *quic.Conn) {
	control, err := conn.OpenUniStream()
	if err != nil || beginControl(control) != nil {
		return // it has ended
	}
	go acceptUni(conn, func() {}, func() {})
	state := conn.ConnectionState().TLS
	c := &serverConn{server: &s.h3Server, conn: conn, tls: &state, streams: make(chan stream)}
	c.requests.Go(func() { c.leave(control) })
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			break
		}
		c.take(stream)
	}
	c.requests.Wait()
}

// take answers the request on a new stream.
func (c *serverConn) take(s stream) {
	if !c.begin() {
		s.CancelRead(codeRequestRejected)
		s.CancelWrite(codeRequestRejected)
		return
	}
	c.requests.Add(1)
	select {
	case c.streams <- s:
	default:
		go c.work(s)
	}
}

// work answers the request on a stream and then those on others: stacks that
// have grown once need not grow again, which would cost a tenth of an exchange.
func (c *serverConn) work(s stream) {
	rest := time.NewTimer(workerRest)
	defer rest.Stop()
	for {
		c.answer(s)
		rest.Reset(workerRest)
		select {
		case s = <-c.streams:
		case <-rest.C:
			return
		case <-c.conn.Context().Done():
			return
		}
	}
}

func (c *serverConn) answer(s stream) {
	defer c.requests.Done()
	defer c.end()
	c.handle(s)
}

// remote is the peer's address, which may change, and its text.
type remote struct {
	addr net.Addr
	text string
}

func (c *serverConn) remoteAddr() string {
	addr := c.conn.RemoteAddr()
	r := c.remote.Load()
	if r == nil || r.addr != addr {
		r = &remote{addr, addr.String()}
		c.remote.Store(r)
	}
	return r.text
}

func (c *serverConn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.pending++
	}
	return !c.closing
}

func (c *serverConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
	c.closeIfDone()
}

func (c *serverConn) closeIfDone() {
	if c.closing && c.pending == 0 {
		_ = c.conn.CloseWithError(codeNoError, "shutdown")
	}
}

// leave waits for the server's end and asks the peer to make no more requests
// (RFC 9114, section 5.2). It may close the connection now; if it does not,
// what it sent before it knew is still taken.
func (c *serverConn) leave(control io.Writer) {
	select {
	case <-c.server.leaving:
	case <-c.conn.Context().Done():
		return
	}
	const any = 1<<62 - 4 // no request is refused yet
	if _, err := control.Write(quicvarint.Append([]byte{frameGoAway, 8}, any)); err != nil {
		return
	}
	wait := time.NewTimer(lastRequests)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-c.conn.Context().Done():
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	c.closeIfDone()
}

// handle answers the request on a stream.
func (c *serverConn) handle(stream stream) {
	_ = stream.SetReadDeadline(time.Now().Add(headTimeout))
	body := &h3RequestBody{conn: c.conn, stream: stream}
	body.in = h3Content{frames: frames{r: stream}, budget: 1<<63 - 1} // the handler has its own limit
	r, err := c.request(body)
	if err != nil {
		breakStream(c.conn, stream, err)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	w := &h3Response{h3Frames: h3Frames{stream: stream}, header: make(http.Header, 4), length: -1}
	defer w.free()
	if !c.call(w, r) || w.finish() != nil {
		breakStream(c.conn, stream, nil)
		return
	}
	stream.CancelRead(codeNoError) // of what the handler did not read
	_ = stream.Close()
}

// call runs the handler and tells whether it came to its end.
func (c *serverConn) call(w http.ResponseWriter, r *http.Request) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.server.log.Error("panic while serving a peer", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	if c.server.exchanges != nil {
		c.server.exchanges.Inc()
	}
	c.server.handler.ServeHTTP(w, r)
	return true
}

var rootPath = &url.URL{Path: "/"}

// request reads the head of a request.
func (c *serverConn) request(body *h3RequestBody) (*http.Request, error) {
	f, err := body.in.head()
	if err != nil {
		return nil, err
	}
	if f.method == "" || f.method == http.MethodConnect || f.scheme != "https" || f.authority == "" || f.status != "" {
		return nil, malformed("malformed request")
	}
	target := rootPath
	if f.path != "/" {
		if target, err = url.ParseRequestURI(f.path); err != nil || f.path[0] != '/' {
			return nil, malformed("malformed path")
		}
	}
	body.in.length = f.length
	r := &http.Request{
		Method: f.method, URL: target, RequestURI: f.path, Host: f.authority, Header: f.header, Body: body, ContentLength: f.length,
		Proto: "HTTP/3.0", ProtoMajor: 3, RemoteAddr: c.remoteAddr(), TLS: c.tls,
	}
	return r.WithContext(body.stream.Context()), nil
}

// h3RequestBody is the content of a request.
type h3RequestBody struct {
	conn   carrier
	stream stream
	in     h3Content
	err    error // repeated
}

func (b *h3RequestBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.in.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		b.err = err
	case errors.Is(err, ErrResponse):
		breakStream(b.conn, b.stream, err)
		b.err = err
	default: // a deadline may be renewed
		err = lost(err)
	}
	return n, err
}

// Close does nothing: what is left unread is refused when the handler returns.
func (b *h3RequestBody) Close() error { return nil }

// h3Response writes the answer to a request. What is small goes out in one
// piece when the handler returns.
type h3Response struct {
	h3Frames
	header  http.Header
	status  int   // 0: not set yet
	length  int64 // of the content, announced; -1: not
	written int64
}

func (w *h3Response) Header() http.Header { return w.header }

// WriteHeader ends the head. Interim responses are left out.
func (w *h3Response) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	if v := w.header.Get("Content-Length"); v != "" {
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil {
			w.header.Del("Content-Length")
		} else {
			w.length = int64(n)
		}
	}
	if w.header["Date"] == nil {
		w.header["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	}
	w.begin(func(b []byte) []byte {
		if status == http.StatusOK {
			return appendIndexed(b, indexStatus200)
		}
		return appendNamed(b, indexStatus, strconv.Itoa(status))
	}, w.header)
	if len(w.buf) > sendBuffer/2 {
		w.flush()
	}
}

func (w *h3Response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.length >= 0 && w.written+int64(len(p)) > w.length {
		return 0, http.ErrContentLength
	}
	n := w.add(p)
	w.written += int64(n)
	return n, w.err
}

// finish sends what has not been sent.
func (w *h3Response) finish() error {
	w.WriteHeader(http.StatusOK)
	if w.length >= 0 && w.written < w.length && w.err == nil {
		w.err = io.ErrShortWrite
	}
	w.flush()
	return w.err
}

// The methods of http.ResponseController.

func (w *h3Response) FlushError() error {
	w.WriteHeader(http.StatusOK)
	w.flush()
	return w.err
}

func (w *h3Response) SetReadDeadline(t time.Time) error  { return w.stream.SetReadDeadline(t) }
func (w *h3Response) SetWriteDeadline(t time.Time) error { return w.stream.SetWriteDeadline(t) }
func (w *h3Response) EnableFullDuplex() error            { return nil } // it always is

// handshakes counts those under way.
type handshakes struct {
	failed prometheus.Counter
	total  atomic.Int32

	mu   sync.Mutex
	from map[string]int // by addresses that are proven
}

var (
	errTooManyHandshakes = errors.New("too many handshakes")
	errFromTooMany       = errors.New("too many handshakes from one address")
)

type handshakeKey struct{}

func (h *handshakes) many() bool { return h.total.Load() >= manyHandshakes }

// begin counts one more, until it fails or [handshakeDone].
func (h *handshakes) begin(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	from := ""
	if udp, ok := info.RemoteAddr.(*net.UDPAddr); ok && info.AddrVerified {
		from = udp.IP.String()
	}
	if h.total.Add(1) > maxHandshakes {
		h.total.Add(-1)
		return nil, errTooManyHandshakes
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if from != "" {
		if h.from[from] >= maxHandshakesFrom {
			h.total.Add(-1)
			return nil, errFromTooMany
		}
		h.from[from]++
	}
	end := func() {
		h.total.Add(-1)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.from[from]--; h.from[from] <= 0 {
			delete(h.from, from)
		}
	}
	pending := context.AfterFunc(ctx, func() {
		end()
		h.failed.Inc()
	})
	return context.WithValue(ctx, handshakeKey{}, func() {
		if pending() {
			end()
		}
	}), nil
}

// handshakeDone tells that a connection's handshake is no longer under way.
func handshakeDone(conn *quic.Conn) {
	if done, ok := conn.Context().Value(handshakeKey{}).(func()); ok {
		done()
	}
}
