// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"kontor/registry"
	"kontor/registry/id"
)

// Request is a management request.
type Request struct {
	Number      uint64                 `json:"number" example:"17"`
	Kind        registry.RequestKind   `json:"kind" example:"clientReg" doc:"Code of the management service"`
	Origin      registry.Origin        `json:"origin" enum:"SECURITY_SERVER,CENTER" doc:"Who made it: a security server, or the registry's operator"`
	Status      registry.RequestStatus `json:"status,omitempty" enum:"WAITING,SUBMITTED FOR APPROVAL,APPROVED,DECLINED,REVOKED" doc:"Absent if it was carried out when it came"`
	Created     time.Time              `json:"created"`
	CreatedBy   string                 `json:"created_by"`
	Server      id.SecurityServer      `json:"security_server" example:"DEV/GOV/1234/ss1"`
	Client      *id.Client             `json:"client,omitempty" example:"DEV/GOV/1234/portal"`
	Address     string                 `json:"address,omitempty"`
	Certificate *Certificate           `json:"certificate,omitempty" doc:"Authentication certificate"`
	Name        string                 `json:"name,omitempty" doc:"Of the subsystem"`
	Message     string                 `json:"message,omitempty" doc:"Of the server in maintenance"`
	Comment     string                 `json:"comment,omitempty" doc:"What it changed"`
	Complement  uint64                 `json:"complement,omitempty" doc:"Request of the other origin that shares the decision"`
	Decided     *time.Time             `json:"decided,omitempty"`
	DecidedBy   string                 `json:"decided_by,omitempty"`
	Reason      string                 `json:"reason,omitempty" doc:"Of the decision; the applicant gets to read it"`
}

// NewRequest is a registration that the registry's operator requests.
type NewRequest struct {
	Kind        string            `json:"kind" enum:"authCertReg,clientReg"`
	Server      id.SecurityServer `json:"security_server" example:"DEV/GOV/1234/ss1"`
	Client      *id.Client        `json:"client,omitempty" doc:"Of clientReg" example:"DEV/GOV/1234/portal"`
	Certificate string            `json:"certificate,omitempty" doc:"Of authCertReg: PEM, or base64 of DER"`
	Address     string            `json:"address,omitempty" maxLength:"255" doc:"Of authCertReg; absent: the security server says it"`
	Name        string            `json:"name,omitempty" maxLength:"255" doc:"Of clientReg: name of the subsystem"`
}

// Requests is a page of requests, newest first.
type Requests struct {
	Requests []Request `json:"management_requests"`
	Total    int       `json:"total" doc:"How many there are on all pages"`
}

// RequestFilter selects requests.
type RequestFilter struct {
	Pending bool   `query:"pending" doc:"Only those that await a decision"`
	Status  string `query:"status" enum:"WAITING,SUBMITTED FOR APPROVAL,APPROVED,DECLINED,REVOKED" doc:"Only those of this status"`
	Kind    string `query:"kind" maxLength:"50" doc:"Only those to this management service"`
}

func requestOf(q registry.Request) Request {
	out := Request{
		Number: q.Number, Kind: q.Kind, Origin: q.Origin, Status: q.Status, Created: q.Created, CreatedBy: q.CreatedBy, Server: q.Server, Client: clientOrNil(q.Client),
		Address: q.Address, Name: q.Name, Message: q.Message, Comment: q.Comment, Complement: q.Complement, DecidedBy: q.DecidedBy, Reason: q.Reason,
	}
	if len(q.Certificate) > 0 {
		c := certificateOfDER(q.Certificate)
		out.Certificate = &c
	}
	if !q.Decided.IsZero() {
		out.Decided = &q.Decided
	}
	return out
}

// texts are what a search looks at.
func (r *Request) texts() []string {
	all := []string{strconv.FormatUint(r.Number, 10), string(r.Kind), r.Server.String(), r.Name, r.CreatedBy}
	if r.Client != nil {
		all = append(all, r.Client.String())
	}
	return all
}

// RequestPath names a request.
type RequestPath struct {
	Number uint64 `path:"number" minimum:"1" doc:"Number of the request"`
}

