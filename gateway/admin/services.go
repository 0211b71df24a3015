// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kontor/gateway/serverconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Service is a service of a client.
type Service struct {
	ID          string     `json:"id"`
	Client      string     `json:"client"`
	Name        string     `json:"name" doc:"Its code, or code/version"`
	Type        string     `json:"type" enum:"REST,OPENAPI3,WSDL"`
	Title       string     `json:"title,omitempty" doc:"What its document calls it"`
	URL         string     `json:"url"`
	Description string     `json:"description" doc:"Names the description that it belongs to"`
	Document    string     `json:"document,omitempty" doc:"URL or file of the WSDL or OpenAPI document"`
	Timeout     string     `json:"timeout" doc:"Such as 60s"`
	VerifyTLS   bool       `json:"verify_tls" doc:"Over https the service must present one of the client's certificates"`
	Enabled     bool       `json:"enabled"`
	Notice      string     `json:"notice,omitempty" doc:"What callers are told while it is disabled"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"`
	Rights      int        `json:"rights" doc:"How many access rights there are to it"`
	Next        string     `json:"next,omitempty" doc:"What to do next"`
}

// Endpoint is a method and a path pattern of a service.
type Endpoint struct {
	Method    string `json:"method" maxLength:"16" doc:"* for any"`
	Path      string `json:"path" maxLength:"1024" doc:"Pattern: * is any run without /, ** any run at all"`
	Generated bool   `json:"generated,omitempty" readOnly:"true" doc:"It comes from the document, not from an operator"`
}

// ServiceChange changes a service; absent fields stay as they are.
type ServiceChange struct {
	URL       *string `json:"url,omitempty" maxLength:"2048"`
	Timeout   *string `json:"timeout,omitempty"`
	VerifyTLS *bool   `json:"verify_tls,omitempty"`
	All       bool    `json:"all,omitempty" doc:"Change all services of its description alike"`
}

func (a *API) registerServices() {
	who := []string{RoleServiceAdministrator}
	register(a, operation{id: "list-services", method: http.MethodGet, path: "/services", summary: "List services", roles: readers()}, a.listServices)
	register(a, operation{id: "get-service", method: http.MethodGet, path: "/clients/{client}/services/{service}", summary: "Show a service", roles: readers()}, a.getService)
	register(a, operation{id: "change-service", method: http.MethodPatch, path: "/clients/{client}/services/{service}",
		summary: "Change address, timeout or TLS verification of a service", roles: who}, a.changeService)
	register(a, operation{id: "add-endpoint", method: http.MethodPost, path: "/clients/{client}/services/{service}/endpoints", summary: "Add an endpoint to a REST service", status: http.StatusCreated, roles: who}, a.addEndpoint)
	register(a, operation{id: "delete-endpoint", method: http.MethodDelete, path: "/clients/{client}/services/{service}/endpoints",
		summary: "Delete an endpoint that an operator has added", roles: who}, a.deleteEndpoint)
}

type ServicePath struct {
	ClientPath
	Service string `path:"service" maxLength:"1024" doc:"Its code; of a SOAP service code:version"`
}

// serviceName is a service within its client: its code, and its version if it
// has one.
func serviceName(s id.Service) string {
	if v, ok := s.Version(); ok {
		return s.Code() + "/" + v
	}
	return s.Code()
}

// in finds a service of a client by its name, and its description.
func (p ServicePath) in(e *serverconf.ClientEntry) (*serverconf.DescriptionEntry, *serverconf.ServiceEntry, error) {
	name := slashes(p.Service)
	for i := range e.Descriptions {
		d := &e.Descriptions[i]
		for j := range d.Services {
			if s := &d.Services[j]; entryName(s) == name {
				return d, s, nil
			}
		}
	}
	return nil, nil, noService(e.ID, name)
}

func entryName(s *serverconf.ServiceEntry) string {
	if s.Version != nil {
		return s.Code + "/" + *s.Version
	}
	return s.Code
}

// offers tells whether a client has a service of that code.
func offers(e *serverconf.ClientEntry, code string) bool {
	return slices.ContainsFunc(e.Descriptions, func(d serverconf.DescriptionEntry) bool {
		return slices.ContainsFunc(d.Services, func(s serverconf.ServiceEntry) bool { return s.Code == code })
	})
}

