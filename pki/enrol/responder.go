// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Responder answers http-01 challenges (RFC 8555, 8.3) of all Renewers of a
// server; to everything else it says 404. It is an http.Handler for port 80 of
// the names in the certificates, safe for concurrent use; its zero value is
// ready.
type Responder struct {
	mu      sync.RWMutex
	answers map[string]string // by path
}

func (r *Responder) set(path, answer string) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		r.answers = map[string]string{}
	}
	r.answers[path] = answer
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.answers, path)
	}
}

func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.RLock()
	answer, ok := r.answers[req.URL.Path]
	r.mu.RUnlock()
	if !ok || req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.WriteString(w, answer) // an asker that went away needs no answer
}

// Serve answers on l until ctx is done.
func (r *Responder) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: r, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("ACME challenges: %w", err)
	}
	return nil
}

// Listen answers on an address such as ":80" until ctx is done.
func (r *Responder) Listen(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("ACME challenges: %w; free the address or choose another, to which port 80 of the server's name leads", err)
	}
	return r.Serve(ctx, l)
}
