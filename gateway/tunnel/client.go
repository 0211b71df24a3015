// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"kontor/gateway/http1"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// ClientConfig holds what a Client needs. Identity and Verifier are mandatory.
type ClientConfig struct {
	// Identity gives this server's authentication certificate with the
	// intermediates above it, the root left out.
	Identity func(*globalconf.View) (*tls.Certificate, error)
	// Verifier is best shared with the server side, so that one verdict about a
	// peer serves both.
	Verifier *PeerVerifier

	ConnectTimeout time.Duration // TCP, TLS and OCSP together; default 30 s
	IdleTimeout    time.Duration // of a pooled connection; default 25 s
	// MaxResponse bounds the bytes of one response. Default 16 GiB: a bound
	// against a peer that never ends; message limits are lower.
	MaxResponse int64

	// Transport says what carries messages; default Auto. What follows is for
	// QUIC.
	Transport Transport
	Windows   Windows
	// Connections bounds those to one peer, up to MostConnections; default 32.
	// Peers nearby get no more than processors are worth.
	Connections int
	// OCSP gives the fresh response for a certificate of ours by its SHA-256 in
	// hex; it goes with the handshake, and peers refuse one without. Nil: none.
	OCSP func(hash string) ([]byte, bool)
	// DialUDP opens a socket to reach a host and port by, and resolves these.
	// Default: [DialUDP] with nil.
	DialUDP func(ctx context.Context, address string) (net.PacketConn, net.Addr, error)
	Metrics *Metrics // nil: none

	Port, OCSPPort int // of the peers; default 5500 and 5577
	// Dial opens connections to both ports. Default: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time // nil: time.Now
}

// Client sends messages to other security servers over pooled connections. It
// is safe for concurrent use.
type Client struct {
	identity func(*globalconf.View) (*tls.Certificate, error)
	verifier *PeerVerifier
	dialTCP  func(ctx context.Context, network, address string) (net.Conn, error)
	connect  time.Duration
	max      int64
	port     int
	ocspPort int
	now      func() time.Time
	metrics  *Metrics
	pool     http1.Pool[poolKey]
	links    *links
	quic     *quicPool // nil: HTTPS alone

	plain     *http.Transport                              // for OCSP
	questions singleflight.Group                           // for OCSP, under way
	patience  func() (context.Context, context.CancelFunc) // for one; ends with Close
	end       context.CancelFunc

	mu      sync.Mutex
	winners map[string]winner // by the set of candidates
}

// poolKey names connections that can stand for each other.
type poolKey struct {
	address  string
	identity pki.CertHash // of the certificate that we presented
}

type winner struct {
	address string
	until   time.Time
}

// session is a connection to a peer, for one exchange. It is where another
// protocol than HTTP/1.1 over TLS comes in.
type session interface {
	// certificates returns what the peer presented, its own first.
	certificates() []*x509.Certificate
	// exchange sends a request and returns the head of the response. Afterwards,
	// or when the response's body is closed, the session takes care of itself.
	exchange(ctx context.Context, header http.Header, body io.Reader) (*Response, error)
	// discard closes a session whose peer is not who it must be, and release
	// keeps the connection of one that is not needed.
	discard()
	release()
	// stapled returns the OCSP response that came with the peer's certificate,
	// nil if none did.
	stapled() []byte
	// at tells whom the session leads to, and over what.
	at() (poolKey, Transport)
}

// Response is a peer's answer. The caller closes Body.
type Response struct {
	Status int // 200, or 500 with a fault
	Header http.Header
	Body   io.ReadCloser
	Peer   Peer
}