// offersName tells whether a client has a service of that code and version.
func offersName(e *serverconf.ClientEntry, name string) bool {
	return slices.ContainsFunc(e.Descriptions, func(d serverconf.DescriptionEntry) bool {
		return slices.ContainsFunc(d.Services, func(s serverconf.ServiceEntry) bool { return entryName(&s) == name })
	})
}

// services counts the services of a client.
func services(e *serverconf.ClientEntry) int {
	n := 0
	for _, d := range e.Descriptions {
		n += len(d.Services)
	}
	return n
}

func noService(c id.Client, name string) error {
	return problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor service list)", "client %s has no service %q", c, name)
}

func service(s *serverconf.Service) Service {
	v := Service{ID: s.ID.String(), Client: s.Owner.ID.String(), Name: serviceName(s.ID), Type: s.Type, Title: s.Title, URL: s.URL,
		Description: s.Description.ID(), Document: cmp.Or(s.Description.URL, s.Description.File),
		Timeout: s.Timeout.String(), VerifyTLS: s.VerifyTLS, Enabled: s.DisabledNotice == nil, Rights: len(s.Rights)}
	for _, e := range s.Endpoints {
		v.Endpoints = append(v.Endpoints, Endpoint{e.Method, e.Path, s.Generated(e)})
	}
	if s.DisabledNotice != nil {
		v.Notice = *s.DisabledNotice
	}
	u, err := url.Parse(s.URL)
	switch {
	case !s.Owner.Registered():
		v.Next = "its client is not registered: see kontor client show"
	case err == nil && u.Scheme == "https" && s.VerifyTLS && len(s.Owner.Certificates) == 0:
		v.Next = "add the certificate of the service to its client (kontor client cert add), or turn the verification off"
	case len(s.Rights) == 0:
		v.Next = "nobody may call it: grant access (kontor access grant)"
	case !v.Enabled:
		v.Next = "enable it (kontor service enable)"
	}
	return v
}

// serviceTag names the state of a service without its rights.
func serviceTag(s *serverconf.Service) string {
	v := service(s)
	v.Rights, v.Next = 0, ""
	return etag(v)
}

type serviceQuery struct {
	Client string `query:"client" doc:"Only those of this client"`
}

func (a *API) listServices(_ context.Context, in *serviceQuery) (*list[Service], error) {
	clients, err := a.clientsOf(in.Client)
	if err != nil {
		return nil, err
	}
	var all []Service
	for _, c := range clients {
		for _, s := range c.Services {
			all = append(all, service(s))
		}
	}
	return answerList(all), nil
}

func (a *API) getService(_ context.Context, in *ServicePath) (*item[Service], error) {
	return a.showService(*in)
}

func (a *API) service(in ServicePath) (*serverconf.Service, error) {
	c, err := a.client(in.ClientPath)
	if err != nil {
		return nil, err
	}
	name := slashes(in.Service)
	i := slices.IndexFunc(c.Services, func(s *serverconf.Service) bool { return serviceName(s.ID) == name })
	if i < 0 {
		return nil, noService(c.ID, name)
	}
	return c.Services[i], nil
}

func (a *API) showService(in ServicePath) (*item[Service], error) {
	s, err := a.service(in)
	if err != nil {
		return nil, err
	}
	return answer(serviceTag(s), service(s)), nil
}

func parseTimeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, invalid("give it with a unit, such as 30s or 2m", "%q is no timeout", s)
	}
	return d, nil
}

