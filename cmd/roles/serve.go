// SPDX-License-Identifier: Apache-2.0

// Package roles assembles the servers of Kontor from their configurations:
// gateway, registry, trust services. It is wiring; what it wires knows nothing
// of it.
package roles

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Options are what a role takes beside its configuration; zero values are fine.
type Options struct {
	Log   *zap.Logger      // nil: silence
	Ready func()           // called when all listeners are open
	Now   func() time.Time // nil: time.Now; tests set clocks wrong
}

func (o Options) withDefaults() (*zap.Logger, func() time.Time) {
	log, now := o.Log, o.Now
	if log == nil {
		log = zap.NewNop()
	}
	if now == nil {
		now = time.Now
	}
	return log, now
}

// shutdownGrace is how long exchanges under way may take when a role stops.
const shutdownGrace = 30 * time.Second

// silentGrace is how long a new connection has for its first request then.
const silentGrace = 300 * time.Millisecond

// endpoint is one listener of a role.
type endpoint struct {
	key     string // configuration key, for messages
	addr    string // empty: off
	tls     *tls.Config
	handler http.Handler
	header  int                // bytes of request head accepted; 0: 32 KiB
	change  func(*http.Server) // what else it can do; nil: nothing
}

// serve listens on all endpoints, calls ready, and serves until ctx is done;
// then it lets requests under way finish.
func serve(ctx context.Context, log *zap.Logger, endpoints []endpoint, ready func()) error {
	type bound struct {
		endpoint
		listener net.Listener
	}
	var open []bound
	for _, e := range endpoints {
		if e.addr == "" {
			continue
		}
		l, err := net.Listen("tcp", e.addr)
		if err != nil {
			for _, b := range open {
				b.listener.Close()
			}
			return fmt.Errorf("%s: %w; free the address or set %s to another", e.key, err, e.key)
		}
		open = append(open, bound{e, l})
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range open {
		srv := &http.Server{
			Handler:           b.handler,
			TLSConfig:         b.tls,
			ReadHeaderTimeout: 15 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    max(b.header, 32<<10),
			ErrorLog:          serverLogger(log.Named(b.key)),
			Protocols:         new(http.Protocols),
		}
		srv.Protocols.SetHTTP1(true)
		var silent silentConns
		srv.ConnState = silent.note
		if b.change != nil {
			b.change(srv)
		}
		g.Go(func() error {
			log.Info("listening", zap.String("endpoint", b.key), zap.Stringer("address", b.listener.Addr()))
			var err error
			if b.tls != nil {
				err = srv.ServeTLS(b.listener, "", "")
			} else {
				err = srv.Serve(b.listener)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("%s: %w", b.key, err)
		})
		g.Go(func() error {
			<-ctx.Done()
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
			defer cancel()
			defer time.AfterFunc(silentGrace, silent.close).Stop()
			if err := srv.Shutdown(grace); err != nil {
				log.Warn("requests under way were cut off", zap.String("endpoint", b.key), zap.Error(err))
				return srv.Close()
			}
			return nil
		})
	}
	if ready != nil {
		ready()
	}
	return g.Wait()
}

// silentConns are the connections of a server that have not asked anything
// yet. Shutdown would wait five seconds for them, and clients that keep spare
// connections make some.
type silentConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *silentConns) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.conns, c)
		return
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[c] = struct{}{}
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close() // nothing was promised on it
	}
}

// check is one condition of readiness: nil error when it holds.
type check struct {
	name string
	run  func() error
}

// onlyLocal refuses callers from other machines: profiles are for operators.
func onlyLocal(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "only from this machine", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// observe returns the handler of a role's metrics listener: /metrics, /healthz
// (the process answers), /readyz (it can do its job, or says why not) and, for
// this machine alone, /debug/pprof.
func observe(registry *prometheus.Registry, checks []check) http.Handler {
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", onlyLocal(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", onlyLocal(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/trace", onlyLocal(pprof.Trace))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		result := map[string]string{}
		status := http.StatusOK
		for _, c := range checks {
			result[c.name] = "ok"
			if err := c.run(); err != nil {
				result[c.name] = err.Error()
				status = http.StatusServiceUnavailable
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(result) // the asker may have gone
	})
	return mux
}
