// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/registry"
)

// serve runs a handler until the test ends.
func serve(tb testing.TB, addr string, h http.Handler, conf *tls.Config) *http.Server {
	tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }() // ends with Close
	tb.Cleanup(func() { srv.Close(); <-done })
	return srv
}

// Switch stands before a trust service and can break it. It is safe for
// concurrent use.
type Switch struct {
	up http.Handler

	mu  sync.Mutex
	now http.Handler
}

func (s *Switch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.now
	s.mu.Unlock()
	h.ServeHTTP(w, r)
}

// Set puts another service in place.
func (s *Switch) Set(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = h
}

// Up repairs the service.
func (s *Switch) Up() { s.Set(s.up) }

// Down has the service close every connection without an answer.
func (s *Switch) Down() {
	s.Set(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
}

// Hang has the service take questions and not answer until release is called.
func (s *Switch) Hang() (release func()) {
	stop := make(chan struct{})
	s.Set(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
			s.up.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	return sync.OnceFunc(func() { s.Up(); close(stop) })
}

func (n *Network) startTrust() {
	h := n.fix.ca.Handler()
	n.OCSP, n.TSA = &Switch{up: h, now: h}, &Switch{up: h, now: h}
	mux := http.NewServeMux()
	mux.Handle("/ocsp", n.OCSP)
	mux.Handle("/tsa", n.TSA)
	serve(n.tb, n.ip(13)+":8888", mux, nil)
}

// Received is one request that the information system got.
type Received struct {
	Method, URI, Host string
	Header            http.Header
	Length            int64 // as announced, -1: chunked
	Body              []byte
}

// Service is the information system behind gateway B. It is safe for
// concurrent use.
type Service struct {
	mu       sync.Mutex
	requests []Received
	handler  http.HandlerFunc
}

// Greeting is what the information system answers if nothing else was set.
const Greeting = `{"ok":true}`

func startService(n *Network) *Service {
	s := &Service{}
	s.Reset()
	serve(n.tb, n.ip(14)+":8000", s, nil)
	serve(n.tb, n.ip(14)+":8443", s, n.fix.serviceTLS(n.tb))
	return s
}

// serviceTLS is how the information system takes connections: only from the
// gateway whose certificate it knows.
func (f *fixture) serviceTLS(tb testing.TB) *tls.Config {
	certFile, _ := roles.InternalTLSFiles(&config.Gateway{DataDir: f.gateways["B"]})
	gateway, err := roles.ReadDER(certFile, "CERTIFICATE")
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{f.service.TLS()}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !bytes.Equal(cs.PeerCertificates[0].Raw, gateway) {
				return errors.New("not the gateway")
			}
			return nil
		},
	}
}

// ServeHTTP records the request, once it is complete, and answers.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	s.requests = append(s.requests, Received{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.ContentLength, body})
	h := s.handler
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	h(w, r)
}

// Handle has the information system answer by h from now on.
func (s *Service) Handle(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// Reset forgets all requests and answers with [Greeting] again.
func (s *Service) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	s.handler = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, Greeting)
	}
}

// Requests returns what came in since the last Reset.
func (s *Service) Requests() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// registryServer is the registry and its web server, which counts who asks.
type registryServer struct {
	*registry.Registry
	http.Handler

	mu    sync.Mutex
	down  bool
	polls map[string]int // by address of the asking gateway
}

func (s *registryServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.mu.Lock()
	if r.URL.Path == "/internalconf" {
		s.polls[host]++
	}
	down := s.down
	s.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	s.Handler.ServeHTTP(w, r)
}

func (s *registryServer) count(host string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls[host]
}

func (n *Network) startRegistry(o Options) {
	n.tb.Helper()
	dir := filepath.Join(n.dir, "registry")
	if err := copyTree(dir, n.fix.registry); err != nil {
		n.tb.Fatal(err)
	}
	r, err := registry.Open(dir, []byte(pin), registry.Config{Now: n.Now})
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			n.tb.Error(err)
		}
	})
	n.registry = &registryServer{Registry: r, Handler: r.Handler(), down: o.Offline, polls: map[string]int{}}
	addr := n.ip(10) + ":8080"
	changes, err := registry.Plan(r.State(), n.ecosystem(addr, o.Settings))
	if err != nil {
		n.tb.Fatal(err)
	}
	if _, err := r.Apply(n.Context(), registry.Author{Who: "testnet"}, changes); err != nil {
		n.tb.Fatal(err)
	}
	if err := r.Publish(n.Context()); err != nil {
		n.tb.Fatal(err)
	}
	if n.Anchor, err = r.InternalAnchor(); err != nil {
		n.tb.Fatal(err)
	}
	if err := os.WriteFile(n.anchorFile(), n.Anchor, 0o600); err != nil {
		n.tb.Fatal(err)
	}
	serve(n.tb, addr, n.registry, nil)
}

func (n *Network) anchorFile() string { return filepath.Join(n.dir, "anchor.xml") }

// Apply changes the ecosystem and waits until both gateways know.
func (n *Network) Apply(changes ...registry.Change) {
	n.tb.Helper()
	if _, err := n.registry.Apply(context.Background(), registry.Author{Who: "testnet"}, changes); err != nil {
		n.tb.Fatal(err)
	}
	n.Publish()
}

// State is what the registry holds.
func (n *Network) State() *registry.State { return n.registry.State() }

// Settings changes parameters of the instance and waits until both gateways
// know.
func (n *Network) Settings(s registry.Settings) {
	n.tb.Helper()
	changes, err := registry.Plan(n.registry.State(), &registry.Ecosystem{Instance: n.fix.instance, Settings: &s})
	if err != nil {
		n.tb.Fatal(err)
	}
	n.Apply(changes...)
}

// Publish brings the registry back, makes the global configuration anew and
// waits until both gateways have it.
func (n *Network) Publish() {
	n.tb.Helper()
	n.registry.mu.Lock()
	n.registry.down = false
	n.registry.mu.Unlock()
	if err := n.registry.Publish(context.Background()); err != nil {
		n.tb.Fatal(err)
	}
	// An update that begins after another began after publication finds that
	// one complete. One more, since an update may ask in two places.
	type target struct {
		host  string
		count int
	}
	var wait []target
	for _, g := range []*Gateway{n.A, n.B} {
		if g != nil && g.running() {
			wait = append(wait, target{g.ip, n.registry.count(g.ip) + 3})
		}
	}
	for _, t := range wait {
		Eventually(n.tb, func() error {
			if n.registry.count(t.host) < t.count {
				return errors.New("a gateway does not ask for the global configuration")
			}
			return nil
		})
	}
}

// Unpublish takes the registry off the net.
func (n *Network) Unpublish() {
	n.registry.mu.Lock()
	defer n.registry.mu.Unlock()
	n.registry.down = true
}
