// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry/guard"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// LocalClient is a client of this security server.
type LocalClient struct {
	ID           string                    `json:"id"`
	Name         string                    `json:"name,omitempty" doc:"As the global configuration has it, else that of its member"`
	Status       string                    `json:"status" enum:"saved,registration in progress,registered,disabling,disabled,enabling,deletion in progress,global error"`
	Connection   serverconf.ConnectionType `json:"connection" enum:"http,https,https-no-auth" doc:"How its information systems must connect"`
	Certificates []ISCertificate           `json:"certificates" doc:"Of its information systems"`
	Groups       []string                  `json:"groups" doc:"Codes of its local groups"`
	Services     []string                  `json:"services" doc:"Its services: code, or code/version"`
	Rights       int                       `json:"rights" doc:"How many access rights it has granted"`
	Next         string                    `json:"next,omitempty" doc:"What to do next"`
}

// ISCertificate is a certificate of an information system.
type ISCertificate struct {
	Hash     string    `json:"hash" doc:"SHA-256 of its DER form, in hex"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	PEM      string    `json:"pem"`
}

// NewClientEntry adds a client.
type NewClientEntry struct {
	ID         string                    `json:"id" maxLength:"1024" doc:"instance/class/member/subsystem, or without a subsystem for a member"`
	Connection serverconf.ConnectionType `json:"connection,omitempty" enum:"http,https,https-no-auth" doc:"Default: https"`
}

// ClientChange changes a client.
type ClientChange struct {
	Connection serverconf.ConnectionType `json:"connection" enum:"http,https,https-no-auth"`
}

// NewISCertificate adds a certificate of an information system.
type NewISCertificate struct {
	Certificate string `json:"certificate" maxLength:"65536" doc:"One certificate, in PEM or as base64 of its DER form"`
}

func (a *API) registerClients() {
	how := []string{RoleRegistrationOfficer, RoleServiceAdministrator}
	register(a, operation{id: "list-clients", method: http.MethodGet, path: "/clients", summary: "List the clients of this security server",
		roles: readers()}, a.listClients)
	register(a, operation{id: "get-client", method: http.MethodGet, path: "/clients/{client}", summary: "Show a client", roles: readers()}, a.getClient)
	register(a, operation{id: "add-client", method: http.MethodPost, path: "/clients", summary: "Add a client", status: http.StatusCreated,
		description: "It is saved first; it becomes registered when the registry lists it for this security server.", roles: []string{RoleRegistrationOfficer}}, a.addClient)
	register(a, operation{id: "change-client", method: http.MethodPatch, path: "/clients/{client}", summary: "Change how a client connects", roles: how}, a.changeClient)
	register(a, operation{id: "delete-client", method: http.MethodDelete, path: "/clients/{client}", summary: "Delete a client",
		description: "Refused while the registry lists it for this security server, or while it has services.", roles: []string{RoleRegistrationOfficer}}, a.deleteClient)
	register(a, operation{id: "add-client-certificate", method: http.MethodPost, path: "/clients/{client}/certificates", status: http.StatusCreated,
		summary: "Add a certificate of the client's information systems", roles: how}, a.addISCertificate)
	register(a, operation{id: "delete-client-certificate", method: http.MethodDelete, path: "/clients/{client}/certificates/{hash}",
		summary: "Delete a certificate of the client's information systems", roles: how}, a.deleteISCertificate)
}

type ClientPath struct {
	Client string `path:"client" maxLength:"1024" doc:"Its identifier, parts separated by colons: DEV:GOV:1234:portal"`
}

// parseClientPath reads an identifier of a path: parts separated by colons, or
// by slashes that are escaped.
func parseClientPath(s string) (id.Client, error) {
	c, err := id.ParseClient(slashes(s))
	if err != nil {
		return c, invalid("give it as instance:class:member:subsystem", "client: %v", err)
	}
	return c, nil
}

// slashes gives an identifier with colons its usual form.
func slashes(s string) string {
	if strings.Contains(s, "/") {
		return s
	}
	return strings.ReplaceAll(s, ":", "/")
}

// entry finds a client in the file.
func entry(m *serverconf.Model, c id.Client) (*serverconf.ClientEntry, error) {
	i := slices.IndexFunc(m.Clients, func(e serverconf.ClientEntry) bool { return e.ID == c })
	if i < 0 {
		return nil, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor client list)", "%s is no client of this security server", c)
	}
	return &m.Clients[i], nil
}

// update changes the configuration. What change refuses, and what the outcome
// would break, are problems, and nothing is changed.
func (a *API) update(change func(*serverconf.Model) error) error {
	read := false
	err := a.Conf.Update(func(m *serverconf.Model) error {
		read = true
		return change(m)
	})
	if err == nil {
		return nil
	}
	if _, ok := asProblem(err); ok {
		return err
	}
	if !read {
		return guard.NewProblem(http.StatusInternalServerError, "configuration_file", "the file of clients and services is not acceptable: "+err.Error(),
			"somebody has edited it; correct it, then repeat the call")
	}
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	if errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &call) {
		return err
	}
	return invalid("see what the configuration of clients and services allows", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// inClient changes one client, which must be there.
func (a *API) inClient(path ClientPath, change func(*serverconf.ClientEntry) error) error {
	c, err := parseClientPath(path.Client)
	if err != nil {
		return err
	}
	return a.update(func(m *serverconf.Model) error {
		e, err := entry(m, c)
		if err != nil {
			return err
		}
		return change(e)
	})
}

// clientTag names the state of a client without its groups, services and
// rights, which have their own.
func clientTag(c *serverconf.Client) string {
	state := []any{c.ID, c.Status, c.Connection}
	for _, cert := range c.Certificates {
		state = append(state, pki.HashOf(cert).Hex())
	}
	return etag(state)
}

func entryTag(e *serverconf.ClientEntry) string {
	status, connection := e.Status, e.Connection
	if status == "" {
		status = serverconf.Saved
	}
	if connection == "" {
		connection = serverconf.HTTPS
	}
	state := []any{e.ID, status, connection}
	for _, cert := range e.Certificates {
		state = append(state, pki.HashOf(cert.Certificate).Hex())
	}
	return etag(state)
}

func (a *API) localClient(c *serverconf.Client) LocalClient {
	v := LocalClient{ID: c.ID.String(), Status: c.Status, Connection: c.Connection, Certificates: []ISCertificate{}, Groups: []string{}, Services: []string{}}
	view := a.View()
	if view != nil {
		if v.Name = view.Name(c.ID); v.Name == "" {
			v.Name = view.Name(c.ID.Member().Client())
		}
	}
	for _, cert := range c.Certificates {
		text, _ := serverconf.Certificate{Certificate: cert}.MarshalText() // it has one
		v.Certificates = append(v.Certificates, ISCertificate{pki.HashOf(cert).Hex(), cert.Subject.String(), cert.NotAfter, string(text)})
	}
	for _, g := range c.Groups {
		v.Groups = append(v.Groups, g.Code)
	}
	counted := map[string]bool{}
	for _, s := range c.Services {
		v.Services = append(v.Services, serviceName(s.ID))
		if !counted[s.ID.Code()] { // rights are those of all versions
			v.Rights += len(s.Rights)
		}
		counted[s.ID.Code()] = true
	}
	reason := ""
	if c.Status == serverconf.Saved {
		reason = a.declined(&request.Request{Service: request.ClientReg, Client: c.ID})
	}
	switch c.Status {
	case serverconf.Saved:
		if reason != "" {
			v.Next = declinedNext(reason, "kontor client register")
			break
		}
		v.Next = "have the registry register it for " + a.Server.String() + " (kontor client register); it becomes registered when that is published"
	case serverconf.RegistrationInProgress:
		v.Next = "wait: it becomes registered when the registry has approved it and published; kontor client register asks what became of it"
	case serverconf.GlobalError:
		v.Next = "the registry does not list it for this security server any more: ask its operators whether they disabled it, else have it registered again (kontor client register), or delete it"
	case serverconf.Disabled:
		v.Next = "it carries no messages; have it enabled again when it should (kontor client enable)"
	case serverconf.Disabling, serverconf.Enabling:
		v.Next = "wait until the registry has published it"
	case serverconf.DeletionInProgress:
		v.Next = "delete it (kontor client delete) when the registry does not list it any more"
	case serverconf.Registered:
		if c.Connection == serverconf.HTTPS && len(c.Certificates) == 0 {
			v.Next = "add a certificate of its information systems (kontor client cert add), or nobody can connect as it"
		}
	}
	return v
}

func (a *API) listClients(context.Context, *none) (*list[LocalClient], error) {
	var all []LocalClient
	for _, c := range a.Conf.Conf().Clients() {
		all = append(all, a.localClient(c))
	}
	return answerList(all), nil
}

func (a *API) getClient(_ context.Context, in *ClientPath) (*item[LocalClient], error) {
	return a.showClient(*in)
}

func (a *API) client(in ClientPath) (*serverconf.Client, error) {
	name, err := parseClientPath(in.Client)
	if err != nil {
		return nil, err
	}
	c, ok := a.Conf.Conf().Client(name)
	if !ok {
		return nil, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor client list)", "%s is no client of this security server", name)
	}
	return c, nil
}

func (a *API) showClient(in ClientPath) (*item[LocalClient], error) {
	c, err := a.client(in)
	if err != nil {
		return nil, err
	}
	return answer(clientTag(c), a.localClient(c)), nil
}

func (a *API) addClient(ctx context.Context, in *struct{ Body NewClientEntry }) (*item[LocalClient], error) {
	c, err := id.ParseClient(slashes(in.Body.ID))
	if err != nil {
		return nil, invalid("give it as instance/class/member/subsystem", "%v", err)
	}
	if err := a.mayBeClient(c); err != nil {
		return nil, err
	}
	err = a.update(func(m *serverconf.Model) error {
		if _, err := entry(m, c); err == nil {
			return exists("see kontor client show", "%s is a client of this security server already", c)
		}
		m.Clients = append(m.Clients, serverconf.ClientEntry{ID: c, Status: serverconf.Saved, Connection: in.Body.Connection})
		return nil
	})
	if err != nil {
		return nil, err
	}
	note(ctx, "add client %s", c)
	a.Nudge()
	return a.showClient(ClientPath{c.String()})
}

// mayBeClient refuses identifiers that cannot be registered.
func (a *API) mayBeClient(c id.Client) error {
	if c.Instance() != a.Server.Owner().Instance() {
		return invalid("it belongs to a security server of its own instance", "%s is not of the instance %s", c, a.Server.Owner().Instance())
	}
	parts := []string{c.Member().Class(), c.Member().Code()}
	if !c.IsMember() {
		parts = append(parts, c.Subsystem())
	}
	for _, p := range parts {
		if err := id.CheckCharacters(p); err != nil {
			return invalid("use other characters", "%q: %v", p, err)
		}
	}
	view := a.View()
	if view == nil {
		return nil // the registry decides
	}
	var classes []string
	for _, class := range view.MemberClasses(c.Instance()) {
		classes = append(classes, class.Code)
	}
	if !slices.Contains(classes, c.Member().Class()) {
		return invalid("use one of "+strings.Join(classes, ", "), "there is no member class %s in %s", c.Member().Class(), c.Instance())
	}
	return nil
}

func (a *API) changeClient(ctx context.Context, in *struct {
	ClientPath
	Seen
	Body ClientChange
}) (*item[LocalClient], error) {
	err := a.inClient(in.ClientPath, func(e *serverconf.ClientEntry) error {
		if err := in.check(entryTag(e)); err != nil {
			return err
		}
		note(ctx, "client %s connects by %s, before by %s", e.ID, in.Body.Connection, e.Connection)
		e.Connection = in.Body.Connection
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showClient(in.ClientPath)
}

func (a *API) deleteClient(ctx context.Context, in *struct {
	ClientPath
	Seen
}) (*struct{}, error) {
	c, err := parseClientPath(in.Client)
	if err != nil {
		return nil, err
	}
	return nil, a.update(func(m *serverconf.Model) error {
		e, err := entry(m, c)
		if err != nil {
			return err
		}
		if err := in.check(entryTag(e)); err != nil {
			return err
		}
		view := a.View()
		switch {
		case view != nil && view.Registered(a.Server, c):
			return inUse("have its registration removed there first (kontor client unregister)", "the registry lists %s for this security server", c)
		case view == nil && e.Status != serverconf.Saved && e.Status != "":
			return noView()
		case len(e.Descriptions) > 0:
			return inUse("delete them first (kontor service delete)", "%s has %d services", c, services(e))
		}
		if err := a.forgetRequest(&request.Request{Service: request.ClientReg, Client: c}); err != nil {
			return err
		}
		note(ctx, "delete client %s, status %s", c, e.Status)
		m.Clients = slices.DeleteFunc(m.Clients, func(e serverconf.ClientEntry) bool { return e.ID == c })
		return nil
	})
}

func (a *API) addISCertificate(ctx context.Context, in *struct {
	ClientPath
	Seen
	Body NewISCertificate
}) (*item[LocalClient], error) {
	cert, err := parseCertificate(in.Body.Certificate)
	if err != nil {
		return nil, err
	}
	hash := pki.HashOf(cert)
	err = a.inClient(in.ClientPath, func(e *serverconf.ClientEntry) error {
		if err := in.checkIfGiven(entryTag(e)); err != nil {
			return err
		}
		if slices.ContainsFunc(e.Certificates, func(have serverconf.Certificate) bool { return have.Equal(cert) }) {
			return exists("see kontor client show", "client %s has the certificate already", e.ID)
		}
		e.Certificates = append(e.Certificates, serverconf.Certificate{Certificate: cert})
		note(ctx, "client %s: add certificate %s of %s", e.ID, hash.Hex(), cert.Subject)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showClient(in.ClientPath)
}

func (a *API) deleteISCertificate(ctx context.Context, in *struct {
	ClientPath
	HashPath
	Seen
}) (*struct{}, error) {
	return nil, a.inClient(in.ClientPath, func(e *serverconf.ClientEntry) error {
		if err := in.check(entryTag(e)); err != nil {
			return err
		}
		named := func(c serverconf.Certificate) bool {
			return strings.HasPrefix(pki.HashOf(c.Certificate).Hex(), strings.ToLower(in.Hash))
		}
		n := 0
		for _, c := range e.Certificates {
			if named(c) {
				n++
				note(ctx, "client %s: delete certificate %s of %s", e.ID, pki.HashOf(c.Certificate).Hex(), c.Subject)
			}
		}
		switch n {
		case 0:
			return problem(http.StatusNotFound, guard.CodeUnknown, "see kontor client show", "client %s has no certificate %s", e.ID, in.Hash)
		case 1:
			e.Certificates = slices.DeleteFunc(e.Certificates, named)
			return nil
		}
		return problem(http.StatusConflict, "ambiguous", "give more of it", "several certificates begin with %s", in.Hash)
	})
}
