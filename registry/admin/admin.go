// SPDX-License-Identifier: Apache-2.0

// Package admin is the administration API of a registry, over HTTPS, and its
// Go client. The API describes itself at /openapi.json.
//
// A caller proves itself with an API key, in X-Road's header form
// "Authorization: X-Road-ApiKey token=…"; the roles of the key say what it may
// do. Everything that changes the registry goes through registry.Update and is
// answered when it is in the journal and in the audit log, durably; publication
// follows.
//
// Two operators: each answer has an ETag, the number of the last journal entry.
// A change with If-Match is refused if since that entry anybody has changed
// the same thing.
//
// Repeated calls: a change with an Idempotency-Key that was done before is not
// done again but answered alike, for a day, also after a restart.
package admin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"kontor/registry"
	"kontor/registry/guard"
)

const (
	base = "/api/v1"

	maxBody        = 256 << 10 // bytes of a request
	maxDeclaration = 64 << 20  // bytes of a declaration with its files
	bodyTime       = 30 * time.Second
	longBodyTime   = 2 * time.Minute

	// maxBehind is how many journal entries are looked through for an If-Match.
	maxBehind = 10_000
)

// Config holds what the API administers.
type Config struct {
	Registry *registry.Registry
	Keys     *guard.Keys  // with Roles
	Audit    *guard.Audit // of every call that changes something
	Logger   *zap.Logger  // gets the audit records too; nil: silence
	Now      func() time.Time
}

// API is the administration API of a registry.
type API struct {
	cfg     Config
	api     huma.API
	handler http.Handler

	mu    sync.Mutex // held while a change is made
	calls *calls
}

// New returns the API. Changes that a crash kept out of the audit log are
// added to it from the journal.
func New(ctx context.Context, cfg Config) (*API, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("Kontor registry administration", "1")
	hc.Info.Description = "Changes are answered when they are durable; publication follows within seconds. " +
		"Errors are problem documents with a stable code, the reason, and what to do."
	hc.DocsPath, hc.SchemasPath = "", "" // no page with scripts from elsewhere
	hc.CreateHooks = nil
	hc.RejectUnknownQueryParameters = true
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey": {Type: "apiKey", In: "header", Name: "Authorization", Description: "X-Road-ApiKey token=…"},
	}
	a := &API{cfg: cfg, calls: newCalls(cfg.Registry, cfg.Now)}
	hc.Transformers = append(hc.Transformers, a.explain)
	a.api = humago.New(mux, hc)
	a.api.UseMiddleware(a.admit)
	a.registerMembers()
	a.registerServers()
	a.registerRequests()
	a.registerGroups()
	a.registerTrust()
	a.registerSystem()
	a.registerNodes()
	a.registerKeys()
	a.registerJournal()
	a.registerDeclarations()
	a.handler = guard.NewRate(cfg.Now).Limit(protect(guard.Routed(mux)))
	if err := a.completeAudit(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// ServeHTTP answers a call.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// protect keeps answers out of caches and pages.
func protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// operation describes one operation.
type operation struct {
	id, method, path, summary, description string
	roles                                  []string // one of them is needed
	status                                 int      // when it is done; 0: 200
	long                                   bool     // takes a declaration
	reads                                  bool     // changes nothing, although it is no GET
}

func (o operation) huma(a *API) huma.Operation {
	problem := a.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[guard.Problem](), true, "Problem")
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: base + o.path, Summary: o.summary, Description: o.description,
		DefaultStatus: cmp.Or(o.status, http.StatusOK), MaxBodyBytes: maxBody + 1, BodyReadTimeout: bodyTime,
		Security: []map[string][]string{{"apiKey": {}}},
		Metadata: map[string]any{"roles": o.roles, "changes": !o.reads && o.method != http.MethodGet},
		Tags:     []string{strings.SplitN(strings.TrimPrefix(o.path, "/"), "/", 2)[0]},
		Responses: map[string]*huma.Response{"default": {
			Description: "The call was refused or failed",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}},
		Extensions: map[string]any{"x-roles": o.roles},
	}
	if o.long {
		op.MaxBodyBytes, op.BodyReadTimeout = maxDeclaration+1, longBodyTime
	}
	return op
}