func (a *API) registerRequests() {
	officer := []string{RegistrationOfficer}
	const path = "/management-requests/{number}"

	type list struct {
		Page
		RequestFilter
	}
	read(a, operation{id: "list-requests", path: "/management-requests", summary: "List management requests, newest first"}, func(in *list, st *registry.State) (Requests, error) {
		all := st.Requests(registry.RequestFilter{Pending: in.Pending, Status: registry.RequestStatus(in.Status), Kind: registry.RequestKind(in.Kind)})
		slices.Reverse(all)
		var found []Request
		for _, q := range all {
			if r := requestOf(q); in.matches(r.texts()...) {
				found = append(found, r)
			}
		}
		return Requests{cut(in.Page, found), len(found)}, nil
	})
	read(a, operation{id: "show-request", path: path, summary: "Show a management request"}, func(in *RequestPath, st *registry.State) (Request, error) {
		q, ok := st.Request(in.Number)
		if !ok {
			return Request{}, unknown("management request %d", in.Number)
		}
		return requestOf(q), nil
	})
	type submit struct {
		ChangeTerms
		Body NewRequest
	}
	change(a, operation{id: "submit-request", method: http.MethodPost, path: "/management-requests", summary: "Request a registration on behalf of a security server", status: http.StatusCreated, roles: officer,
		description: "It waits for the same request of the security server, and both take effect then without an approval. If that one waits already, it joins it, and both await an approval."},
		func(in *submit, st *registry.State) ([]registry.Change, error) {
			sub := registry.Submission{Kind: registry.RequestKind(in.Body.Kind), Server: in.Body.Server, Address: in.Body.Address, Name: in.Body.Name}
			if in.Body.Client != nil {
				sub.Client = *in.Body.Client
			}
			der, err := derOf(in.Body.Certificate)
			if err != nil {
				return nil, err
			}
			sub.Certificate = der
			return st.OwnRequest(sub)
		})
	type decide struct {
		RequestPath
		ChangeTerms
	}
	change(a, operation{id: "approve-request", method: http.MethodPost, path: path + "/approval", summary: "Approve a management request and carry it out", roles: officer},
		func(in *decide, st *registry.State) ([]registry.Change, error) {
			return st.Approval(in.Number, in.Why)
		})
	change(a, operation{id: "decline-request", method: http.MethodPost, path: path + "/rejection", summary: "Decline a management request", roles: officer,
		description: "The reason (why) is needed: the applicant gets to read it. A request of the operator's own is revoked."},
		func(in *decide, st *registry.State) ([]registry.Change, error) {
			return st.Rejection(in.Number, in.Why)
		})
}

// Requests returns the management requests that the filter selects and that
// have query in their numbers and names, newest first.
func (c *Client) Requests(ctx context.Context, f RequestFilter, query string) ([]Request, error) {
	all, more := []Request{}, url.Values{}
	if f.Pending {
		more.Set("pending", "true")
	}
	for name, value := range map[string]string{"status": f.Status, "kind": f.Kind} {
		if value != "" {
			more.Set(name, value)
		}
	}
	err := pages(ctx, query, more, func(v url.Values) (int, int, error) {
		out, _, err := fetch[Requests](ctx, c, path("management-requests"), v)
		all = append(all, out.Requests...)
		return len(out.Requests), out.Total, err
	})
	return all, err
}

func requestPath(number uint64, more ...string) string {
	return path(append([]string{"management-requests", strconv.FormatUint(number, 10)}, more...)...)
}

// Request returns one management request, and the ETag of what was seen.
func (c *Client) Request(ctx context.Context, number uint64) (Request, string, error) {
	return fetch[Request](ctx, c, requestPath(number), nil)
}

// SubmitRequest requests a registration on behalf of a security server.
func (c *Client) SubmitRequest(ctx context.Context, t ChangeTerms, r NewRequest) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("management-requests"), r)
}

// ApproveRequest approves a management request.
func (c *Client) ApproveRequest(ctx context.Context, t ChangeTerms, number uint64) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, requestPath(number, "approval"), nil)
}

// DeclineRequest declines a management request, for the reason in t.
func (c *Client) DeclineRequest(ctx context.Context, t ChangeTerms, number uint64) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, requestPath(number, "rejection"), nil)
}
