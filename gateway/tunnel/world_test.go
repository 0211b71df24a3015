// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/gateway/tunnel"
	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// world is a tiny ecosystem: one authority, security servers on loopback
// addresses that pass for hosts, and a clock.
type world struct {
	testing.TB
	ca
	clock  atomic.Int64 // added to the real time
	config globalconf.SharedParams
	view   atomic.Pointer[globalconf.View]

	mu     sync.Mutex
	states map[string]ocsp.State // by serial; good if absent
	hosts  map[string]string     // host:port to the address that listens
	dialed map[string]int        // by host:port
}

type ca struct {
	cert   *x509.Certificate
	key    crypto.Signer
	serial *atomic.Int64
}

func check[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newCA(t testing.TB, name string, parent *ca) ca {
	t.Helper()
	key := check[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1000), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(480 * time.Hour),
	}
	if parent == nil {
		parent = &ca{cert: tmpl, key: key}
	}
	der := check[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, parent.cert, key.Public(), parent.key))
	return ca{cert: check[*x509.Certificate](t)(x509.ParseCertificate(der)), key: key, serial: new(atomic.Int64)}
}

// issue makes an authentication certificate, unless change makes it another.
func (a *ca) issue(t testing.TB, name string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key := check[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(tmpl)
	}
	der := check[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: check[*x509.Certificate](t)(x509.ParseCertificate(der))}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		TB: t, ca: newCA(t, "Test CA", nil),
		states: map[string]ocsp.State{}, hosts: map[string]string{}, dialed: map[string]int{},
	}
	w.config = globalconf.SharedParams{
		Instance:      "DEV",
		Sources:       []globalconf.Source{{Address: "cs", InternalCerts: [][]byte{w.cert.Raw}, ExternalCerts: [][]byte{w.cert.Raw}}},
		CAs:           []globalconf.ApprovedCA{approved(w.cert)},
		MemberClasses: []globalconf.MemberClass{{Code: "GOV", Description: "GOV"}},
		OCSPFreshness: time.Hour,
	}
	return w
}

func approved(c *x509.Certificate) globalconf.ApprovedCA {
	return globalconf.ApprovedCA{
		Name: c.Subject.CommonName, Top: globalconf.CA{Cert: c.Raw},
		Profile: "ee.ria.xroad.common.certificateprofile.impl.EjbcaCertificateProfileInfoProvider",
	}
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

func (w *world) set(c *x509.Certificate, state ocsp.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[c.SerialNumber.String()] = state
}

// status makes an OCSP response about a certificate.
func (w *world) status(a *ca, c *x509.Certificate) []byte {
	w.Helper()
	h := ocsp.NewResponder(ocsp.ResponderConfig{
		Issuer: a.cert, Cert: a.cert, Signer: a.key, Now: w.now, Validity: 24 * time.Hour,
		Status: func(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			state, ok := w.states[serial.String()]
			if !ok {
				state = ocsp.Good
			}
			return ocsp.CertStatus{State: state, RevokedAt: w.now()}, nil
		},
	})
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(check[[]byte](w)(ocsp.NewRequest(c, a.cert))))
	req.Header.Set("Content-Type", "application/ocsp-request")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Body.Bytes()
}

// server is a security server: its own subsystem "sub" and whatever listens.
type server struct {
	*world
	name     string
	id       id.SecurityServer
	client   id.Client
	cert     *tls.Certificate
	requests atomic.Int64
	conns    atomic.Int64
	asked    atomic.Int64 // for OCSP
	lookup   func(hash string) ([]byte, bool)
	http     *http.Server
	listener net.Listener
	quic     *tunnel.QUICServer
	udp      net.PacketConn
}

