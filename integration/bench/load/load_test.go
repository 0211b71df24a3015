// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/integration/bench/load"
	"kontor/integration/bench/service"
)

func TestRun(t *testing.T) {
	srv := httptest.NewServer(service.Handler())
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for name, q := range map[string]load.Request{
		"small":           load.Get(addr, "/rest", "", 1024),
		"empty":           load.Get(addr, "/rest", "", 0),
		"large":           load.Get(addr, "/rest", "", 3<<20+1),
		"sent":            load.Post(addr, "/rest", "", 3<<20+1),
		"exchange":        load.Exchange(addr, "", "", 850, 1024),
		"SOAP":            load.SOAP(addr, "A/B/C/d", "A/B/E/f/answer", 0),
		"SOAP attachment": load.SOAP(addr, "A/B/C/d", "A/B/E/f/answer", 300_000),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "SOAP") { // a gateway knows the service's address
				q.Head = []byte(strings.Replace(string(q.Head), "POST / ", "POST /soap ", 1))
				q.IDAt += len("soap")
			}
			began := false
			r, err := load.Run(t.Context(), q, load.Options{Clients: 3, Warm: time.Millisecond, Length: 20 * time.Millisecond, Begin: func() error { began = true; return nil }})
			if err != nil {
				t.Fatal(err)
			}
			if !began || r.Exchanges == 0 || r.All < r.After || r.After < r.Exchanges || r.P50 > r.P99 || r.P99 > r.Max {
				t.Errorf("%v, %+v", began, r)
			}
			if q.IDAt > 0 && (len(r.IDs) == 0 || !strings.HasPrefix(r.IDs[0], load.SOAPID)) {
				t.Errorf("message ids %q", r.IDs)
			}
		})
	}
}

// Whatever is not the right answer fails a run.
func TestRunRefuses(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"fault": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"other": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1024)) },
		"short": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(service.NewContent(1024).Bytes()[:1000]) },
		"long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(service.NewContent(1024).Bytes(), 'x'))
		},
		"broken":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"not asked": http.NotFound,
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(handler)
			defer srv.Close()
			if r, err := load.Run(t.Context(), load.Get(srv.Listener.Addr().String(), "/rest", "", 1024), load.Options{Clients: 2, Length: 20 * time.Millisecond}); err == nil {
				t.Errorf("accepted: %+v", r)
			}
		})
	}
}

// A run ends when it is told to, even while an answer is awaited.
func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked, release := sync.OnceFunc(cancel), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked()
		<-release
	}))
	defer srv.Close()
	defer close(release)
	if _, err := load.Run(ctx, load.Get(srv.Listener.Addr().String(), "/rest", "", 1024), load.Options{Clients: 1, Length: time.Hour}); err == nil {
		t.Error("no error")
	}
}
