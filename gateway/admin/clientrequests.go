// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"slices"

	"kontor/gateway/serverconf"
	"kontor/registry/globalconf"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// ClientName names a subsystem for people.
type ClientName struct {
	Name string `json:"name,omitempty" maxLength:"255" doc:"Name of the subsystem; when it is registered it may be left out"`
}

// ClientRequest is a request about a client that the registry has.
type ClientRequest struct {
	Request uint64      `json:"request" doc:"Its number at the registry"`
	Client  LocalClient `json:"client"`
}

func (a *API) registerClientRequests() {
	who := []string{RoleRegistrationOfficer}
	register(a, operation{id: "register-client", method: http.MethodPost, path: "/clients/{client}/register",
		summary: "Have the registry register a client for this security server",
		description: "The request is signed by the client's member, which needs a signing certificate here. Until its outcome is final, a repeated call " +
			"sends the very same request again, which tells what became of it: a declined one is answered with the reason, and the next call sends a new one.",
		roles: who}, a.registerClient)
	register(a, operation{id: "rename-client", method: http.MethodPost, path: "/clients/{client}/rename",
		summary: "Have the registry give a registered subsystem another name", roles: who}, a.renameClient)
	register(a, operation{id: "unregister-client", method: http.MethodPost, path: "/clients/{client}/unregister",
		summary: "Have the registry remove a client from this security server, or a request that waits for approval", roles: who}, a.unregisterClient)
	register(a, operation{id: "disable-client", method: http.MethodPost, path: "/clients/{client}/disable",
		summary: "Have the registry list a client no more until it is enabled again: it can neither call nor be called", roles: who}, a.disableClient)
	register(a, operation{id: "enable-client", method: http.MethodPost, path: "/clients/{client}/enable",
		summary: "Have the registry list a disabled client again", roles: who}, a.enableClient)
}

// clientStep is a request about a client and what it means for the client's status.
type clientStep struct {
	service request.Service
	name    string
	from    []string // statuses in which it makes sense
	to      string   // status afterwards; empty: as before
}

func (a *API) registerClient(ctx context.Context, in *struct {
	ClientPath
	Seen
	Body ClientName
}) (*item[ClientRequest], error) {
	return a.aboutClient(ctx, in.ClientPath, in.Seen, registration(in.Body.Name))
}

// registration is the request to register a client.
func registration(name string) clientStep {
	return clientStep{request.ClientReg, name,
		[]string{serverconf.Saved, serverconf.RegistrationInProgress, serverconf.GlobalError, serverconf.DeletionInProgress}, serverconf.RegistrationInProgress}
}

func (a *API) renameClient(ctx context.Context, in *struct {
	ClientPath
	Seen
	Body ClientName
}) (*item[ClientRequest], error) {
	if in.Body.Name == "" {
		return nil, invalid("give a name", "the name is missing")
	}
	return a.aboutClient(ctx, in.ClientPath, in.Seen, clientStep{request.ClientRename, in.Body.Name, []string{serverconf.Registered}, ""})
}

type clientChange struct {
	ClientPath
	Seen
}

func (a *API) unregisterClient(ctx context.Context, in *clientChange) (*item[ClientRequest], error) {
	return a.aboutClient(ctx, in.ClientPath, in.Seen, clientStep{request.ClientDeletion, "",
		[]string{serverconf.Registered, serverconf.RegistrationInProgress, serverconf.Disabling, serverconf.Disabled, serverconf.Enabling}, serverconf.DeletionInProgress})
}

func (a *API) disableClient(ctx context.Context, in *clientChange) (*item[ClientRequest], error) {
	return a.aboutClient(ctx, in.ClientPath, in.Seen, clientStep{request.ClientDisable, "",
		[]string{serverconf.Registered, serverconf.Enabling}, serverconf.Disabling})
}

func (a *API) enableClient(ctx context.Context, in *clientChange) (*item[ClientRequest], error) {
	return a.aboutClient(ctx, in.ClientPath, in.Seen, clientStep{request.ClientEnable, "",
		[]string{serverconf.Disabled, serverconf.Disabling}, serverconf.Enabling})
}

// mayAsk refuses a request about a client for which it makes no sense.
func (a *API) mayAsk(c *serverconf.Client, s clientStep, view *globalconf.View) error {
	owner := a.Server.Owner().Client()
	listed := view.Registered(a.Server, c.ID)
	switch {
	case c.ID == owner:
		return problem(http.StatusConflict, "owner", "leave it as it is", "%s owns this security server, and is its client as long as that is registered", c.ID)
	case s.name != "" && c.ID.IsMember():
		return invalid("leave the name out", "%s is a member; the registry's operators name members", c.ID)
	case s.service == request.ClientReg && listed:
		return exists("nothing needs to be done", "the registry lists %s for this security server", c.ID)
	case !slices.Contains(s.from, c.Status):
		return problem(http.StatusConflict, "wrong_state", "see what to do next with kontor client show", "the status of %s is %q", c.ID, c.Status)
	}
	return nil
}

// aboutClient asks the registry for something about a client.
func (a *API) aboutClient(ctx context.Context, path ClientPath, seen Seen, s clientStep) (*item[ClientRequest], error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	c, err := a.client(path)
	if err != nil {
		return nil, err
	}
	if err := seen.checkIfGiven(clientTag(c)); err != nil {
		return nil, err
	}
	number, err := a.requestAboutClient(ctx, c, s)
	if err != nil {
		return nil, err
	}
	shown, err := a.showClient(path)
	if err != nil {
		return nil, err
	}
	return answer(shown.ETag, ClientRequest{number, shown.Body}), nil
}

// requestAboutClient sends a request about a client, or asks what became of it,
// and returns its number. a.asking is held.
func (a *API) requestAboutClient(ctx context.Context, c *serverconf.Client, s clientStep) (uint64, error) {
	view, err := a.validView()
	if err != nil {
		return 0, err
	}
	if err := a.mayAsk(c, s, view); err != nil {
		return 0, err
	}
	r, err := a.newRequest(view, s.service)
	if err != nil {
		return 0, err
	}
	r.Client, r.Name = c.ID, s.name
	if s.service == request.ClientReg && s.name == "" { // of a request that waits already
		if kept, _, err := a.keptRequest(r); err != nil {
			return 0, err
		} else if kept != nil {
			r.Name = kept.Name
		}
	}
	number, err := a.manage(ctx, view, r, func(reason string) error {
		if s.service != request.ClientReg {
			return nil
		}
		note(ctx, "registration of client %s: the registry says: %s", c.ID, reason)
		return a.moveClient(c.ID, serverconf.Saved, []string{serverconf.RegistrationInProgress})
	})
	if err != nil {
		return 0, err
	}
	note(ctx, "%s of client %s, request %d", s.service, c.ID, number)
	if s.service == request.ClientDeletion {
		if err := a.forgetRequest(&request.Request{Service: request.ClientReg, Client: c.ID}); err != nil {
			return 0, err
		}
	}
	if s.to != "" {
		if err := a.moveClient(c.ID, s.to, s.from); err != nil {
			return 0, err
		}
	}
	a.Nudge()
	return number, nil
}

// moveClient changes the status of a client if it is still one of those, for
// the global configuration may have changed it meanwhile.
func (a *API) moveClient(c id.Client, to string, from []string) error {
	return a.update(func(m *serverconf.Model) error {
		e, err := entry(m, c)
		if err == nil && (slices.Contains(from, e.Status) || e.Status == "" && slices.Contains(from, serverconf.Saved)) {
			e.Status = to
		}
		return nil // deleted meanwhile: nothing to change
	})
}
