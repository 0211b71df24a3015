// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// MaxDownloads bounds the files and goroutines that slow clients can hold.
	MaxDownloads = 1024
	// downloadTime is what one answer may take: 64 MiB at a slow 500 KB/s.
	downloadTime = 130 * time.Second
)

// LimitDownloads lets next serve a configuration to everybody: it takes GET and
// HEAD alone, MaxDownloads requests at once, and gives each 130 seconds.
func LimitDownloads(next http.HandlerFunc) http.Handler {
	slots := make(chan struct{}, MaxDownloads)
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
		next(w, req)
	})
}

// ServeDirectory answers with a signed directory: the newest at this place, so
// never one that a cache has kept.
func ServeDirectory(w http.ResponseWriter, req *http.Request, doc io.ReadSeeker) {
	w.Header().Set("Content-Type", "application/octet-stream") // the body brings its own MIME header
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Expires", "Thu, 01 Jan 1970 00:00:01 GMT")
	http.ServeContent(w, req, "", time.Time{}, doc)
}

// ServePart answers with a part. Its location tells its generation, so it may be
// kept; changed may be zero.
func ServePart(w http.ResponseWriter, req *http.Request, changed time.Time, part io.ReadSeeker) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=600, immutable")
	http.ServeContent(w, req, "", changed, part)
}

// ServeAnchor answers with an anchor, to be saved under a name that ends with
// label: letters, digits, hyphens.
func ServeAnchor(w http.ResponseWriter, req *http.Request, label string, anchor io.ReadSeeker) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="configuration-anchor-`+label+`.xml"`)
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, req, "", time.Time{}, anchor)
}
