// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"kontor/registry/management/request"
)

// ownClient sends requests of the security server itself through its own
// client proxy, as an information system that presents the internal TLS
// certificate, but without the network. Run serves it.
type ownClient struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newOwnClient() *ownClient {
	return &ownClient{conns: make(chan net.Conn), done: make(chan struct{})}
}

// client returns the client of management requests.
func (o *ownClient) client() *request.Client {
	return &request.Client{URL: "http://gateway/", HTTP: &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: o.dial, DisableKeepAlives: true},
	}}
}

func (o *ownClient) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case o.conns <- theirs:
		return ours, nil
	case <-o.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run serves the requests with the client proxy until ctx is done.
func (o *ownClient) run(ctx context.Context, proxy http.Handler, internal *x509.Certificate) error {
	srv := &http.Server{ReadHeaderTimeout: 15 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{internal}}
		proxy.ServeHTTP(w, r)
	})}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // nothing to flush
	if err := srv.Serve(o); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Accept, Close and Addr make it a net.Listener.
func (o *ownClient) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}

func (o *ownClient) Close() error {
	o.close.Do(func() { close(o.done) })
	return nil
}

func (o *ownClient) Addr() net.Addr { return &net.UnixAddr{Name: "gateway", Net: "pipe"} }
