// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxDownloads bounds the files and goroutines that slow clients can hold.
	maxDownloads = 1024
	// downloadTime is what one answer may take: 64 MiB at a slow 500 KB/s.
	downloadTime = 130 * time.Second
)

// Handler serves the mirrored configuration, to everybody:
//
//	/NAME/conf?version=N  the signed directory; without version, version 2
//	/NAME/MILLIS/…        the parts that it names
//	/NAME/anchor          the configuration anchor, as a download
//
// A version that is not mirrored is 404: clients try the newest that they know
// first. One that has expired is 503.
func (m *Mirror) Handler() http.Handler {
	slots := make(chan struct{}, maxDownloads)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "5")
			http.Error(w, "too many downloads at once", http.StatusServiceUnavailable)
			return
		}
		// A recorder in a test has no deadline to set.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			http.Error(w, "connection lost", http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch req.URL.Path {
		case m.path("conf"):
			m.serveDirectory(w, req)
		case m.path("anchor"):
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			w.Header().Set("Content-Disposition", `attachment; filename="configuration-anchor-`+m.cfg.Name+`.xml"`)
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(m.anchorXML))
		default:
			m.servePart(w, req)
		}
	})
}

func (m *Mirror) serveDirectory(w http.ResponseWriter, req *http.Request) {
	version := 2 // what clients that know no versions expect
	if v, ok := req.URL.Query()["version"]; ok {
		version, _ = strconv.Atoi(v[0]) // 0 is none
	}
	d := m.site.Load().directories[version]
	if d == nil {
		http.NotFound(w, req)
		return
	}
	if m.cfg.Now().After(d.expires) {
		http.Error(w, "the configuration has expired: the registry that is mirrored cannot be reached or says nothing good", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream") // the body brings its own MIME header
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Expires", "Thu, 01 Jan 1970 00:00:01 GMT")
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(d.doc))
}

func (m *Mirror) servePart(w http.ResponseWriter, req *http.Request) {
	name, ok := m.site.Load().files[req.URL.EscapedPath()]
	if !ok {
		http.NotFound(w, req)
		return
	}
	f, err := m.public.Open(name)
	if err != nil {
		http.NotFound(w, req) // replaced long ago
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=600, immutable")
	http.ServeContent(w, req, "", time.Time{}, f)
}
