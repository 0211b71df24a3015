// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// StartGo runs two reverse proxies of Go's standard library that speak HTTP/2
// with each other. program is this program, with a first argument that makes it
// call [ServeProxy].
func StartGo(ctx context.Context, program []string, c Config) (*Chain, error) {
	if err := writeCertificates(c.Dir); err != nil {
		return nil, err
	}
	return start(ctx, "go h2", c, nil, [2][]string{
		append(program[:len(program):len(program)], "front", c.Dir, c.IP[0]+":8080", "https://"+c.IP[1]+":8443"),
		append(program[:len(program):len(program)], "behind", c.Dir, c.IP[1]+":8443", "http://"+c.Backend),
	})
}

// ServeProxy is one proxy: side (front or behind), folder of the certificates,
// address to listen on, URL to forward to.
func ServeProxy(args []string) error {
	if len(args) != 4 {
		return errors.New("side, folder, address and URL are needed")
	}
	side, dir, address := args[0], args[1], args[2]
	to, err := url.Parse(args[3])
	if err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	pem, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("no certificate in ca.pem")
	}
	cert, err := tls.LoadX509KeyPair(file(side+".pem"), file(side+".key"))
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, IdleConnTimeout: 2 * time.Minute, DisableCompression: true, Protocols: new(http.Protocols)}
	srv := &http.Server{Addr: address, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: &httputil.ReverseProxy{
		Transport: transport, BufferPool: new(buffers), ErrorLog: log.Default(),
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
	}}
	if side == "front" {
		transport.Protocols.SetHTTP2(true)
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serverName, Certificates: []tls.Certificate{cert}}
		srv.Protocols.SetHTTP1(true)
		return srv.ListenAndServe()
	}
	transport.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{cert}}
	return srv.ListenAndServeTLS("", "")
}

// buffers is the pool that ReverseProxy copies with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
