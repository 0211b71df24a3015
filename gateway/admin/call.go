// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"kontor/registry/guard"
)

// Begun is the outcome of a change in the first of its two audit records.
const Begun = "begun"

var problemType = reflect.TypeFor[guard.Problem]()

// call is one call under way: what its audit record will say.
type call struct {
	record guard.Record
	change bool
}

type callKey struct{}

// note adds to the audit record of the call what was changed.
func note(ctx context.Context, format string, args ...any) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.record.What = append(c.record.What, fmt.Sprintf(format, args...))
	}
}

// guard refuses callers without a key of one of the operation's roles, and
// keeps the audit log.
func (a *API) guard(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	u := ctx.URL()
	c := &call{change: op.Method != http.MethodGet, record: guard.Record{
		From: ctx.RemoteAddr(), Operation: op.OperationID, Target: op.Method + " " + u.EscapedPath(), Call: uuid.NewString()}}
	if u.RawQuery != "" {
		c.record.Target += "?" + u.RawQuery
	}
	key, err := a.APIKeys.Authenticate(ctx.Header("Authorization"))
	c.record.Who = key.Name
	roles, _ := op.Metadata["roles"].([]string)
	switch {
	case err != nil:
		p := guard.NewProblem(http.StatusUnauthorized, guard.CodeKeyNeeded, "the call carries no valid API key", "give one: Authorization: X-Road-ApiKey token=…")
		if suppressed, ok := a.strange.take(); ok {
			if suppressed > 0 {
				c.record.What = []string{fmt.Sprintf("%d earlier calls without a valid key have no record", suppressed)}
			}
			a.refuse(c, p)
		}
		writeProblem(ctx, p)
		return
	case !key.HasOneOf(roles):
		p := guard.NewProblem(http.StatusForbidden, guard.CodeRoleNeeded, fmt.Sprintf("the API key %q has none of the roles that may do this", key.Name),
			"use a key with one of: "+strings.Join(roles, ", "))
		a.refuse(c, p)
		writeProblem(ctx, p)
		return
	}
	if !c.change {
		next(newCarrier(ctx, c, nil))
		if c.record.Status >= http.StatusBadRequest {
			a.record(c, guard.Refused)
		}
		return
	}
	a.change(ctx, c, next)
}

// change carries out a call that changes something between two audit records.
func (a *API) change(ctx huma.Context, c *call, next func(huma.Context)) {
	most := ctx.Operation().MaxBodyBytes
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), most+1))
	if err != nil {
		return // the caller has gone
	}
	if int64(len(body)) > most {
		p := guard.NewProblem(http.StatusRequestEntityTooLarge, guard.CodeTooLarge, fmt.Sprintf("the body has more than %d bytes", most), "send less")
		a.refuse(c, p)
		writeProblem(ctx, p)
		return
	}
	var own *repeat // nil: not to be repeated
	if key := ctx.Header("Idempotency-Key"); key != "" {
		if len(key) > maxIdempotencyKey {
			p := guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeInvalid, "the Idempotency-Key is too long", fmt.Sprintf("give one of at most %d bytes", maxIdempotencyKey))
			a.refuse(c, p)
			writeProblem(ctx, p)
			return
		}
		content := sha256.Sum256(append([]byte(c.record.Target+"\x00"+ctx.Header("If-Match")+"\x00"), body...))
		var earlier *repeat
		if own, earlier = a.repeats.begin(c.record.Who+"\x00"+key, content, a.Now()); earlier != nil {
			repeated(ctx, earlier, content)
			return
		}
	}
	answer := (*carrier)(nil) // once there is one
	defer func() {
		if own != nil {
			a.repeats.end(own, answer)
		}
	}()
	if secret, _ := ctx.Operation().Metadata["secret"].(bool); !secret {
		c.record.What = requested(body)
	}
	if err := a.record(c, Begun); err != nil {
		writeProblem(ctx, guard.NewProblem(http.StatusServiceUnavailable, guard.CodeUnavailable,
			"the change could not be written to the audit log, so it was not made", "see to the disk of the gateway, then restart it"))
		return
	}
	c.record.What = nil
	done := false
	defer func() {
		if !done { // a panic, which the HTTP server reports
			c.record.Status = http.StatusInternalServerError
			_ = a.record(c, guard.Failed)
		}
	}()
	carried := newCarrier(ctx, c, bytes.NewReader(body))
	next(carried)
	done = true
	if c.record.Status == 0 {
		c.record.Status = ctx.Status()
	}
	carried.status, answer = c.record.Status, carried
	switch {
	case c.record.Status < http.StatusBadRequest:
		_ = a.record(c, guard.Done) // the first record stands
	case c.record.Status < http.StatusInternalServerError:
		_ = a.record(c, guard.Refused)
	default:
		_ = a.record(c, guard.Failed)
	}
}

