// SPDX-License-Identifier: Apache-2.0

// Package admin is the administration API of a gateway, over HTTPS, and its Go
// client. The API describes itself at /openapi.json.
//
// A caller proves itself with an API key, in X-Road's header form
// "Authorization: X-Road-ApiKey token=…". Keys are kept as hashes, each with
// its roles. Every call that changes something, and every refused one, is
// written to the audit log: who, what, from where, with which outcome. A change
// is recorded, durably, before it begins and again when it has ended.
//
// What exists has an ETag. A call that changes or deletes it names in If-Match
// the state that its caller has seen, so that of two operators at work one is
// told.
package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"kontor/gateway/msglog"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// Roles of API keys. Every role but that of the auditor may read everything
// except the message log and the API keys.
const (
	RoleSecurityOfficer      = "security-officer"      // keys, certificates, the token's PIN
	RoleRegistrationOfficer  = "registration-officer"  // clients
	RoleServiceAdministrator = "service-administrator" // how clients connect, their groups, services and access rights
	RoleSystemAdministrator  = "system-administrator"  // everything, API keys among it
	RoleAuditor              = "auditor"               // the message log
	RoleObserver             = "observer"              // reads
)

// Roles returns all roles.
func Roles() []string {
	return []string{RoleSecurityOfficer, RoleRegistrationOfficer, RoleServiceAdministrator, RoleSystemAdministrator, RoleAuditor, RoleObserver}
}

func readers() []string {
	return []string{RoleObserver, RoleSecurityOfficer, RoleRegistrationOfficer, RoleServiceAdministrator}
}

// MessageLog is what the API needs of the message log.
type MessageLog interface {
	Find(context.Context, msglog.Query) iter.Seq2[*msglog.Entry, error]
	ExportZip(ctx context.Context, w io.Writer, q msglog.Query, force bool) (int, error)
	Stats() msglog.Stats
}

// Signer is what the API needs of the signer: the usability of every
// certificate, and good OCSP responses for active ones.
type Signer interface {
	Status() []signer.KeyStatus
	Refresh(context.Context) error
	OCSP(hash string) ([]byte, bool)
}

// Config holds what the API administers. All fields without a stated default
// are mandatory.
type Config struct {
	Server id.SecurityServer
	Token  *pki.Token // that of the running gateway
	Signer Signer
	Conf   *serverconf.Store
	View   func() *globalconf.View // may return nil
	// GlobalConf tells how the download of the global configuration fares.
	GlobalConf func() globalconf.Stats
	Log        MessageLog
	// Operational is the operational data; nil: none is kept.
	Operational OperationalData
	Renewal     Renewal // nil: no certificates by ACME
	// ChangePIN changes the PIN of the token, durably, also where the gateway
	// reads it at its next start. A wrong old PIN is pki.ErrWrongPIN.
	ChangePIN func(old, new []byte) error
	// Requests is a folder for requests to the registry whose outcome is not
	// known yet; it is made when it is needed.
	Requests string
	// Manage sends requests to the registry through the client proxy of this
	// security server, as an information system of its owner.
	Manage  *request.Client
	APIKeys *guard.Keys // with Roles
	Audit   *guard.Audit
	Logger  *zap.Logger      // nil: silence
	Now     func() time.Time // nil: time.Now
}

// API is the administration API. It is safe for concurrent use.
type API struct {
	Config
	huma    huma.API
	handler http.Handler
	strange *budget // of audit records for callers without a key
	nudge   chan struct{}
	repeats repeats

	mu     sync.Mutex // held while keys and certificates are checked and then changed
	asking sync.Mutex // held while the registry is asked for something; before mu
}

const (
	prefix  = "/api/v1"
	maxBody = 1 << 20
)