// NewClient returns a client for cfg.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Identity == nil || cfg.Verifier == nil {
		return nil, errors.New("tunnel: incomplete configuration")
	}
	if cfg.Connections < 0 || cfg.Connections > MostConnections {
		return nil, fmt.Errorf("tunnel: %d connections to a peer; at most %d are possible", cfg.Connections, MostConnections)
	}
	c := &Client{
		identity: cfg.Identity, verifier: cfg.Verifier, dialTCP: cfg.Dial, connect: cfg.ConnectTimeout,
		max: cfg.MaxResponse, port: cfg.Port, ocspPort: cfg.OCSPPort, now: cfg.Now, metrics: cfg.Metrics,
		winners: map[string]winner{},
	}
	if c.dialTCP == nil {
		c.dialTCP = new(net.Dialer).DialContext
	}
	if c.connect == 0 {
		c.connect = connectTimeout
	}
	if c.max == 0 {
		c.max = 16 << 30
	}
	if c.port == 0 {
		c.port = Port
	}
	if c.ocspPort == 0 {
		c.ocspPort = OCSPPort
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.pool.Timeout, c.pool.Most = cfg.IdleTimeout, maxIdle
	if c.pool.Timeout == 0 {
		c.pool.Timeout = idleTimeout
	}
	life, end := context.WithCancel(context.Background())
	c.end = end
	c.patience = func() (context.Context, context.CancelFunc) { return context.WithTimeout(life, ocspTimeout) }
	if c.metrics == nil {
		c.metrics = NewMetrics()
	}
	c.links = newLinks(cfg, c, life)
	if cfg.Transport != HTTPS {
		c.quic = newQUICPool(cfg, c, life)
	}
	c.plain = &http.Transport{
		DialContext:            c.dialTCP,
		DisableKeepAlives:      true, // one question per hour and peer
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxResponseHead,
	}
	return c, nil
}

// Close closes the idle connections; those in use close when their exchange
// ends. Post fails from now on.
func (c *Client) Close() {
	c.pool.Close()
	c.links.close()
	if c.quic != nil {
		c.quic.close()
	}
	c.end()
}

