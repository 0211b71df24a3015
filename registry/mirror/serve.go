// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"kontor/registry/globalconf"
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
	return globalconf.LimitDownloads(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case m.path("conf"):
			m.serveDirectory(w, req)
		case m.path("anchor"):
			globalconf.ServeAnchor(w, req, m.cfg.Name, bytes.NewReader(m.anchorXML))
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
	globalconf.ServeDirectory(w, req, bytes.NewReader(d.doc))
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
	globalconf.ServePart(w, req, time.Time{}, f)
}
