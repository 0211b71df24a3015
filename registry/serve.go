// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"time"

	"kontor/registry/globalconf"
)

var partPath = regexp.MustCompile(`^/V[2-6]/([0-9]{23}/[a-z-]{1,40}\.xml|internalconf|externalconf)$`)

// Handler serves what is published, to everybody:
//
//	/internalconf?version=N, /externalconf?version=N
//	                     the signed directory; without version, version 2
//	/VN/…                the parts that it names
//	/anchor/internal, /anchor/external
//	                     the configuration anchor, as a download
//
// An unknown version is 404: clients try the newest that they know first.
func (r *Registry) Handler() http.Handler {
	return globalconf.LimitDownloads(func(w http.ResponseWriter, req *http.Request) {
		switch p := req.URL.Path; {
		case p == "/internalconf" || p == "/externalconf":
			r.serveDirectory(w, req, p)
		case p == "/anchor/internal":
			r.serveAnchor(w, req, Internal)
		case p == "/anchor/external":
			r.serveAnchor(w, req, External)
		case partPath.MatchString(p):
			r.servePublished(w, req, p[1:])
		default:
			http.NotFound(w, req)
		}
	})
}

func (r *Registry) serveDirectory(w http.ResponseWriter, req *http.Request, name string) {
	version := "2" // what clients that know no versions expect
	if v, ok := req.URL.Query()["version"]; ok {
		version = v[0]
	}
	if !versionName.MatchString("V" + version) {
		http.NotFound(w, req)
		return
	}
	r.servePublished(w, req, "V"+version+name)
}

// servePublished serves a file below public, whose name was checked.
func (r *Registry) servePublished(w http.ResponseWriter, req *http.Request, name string) {
	f, err := r.pub.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, req)
		return
	}
	if err != nil {
		http.Error(w, "the configuration cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.Error(w, "the configuration cannot be read", http.StatusInternalServerError)
		return
	}
	if strings.HasSuffix(name, "conf") {
		globalconf.ServeDirectory(w, req, f)
	} else {
		globalconf.ServePart(w, req, info.ModTime(), f)
	}
}

func (r *Registry) serveAnchor(w http.ResponseWriter, req *http.Request, src Source) {
	st := r.State()
	doc, err := st.Anchor(src)
	if err != nil {
		http.Error(w, "the anchor cannot be made", http.StatusInternalServerError)
		return
	}
	globalconf.ServeAnchor(w, req, string(src), bytes.NewReader(doc))
}

// InternalAnchor returns the anchor for the own security servers.
func (r *Registry) InternalAnchor() ([]byte, error) { return r.State().Anchor(Internal) }

// ExternalAnchor returns the anchor for federation partners.
func (r *Registry) ExternalAnchor() ([]byte, error) { return r.State().Anchor(External) }

// Status is the condition of a registry.
type Status struct {
	Instance  string    `json:"instance"`
	Node      string    `json:"node,omitempty"`     // of several; the first has no name
	Entries   uint64    `json:"entries"`            // in the journal
	Published uint64    `json:"published"`          // journal entry that is published; 0: nothing yet
	At        time.Time `json:"at,omitzero"`        // last publication by this process
	Expires   time.Time `json:"expires,omitzero"`   // end of its validity
	Versions  []int     `json:"versions,omitempty"` // published versions
	Failed    time.Time `json:"failed,omitzero"`    // last attempt, if it failed
	Error     string    `json:"error,omitempty"`    // why it failed
	Healthy   bool      `json:"healthy"`            // a valid configuration is published, the last attempt succeeded, and the journal can be read
	Warning   string    `json:"warning,omitempty"`  // what is odd, and may keep gateways from using what is published
}

// clockTolerance is how far clocks of nodes may differ without a word.
const clockTolerance = time.Minute

// Status returns the condition at this moment.
func (r *Registry) Status() Status {
	st, p := r.State(), r.pub.status.Load()
	s := Status{
		Instance: st.instance, Node: r.cfg.Node, Entries: st.number,
		Published: p.number, At: p.at, Expires: p.expires, Versions: p.versions, Failed: p.failed,
		Healthy: p.err == nil && r.cfg.Now().Before(p.expires),
	}
	if now := r.cfg.Now(); st.time.After(now.Add(clockTolerance)) {
		s.Warning = fmt.Sprintf("the clock of this machine says %s, but the last change is of %s; set it right, or gateways take what is published for outdated",
			now.UTC().Format(time.RFC3339), st.time.UTC().Format(time.RFC3339))
	}
	if p.err != nil {
		s.Error = p.err.Error()
	}
	if t := r.trouble.Load(); t != nil && t.err != nil {
		s.Healthy = false
		s.Error = strings.TrimPrefix(s.Error+"; "+t.err.Error(), "; ")
	}
	return s
}