// answer is what an operation returns, with the journal entry that it is true for.
type answer[T any] struct {
	ETag string `header:"ETag" doc:"Number of the last journal entry, for If-Match"`
	Body T
}

func etag(number uint64) string { return `"` + strconv.FormatUint(number, 10) + `"` }

// read registers an operation that only reads, for every role.
func read[I, O any](a *API, o operation, get func(*I, *registry.State) (O, error)) {
	o.method = http.MethodGet
	if o.roles == nil {
		o.roles = Roles()
	}
	huma.Register(a.api, o.huma(a), func(_ context.Context, in *I) (*answer[O], error) {
		st := a.cfg.Registry.State()
		out, err := get(in, st)
		if err != nil {
			return nil, a.problem(err)
		}
		return &answer[O]{etag(st.Number()), out}, nil
	})
}

// ChangeTerms are the conditions of a change.
type ChangeTerms struct {
	Why            string `query:"why" maxLength:"2000" doc:"The reason, for the journal"`
	IfMatch        string `header:"If-Match" doc:"ETag of what the caller saw: refused with 412 if somebody changed the same thing since"`
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"Any text of the caller's that names this change; the call may be repeated with it for a day"`
}

// Done says what a call has changed.
type Done struct {
	Entry   uint64   `json:"entry" doc:"Last journal entry"`
	Changes []string `json:"changes" doc:"What was changed; empty if it was so already"`
}

type doneAnswer struct {
	ETag   string `header:"ETag" doc:"Number of the last journal entry, for If-Match"`
	Repeat string `header:"Idempotency-Replayed" doc:"true if an earlier call with this idempotency key had done it"`
	Body   Done
}

// change registers an operation that changes the registry.
func change[I any](a *API, o operation, choose func(*I, *registry.State) ([]registry.Change, error)) {
	huma.Register(a.api, o.huma(a), func(ctx context.Context, in *I) (*doneAnswer, error) {
		return a.change(ctx, func(by registry.Author, choices chooser) (uint64, error) {
			return a.cfg.Registry.Update(ctx, by, func(st *registry.State) ([]registry.Change, error) {
				changes, err := choose(in, st)
				if err != nil {
					return nil, err
				}
				return changes, choices(st, changes)
			})
		})
	})
}

// chooser is shown the changes before they are made, and may refuse them.
// Without a state they are made already.
type chooser func(*registry.State, []registry.Change) error

// change makes a change once, if the caller may, and records it.
func (a *API) change(ctx context.Context, apply func(registry.Author, chooser) (uint64, error)) (*doneAnswer, error) {
	c := callOf(ctx)
	if err := a.cfg.Audit.Usable(); err != nil {
		return nil, a.refused(c, auditUnusable())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	earlier, err := a.calls.find(ctx, c.name)
	if err != nil {
		return nil, a.refused(c, a.problem(err))
	}
	if earlier != nil {
		return a.repeat(c, earlier)
	}
	texts := []string{}
	entry, err := apply(registry.Author{Who: c.record.Who, Why: c.record.Why, Request: callPrefix + c.name}, func(st *registry.State, changes []registry.Change) error {
		for _, change := range changes {
			if _, role := about(change); !slices.Contains(c.key.Roles, role) {
				return guard.NewProblem(http.StatusForbidden, guard.CodeRoleNeeded,
					fmt.Sprintf("%s: this takes the role %s", change, role), "use an API key with that role")
			}
			texts = append(texts, change.String())
		}
		if st == nil { // they are made already
			return nil
		}
		return a.unchanged(ctx, c.ifMatch, st, subjects(changes)...)
	})
	c.record.What = texts
	if err != nil {
		return nil, a.refused(c, a.problem(err))
	}
	done := Done{Entry: entry, Changes: texts}
	if len(texts) == 0 { // the journal does not tell
		a.calls.remember(c.name, a.cfg.Now(), entry)
	}
	return a.done(c, done, false)
}

func auditUnusable() *guard.Problem {
	return guard.NewProblem(http.StatusServiceUnavailable, guard.CodeUnavailable,
		"nothing can be changed: the audit log cannot be written", "free its disk, then restart the registry")
}

// carryOut is change for what the registry changes by itself: something about
// subject.
func (a *API) carryOut(ctx context.Context, subject string, do func(registry.Author) error) (*doneAnswer, error) {
	return a.change(ctx, func(by registry.Author, tell chooser) (uint64, error) {
		st := a.cfg.Registry.State()
		before := st.Number()
		if err := a.unchanged(ctx, callOf(ctx).ifMatch, st, subject); err != nil {
			return 0, err
		}
		if err := do(by); err != nil {
			return 0, err
		}
		last := before
		err := a.cfg.Registry.Journal(ctx, before+1, func(e *registry.Entry) error {
			if e.Author.Request != by.Request {
				return nil // somebody else's, meanwhile
			}
			last = e.Number
			return tell(nil, []registry.Change{e.Change})
		})
		return last, err
	})
}

// repeat answers a call that was made before.
func (a *API) repeat(c *call, earlier *made) (*doneAnswer, error) {
	if _, content := splitName(c.name); content != earlier.content {
		return nil, a.refused(c, guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeKeyReused,
			"this idempotency key was used for another call", "use a new key for each change"))
	}
	c.record.What = earlier.done.Changes
	return a.done(c, earlier.done, true)
}

func (a *API) done(c *call, done Done, repeated bool) (*doneAnswer, error) {
	c.record.Outcome, c.record.Status, c.record.Entry = guard.Done, c.status, done.Entry
	out := &doneAnswer{ETag: etag(done.Entry), Body: done}
	if repeated {
		out.Repeat, c.record.Text = "true", "repeated call; it was done before"
	}
	if err := a.audit(c); err != nil {
		return nil, guard.NewProblem(http.StatusInternalServerError, guard.CodeInternal,
			fmt.Sprintf("the change was made (journal entry %d) but could not be written to the audit log", done.Entry), "free its disk, then restart the registry")
	}
	return out, nil
}

// subjects are what the changes are about.
func subjects(changes []registry.Change) []string {
	var all []string
	for _, c := range changes {
		subject, _ := about(c)
		all = append(all, subject)
	}
	return all
}

// unchanged refuses to change what somebody else has changed since the caller
// saw it.
func (a *API) unchanged(ctx context.Context, ifMatch string, st *registry.State, mine ...string) error {
	if ifMatch == "" || ifMatch == "*" {
		return nil
	}
	text, ok := strings.CutPrefix(strings.TrimPrefix(ifMatch, "W/"), `"`)
	text, closed := strings.CutSuffix(text, `"`)
	seen, err := strconv.ParseUint(text, 10, 64)
	if !ok || !closed || err != nil {
		return guard.NewProblem(http.StatusBadRequest, guard.CodeMalformed, "If-Match is not an ETag of this API", "send the ETag that came with what you saw")
	}
	if seen == st.Number() {
		return nil
	}
	if seen > st.Number() || st.Number()-seen > maxBehind {
		return stale("too much has changed since the caller saw it")
	}
	known := map[string]bool{"": true}
	for _, subject := range mine {
		known[subject] = true
	}
	return a.cfg.Registry.Journal(ctx, seen+1, func(e *registry.Entry) error {
		if subject, _ := about(e.Change); known[subject] {
			return stale(fmt.Sprintf("meanwhile %s has changed it: %s (entry %d)", e.Author.Who, e.Change, e.Number))
		}
		return nil
	})
}

