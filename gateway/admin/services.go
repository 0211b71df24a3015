// SPDX-License-Identifier: Apache-2.0

package admin

import (
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
	ID          string                `json:"id"`
	Client      string                `json:"client"`
	Name        string                `json:"name" doc:"Its code, or code/version"`
	Type        string                `json:"type" enum:"REST,OPENAPI3,WSDL"`
	URL         string                `json:"url"`
	Description string                `json:"description,omitempty" doc:"URL of the WSDL or OpenAPI document"`
	Timeout     string                `json:"timeout" doc:"Such as 60s"`
	VerifyTLS   bool                  `json:"verify_tls" doc:"Over https the service must present one of the client's certificates"`
	Enabled     bool                  `json:"enabled"`
	Notice      string                `json:"notice,omitempty" doc:"What callers are told while it is disabled"`
	Endpoints   []serverconf.Endpoint `json:"endpoints,omitempty"`
	Rights      int                   `json:"rights" doc:"How many access rights there are to it"`
	Next        string                `json:"next,omitempty" doc:"What to do next"`
}

// NewService adds a REST service by the URL under which its paths lie.
type NewService struct {
	Code      string `json:"code" maxLength:"255"`
	URL       string `json:"url" maxLength:"2048" doc:"http or https, without a query"`
	Timeout   string `json:"timeout,omitempty" doc:"Default: 60s"`
	VerifyTLS *bool  `json:"verify_tls,omitempty" doc:"Default: true"`
	Enabled   *bool  `json:"enabled,omitempty" doc:"Default: true"`
	Notice    string `json:"notice,omitempty" maxLength:"1000"`
}

// ServiceChange changes a service; absent fields stay as they are.
type ServiceChange struct {
	URL       *string `json:"url,omitempty" maxLength:"2048"`
	Timeout   *string `json:"timeout,omitempty"`
	VerifyTLS *bool   `json:"verify_tls,omitempty"`
	Enabled   *bool   `json:"enabled,omitempty"`
	Notice    *string `json:"notice,omitempty" maxLength:"1000" doc:"What callers are told while it is disabled"`
}

