// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"

	"kontor/registry/id"
	"kontor/registry/management/request"
)

// NewAddress is where others reach this security server.
type NewAddress struct {
	Address string `json:"address" minLength:"1" maxLength:"255" doc:"Host name or IP address"`
}

// Maintenance says whether this security server is in maintenance mode.
type Maintenance struct {
	On      bool   `json:"on"`
	Message string `json:"message,omitempty" maxLength:"255" doc:"What callers are told; only when it is put on"`
}

// NewOwner is who is to own this security server.
type NewOwner struct {
	Owner string `json:"owner" maxLength:"1024" doc:"A member that is a registered client here: instance/class/code"`
}

// ServerRequest is a request about this security server that the registry has.
type ServerRequest struct {
	Request uint64 `json:"request" doc:"Its number at the registry"`
}

func (a *API) registerServerRequests() {
	who := []string{RoleRegistrationOfficer}
	register(a, operation{id: "change-address", method: http.MethodPost, path: "/server/address",
		summary: "Have the registry publish another address of this security server", roles: who}, a.changeAddress)
	register(a, operation{id: "set-maintenance", method: http.MethodPost, path: "/server/maintenance",
		summary: "Have the registry publish that this security server is in maintenance mode, or is not any more", roles: who}, a.setMaintenance)
	register(a, operation{id: "change-owner", method: http.MethodPost, path: "/server/owner",
		summary: "Have the registry give this security server to another owner, and with it another identifier",
		description: "The request is signed by the new owner, and waits for the registry's operators. A repeated call sends the very same request again, " +
			"which tells what became of it. When it is approved, this security server must be restarted with its new identifier.",
		roles: who}, a.changeOwner)
}

func (a *API) changeAddress(ctx context.Context, in *struct{ Body NewAddress }) (*item[ServerRequest], error) {
	return a.aboutServer(ctx, request.AddressChange, in.Body.Address, "")
}

func (a *API) setMaintenance(ctx context.Context, in *struct{ Body Maintenance }) (*item[ServerRequest], error) {
	switch {
	case in.Body.On:
		return a.aboutServer(ctx, request.MaintenanceEnable, "", in.Body.Message)
	case in.Body.Message != "":
		return nil, invalid("leave it out", "callers are told a message during maintenance only")
	}
	return a.aboutServer(ctx, request.MaintenanceDisable, "", "")
}

// aboutServer asks the registry for something about this security server.
func (a *API) aboutServer(ctx context.Context, s request.Service, address, text string) (*item[ServerRequest], error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	view, err := a.validView()
	if err != nil {
		return nil, err
	}
	r, err := a.newRequest(view, s)
	if err != nil {
		return nil, err
	}
	r.Address, r.Text = address, text
	// One whose answer was lost may be about something else: each is a new one.
	if err := a.forgetRequest(r); err != nil {
		return nil, err
	}
	number, err := a.manage(ctx, view, r, nil)
	if err != nil {
		return nil, err
	}
	note(ctx, "%s, address %q, message %q, request %d", s, address, text, number)
	return answer("", ServerRequest{number}), nil
}

func (a *API) changeOwner(ctx context.Context, in *struct{ Body NewOwner }) (*item[ServerRequest], error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	owner, err := id.ParseMember(in.Body.Owner)
	if err != nil {
		return nil, invalid("give the owner as instance/class/code", "owner: %v", err)
	}
	view, err := a.validView()
	if err != nil {
		return nil, err
	}
	if other, ok := a.renamed(view); ok {
		return nil, problem(http.StatusConflict, "renamed", "set server to that in the configuration, and restart", "the registry knows this security server as %s now", other)
	}
	switch {
	case owner == a.Server.Owner():
		return nil, exists("nothing needs to be done", "%s owns this security server", owner)
	case !view.Registered(a.Server, owner.Client()):
		return nil, problem(http.StatusConflict, "not_registered", "have it registered as a client of this security server first (kontor client add, then register)",
			"the registry does not list %s for this security server", owner)
	}
	r, err := a.newRequest(view, request.OwnerChange)
	if err != nil {
		return nil, err
	}
	r.Client = owner.Client()
	number, err := a.manage(ctx, view, r, nil)
	if err != nil {
		return nil, err
	}
	note(ctx, "change the owner to %s, request %d", owner, number)
	return answer("", ServerRequest{number}), nil
}

// ChangeOwner has the registry give the gateway to another owner.
func (c *Client) ChangeOwner(ctx context.Context, n NewOwner) (ServerRequest, error) {
	return post[ServerRequest](ctx, c, path("server", "owner"), "", n)
}
