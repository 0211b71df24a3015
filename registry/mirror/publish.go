// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"kontor/registry/globalconf"
)

// site is what is served at one moment. It never changes.
type site struct {
	directories map[int]*directory
	files       map[string]string // below public, by escaped URL path
}

// directory is one version as it is served.
type directory struct {
	generation string // of what it was made from
	folder     string
	doc        []byte // signed
	expires    time.Time
	parts      []globalconf.Part
	files      map[string]string
}

// openPublic empties the folder of parts: their directories are gone with the
// process that signed them. Generations go on counting from the last one.
func (m *Mirror) openPublic() error {
	dir := filepath.Join(m.dir, publicDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if m.public, err = os.OpenRoot(dir); err != nil {
		return err
	}
	entries, err := fs.ReadDir(m.public.FS(), ".")
	if err != nil {
		return errors.Join(err, m.public.Close())
	}
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil {
			m.last = max(m.last, n)
		}
	}
	for _, e := range entries {
		if err := m.public.RemoveAll(e.Name()); err != nil {
			return errors.Join(err, m.public.Close())
		}
	}
	return nil
}

// publish brings what is served in line with what is downloaded. A version that
// fails keeps what it had.
func (m *Mirror) publish(ctx context.Context) error {
	now := m.cfg.Now()
	old := m.site.Load()
	next := &site{directories: maps.Clone(old.directories), files: map[string]string{}}
	if next.directories == nil {
		next.directories = map[int]*directory{}
	}
	var errs []error
	for v, u := range m.upstream {
		view := u.client.View()
		if view == nil || view.Valid(now) != nil {
			continue // what is served has expired, too
		}
		had := old.directories[v]
		d, err := m.directory(ctx, v, view, had, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("version %d: %w", v, err))
			continue
		}
		next.directories[v] = d
		if had != nil && had.folder != d.folder {
			m.replaced = append(m.replaced, replaced{had.folder, slices.Collect(maps.Keys(had.files)), now})
		}
	}
	for _, d := range next.directories {
		maps.Copy(next.files, d.files)
	}
	m.replaced = slices.DeleteFunc(m.replaced, func(r replaced) bool {
		if now.Sub(r.at) >= keepParts {
			if err := m.public.RemoveAll(r.folder); err != nil {
				m.cfg.Log.Warn("old configuration parts were not removed", zap.Error(err))
			}
			return true
		}
		for _, p := range r.paths {
			next.files[p] = old.files[p]
		}
		return false
	})
	m.site.Store(next)
	return errors.Join(errs...)
}

// directory signs what was downloaded of one version. had is what is served of
// it; its parts stay where they are if nothing has changed.
func (m *Mirror) directory(ctx context.Context, v int, view *globalconf.View, had *directory, now time.Time) (*directory, error) {
	// A partner's configuration about to expire is left out, lest it shorten the
	// life of the whole.
	expires := now.Add(m.cfg.Validity)
	if at := view.Expires(); at.Before(expires) {
		expires = at
	}
	least := now.Add(expires.Sub(now) / 2)
	instances := view.Instances()[:1]
	for _, name := range view.Instances()[1:] {
		if _, at := view.Documents(name); at.After(least) {
			instances = append(instances, name)
			if at.Before(expires) {
				expires = at
			}
		}
	}
	d := &directory{generation: view.Generation() + " " + strings.Join(instances, " "), expires: expires.Truncate(time.Millisecond)}
	var files map[string][]byte // by URL path, if new
	if had != nil && had.generation == d.generation {
		d.folder, d.parts, d.files = had.folder, had.parts, had.files
	} else {
		var err error
		if files, err = m.render(d, v, view, instances, now); err != nil {
			return nil, err
		}
	}
	listed := &globalconf.Directory{Version: v, Expires: d.expires, Parts: d.parts, Proxy: true}
	var err error
	if d.doc, err = listed.Sign(m.key, m.cert); err != nil {
		return nil, err
	}
	if files == nil {
		return d, nil
	}
	if err := m.rehearse(ctx, v, d, files); err != nil {
		return nil, fmt.Errorf("our own reader refuses it: %w", err)
	}
	return d, m.write(d, files)
}

// render lists the parts and rewrites what names the registry.
func (m *Mirror) render(d *directory, v int, view *globalconf.View, instances []string, now time.Time) (map[string][]byte, error) {
	m.last = max(m.last+1, now.UnixMilli())
	d.folder = strconv.FormatInt(m.last, 10)
	d.files = map[string]string{}
	files := map[string][]byte{}
	for i, name := range instances {
		docs, _ := view.Documents(name)
		for _, doc := range docs {
			content := []byte(doc.Content)
			if i == 0 && v >= 3 && doc.Identifier == globalconf.ContentSharedParams {
				var err error
				certs := [][]byte{m.cert.Raw}
				content, err = globalconf.ReplaceSources(content, v, []globalconf.Source{{Address: m.host(), InternalCerts: certs, ExternalCerts: certs}})
				if err != nil {
					return nil, err
				}
			}
			at := m.path(path.Join(d.folder, url.PathEscape(name), original(&doc)))
			if _, double := files[at]; double {
				return nil, fmt.Errorf("two parts are at %s", at)
			}
			p := globalconf.NewPart(doc.Identifier, name, at, content)
			p.FileName = doc.FileName
			d.parts = append(d.parts, p)
			d.files[at] = d.folder + "/" + strconv.Itoa(len(files)) + ".xml"
			files[at] = content
		}
	}
	return files, nil
}

// original is the location that the registry gave to a part, without what would
// lead elsewhere.
func original(doc *globalconf.Document) string {
	u, err := url.Parse(doc.Location)
	if err != nil {
		return url.PathEscape(doc.Identifier)
	}
	return path.Clean("/" + u.EscapedPath())
}

// rehearse has the client that gateways use load what is about to be served, by
// the mirror's anchor, in memory.
func (m *Mirror) rehearse(ctx context.Context, v int, d *directory, files map[string][]byte) error {
	stage := stage(maps.Clone(files))
	stage[m.path("conf")] = d.doc
	client, err := globalconf.NewClient(globalconf.ClientConfig{
		Anchor: m.anchorXML, External: m.cfg.External, Version: v, HTTP: &http.Client{Transport: stage}, Now: m.cfg.Now})
	if err != nil {
		return err
	}
	return client.Update(ctx)
}

// stage answers requests with files by path, as a web server would.
type stage map[string][]byte

func (s stage) RoundTrip(req *http.Request) (*http.Response, error) {
	res := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req}
	doc, ok := s[req.URL.EscapedPath()]
	if !ok {
		res.StatusCode = http.StatusNotFound
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(doc)), int64(len(doc))
	return res, nil
}

// write puts the parts on disk. They need not survive a crash.
func (m *Mirror) write(d *directory, files map[string][]byte) error {
	if err := m.public.Mkdir(d.folder, 0o700); err != nil {
		return err
	}
	for at, content := range files {
		if err := m.public.WriteFile(d.files[at], content, 0o600); err != nil {
			return errors.Join(err, m.public.RemoveAll(d.folder))
		}
	}
	return nil
}