// Post sends one message to one of the candidates and returns its answer. The
// peer's certificate must be registered, in view, for one of the candidates,
// and that server must have the client need; it is verified before the first
// byte is sent. Several candidates race; the winner is asked first for an hour,
// and the others again when it does not come about in half a second.
// Candidates in maintenance mode or without address are left out.
//
// header is sent as it is, names included. body is sent in chunks as it is
// read; one that is an io.WriterTo writes itself, which saves copying. An error
// of body breaks the connection, so that the peer sees no regular end. The
// request is sent at most once: other candidates are tried only before.
//
// The answer may come before body has been sent; then sending goes on while the
// answer is read, until Response.Body is closed. A *bytes.Buffer, *bytes.Reader
// or *strings.Reader is no longer used when Post returns; of any other body a
// Read under way may return later, and what it returns is lost. ctx covers the
// exchange until Response.Body is closed.
//
// Errors: ErrMaintenance, ErrConnect, ErrPeer, ErrTimeout, ErrResponse,
// ErrClosed, *[StatusError], those of body and ctx, and those of the network.
func (c *Client) Post(ctx context.Context, view *globalconf.View, candidates []*globalconf.Server, need id.Client, header http.Header, body io.Reader) (*Response, error) {
	if err := checkHeader(header); err != nil {
		return nil, err
	}
	servers, err := usable(candidates)
	if err != nil {
		return nil, err
	}
	cert, chosen := ctx.Value(identityKey{}).(*tls.Certificate)
	if !chosen {
		cert, err = c.identity(view)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: own certificate: %w", ErrConnect, err)
	}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("%w: own certificate is empty", ErrConnect)
	}
	r := &race{
		client: c, view: view, candidates: candidates, servers: servers, need: need,
		cert: cert, hash: sha256.Sum256(cert.Certificate[0]), large: large(body),
	}
	s, peer, err := r.open(ctx)
	if err != nil {
		return nil, explain(ctx, err)
	}
	key, via := s.at()
	c.metrics.exchanges.client[via].Inc()
	if c.quic != nil && c.quic.consider(key, cert) && via == HTTPS {
		c.metrics.fallbacks.Inc()
	}
	if via == HTTPS {
		c.links.consider(key, cert)
	}
	resp, err := s.exchange(ctx, header, body)
	if err != nil {
		return nil, explain(ctx, err)
	}
	if c.quic != nil && via == HTTPS {
		c.quic.learn(key.address, resp.Header["Alt-Svc"])
		c.quic.consider(key, cert)
	}
	resp.Peer = peer
	if err := acceptable(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

type identityKey struct{}

// WithIdentity has [Client.Post] present a certificate: that whose OCSP responses
// go with the message, also if another has taken its place meanwhile.
func WithIdentity(ctx context.Context, cert *tls.Certificate) context.Context {
	return context.WithValue(ctx, identityKey{}, cert)
}

// acceptable lets pass what can carry a message or a fault.
func acceptable(r *Response) error {
	contentType := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(contentType)
	if r.Status == http.StatusOK || r.Status == http.StatusInternalServerError && err == nil && kind == "text/xml" {
		return nil
	}
	return &StatusError{Status: r.Status, ContentType: contentType}
}

// usable leaves out the candidates that cannot be asked.
func usable(candidates []*globalconf.Server) ([]*globalconf.Server, error) {
	var up []*globalconf.Server
	resting := false
	for _, s := range candidates {
		switch {
		case s.Address == "":
		case s.Maintenance:
			resting = true
		default:
			up = append(up, s)
		}
	}
	switch {
	case len(up) > 0:
		return up, nil
	case resting:
		return nil, ErrMaintenance
	}
	return nil, fmt.Errorf("%w: no candidate has an address", ErrConnect)
}

// explain adds ErrTimeout to what happened because time ran out.
func explain(ctx context.Context, err error) error {
	var timeout net.Error
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w: %w", ErrTimeout, ctx.Err(), err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

// race is the search for a session with an authenticated peer.
type race struct {
	client     *Client
	view       *globalconf.View
	candidates []*globalconf.Server
	servers    []*globalconf.Server // those of candidates that can be asked
	need       id.Client
	cert       *tls.Certificate
	hash       pki.CertHash // of cert
	large      bool         // the request's body
}

type entrant struct {
	session session
	peer    Peer
	err     error
	address string
}

// open returns a session with one of the servers, idle or new.
func (r *race) open(ctx context.Context) (session, Peer, error) {
	addresses := r.addresses()
	set := strings.Join(addresses, " ")
	favourite := r.client.winner(set)
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	if i := slices.Index(addresses, favourite); i > 0 {
		addresses[0], addresses[i] = addresses[i], addresses[0]
	}
	if len(addresses) == 1 {
		s, peer, err := r.enter(ctx, addresses[0])
		if err != nil {
			return nil, Peer{}, lostRace(err)
		}
		return s, peer, nil
	}
	first, err := r.run(ctx, addresses[:min(len(addresses), maxCandidates)], addresses[0] == favourite)
	if err != nil {
		return nil, Peer{}, lostRace(err)
	}
	if first.address != favourite {
		r.client.remember(set, first.address)
	}
	return first.session, first.peer, nil
}

// lostRace makes one error of what all candidates did.
func lostRace(err error) error { return fmt.Errorf("%w: %w", ErrConnect, err) }

// addresses returns the distinct addresses of the servers, sorted.
func (r *race) addresses() []string {
	var all []string
	for _, s := range r.servers {
		all = append(all, s.Address)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// run lets addresses race to an authenticated session. A favourite, the first
// address, has a head start. What the losers have is kept for later.
func (r *race) run(ctx context.Context, addresses []string, favourite bool) (*entrant, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrivals := make(chan entrant)
	running := 0
	start := func(some []string) {
		for _, a := range some {
			running++
			go func() {
				s, peer, err := r.enter(ctx, a)
				select {
				case arrivals <- entrant{s, peer, err, a}:
				case <-ctx.Done():
					if err == nil {
						s.release()
					}
				}
			}()
		}
	}
	var others []string
	var over <-chan time.Time // the head start
	if favourite {
		addresses, others = addresses[:1], addresses[1:]
		t := time.NewTimer(headStart)
		defer t.Stop()
		over = t.C
	}
	start(addresses)
	var errs []error
	for running > 0 {
		select {
		case e := <-arrivals:
			if e.err == nil {
				return &e, nil
			}
			errs = append(errs, e.err)
			running--
		case <-over:
		case <-ctx.Done():
			return nil, errors.Join(append(errs, ctx.Err())...)
		}
		start(others)
		others = nil
	}
	return nil, errors.Join(errs...)
}

// enter returns a session with an authenticated peer at one address, over a
// connection that stands or a new one.
func (r *race) enter(ctx context.Context, address string) (session, Peer, error) {
	key := poolKey{address, r.hash}
	var errs []error
	for s := range r.client.standing(key, r.large) {
		peer, err := r.verify(ctx, s, address)
		if err == nil {
			return s, peer, nil
		}
		// The global configuration or the peer's standing has changed since.
		s.discard()
		errs = append(errs, err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.client.connect)
	defer cancel()
	s, err := r.client.dial(ctx, key, r.cert, r.large)
	if err != nil {
		return nil, Peer{}, errors.Join(append(errs, fmt.Errorf("%s: %w", address, err))...)
	}
	peer, err := r.verify(ctx, s, address)
	if err != nil {
		s.discard()
		return nil, Peer{}, errors.Join(append(errs, err)...)
	}
	return s, peer, nil
}

// verify authenticates the peer of a session for this request.
func (r *race) verify(ctx context.Context, s session, address string) (Peer, error) {
	peer, err := r.client.verifier.verifyFetching(ctx, r.view, s.certificates(), s.stapled(), r.need,
		func(ctx context.Context, certs []*x509.Certificate) ([][]byte, error) {
			return r.client.fetchOCSP(ctx, address, certs)
		})
	if err != nil {
		return Peer{}, fmt.Errorf("%s: %w", address, err)
	}
	if !slices.ContainsFunc(r.candidates, func(s *globalconf.Server) bool { return s.ID == peer.Server.ID }) {
		return Peer{}, fmt.Errorf("%s: %w", address, refuse(fmt.Errorf("security server %s is there, which was not asked for", peer.Server.ID)))
	}
	return peer, nil
}

// winner returns the address that won the last race of a set, "" if none did.
func (c *Client) winner(set string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.winners[set]
	if !ok || !c.now().Before(w.until) {
		return ""
	}
	return w.address
}

func (c *Client) remember(set, address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.winners) >= maxWinners {
		clear(c.winners) // races are cheap and rare
	}
	c.winners[set] = winner{address, c.now().Add(winnerLifetime)}
}

// standing gives sessions over connections that stand, the best first.
func (c *Client) standing(key poolKey, large bool) iter.Seq[session] {
	return func(yield func(session) bool) {
		if c.quic != nil && !(large && c.quic.near(key)) {
			if s := c.quic.get(key); s != nil && !yield(s) {
				return
			}
			if c.quic.forced {
				return // HTTPS has none
			}
		}
		var after time.Time
		if c.quic != nil {
			after = c.quic.doubted(key)
		}
		if since := c.links.doubted(key); since.After(after) {
			after = since
		}
		if !large {
			if s := c.links.get(key, after); s != nil && !yield(s) {
				return
			}
		}
		if s := c.plainIdle(key, after); s != nil {
			yield(s)
		}
	}
}

// plainIdle returns a session over an ordinary connection that nobody uses, or nil.
func (c *Client) plainIdle(key poolKey, after time.Time) session {
	if conn := c.pool.Get(key, after); conn != nil {
		return &h1{conn: conn, host: c.host(key.address), key: key, max: c.max}
	}
	return nil
}

// dial opens a session with whoever is at an address. Large bodies do not go
// over links: there each would be in the way of others.
func (c *Client) dial(ctx context.Context, key poolKey, cert *tls.Certificate, large bool) (session, error) {
	if c.pool.Closed() {
		return nil, ErrClosed
	}
	if c.quic != nil && c.quic.forced {
		return c.quic.enter(ctx, key, cert)
	}
	if large {
		return c.links.dial(ctx, key, cert, false)
	}
	var doubt time.Time
	if c.quic != nil {
		doubt = c.quic.doubted(key)
	}
	return c.links.enter(ctx, key, cert, doubt)
}

// host returns the host and port that a server takes messages at.
func (c *Client) host(address string) string {
	return net.JoinHostPort(address, strconv.Itoa(c.port))
}

// clientTLS returns the configuration of an outgoing connection. Go does not
// verify the peer: it is verified after the handshake, for each request, by
// X-Road's rules.
func clientTLS(address string, cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       cipherSuites,
		InsecureSkipVerify: true,
		// Whatever authorities the peer names, there is one certificate to show.
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
		DynamicRecordSizingDisabled: true,
	}
	if strings.Contains(address, ".") && net.ParseIP(address) == nil {
		cfg.ServerName = address
	}
	return cfg
}