// New returns the API.
func New(cfg Config) (*API, error) {
	if cfg.Server.IsZero() || cfg.Token == nil || cfg.Signer == nil || cfg.Conf == nil || cfg.View == nil || cfg.GlobalConf == nil ||
		cfg.Log == nil || cfg.ChangePIN == nil || cfg.Requests == "" || cfg.Manage == nil || cfg.APIKeys == nil || cfg.Audit == nil {
		return nil, errors.New("gateway administration: incomplete configuration")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &API{Config: cfg, strange: newBudget(cfg.Now), nudge: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("Kontor gateway administration", "1")
	hc.Info.Description = "Keys, certificates, clients, services, access rights and the message log of a security server. " +
		"Identifiers in paths have their parts separated by colons: DEV:GOV:1234:portal."
	hc.DocsPath = "" // its page would load scripts from elsewhere
	hc.SchemasPath = ""
	hc.CreateHooks = nil // no links to schemas in answers
	hc.RejectUnknownQueryParameters = true
	hc.Transformers = append(hc.Transformers, a.explain)
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey": {Type: "apiKey", In: "header", Name: "Authorization", Description: "X-Road-ApiKey token=…"},
	}
	a.huma = humago.New(mux, hc)
	a.huma.UseMiddleware(a.guard)
	a.registerStatus()
	a.registerKeys()
	a.registerCertificates()
	a.registerRegistration()
	a.registerClientRequests()
	a.registerServerRequests()
	a.registerEnrolments()
	a.registerClients()
	a.registerGroups()
	a.registerDescriptions()
	a.registerServices()
	a.registerAccess()
	a.registerMessageLog()
	a.registerOperational()
	a.registerAPIKeys()
	a.handler = guard.NewRate(cfg.Now).Limit(guard.Routed(mux))
	return a, nil
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// OpenAPI describes the API.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// operation is what the API can do for whom. The system administrator may
// do everything.
type operation struct {
	id, method, path     string
	summary, description string
	roles                []string
	status               int   // of success; 0: huma's default
	maxBody              int64 // bytes; 0: the usual
	secret               bool  // its body must not be written anywhere
}

func register[I, O any](a *API, op operation, handler func(context.Context, *I) (*O, error)) {
	roles := append(slices.Clone(op.roles), RoleSystemAdministrator)
	schema := a.huma.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem")
	description := op.description
	if description != "" {
		description += " "
	}
	var parameters []*huma.Param
	if op.method != http.MethodGet {
		most := maxIdempotencyKey
		parameters = []*huma.Param{{Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: "string", MaxLength: &most},
			Description: "Any text of the caller's that names this change; the call may be repeated with it for a day, or until the gateway restarts, and is done once"}}
	}
	huma.Register(a.huma, huma.Operation{
		Parameters:  parameters,
		OperationID: op.id, Method: op.method, Path: prefix + op.path, Summary: op.summary,
		Description:   description + "Roles: " + strings.Join(roles, ", ") + ".",
		DefaultStatus: op.status, MaxBodyBytes: cmp.Or(op.maxBody, maxBody),
		Security: []map[string][]string{{"apiKey": {}}},
		Metadata: map[string]any{"roles": roles, "secret": op.secret},
		Responses: map[string]*huma.Response{"default": {Description: "Refused or failed: why, and what to do",
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}}}},
	}, handler)
}

// item is an answer with its state.
type item[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

func answer[T any](etag string, body T) *item[T] { return &item[T]{etag, body} }

// list is an answer with many.
type list[T any] struct {
	Body struct {
		Items []T `json:"items"`
	}
}

func answerList[T any](items []T) *list[T] {
	l := new(list[T])
	if l.Body.Items = items; items == nil {
		l.Body.Items = []T{}
	}
	return l
}

type none struct{}

// etag names a state of something: two states that differ have different ones.
func etag(state any) string {
	b, err := json.Marshal(state)
	if err != nil {
		panic(err) // a type of ours that cannot be written
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// Seen is the state that a caller wants to change.
type Seen struct {
	IfMatch string `header:"If-Match" doc:"ETag of the state that you have seen, or * for any"`
}

// check refuses a change of another state than the caller has seen.
func (s Seen) check(current string) error {
	switch {
	case s.IfMatch == "":
		return guard.NewProblem(http.StatusPreconditionRequired, "if_match_needed", "the call does not say which state it is to change",
			"give in If-Match the ETag that a GET answers with, or * for any state")
	case s.IfMatch == "*":
		return nil
	}
	for tag := range strings.SplitSeq(s.IfMatch, ",") {
		if strings.TrimSpace(tag) == current {
			return nil
		}
	}
	return guard.NewProblem(http.StatusPreconditionFailed, guard.CodeChangedMeanwhile, "somebody changed it meanwhile", "look at it again, then repeat the call")
}

// checkIfGiven lets a caller be silent about the state.
func (s Seen) checkIfGiven(current string) error {
	if s.IfMatch == "" {
		return nil
	}
	return s.check(current)
}

func unknown(format string, args ...any) error {
	return problem(http.StatusNotFound, guard.CodeUnknown, "list what there is", format, args...)
}

func invalid(remedy, format string, args ...any) error {
	return problem(http.StatusUnprocessableEntity, guard.CodeInvalid, remedy, format, args...)
}

func exists(remedy, format string, args ...any) error {
	return problem(http.StatusConflict, guard.CodeExists, remedy, format, args...)
}

func inUse(remedy, format string, args ...any) error {
	return problem(http.StatusConflict, guard.CodeInUse, remedy, format, args...)
}

func noView() error {
	return problem(http.StatusServiceUnavailable, guard.CodeUnavailable, "see kontor gateway status; repeat the call when the registry can be reached",
		"there is no valid global configuration")
}
