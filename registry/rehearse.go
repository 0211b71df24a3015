// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"kontor/registry/globalconf"
)

// rehearse has the client that gateways use load what is about to be
// published: the newest version from its signed directory, by the anchor, in
// memory. The other versions say the same in fewer words.
func (r *Registry) rehearse(ctx context.Context, st *State, directories map[string][]byte, g *generation) error {
	if g.parts[0].content == nil {
		return nil // only signed anew
	}
	anchor, err := st.nodeAnchor(Internal, r.cfg.Node)
	if err != nil {
		return err
	}
	files := stage{}
	for name, doc := range directories {
		files["/"+name] = doc
	}
	for _, c := range g.parts {
		files[c.part.Location] = c.content
	}
	client, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: anchor, HTTP: &http.Client{Transport: files}, Now: r.cfg.Now})
	if err != nil {
		return err
	}
	if err := client.Update(ctx); err != nil {
		return err
	}
	view := client.View()
	if err := view.Valid(r.cfg.Now()); err != nil {
		return err
	}
	if problems := view.Problems(); len(problems) > 0 {
		return errors.Join(problems...)
	}
	if view.Instance() != st.instance || view.Version() != maxVersion {
		return fmt.Errorf("version %d of instance %s was loaded", view.Version(), view.Instance())
	}
	return nil
}

// stage answers requests with files by path, as a web server would.
type stage map[string][]byte

func (s stage) RoundTrip(req *http.Request) (*http.Response, error) {
	name := req.URL.Path
	if v := req.URL.Query().Get("version"); v != "" {
		name = path.Join("/V"+v, strings.TrimPrefix(name, "/"))
	}
	res := &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Request: req,
	}
	doc, ok := s[name]
	if !ok {
		res.StatusCode, res.Status = http.StatusNotFound, "404 Not Found"
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(doc)), int64(len(doc))
	return res, nil
}