func stale(why string) error {
	return guard.NewProblem(http.StatusPreconditionFailed, guard.CodeChangedMeanwhile, why, "look at it again, then decide again")
}

// statuses of the kinds of refusal.
var statuses = []struct {
	kind   error
	status int
	code   string
}{
	{registry.ErrInvalid, http.StatusUnprocessableEntity, guard.CodeInvalid},
	{registry.ErrExists, http.StatusConflict, guard.CodeExists},
	{registry.ErrUnknown, http.StatusNotFound, guard.CodeUnknown},
	{registry.ErrInUse, http.StatusConflict, guard.CodeInUse},
}

// problem turns an error into what the caller is told; the cause of what
// nobody expected is logged.
func (a *API) problem(err error) *guard.Problem {
	var p *guard.Problem
	if errors.As(err, &p) {
		return p
	}
	var r *registry.Refusal
	if errors.As(err, &r) {
		for _, s := range statuses {
			if errors.Is(r.Kind, s.kind) {
				p := guard.NewProblem(s.status, s.code, r.Why, r.Remedy)
				p.Change = r.Change.String()
				return p
			}
		}
	}
	a.cfg.Logger.Error("administration call failed", zap.Error(err))
	return guard.NewProblem(http.StatusInternalServerError, guard.CodeInternal, "the registry failed", "see its log")
}