// add registers a security server with a fresh certificate; it does not listen
// yet.
func (w *world) add(name string) *server {
	w.Helper()
	m := check[id.Member](w)(id.NewMember("DEV", "GOV", name))
	s := &server{
		world: w, name: name + ".test", id: check[id.SecurityServer](w)(id.NewSecurityServer(m, "ss")),
		client: check[id.Client](w)(id.NewClient(m, "sub")), cert: w.issue(w, name, nil),
	}
	s.lookup = func(hash string) ([]byte, bool) {
		sum := sha1.Sum(s.cert.Certificate[0])
		if hash != hex.EncodeToString(sum[:]) && hash != pki.HashOf(s.cert.Leaf).Hex() {
			return nil, false
		}
		return w.status(&w.ca, s.cert.Leaf), true
	}
	w.config.Members = append(w.config.Members, globalconf.Member{
		ID: m, ClassDescription: "GOV", Name: name, Subsystems: []globalconf.Subsystem{{ID: s.client, Name: "sub"}},
	})
	w.config.Servers = append(w.config.Servers, globalconf.SecurityServer{
		ID: s.id, Address: s.name, Clients: []id.Client{s.client},
		AuthCerts: []globalconf.AuthCert{globalconf.NewAuthCert(s.cert.Leaf)},
	})
	w.publish()
	return s
}

// entry returns a server's entry in the configuration, to be changed.
func (s *server) entry() *globalconf.SecurityServer {
	for i := range s.config.Servers {
		if s.config.Servers[i].ID == s.id {
			return &s.config.Servers[i]
		}
	}
	panic("no such server")
}

// use makes the server present another certificate, which stays unregistered.
func (s *server) use(c *tls.Certificate) { s.cert = c }

// register makes the configuration know the server's certificate.
func (s *server) register() {
	s.Helper()
	s.entry().AuthCerts = []globalconf.AuthCert{globalconf.NewAuthCert(s.cert.Leaf)}
	s.publish()
}

func (s *server) identity(*globalconf.View) (*tls.Certificate, error) { return s.cert, nil }

// serve makes the server listen on both ports, as a Java security server does.
func (s *server) serve(h http.Handler) *server {
	s.Helper()
	return s.serveHTTPS(h, func(*http.Server) {})
}

// serveLinks has the server answer over links, too.
func (s *server) serveLinks(h http.Handler, change ...func(*tunnel.LinkConfig)) *server {
	s.Helper()
	var cfg tunnel.LinkConfig
	for _, c := range change {
		c(&cfg)
	}
	return s.serveHTTPS(h, func(srv *http.Server) { tunnel.ServeLinks(srv, cfg) })
}

func (s *server) serveHTTPS(h http.Handler, change func(*http.Server)) *server {
	s.Helper()
	s.listen("5577", nil, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		tunnel.OCSPHandler(s.lookup).ServeHTTP(w, r)
	})})
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.requests.Add(1)
			h.ServeHTTP(w, r)
		}),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateActive {
				return
			}
			if st == http.StateNew {
				s.conns.Add(1)
			}
		},
		ErrorLog:  discardLog,
		TLSConfig: tunnel.ServerTLS(s.identity, s.view.Load),
	}
	change(s.http)
	s.listen("5500", s.http.TLSConfig, s.http)
	return s
}

func (s *server) listen(port string, cfg *tls.Config, srv *http.Server) {
	s.Helper()
	l := check[net.Listener](s)(net.Listen("tcp", "127.0.0.1:0"))
	s.host(s.name+":"+port, l.Addr().String())
	if cfg != nil {
		s.listener = l
		l = tls.NewListener(l, cfg)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.Error(err)
		}
	}()
	s.Cleanup(func() { srv.Close(); <-done })
}

// raw makes the server answer each connection, after TLS, by hand.
func (s *server) raw(answer func(c net.Conn)) *server {
	s.Helper()
	s.listen("5577", nil, &http.Server{Handler: tunnel.OCSPHandler(s.lookup)})
	s.plain("5500", func(c net.Conn) {
		conn := tls.Server(c, tunnel.ServerTLS(s.identity, s.view.Load))
		if conn.Handshake() == nil {
			answer(conn)
		}
	})
	return s
}

// plain makes a port answer each TCP connection by hand.
func (s *server) plain(port string, answer func(c net.Conn)) {
	s.Helper()
	l := check[net.Listener](s)(net.Listen("tcp", "127.0.0.1:0"))
	s.host(s.name+":"+port, l.Addr().String())
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				answer(c)
			})
		}
	})
	s.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// loopback is where the tests of this package listen for QUIC.
const loopback = "127.81.0.1"

