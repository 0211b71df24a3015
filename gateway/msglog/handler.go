// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"go.uber.org/zap"

	"kontor/registry/id"
)

// HandlerConfig describes the download of signed documents.
type HandlerConfig struct {
	Log *Log
	// Authenticate returns an error if the caller may not have the records of
	// client, be it that the client is unknown or that its connection is not of
	// the type configured for it. The text of the error is sent to the caller.
	Authenticate func(r *http.Request, client id.Client) error
	Logger       *zap.Logger // nil means silence
}

// maxDownload bounds the records of one message id in one download; ids are
// chosen by clients and nothing keeps them from using one for ever.
const maxDownload = 10_000

// Handler serves X-Road's "GET /asic": the containers of the messages of one
// id, to the client they belong to. The path is not examined.
func Handler(cfg HandlerConfig) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &handler{cfg}
}

type handler struct{ HandlerConfig }

// refusal is an error with its HTTP status; the text is public.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &countingWriter{ResponseWriter: w}
	err := h.serve(out, r)
	if err == nil {
		return
	}
	if out.n > 0 {
		h.Logger.Warn("download of signed documents broke off", zap.Error(err))
		// The status is sent; only a broken connection can still tell the
		// client that the file is not whole.
		panic(http.ErrAbortHandler)
	}
	var ref *refusal
	if !errors.As(err, &ref) {
		h.Logger.Error("download of signed documents", zap.Error(err))
		ref = refuse(http.StatusInternalServerError, "signed documents cannot be read, see the log of the security server")
	}
	for _, name := range []string{"Content-Disposition", "Content-Type"} {
		w.Header().Del(name)
	}
	http.Error(w, ref.text, ref.status)
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return refuse(http.StatusMethodNotAllowed, "only GET is supported")
	}
	p, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed query")
	}
	client, err := clientParameter(p)
	if err != nil {
		return err
	}
	if err := h.Authenticate(r, client); err != nil {
		return refuse(http.StatusUnauthorized, "%v", err)
	}
	q, unique, err := queryParameters(p)
	if err != nil {
		return err
	}
	entries, err := h.find(r.Context(), q, client)
	if err != nil {
		return err
	}
	if err := h.stamp(r.Context(), entries, p.Has("force")); err != nil {
		return err
	}
	if unique {
		return h.writeContainer(r.Context(), w, entries[0])
	}
	name := escape(q.MessageID)
	if q.Direction != Both {
		name += "-" + direction(q.Direction == Responses)
	}
	setFile(w, "application/zip", name+".zip")
	_, err = h.Log.writeZip(r.Context(), w, func(yield func(*Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}, false)
	return err
}

func mandatory(p url.Values, name string) (string, error) {
	if v := p.Get(name); v != "" {
		return v, nil
	}
	return "", refuse(http.StatusBadRequest, "Parameter %q must be specified.", name)
}

func clientParameter(p url.Values) (id.Client, error) {
	var part [3]string
	for i, name := range []string{"xRoadInstance", "memberClass", "memberCode"} {
		v, err := mandatory(p, name)
		if err != nil {
			return id.Client{}, err
		}
		part[i] = v
	}
	m, err := id.NewMember(part[0], part[1], part[2])
	if err != nil {
		return id.Client{}, refuse(http.StatusBadRequest, "%v", err)
	}
	if !p.Has("subsystemCode") {
		return m.Client(), nil
	}
	c, err := id.NewClient(m, p.Get("subsystemCode"))
	if err != nil {
		return id.Client{}, refuse(http.StatusBadRequest, "%v", err)
	}
	return c, nil
}

func queryParameters(p url.Values) (q Query, unique bool, err error) {
	if q.MessageID, err = mandatory(p, "queryId"); err != nil {
		return q, false, err
	}
	requests, responses := p.Has("requestOnly"), p.Has("responseOnly")
	switch {
	case requests && responses:
		return q, false, refuse(http.StatusBadRequest, `Parameters "requestOnly" and "responseOnly" cannot be used at the same time.`)
	case requests:
		q.Direction = Requests
	case responses:
		q.Direction = Responses
	case p.Has("unique"):
		return q, false, refuse(http.StatusBadRequest, `Parameter "unique" not applicable without "requestOnly" or "responseOnly".`)
	}
	return q, p.Has("unique"), nil
}

// find returns the client's own records. X-Road does not compare the instance:
// all clients of a security server are of one.
func (h *handler) find(ctx context.Context, q Query, client id.Client) ([]*Entry, error) {
	var found []*Entry
	for e, err := range h.Log.Find(ctx, q) {
		if err != nil {
			return nil, err
		}
		if !sameClient(e.Holder(), client) {
			continue
		}
		if found = append(found, e); len(found) > maxDownload {
			return nil, refuse(http.StatusInternalServerError, "more than %d records have this id; ask the operator to export them", maxDownload)
		}
	}
	if len(found) == 0 {
		return nil, refuse(http.StatusNotFound, "No signed documents found")
	}
	return found, nil
}

func sameClient(a, b id.Client) bool {
	return a.Member().Class() == b.Member().Class() && a.Member().Code() == b.Member().Code() &&
		a.IsMember() == b.IsMember() && a.Subsystem() == b.Subsystem()
}

// stamp makes sure that all entries are time-stamped.
func (h *handler) stamp(ctx context.Context, entries []*Entry, force bool) error {
	if !slices.ContainsFunc(entries, func(e *Entry) bool { return !e.Stamped }) {
		return nil
	}
	if !force {
		return refuse(http.StatusInternalServerError, "Message signature has not been timestamped yet!")
	}
	if err := h.Log.StampNow(ctx); err != nil {
		h.Logger.Warn("time-stamping for a download failed", zap.Error(err))
		return refuse(http.StatusInternalServerError, "Could not create missing timestamp!")
	}
	return nil
}

func (h *handler) writeContainer(ctx context.Context, w http.ResponseWriter, e *Entry) error {
	c, err := h.Log.container(ctx, e, false, new(chainCache))
	if err != nil {
		return err
	}
	setFile(w, "application/vnd.etsi.asic-e+zip", FileName(e))
	_, err = c.WriteTo(w)
	return err
}

func setFile(w http.ResponseWriter, contentType, name string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

// countingWriter knows whether the answer has begun.
type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
