// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"kontor/gateway/msglog"
	"kontor/registry/guard"
	"kontor/registry/id"
)

func (a *API) registerMessageLog() {
	register(a, operation{id: "find-records", method: http.MethodGet, path: "/messagelog", summary: "Find records of the message log",
		roles: []string{RoleAuditor}}, a.find)
	register(a, operation{id: "export-records", method: http.MethodGet, path: "/messagelog/export", summary: "Export records as a zip of ASiC-E containers",
		description: "Without time-stamp a record is refused with 409; force=true obtains one first.", roles: []string{RoleAuditor}}, a.export)
}

// Selection chooses records; empty fields do not narrow.
type Selection struct {
	MessageID string    `query:"message_id" doc:"Message id (x-road-id)"`
	From      time.Time `query:"from" doc:"Not before this time"`
	To        time.Time `query:"to" doc:"Before this time"`
	Client    string    `query:"client" doc:"Client, as instance/class/member/subsystem"`
	Service   string    `query:"service" doc:"Service, as instance/class/member/subsystem/service"`
	Side      string    `query:"side" enum:"client,server," doc:"Role of this gateway: client or server proxy"`
	Direction string    `query:"direction" enum:"request,response,"`
	After     uint64    `query:"after" doc:"Continue behind this record"`
	Limit     int       `query:"limit" minimum:"0" maximum:"10000" doc:"At most so many records; 0: 100 for lists, all for exports"`
	Newest    bool      `query:"newest" doc:"Newest first"`
}

func (s *Selection) query() (msglog.Query, error) {
	q := msglog.Query{MessageID: s.MessageID, From: s.From, To: s.To, After: s.After, Limit: s.Limit, Newest: s.Newest}
	var errs []error
	if s.Client != "" {
		var err error
		q.Client, err = id.ParseClient(slashes(s.Client))
		errs = append(errs, err)
	}
	if s.Service != "" {
		var err error
		q.Service, err = id.ParseService(slashes(s.Service))
		errs = append(errs, err)
	}
	switch s.Side {
	case "client":
		q.Side = msglog.Client
	case "server":
		q.Side = msglog.Server
	}
	switch s.Direction {
	case "request":
		q.Direction = msglog.Requests
	case "response":
		q.Direction = msglog.Responses
	}
	if err := errors.Join(errs...); err != nil {
		return q, invalid("give a client as instance/class/member/subsystem, and a service with its code behind that", "%v", err)
	}
	return q, nil
}

// Record is one row of the message log.
type Record struct {
	Seq           uint64    `json:"seq"`
	Time          time.Time `json:"time"`
	Side          string    `json:"side"`
	Direction     string    `json:"direction"`
	MessageID     string    `json:"message_id"`
	RequestID     string    `json:"request_id"`
	Client        string    `json:"client"`
	Service       string    `json:"service"`
	ClientServer  string    `json:"client_server,omitempty"`
	ServiceServer string    `json:"service_server,omitempty"`
	BodyBytes     int64     `json:"body_bytes"`
	Stamped       bool      `json:"stamped"`
}

type recordList struct {
	Body struct {
		Records []Record `json:"records"`
	}
}

func (a *API) find(ctx context.Context, in *struct{ Selection }) (*recordList, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	out := new(recordList)
	out.Body.Records = []Record{}
	for e, err := range a.Log.Find(ctx, q) {
		if err != nil {
			return nil, logError(err)
		}
		direction := "request"
		if e.Response {
			direction = "response"
		}
		out.Body.Records = append(out.Body.Records, Record{
			Seq: e.Seq, Time: e.Time, Side: e.Side.String(), Direction: direction, MessageID: e.MessageID, RequestID: e.RequestID,
			Client: e.Client.String(), Service: e.Service.String(), ClientServer: serverText(e.ClientServer),
			ServiceServer: serverText(e.ServiceServer), BodyBytes: e.BodySize, Stamped: e.Stamped,
		})
	}
	return out, nil
}

func serverText(s id.SecurityServer) string {
	if s.IsZero() {
		return ""
	}
	return s.String()
}

func (a *API) export(ctx context.Context, in *struct {
	Selection
	Force bool `query:"force" doc:"Obtain missing time-stamps first"`
}) (*huma.StreamResponse, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	// The first bytes decide: until then an error can still be a status.
	first := &firstWrite{ready: make(chan struct{})}
	done := make(chan error, 1)
	r, w := io.Pipe()
	first.w = w
	go func() {
		n, err := a.Log.ExportZip(ctx, first, q, in.Force)
		if err == nil && n == 0 {
			err = msglog.ErrNotFound
		}
		done <- err
		w.CloseWithError(err)
	}()
	select {
	case <-first.ready:
	case err := <-done:
		if err != nil {
			return nil, logError(err)
		}
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", "application/zip")
		hctx.SetHeader("Content-Disposition", `attachment; filename="messagelog.zip"`)
		if _, err := io.Copy(hctx.BodyWriter(), r); err != nil {
			a.Logger.Warn("export broke off", zap.Error(err))
			r.CloseWithError(err)
			panic(http.ErrAbortHandler) // a cut connection, not a zip that looks whole
		}
	}}, nil
}

// firstWrite tells when something has been written.
type firstWrite struct {
	w     io.Writer
	ready chan struct{}
	begun bool
}

func (f *firstWrite) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		close(f.ready)
	}
	return f.w.Write(p)
}

// logError turns the log's errors into problems.
func logError(err error) error {
	switch {
	case errors.Is(err, msglog.ErrNotFound):
		return problem(http.StatusNotFound, guard.CodeUnknown, "see kontor log find", "there is no such record in the message log")
	case errors.Is(err, msglog.ErrNotStamped):
		return problem(http.StatusConflict, "not_stamped", "wait for the next time-stamp, or use force", "a record is not time-stamped yet: %v", err)
	case errors.Is(err, msglog.ErrClosed):
		return problem(http.StatusServiceUnavailable, guard.CodeUnavailable, "try again when it runs", "the gateway is stopping")
	}
	return err
}