func (a *API) changeService(ctx context.Context, in *struct {
	ServicePath
	Seen
	Body ServiceChange
}) (*item[Service], error) {
	err := a.inService(in.ServicePath, in.Seen, func(c *serverconf.ClientEntry, d *serverconf.DescriptionEntry, s *serverconf.ServiceEntry) error {
		if !in.Body.All {
			return in.Body.apply(ctx, c.ID, s)
		}
		for i := range d.Services {
			if err := in.Body.apply(ctx, c.ID, &d.Services[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showService(in.ServicePath)
}

// inService changes one service, which must be there and in the state that the
// caller has seen.
func (a *API) inService(path ServicePath, seen Seen, change func(*serverconf.ClientEntry, *serverconf.DescriptionEntry, *serverconf.ServiceEntry) error) error {
	return a.inClient(path.ClientPath, func(c *serverconf.ClientEntry) error {
		// The snapshot changes only under the lock held here, so it is what the
		// file says unless somebody has edited that.
		now, err := a.service(path)
		if err != nil {
			return err
		}
		if err := seen.check(serviceTag(now)); err != nil {
			return err
		}
		d, s, err := path.in(c)
		if err != nil {
			return err
		}
		return change(c, d, s)
	})
}

func (b *ServiceChange) apply(ctx context.Context, c id.Client, s *serverconf.ServiceEntry) error {
	if b.URL != nil {
		note(ctx, "service %s of %s is at %s, before at %s", entryName(s), c, *b.URL, s.URL)
		s.URL = *b.URL
	}
	if b.Timeout != nil {
		d, err := parseTimeout(*b.Timeout)
		if err != nil {
			return err
		}
		note(ctx, "service %s of %s has timeout %s", entryName(s), c, d)
		s.Timeout = d
	}
	if b.VerifyTLS != nil {
		note(ctx, "service %s of %s: TLS verification %t", entryName(s), c, *b.VerifyTLS)
		s.VerifyTLS = b.VerifyTLS
	}
	return nil
}

func (a *API) addEndpoint(ctx context.Context, in *struct {
	ServicePath
	Body Endpoint
}) (*item[Service], error) {
	e := serverconf.Endpoint{Method: strings.ToUpper(in.Body.Method), Path: in.Body.Path}
	err := a.inService(in.ServicePath, Seen{"*"}, func(c *serverconf.ClientEntry, _ *serverconf.DescriptionEntry, s *serverconf.ServiceEntry) error {
		if slices.ContainsFunc(s.Endpoints, func(o serverconf.EndpointEntry) bool { return o.Endpoint == e }) {
			return exists("see kontor service show", "service %s has the endpoint %s %s already", s.Code, e.Method, e.Path)
		}
		if e.IsBase() {
			return invalid("grant access to the service", "%s %s is the whole service", e.Method, e.Path)
		}
		s.Endpoints = append(s.Endpoints, serverconf.EndpointEntry{Endpoint: e})
		note(ctx, "service %s of %s: add endpoint %s %s", s.Code, c.ID, e.Method, e.Path)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showService(in.ServicePath)
}

func (a *API) deleteEndpoint(ctx context.Context, in *struct {
	ServicePath
	Seen
	Method string `query:"method" required:"true"`
	Path   string `query:"path" required:"true"`
}) (*struct{}, error) {
	e := serverconf.Endpoint{Method: strings.ToUpper(in.Method), Path: in.Path}
	return nil, a.inService(in.ServicePath, in.Seen, func(c *serverconf.ClientEntry, _ *serverconf.DescriptionEntry, s *serverconf.ServiceEntry) error {
		i := slices.IndexFunc(s.Endpoints, func(o serverconf.EndpointEntry) bool { return o.Endpoint == e })
		if i < 0 {
			return problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor service show)", "service %s has no endpoint %s %s", s.Code, e.Method, e.Path)
		}
		if s.Endpoints[i].Generated {
			return inUse("have it removed there, then refresh (kontor service refresh)", "the endpoint %s %s comes from the document", e.Method, e.Path)
		}
		if lost := len(lostRights(c, []gone{{s.Code, e}})); lost > 0 {
			return inUse("revoke them first (kontor access revoke)", "%d rights are to the endpoint %s %s", lost, e.Method, e.Path)
		}
		s.Endpoints = slices.Delete(s.Endpoints, i, i+1)
		note(ctx, "service %s of %s: delete endpoint %s %s", s.Code, c.ID, e.Method, e.Path)
		return nil
	})
}

func rightText(r *serverconf.AccessEntry) string {
	var b strings.Builder
	b.WriteString("access of ")
	switch {
	case r.Group != "":
		b.WriteString("local group " + r.Group)
	case !r.GlobalGroup.IsZero():
		b.WriteString("global group " + r.GlobalGroup.String())
	default:
		b.WriteString(r.Client.String())
	}
	b.WriteString(" to " + r.Service)
	if r.Method != "" || r.Path != "" {
		b.WriteString(" " + r.Method + " " + r.Path)
	}
	if !r.Expires.IsZero() {
		b.WriteString(" until " + r.Expires.UTC().Format(time.RFC3339))
	}
	return b.String()
}
