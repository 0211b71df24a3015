// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kontor/registry/globalconf"
)

// blockedWriter is a client that reads nothing until it is released.
type blockedWriter struct {
	*httptest.ResponseRecorder
	begun   chan<- struct{}
	release <-chan struct{}
}

func (w blockedWriter) Write(b []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.release
	return w.ResponseRecorder.Write(b)
}

func TestSlowClientsAreBounded(t *testing.T) {
	t.Parallel()
	h := globalconf.LimitDownloads(func(w http.ResponseWriter, req *http.Request) {
		globalconf.ServeAnchor(w, req, "internal", strings.NewReader("<anchor/>"))
	})
	begun, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	for range globalconf.MaxDownloads {
		go func() {
			h.ServeHTTP(blockedWriter{httptest.NewRecorder(), begun, release}, httptest.NewRequest("GET", "/anchor", nil))
			done <- struct{}{}
		}()
		<-begun
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/anchor", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d", w.Code)
	}
	close(release)
	for range globalconf.MaxDownloads {
		<-done
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/anchor", nil))
	if w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}