func invalid(err error) error {
	return guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeInvalid, err.Error(), "")
}

func exists(what string, args ...any) error {
	return guard.NewProblem(http.StatusConflict, guard.CodeExists, fmt.Sprintf(what, args...)+" exists already", "change it instead")
}

func unknown(what string, args ...any) error {
	return guard.NewProblem(http.StatusNotFound, guard.CodeUnknown, "there is no "+fmt.Sprintf(what, args...), "")
}

// call is a call under way.
type call struct {
	key     guard.Key
	name    string
	ifMatch string
	changes bool // or is to change something
	status  int  // of success
	record  guard.Record
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// admit refuses callers without a key of one of the operation's roles, reads
// the request within its bounds, and sees to it that changes are audited.
func (a *API) admit(ctx huma.Context, next func(huma.Context)) {
	op, u := ctx.Operation(), ctx.URL()
	changes, _ := op.Metadata["changes"].(bool)
	c := &call{ifMatch: ctx.Header("If-Match"), changes: changes, status: op.DefaultStatus, record: guard.Record{
		From: host(ctx.RemoteAddr()), Operation: op.OperationID, Target: op.Method + " " + u.EscapedPath(), Why: ctx.Query("why")}}
	refuse := func(p *guard.Problem) {
		if c.changes {
			p = a.refused(c, p)
		}
		if p.Status == http.StatusUnauthorized {
			ctx.SetHeader("WWW-Authenticate", "X-Road-ApiKey")
		}
		writeProblem(a.api, ctx, p)
	}
	key, err := a.cfg.Keys.Authenticate(ctx.Header("Authorization"))
	if err != nil {
		refuse(guard.NewProblem(http.StatusUnauthorized, guard.CodeKeyNeeded, "the call has no valid API key", "send the header Authorization: X-Road-ApiKey token=…"))
		return
	}
	c.key, c.record.Who = key, key.Name
	if roles, _ := op.Metadata["roles"].([]string); !key.HasOneOf(roles) {
		refuse(guard.NewProblem(http.StatusForbidden, guard.CodeRoleNeeded,
			fmt.Sprintf("the API key %s has none of the roles that this operation needs: %s", key.Name, strings.Join(roles, ", ")), "use an API key with one of them"))
		return
	}
	if op.Method == http.MethodGet {
		next(ctx)
		return
	}
	if !printable(c.record.Why) {
		c.record.Why = ""
		refuse(guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeInvalid, "the reason (why) is not text of at most 2000 characters", "shorten it and leave out control characters"))
		return
	}
	body, p := readBody(ctx, op)
	if p != nil {
		refuse(p)
		return
	}
	content := append([]byte(op.Method+" "+u.RequestURI()+"\n"), body...)
	c.name = callName(key.Name, ctx.Header("Idempotency-Key"), content)
	c.record.Call = c.name
	next(&withBody{huma.WithValue(ctx, callKey{}, c), bytes.NewReader(body)})
}