// serveQUIC makes the server listen for QUIC, too. What it presents is its own.
func (s *server) serveQUIC(change ...func(*tunnel.ServerConfig)) *server {
	s.Helper()
	return s.listenQUIC(loopback+":0", change...)
}

func (s *server) listenQUIC(address string, change ...func(*tunnel.ServerConfig)) *server {
	s.Helper()
	cfg := tunnel.ServerConfig{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.http.Handler.ServeHTTP(w, r) }),
		Identity: s.identity, View: s.view.Load, Verifier: tunnel.NewVerifier(tunnel.VerifierConfig{Now: s.now}), OCSP: s.staple,
	}
	for _, c := range change {
		c(&cfg)
	}
	s.quic = check[*tunnel.QUICServer](s)(tunnel.NewQUICServer(cfg))
	s.udp = check[net.PacketConn](s)(net.ListenPacket("udp4", address))
	s.host("udp "+s.name+":5500", s.udp.LocalAddr().String())
	done := make(chan struct{})
	quicServer := s.quic
	go func() {
		defer close(done)
		if err := quicServer.Serve(s.udp); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.Error(err)
		}
	}()
	s.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = quicServer.Shutdown(ctx) // what is left is broken off
		<-done
	})
	return s
}

// staple gives the OCSP response that goes with the server's handshakes.
func (s *server) staple(hash string) ([]byte, bool) { return s.lookup(hash) }

// dialUDP is dial for QUIC.
func (w *world) dialUDP(_ context.Context, address string) (net.PacketConn, net.Addr, error) {
	w.mu.Lock()
	w.dialed["udp "+address]++
	to, ok := w.hosts["udp "+address]
	w.mu.Unlock()
	if !ok {
		return nil, nil, &net.OpError{Op: "dial", Net: "udp", Err: errors.New("no such host")}
	}
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return nil, nil, err
	}
	socket, err := net.ListenPacket("udp4", loopback+":0")
	return socket, addr, err
}

// only has a client use one transport.
func only(t tunnel.Transport) func(*tunnel.ClientConfig) {
	return func(cfg *tunnel.ClientConfig) { cfg.Transport = t }
}

func (w *world) host(name, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[name] = address
}

// dial resolves the world's hosts; nobody listens at those it does not know.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed[address]++
	to, ok := w.hosts[address]
	w.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

func (w *world) dials(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed[address]
}

// tunnel returns a client that acts for the server.
func (s *server) tunnel(change ...func(*tunnel.ClientConfig)) *tunnel.Client {
	s.Helper()
	cfg := tunnel.ClientConfig{
		Identity: s.identity, Verifier: tunnel.NewVerifier(tunnel.VerifierConfig{Now: s.now}), Dial: s.world.dial, Now: s.now,
		DialUDP: s.world.dialUDP, OCSP: s.staple,
	}
	for _, c := range change {
		c(&cfg)
	}
	c := check[*tunnel.Client](s)(tunnel.NewClient(cfg))
	s.Cleanup(c.Close)
	return c
}

// publish makes a View of the configuration.
func (w *world) publish() *globalconf.View {
	w.Helper()
	dir := w.TempDir()
	write := func(name string, b []byte) {
		w.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	write("instance-identifier", []byte("DEV"))
	write("DEV/shared-params.xml", check[[]byte](w)(w.config.Marshal(6)))
	write("DEV/shared-params.xml.metadata", []byte(`{"configurationVersion":"6"}`))
	view := check[*globalconf.View](w)(globalconf.LoadDir(dir))
	w.view.Store(view)
	return view
}

// providers are the candidates for a server's client.
func (s *server) providers() []*globalconf.Server { return s.view.Load().Providers(s.client) }

// post sends a body to a server and returns the body of the answer.
func post(t testing.TB, c *tunnel.Client, to *server, body string) (string, error) {
	t.Helper()
	resp, err := c.Post(t.Context(), to.view.Load(), to.providers(), to.client, http.Header{}, bytes.NewBufferString(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// echo answers with the body of the request.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if b, err := io.ReadAll(r.Body); err == nil {
		w.Write(b)
	}
})

// ocspName is what a server's OCSP response is asked for by.
func ocspName(s *server) string { return pki.HashOf(s.cert.Leaf).Hex() }

// holding answers when it is released, and reads nothing before.
func holding(release <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
}