func (a *API) registerServices() {
	who := []string{RoleServiceAdministrator}
	register(a, operation{id: "list-services", method: http.MethodGet, path: "/services", summary: "List services", roles: readers()}, a.listServices)
	register(a, operation{id: "get-service", method: http.MethodGet, path: "/clients/{client}/services/{service}", summary: "Show a service", roles: readers()}, a.getService)
	register(a, operation{id: "add-service", method: http.MethodPost, path: "/clients/{client}/services", summary: "Add a REST service", status: http.StatusCreated, roles: who}, a.addService)
	register(a, operation{id: "change-service", method: http.MethodPatch, path: "/clients/{client}/services/{service}",
		summary: "Change, enable or disable a service", roles: who}, a.changeService)
	register(a, operation{id: "delete-service", method: http.MethodDelete, path: "/clients/{client}/services/{service}",
		summary: "Delete a service, and the access rights to it", roles: who}, a.deleteService)
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
	v := Service{ID: s.ID.String(), Client: s.Owner.ID.String(), Name: serviceName(s.ID), Type: s.Type, URL: s.URL, Description: s.Description.URL,
		Timeout: s.Timeout.String(), VerifyTLS: s.VerifyTLS, Enabled: s.DisabledNotice == nil, Endpoints: s.Endpoints, Rights: len(s.Rights)}
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
	var only id.Client
	if in.Client != "" {
		c, err := a.client(ClientPath{in.Client})
		if err != nil {
			return nil, err
		}
		only = c.ID
	}
	var all []Service
	for _, c := range a.Conf.Conf().Clients() {
		if only.IsZero() || c.ID == only {
			for _, s := range c.Services {
				all = append(all, service(s))
			}
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

func (a *API) addService(ctx context.Context, in *struct {
	ClientPath
	Body NewService
}) (*item[Service], error) {
	e := serverconf.ServiceEntry{Code: in.Body.Code, URL: in.Body.URL, VerifyTLS: in.Body.VerifyTLS}
	d := serverconf.DescriptionEntry{Type: serverconf.REST}
	if err := id.CheckCharacters(in.Body.Code); err != nil {
		return nil, invalid("use other characters", "code: %v", err)
	}
	if in.Body.Timeout != "" {
		var err error
		if e.Timeout, err = parseTimeout(in.Body.Timeout); err != nil {
			return nil, err
		}
	}
	if in.Body.Enabled != nil && !*in.Body.Enabled {
		d.Disabled = &in.Body.Notice
	}
	err := a.inClient(in.ClientPath, func(c *serverconf.ClientEntry) error {
		if offers(c, e.Code) {
			return exists("change it (kontor service change)", "client %s has a service %q already", c.ID, e.Code)
		}
		d.Services = []serverconf.ServiceEntry{e}
		c.Descriptions = append(c.Descriptions, d)
		note(ctx, "client %s: add REST service %s at %s", c.ID, e.Code, e.URL)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showService(ServicePath{in.ClientPath, in.Body.Code})
}

func (a *API) changeService(ctx context.Context, in *struct {
	ServicePath
	Seen
	Body ServiceChange
}) (*item[Service], error) {
	err := a.inClient(in.ClientPath, func(c *serverconf.ClientEntry) error {
		// The snapshot changes only under the lock held here, so it is what the
		// file says unless somebody has edited that.
		now, err := a.service(in.ServicePath)
		if err != nil {
			return err
		}
		if err := in.check(serviceTag(now)); err != nil {
			return err
		}
		d, s, err := in.ServicePath.in(c)
		if err != nil {
			return err
		}
		return in.Body.apply(ctx, c.ID, d, s)
	})
	if err != nil {
		return nil, err
	}
	return a.showService(in.ServicePath)
}

func (b *ServiceChange) apply(ctx context.Context, c id.Client, d *serverconf.DescriptionEntry, s *serverconf.ServiceEntry) error {
	if b.URL != nil {
		note(ctx, "service %s of %s is at %s, before at %s", s.Code, c, *b.URL, s.URL)
		s.URL = *b.URL
	}
	if b.Timeout != nil {
		d, err := parseTimeout(*b.Timeout)
		if err != nil {
			return err
		}
		note(ctx, "service %s of %s has timeout %s", s.Code, c, d)
		s.Timeout = d
	}
	if b.VerifyTLS != nil {
		note(ctx, "service %s of %s: TLS verification %t", s.Code, c, *b.VerifyTLS)
		s.VerifyTLS = b.VerifyTLS
	}
	enabled := d.Disabled == nil
	if b.Enabled != nil {
		enabled = *b.Enabled
	}
	switch {
	case enabled && b.Notice != nil && *b.Notice != "":
		return invalid("leave the notice out, or disable the service", "callers of an enabled service are told nothing")
	case enabled && d.Disabled != nil:
		note(ctx, "enable service %s of %s", s.Code, c)
		d.Disabled = nil
	case !enabled && (d.Disabled == nil || b.Notice != nil):
		notice := ""
		if b.Notice != nil {
			notice = *b.Notice
		}
		note(ctx, "disable service %s of %s: %q", s.Code, c, notice)
		d.Disabled = &notice
	}
	return nil
}

func (a *API) deleteService(ctx context.Context, in *struct {
	ServicePath
	Seen
}) (*struct{}, error) {
	return nil, a.inClient(in.ClientPath, func(c *serverconf.ClientEntry) error {
		now, err := a.service(in.ServicePath)
		if err != nil {
			return err
		}
		if err := in.check(serviceTag(now)); err != nil {
			return err
		}
		d, s, err := in.ServicePath.in(c)
		if err != nil {
			return err
		}
		code, name := s.Code, entryName(s)
		d.Services = slices.DeleteFunc(d.Services, func(v serverconf.ServiceEntry) bool { return entryName(&v) == name })
		c.Descriptions = slices.DeleteFunc(c.Descriptions, func(d serverconf.DescriptionEntry) bool { return len(d.Services) == 0 })
		note(ctx, "delete service %s of %s", slashes(in.Service), c.ID)
		if offers(c, code) {
			return nil // rights are those of all versions
		}
		c.Access = slices.DeleteFunc(c.Access, func(r serverconf.AccessEntry) bool {
			if r.Service != code {
				return false
			}
			note(ctx, "revoke %s", rightText(&r))
			return true
		})
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