// requested is the body of a call as the audit log keeps it.
func requested(body []byte) []string {
	const most = 16 << 10
	var b bytes.Buffer
	if len(body) == 0 || json.Compact(&b, body) != nil || b.Len() > most {
		return nil
	}
	return []string{"requested: " + b.String()}
}

func (a *API) refuse(c *call, p *guard.Problem) {
	c.record.Status, c.record.Code, c.record.Text = p.Status, p.Code, p.Error()
	_ = a.record(c, guard.Refused) // nothing was changed
}

// record writes the audit record and tells the log if that fails.
func (a *API) record(c *call, outcome string) error {
	r := c.record
	r.Time, r.Outcome = a.Now().UTC(), outcome
	err := a.Audit.Append(&r)
	if err != nil {
		a.Logger.Error("the audit log could not be written", zap.String("operation", r.Operation), zap.String("who", r.Who),
			zap.String("outcome", outcome), zap.Error(err))
	}
	return err
}

// explain turns errors into problems, and notes them for the audit log.
func (a *API) explain(ctx huma.Context, status string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		p := guard.ProblemOf(m)
		if p.Status >= http.StatusInternalServerError {
			a.Logger.Error("administration call failed", zap.String("operation", ctx.Operation().OperationID), zap.Error(m), zap.Errors("causes", details(m)))
		}
		v = p
	}
	if p, ok := v.(*guard.Problem); ok {
		if c, ok := ctx.Context().Value(callKey{}).(*call); ok {
			c.record.Status, c.record.Code, c.record.Text = p.Status, p.Code, p.Error()
		}
	}
	return v, nil
}

func details(m *huma.ErrorModel) []error {
	var errs []error
	for _, e := range m.Errors {
		errs = append(errs, e)
	}
	return errs
}

// carrier gives a handler the call, and the body that was read already, and
// keeps the answer.
type carrier struct {
	humaContext
	ctx  context.Context
	body io.Reader

	status  int
	header  http.Header
	written bytes.Buffer
}

func newCarrier(ctx huma.Context, c *call, body io.Reader) *carrier {
	return &carrier{humaContext: ctx, ctx: context.WithValue(ctx.Context(), callKey{}, c), body: body, header: http.Header{}}
}

type humaContext huma.Context

func (c *carrier) Context() context.Context { return c.ctx }

func (c *carrier) BodyReader() io.Reader {
	if c.body == nil {
		return c.humaContext.BodyReader()
	}
	return c.body
}

func problem(status int, code, remedy, format string, args ...any) *guard.Problem {
	return guard.NewProblem(status, code, fmt.Sprintf(format, args...), remedy)
}

func writeProblem(ctx huma.Context, p *guard.Problem) {
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = json.NewEncoder(ctx.BodyWriter()).Encode(p) // the caller may have gone
}

// budget bounds how many audit records strangers can cause: so many at once,
// and one each so often.
type budget struct {
	now func() time.Time

	mu         sync.Mutex
	left       float64
	at         time.Time
	suppressed int
}

const (
	strangersAtOnce = 100
	strangersEvery  = time.Second
)

func newBudget(now func() time.Time) *budget {
	return &budget{now: now, left: strangersAtOnce, at: now()}
}

// take reports whether a record may be written, and for how many before it
// that was not so.
func (b *budget) take() (suppressed int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if passed := now.Sub(b.at); passed > 0 {
		b.left = math.Min(strangersAtOnce, b.left+passed.Seconds()/strangersEvery.Seconds())
	}
	b.at = now
	if b.left < 1 {
		b.suppressed++
		return 0, false
	}
	b.left--
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}

func asProblem(err error) (*guard.Problem, bool) {
	var p *guard.Problem
	return p, errors.As(err, &p)
}
