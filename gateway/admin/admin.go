// SPDX-License-Identifier: Apache-2.0

// Package admin is the administration API of a gateway, over HTTPS, and its Go
// client. The API describes itself at /openapi.json.
//
// A caller proves itself with an API key, in X-Road's header form
// "Authorization: X-Road-ApiKey token=…". Keys are kept as hashes, each with
// its roles. Every call is written to the audit log: who, what, from where,
// with which outcome.
package admin

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"kontor/gateway/msglog"
	"kontor/gateway/signer"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// MessageLog is what the API needs of the message log.
type MessageLog interface {
	Find(context.Context, msglog.Query) iter.Seq2[*msglog.Entry, error]
	ExportZip(ctx context.Context, w io.Writer, q msglog.Query, force bool) (int, error)
}

// Roles of API keys.
const (
	RoleOperator = "operator" // keys, clients, services, and all that an auditor may
	RoleAuditor  = "auditor"  // the message log
)

var errRole = errors.New("role missing")

// Config holds what the API administers.
type Config struct {
	Log    MessageLog
	Keys   func() []signer.KeyStatus
	Tokens *guard.Keys // with RoleOperator and RoleAuditor
	Logger *zap.Logger // also the audit log; nil: silence
}

// Handler returns the API.
func Handler(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("Kontor gateway administration", "1")
	hc.DocsPath = "" // its page would load scripts from elsewhere
	hc.Transformers = append(hc.Transformers, guard.Problems)
	hc.RejectUnknownQueryParameters = true
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey": {Type: "apiKey", In: "header", Name: "Authorization", Description: "X-Road-ApiKey token=…"},
	}
	api := humago.New(mux, hc)
	s := &server{cfg}
	api.UseMiddleware(s.authenticate(api))
	secured := func(op huma.Operation, roles ...string) huma.Operation {
		op.Security = []map[string][]string{{"apiKey": {}}}
		op.Metadata = map[string]any{"roles": roles}
		return op
	}
	huma.Register(api, secured(huma.Operation{
		OperationID: "find-records", Method: http.MethodGet, Path: "/api/v1/messagelog", Summary: "Find records of the message log",
	}, RoleAuditor, RoleOperator), s.find)
	huma.Register(api, secured(huma.Operation{
		OperationID: "export-records", Method: http.MethodGet, Path: "/api/v1/messagelog/export", Summary: "Export records as a zip of ASiC-E containers",
		Description: "Without time-stamp a record is refused with 409; force=true obtains one first.",
	}, RoleAuditor, RoleOperator), s.export)
	huma.Register(api, secured(huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/api/v1/keys", Summary: "List keys and certificates and whether they can be used",
	}, RoleOperator), s.keys)
	return http.MaxBytesHandler(mux, 1<<20)
}

type server struct{ cfg Config }

// authenticate refuses callers without a key of one of the operation's roles,
// and writes the audit log.
func (s *server) authenticate(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		who, err := s.cfg.Tokens.Authenticate(ctx.Header("Authorization"))
		status, text := http.StatusUnauthorized, "give a valid API key: Authorization: X-Road-ApiKey token=…"
		if err == nil {
			roles, _ := ctx.Operation().Metadata["roles"].([]string)
			if !who.HasOneOf(roles) {
				status, text, err = http.StatusForbidden, "the API key has none of the roles that this operation needs", errRole
			}
		}
		if err != nil {
			s.audit(ctx, who.Name, status)
			_ = huma.WriteErr(api, ctx, status, text) // the caller may have gone
			return
		}
		next(ctx)
		s.audit(ctx, who.Name, ctx.Status())
	}
}

func (s *server) audit(ctx huma.Context, who string, status int) {
	u := ctx.URL()
	s.cfg.Logger.Info("audit", zap.String("who", who), zap.String("from", ctx.RemoteAddr()),
		zap.String("operation", ctx.Operation().OperationID), zap.String("query", u.RawQuery), zap.Int("status", status))
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
		q.Client, err = id.ParseClient(s.Client)
		errs = append(errs, err)
	}
	if s.Service != "" {
		var err error
		q.Service, err = id.ParseService(s.Service)
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
		return q, huma.Error422UnprocessableEntity(err.Error())
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

func (s *server) find(ctx context.Context, in *struct{ Selection }) (*recordList, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	out := new(recordList)
	out.Body.Records = []Record{}
	for e, err := range s.cfg.Log.Find(ctx, q) {
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

func (s *server) export(ctx context.Context, in *struct {
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
		n, err := s.cfg.Log.ExportZip(ctx, first, q, in.Force)
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
			s.cfg.Logger.Warn("export broke off", zap.Error(err))
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

type keyList struct {
	Body struct {
		Keys []signer.KeyStatus `json:"keys"`
	}
}

func (s *server) keys(context.Context, *struct{}) (*keyList, error) {
	out := new(keyList)
	out.Body.Keys = s.cfg.Keys()
	return out, nil
}

// logError turns the log's errors into statuses.
func logError(err error) error {
	switch {
	case errors.Is(err, msglog.ErrNotFound):
		return huma.Error404NotFound("no such record in the message log")
	case errors.Is(err, msglog.ErrNotStamped):
		return huma.Error409Conflict("a record is not time-stamped yet; wait for the next time-stamp or use force", err)
	case errors.Is(err, msglog.ErrClosed):
		return huma.Error503ServiceUnavailable("the gateway is stopping")
	}
	return huma.Error500InternalServerError("the message log could not be read", err)
}