// explain is a huma.Transformer: it puts a problem in place of huma's errors,
// and records it if a change was to be made.
func (a *API) explain(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := guard.ProblemOf(m)
	if c := callOf(ctx.Context()); c != nil && c.changes {
		p = a.refused(c, p)
	}
	return p, nil
}

type humaContext = huma.Context // embedded, its method Context stays in sight

// withBody is a huma.Context whose body was read already.
type withBody struct {
	humaContext
	body io.Reader
}

func (w *withBody) BodyReader() io.Reader { return w.body }

func readBody(ctx huma.Context, op *huma.Operation) ([]byte, *guard.Problem) {
	if err := ctx.SetReadDeadline(time.Now().Add(op.BodyReadTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, guard.NewProblem(http.StatusInternalServerError, guard.CodeInternal, "connection lost", "")
	}
	limit := op.MaxBodyBytes - 1
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), limit+1))
	var timeout net.Error
	switch {
	case int64(len(body)) > limit:
		return nil, guard.NewProblem(http.StatusRequestEntityTooLarge, guard.CodeTooLarge, fmt.Sprintf("the request is larger than %d bytes", limit), "")
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, guard.NewProblem(http.StatusRequestTimeout, guard.CodeTimeout, "the request did not arrive in time", "")
	case err != nil:
		return nil, guard.NewProblem(http.StatusBadRequest, guard.CodeMalformed, "the request broke off", "")
	}
	return body, nil
}

// writeProblem answers from a middleware.
func writeProblem(api huma.API, ctx huma.Context, p *guard.Problem) {
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = api.Marshal(ctx.BodyWriter(), "application/json", p) // the caller may have gone
}

func printable(s string) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= 2000 &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
}

func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}

// refused records that a call was refused, and returns what to tell the caller.
func (a *API) refused(c *call, p *guard.Problem) *guard.Problem {
	c.record.Outcome, c.record.Status, c.record.Code, c.record.Text = guard.Refused, p.Status, p.Code, p.Error()
	if p.Status >= http.StatusInternalServerError {
		c.record.Outcome = guard.Failed
	}
	if err := a.audit(c); err != nil { // nothing has changed; the caller's problem stays the same
		a.cfg.Logger.Error("audit log", zap.Error(err))
	}
	return p
}

func (a *API) audit(c *call) error {
	c.record.Time = a.cfg.Now().UTC()
	a.cfg.Logger.Info("audit", zap.Any("record", c.record))
	return a.cfg.Audit.Append(&c.record)
}

// completeAudit adds what a crash kept out of the audit log: changes of calls
// that are in the journal behind the last entry that the audit log knows.
func (a *API) completeAudit(ctx context.Context) error {
	last, err := a.cfg.Audit.LastEntry()
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if last == 0 { // a new file
		n := a.cfg.Registry.State().Number()
		return a.cfg.Audit.Append(&guard.Record{Time: a.cfg.Now().UTC(), Who: "registry", Operation: "begin", Outcome: guard.Done, Entry: n, Text: "audit log begun"})
	}
	var missing []*guard.Record
	err = a.cfg.Registry.Journal(ctx, last+1, func(e *registry.Entry) error {
		name, ok := strings.CutPrefix(e.Author.Request, callPrefix)
		if !ok {
			return nil
		}
		if n := len(missing); n > 0 && missing[n-1].Call == name {
			missing[n-1].What, missing[n-1].Entry = append(missing[n-1].What, e.Change.String()), e.Number
			return nil
		}
		missing = append(missing, &guard.Record{Time: e.Time, Who: e.Author.Who, Why: e.Author.Why, Call: name, What: []string{e.Change.String()},
			Outcome: guard.Done, Entry: e.Number, Text: "from the journal: the registry stopped before it could answer"})
		return nil
	})
	for _, r := range missing {
		err = errors.Join(err, a.cfg.Audit.Append(r))
	}
	return err
}
