// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"crypto/tls"
	"net/http"
	"sync"

	"go.uber.org/zap"

	"kontor/pki"
)

// LinkConfig says how a server answers over links. The zero value is useful.
type LinkConfig struct {
	Windows Windows
	Metrics *Metrics    // nil: none
	Log     *zap.Logger // nil: silence
}

// linkServer answers peers over links.
type linkServer struct {
	h3Server
	windows Windows
	growth  *growth
	metrics *Metrics

	mu    sync.Mutex
	peers map[pki.CertHash]int // links
}

// ServeLinks has an HTTPS server, with a configuration by [ServerTLS], answer
// over links, too: to who asks for that in the handshake. It is called before
// the server serves. Shutdown asks peers to make no more requests over them and
// waits for those under way; Close breaks them off.
func ServeLinks(srv *http.Server, cfg LinkConfig) {
	s := &linkServer{
		h3Server: h3Server{handler: srv.Handler, log: cfg.Log, leaving: make(chan struct{})},
		windows:  cfg.Windows, growth: newGrowth(), metrics: cfg.Metrics, peers: map[pki.CertHash]int{},
	}
	if s.metrics == nil {
		s.metrics = NewMetrics()
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	srv.TLSConfig.NextProtos = append([]string{alpnLink}, srv.TLSConfig.NextProtos...)
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		alpnLink: func(srv *http.Server, conn *tls.Conn, _ http.Handler) {
			if srv.ConnState != nil { // net/http does not tell
				srv.ConnState(conn, http.StateActive)
			}
			s.serve(conn)
		},
	}
	srv.RegisterOnShutdown(sync.OnceFunc(func() { close(s.leaving) }))
}

// admit counts a link to its peer; false means that it has too many.
func (s *linkServer) admit(hash pki.CertHash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[hash] >= maxPeerConnections {
		return false
	}
	s.peers[hash]++
	s.metrics.links.WithLabelValues("server").Inc()
	return true
}

func (s *linkServer) release(hash pki.CertHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[hash]--; s.peers[hash] == 0 {
		delete(s.peers, hash)
	}
	s.metrics.links.WithLabelValues("server").Dec()
}

// serve answers the requests of one link until it ends.
func (s *linkServer) serve(conn *tls.Conn) {
	state := conn.ConnectionState()
	if state.Version < tls.VersionTLS13 || len(state.PeerCertificates) == 0 {
		return
	}
	c := &serverConn{server: &s.h3Server, tls: &state, streams: make(chan stream)}
	var handle func(receiveStream)
	q := newQMux(conn, false, s.windows, s.growth, maxStreams, func(st *qmuxStream) { c.take(st) }, func(st *qmuxStream) { go handle(st) })
	c.conn, handle = q, uniStreams(q, func() {}, func() {})
	hash := pki.HashOf(state.PeerCertificates[0])
	if admitted := s.admit(hash); admitted {
		defer s.release(hash)
		c.requests.Go(func() {
			if control, err := q.openUni(); err == nil && beginControl(control) == nil {
				c.leave(control)
			}
		})
	} else {
		_ = q.CloseWithError(codeExcessiveLoad, "too many connections")
	}
	q.run()
	c.requests.Wait()
}
