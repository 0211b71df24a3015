// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Stable codes of problems that every administration API may answer with.
const (
	CodeMalformed        = "malformed"          // the request cannot be read
	CodeInvalid          = "invalid"            // a value cannot be
	CodeKeyNeeded        = "api_key_needed"     // no valid API key
	CodeRoleNeeded       = "role_needed"        // the key's roles are not enough
	CodeUnknown          = "unknown"            // what the call speaks of does not exist
	CodeMethod           = "method_not_allowed" // the path exists, the method does not
	CodeNotAcceptable    = "not_acceptable"     // no representation that the caller accepts
	CodeExists           = "exists"             // what is added is there already
	CodeInUse            = "in_use"             // others need what is removed
	CodeChangedMeanwhile = "changed_meanwhile"  // If-Match does not hold any more
	CodeKeyReused        = "idempotency_key_reused"
	CodeUnderWay         = "under_way" // the same call, by its idempotency key; see Retry-After
	CodeTooLarge         = "too_large"
	CodeMediaType        = "unsupported_media_type"
	CodeTimeout          = "timeout"        // the request did not arrive in time
	CodeTooManyCalls     = "too_many_calls" // see Retry-After
	CodeUnavailable      = "unavailable"    // try again later
	CodeInternal         = "internal"       // a fault of the server; its log says more
)

// Problem is the answer to a call that is refused or failed (RFC 9457). Code,
// remedy and change are extension members.
type Problem struct {
	Title  string      `json:"title" example:"Conflict" doc:"The status in words"`
	Status int         `json:"status" example:"409" doc:"HTTP status"`
	Code   string      `json:"code" example:"in_use" doc:"What kind of problem, for programs; it never changes its meaning"`
	Detail string      `json:"detail" example:"it has subsystem portal" doc:"Why, for people"`
	Remedy string      `json:"remedy,omitempty" example:"delete its subsystems first" doc:"What to do about it"`
	Change string      `json:"change,omitempty" example:"delete member DEV/GOV/1234" doc:"The change that was refused; nothing of the call was done"`
	Errors []Violation `json:"errors,omitempty" doc:"All that is wrong with the request"`
}

// Violation is one thing that is wrong with a request.
type Violation struct {
	Location string `json:"location,omitempty" example:"body.name" doc:"Where"`
	Message  string `json:"message" doc:"What"`
}

// NewProblem returns a problem.
func NewProblem(status int, code, detail, remedy string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Remedy: remedy}
}

// Error says the problem in one line.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Change != "" {
		b.WriteString(p.Change + ": ")
	}
	b.WriteString(p.Detail)
	for i, e := range p.Errors {
		b.WriteString(map[bool]string{true: ": ", false: "; "}[i == 0])
		if e.Location != "" {
			b.WriteString(e.Location + ": ")
		}
		b.WriteString(e.Message)
	}
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// GetStatus makes it huma's error with a status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes huma send it as a problem document.
func (p *Problem) ContentType(string) string { return problemType }

// Texts that the client puts into other words.
const (
	seeSchema   = "see /openapi.json for what the operation takes"
	nothingHere = "there is nothing at this path"
)

const problemType = "application/problem+json"

// codes are the codes of problems that huma finds.
var codes = map[int]string{
	http.StatusBadRequest:            CodeMalformed,
	http.StatusUnauthorized:          CodeKeyNeeded,
	http.StatusForbidden:             CodeRoleNeeded,
	http.StatusNotFound:              CodeUnknown,
	http.StatusMethodNotAllowed:      CodeMethod,
	http.StatusNotAcceptable:         CodeNotAcceptable,
	http.StatusRequestTimeout:        CodeTimeout,
	http.StatusRequestEntityTooLarge: CodeTooLarge,
	http.StatusUnsupportedMediaType:  CodeMediaType,
	http.StatusUnprocessableEntity:   CodeInvalid,
	http.StatusServiceUnavailable:    CodeUnavailable,
}

// ProblemOf turns an error of huma into a problem.
func ProblemOf(m *huma.ErrorModel) *Problem {
	code, ok := codes[m.Status]
	if !ok {
		code = CodeInternal
	}
	p := NewProblem(m.Status, code, m.Detail, "")
	if code == CodeInternal { // the cause is for the log
		p.Detail, p.Remedy = "the server failed", "see its log"
		return p
	}
	for _, e := range m.Errors {
		if e != nil {
			p.Errors = append(p.Errors, Violation{e.Location, e.Message})
		}
	}
	if code == CodeInvalid || code == CodeMalformed {
		p.Remedy = seeSchema
	}
	return p
}

// Problems is a huma.Transformer: it puts a Problem in place of huma's errors.
func Problems(_ huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		return ProblemOf(m), nil
	}
	return v, nil
}

// WriteProblem answers with a problem.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller may have gone
}

// Routed answers calls that no pattern of the mux matches with a problem.
func Routed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &statusOnly{header: w.Header()} // the mux knows the status and Allow
		h.ServeHTTP(probe, r)
		if probe.status == http.StatusMethodNotAllowed {
			WriteProblem(w, NewProblem(probe.status, CodeMethod, fmt.Sprintf("%s is not possible here", r.Method), "use one of "+w.Header().Get("Allow")))
			return
		}
		WriteProblem(w, NewProblem(http.StatusNotFound, CodeUnknown, nothingHere, "see /openapi.json for all operations"))
	})
}

type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
