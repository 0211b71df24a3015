// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kontor/gateway/description"
	"kontor/gateway/serverconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Description is a service description: services that are added, refreshed,
// enabled, disabled and deleted together, and the document that tells of them.
type Description struct {
	ID        string    `json:"id" doc:"Names it; it changes with the place of the document of a WSDL description"`
	Client    string    `json:"client"`
	Type      string    `json:"type" enum:"REST,OPENAPI3,WSDL"`
	URL       string    `json:"url,omitempty" doc:"Of its document"`
	File      string    `json:"file,omitempty" doc:"Of its document, if that has no URL"`
	Refreshed time.Time `json:"refreshed,omitzero" doc:"When its document was last read"`
	Enabled   bool      `json:"enabled"`
	Notice    string    `json:"notice,omitempty" doc:"What callers are told while it is disabled"`
	Services  []Service `json:"services"`
	Warnings  []string  `json:"warnings,omitempty" doc:"What is wrong with its document; only after it was read"`
}

// NewDescription adds services.
type NewDescription struct {
	Type       string `json:"type" enum:"REST,OPENAPI3,WSDL"`
	Code       string `json:"code,omitempty" maxLength:"255" doc:"Of the service; a WSDL document tells the codes itself"`
	URL        string `json:"url,omitempty" maxLength:"2048" doc:"Of the document; of a REST service: under which its paths lie"`
	Document   string `json:"document,omitempty" doc:"The document itself, in place of its URL"`
	ServiceURL string `json:"service_url,omitempty" maxLength:"2048" doc:"Address of the services, in place of those that the document tells"`
	Timeout    string `json:"timeout,omitempty" doc:"Default: 60s"`
	VerifyTLS  *bool  `json:"verify_tls,omitempty" doc:"Over https the services, and the server of the document, must present one of the client's certificates. Default: true"`
	Enabled    *bool  `json:"enabled,omitempty" doc:"Default: true"`
	Notice     string `json:"notice,omitempty" maxLength:"1000"`
}

// DescriptionChange enables or disables services.
type DescriptionChange struct {
	Enabled bool   `json:"enabled"`
	Notice  string `json:"notice,omitempty" maxLength:"1000" doc:"What callers are told while it is disabled"`
}

// Refresh reads the document of a description again.
type Refresh struct {
	URL      string `json:"url,omitempty" maxLength:"2048" doc:"Of the document from now on"`
	Document string `json:"document,omitempty" doc:"The document from now on, in place of a URL"`
	Apply    string `json:"apply,omitempty" doc:"Digest of the differences to apply; without it they are only told"`
}

// Differences is what a refresh changes.
type Differences struct {
	Digest      string       `json:"digest" doc:"Names these differences"`
	Applied     bool         `json:"applied"`
	Differences []Difference `json:"differences"`
	RightsLost  []Right      `json:"rights_lost" doc:"Access rights to what is removed; they are revoked with it"`
	Warnings    []string     `json:"warnings" doc:"What is wrong with the document, or not taken from it"`
	Description Description  `json:"description" doc:"As it is now"`
}

// Difference is one service or endpoint that a refresh changes.
type Difference struct {
	Kind    string `json:"kind" enum:"added,removed,changed"`
	Service string `json:"service" doc:"Its code, or code/version"`
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"`
	What    string `json:"what,omitempty"`
}

// Kinds of differences.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// maxDescriptionBody bounds a call with a document, which JSON escapes.
const maxDescriptionBody = 3 * description.MaxSize

func (a *API) registerDescriptions() {
	who := []string{RoleServiceAdministrator}
	register(a, operation{id: "list-descriptions", method: http.MethodGet, path: "/descriptions", summary: "List service descriptions", roles: readers()}, a.listDescriptions)
	register(a, operation{id: "get-description", method: http.MethodGet, path: "/clients/{client}/descriptions/{description}", summary: "Show a service description", roles: readers()}, a.getDescription)
	register(a, operation{id: "add-description", method: http.MethodPost, path: "/clients/{client}/descriptions", summary: "Add services: REST, of an OpenAPI document or of a WSDL document",
		description: "The document is read, but nothing that it refers to. Redirects are not followed.", status: http.StatusCreated, maxBody: maxDescriptionBody, roles: who}, a.addDescription)
	register(a, operation{id: "refresh-description", method: http.MethodPost, path: "/clients/{client}/descriptions/{description}/refresh", summary: "Read the document of a service description again",
		description: "The first call tells the differences; a second one with their digest applies them, if they are still the same. " +
			"URL, timeout and TLS verification of services that stay do not change, nor do endpoints that were added by hand.", maxBody: maxDescriptionBody, roles: who}, a.refreshDescription)
	register(a, operation{id: "change-description", method: http.MethodPatch, path: "/clients/{client}/descriptions/{description}", summary: "Enable or disable the services of a description", roles: who}, a.changeDescription)
	register(a, operation{id: "delete-description", method: http.MethodDelete, path: "/clients/{client}/descriptions/{description}", summary: "Delete a description, its services, and the access rights to them", roles: who}, a.deleteDescription)
}

type DescriptionPath struct {
	ClientPath
	Description string `path:"description" maxLength:"64"`
}

func describe(d *serverconf.Description) Description {
	v := Description{ID: d.ID(), Client: d.Owner.ID.String(), Type: d.Type, URL: d.URL, File: d.File, Refreshed: d.Refreshed, Enabled: d.DisabledNotice == nil, Services: []Service{}}
	if d.DisabledNotice != nil {
		v.Notice = *d.DisabledNotice
	}
	for _, s := range d.Services {
		v.Services = append(v.Services, service(s))
	}
	return v
}

// descriptionTag names the state of a description without its rights.
func descriptionTag(d *serverconf.Description) string {
	v := describe(d)
	for i := range v.Services {
		v.Services[i].Rights, v.Services[i].Next = 0, ""
	}
	return etag(v)
}

func (a *API) description(in DescriptionPath) (*serverconf.Description, error) {
	c, err := a.client(in.ClientPath)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Descriptions, func(d *serverconf.Description) bool { return d.ID() == in.Description })
	if i < 0 {
		return nil, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor service list)", "client %s has no service description %q", c.ID, in.Description)
	}
	return c.Descriptions[i], nil
}

func (a *API) listDescriptions(_ context.Context, in *serviceQuery) (*list[Description], error) {
	clients, err := a.clientsOf(in.Client)
	if err != nil {
		return nil, err
	}
	var all []Description
	for _, c := range clients {
		for _, d := range c.Descriptions {
			all = append(all, describe(d))
		}
	}
	return answerList(all), nil
}

// clientsOf returns one client, or all if none is named.
func (a *API) clientsOf(name string) ([]*serverconf.Client, error) {
	if name == "" {
		return a.Conf.Conf().Clients(), nil
	}
	c, err := a.client(ClientPath{name})
	return []*serverconf.Client{c}, err
}

func (a *API) getDescription(_ context.Context, in *DescriptionPath) (*item[Description], error) {
	d, err := a.description(*in)
	if err != nil {
		return nil, err
	}
	return answer(descriptionTag(d), describe(d)), nil
}

// read reads a document: that which is given, or that at a URL.
func (a *API) read(ctx context.Context, owner id.Client, kind, from string, document []byte, verify bool) (*description.Document, []byte, error) {
	var base *url.URL
	if document == nil {
		var err error
		if base, err = url.Parse(from); err != nil {
			return nil, nil, invalid("give an http or https URL", "url: %v", err)
		}
		document, err = description.Fetch(ctx, from, a.Conf.ServiceTLS(owner, verify))
		switch {
		case errors.Is(err, serverconf.ErrServiceCertificate):
			return nil, nil, problem(http.StatusBadGateway, "document_unreachable", "add the certificate of the server to the client (kontor client cert add), or turn the verification off (--verify-tls=false)", "%v", err)
		case err != nil:
			return nil, nil, problem(http.StatusBadGateway, "document_unreachable", "see whether the gateway can reach it", "%v", err)
		}
	}
	var doc *description.Document
	var err error
	if kind == serverconf.OpenAPI3 {
		doc, err = description.ReadOpenAPI(document, base)
	} else if doc, err = description.ReadWSDL(document); err == nil {
		err = sift(doc)
	}
	if err != nil {
		return nil, nil, invalid("see whether the document and its type are right", "%v", err)
	}
	return doc, document, nil
}

// sift takes operations out of a document that every security server has, and
// refuses names that a service cannot have.
func sift(doc *description.Document) error {
	doc.Services = slices.DeleteFunc(doc.Services, func(s description.Service) bool {
		if serverconf.Reserved(s.Code) {
			doc.Warnings = append(doc.Warnings, "operation "+s.Code+" is not taken: every security server has a service of that code")
			return true
		}
		return false
	})
	if len(doc.Services) == 0 {
		return errors.New("it has no operations but those that every security server has")
	}
	for _, s := range doc.Services {
		if err := id.CheckCharacters(s.Code); err != nil {
			return err
		}
		if s.Version == "" {
			continue
		}
		if err := id.CheckCharacters(s.Version); err != nil {
			return err
		}
	}
	return nil
}

// entryOfService makes a service of what a document tells.
func entryOfService(s *description.Service) serverconf.ServiceEntry {
	e := serverconf.ServiceEntry{Code: s.Code, Title: s.Title, URL: s.URL}
	if s.Version != "" {
		version := s.Version
		e.Version = &version
	}
	for _, p := range s.Endpoints {
		e.Endpoints = append(e.Endpoints, serverconf.EndpointEntry{Endpoint: serverconf.Endpoint(p), Generated: true})
	}
	return e
}

// check refuses what does not fit together.
func (n *NewDescription) check() error {
	wsdl, rest := n.Type == serverconf.WSDL, n.Type == serverconf.REST
	switch {
	case wsdl && n.Code != "":
		return invalid("leave it out", "a WSDL document tells the codes of its services itself")
	case !wsdl && n.Code == "":
		return invalid("give one", "the service has no code")
	case rest && (n.Document != "" || n.ServiceURL != ""):
		return invalid("give its URL only", "a REST service has no document")
	case (n.URL == "") == (n.Document == ""):
		return invalid("give one of the two", "there must be a URL or a document")
	case n.Enabled == nil || *n.Enabled:
		if n.Notice != "" {
			return invalid("leave the notice out, or disable the services", "callers of an enabled service are told nothing")
		}
	}
	if wsdl {
		return nil
	}
	if err := id.CheckCharacters(n.Code); err != nil {
		return invalid("use other characters", "code: %v", err)
	}
	return nil
}

func (a *API) addDescription(ctx context.Context, in *struct {
	ClientPath
	Body NewDescription
}) (*item[Description], error) {
	n := &in.Body
	owner, err := a.client(in.ClientPath)
	if err != nil {
		return nil, err
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	var timeout time.Duration
	if n.Timeout != "" {
		if timeout, err = parseTimeout(n.Timeout); err != nil {
			return nil, err
		}
	}
	d := serverconf.DescriptionEntry{Type: n.Type}
	if n.Enabled != nil && !*n.Enabled {
		d.Disabled = &n.Notice
	}
	doc, content := &description.Document{Services: []description.Service{{URL: n.URL}}}, []byte(nil)
	if n.Type != serverconf.REST {
		var given []byte
		if n.Document != "" {
			given = []byte(n.Document)
		}
		doc, content, err = a.read(ctx, owner.ID, n.Type, n.URL, given, n.VerifyTLS == nil || *n.VerifyTLS)
		if err != nil {
			return nil, err
		}
		d.URL, d.Refreshed = n.URL, a.Now().UTC().Truncate(time.Second)
	}
	for i := range doc.Services {
		s := entryOfService(&doc.Services[i])
		if n.Code != "" {
			s.Code = n.Code
		}
		if n.ServiceURL != "" {
			s.URL = n.ServiceURL
		}
		if s.URL == "" {
			return nil, invalid("say where it is (kontor service add --service-url)", "the document does not tell the address of service %s", s.Code)
		}
		s.Timeout, s.VerifyTLS = timeout, n.VerifyTLS
		d.Services = append(d.Services, s)
	}
	err = a.inClient(in.ClientPath, func(c *serverconf.ClientEntry) error {
		for i := range d.Services {
			if s := &d.Services[i]; offersName(c, entryName(s)) {
				remedy := "refresh its description (kontor service refresh), or delete that"
				if d.Type == serverconf.REST {
					remedy = "change it (kontor service set), or delete it"
				}
				return exists(remedy, "client %s has a service %q already", c.ID, entryName(s))
			}
		}
		if n.Document != "" {
			var err error
			if d.File, err = a.Conf.AddDocument(content, extension(d.Type, content)); err != nil {
				return err
			}
		}
		c.Descriptions = append(c.Descriptions, d)
		for _, s := range d.Services {
			note(ctx, "client %s: add %s service %s at %s", c.ID, d.Type, entryName(&s), s.URL)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s, err := a.service(ServicePath{in.ClientPath, entryName(&d.Services[0])})
	if err != nil {
		return nil, err
	}
	v := describe(s.Description)
	v.Warnings = doc.Warnings
	return answer(descriptionTag(s.Description), v), nil
}

// extension is that of a file with a document.
func extension(kind string, content []byte) string {
	switch {
	case kind == serverconf.WSDL:
		return ".wsdl"
	case bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")):
		return ".json"
	}
	return ".yaml"
}

// inDescription changes one description, which must be there and in the state
// that the caller has seen.
func (a *API) inDescription(path DescriptionPath, s Seen, change func(c *serverconf.ClientEntry, i int) error) error {
	return a.inClient(path.ClientPath, func(c *serverconf.ClientEntry) error {
		// The snapshot changes only under the lock held here, so it is what the
		// file says unless somebody has edited that.
		now, err := a.description(path)
		if err != nil {
			return err
		}
		if err := s.check(descriptionTag(now)); err != nil {
			return err
		}
		i, err := indexOf(c, now)
		if err != nil {
			return err
		}
		return change(c, i)
	})
}

// indexOf finds a description of the snapshot in the file.
func indexOf(c *serverconf.ClientEntry, d *serverconf.Description) (int, error) {
	first := serviceName(d.Services[0].ID)
	i := slices.IndexFunc(c.Descriptions, func(d serverconf.DescriptionEntry) bool {
		return slices.ContainsFunc(d.Services, func(s serverconf.ServiceEntry) bool { return entryName(&s) == first })
	})
	if i < 0 {
		return 0, noService(c.ID, first)
	}
	return i, nil
}

func (a *API) changeDescription(ctx context.Context, in *struct {
	DescriptionPath
	Seen
	Body DescriptionChange
}) (*item[Description], error) {
	if in.Body.Enabled && in.Body.Notice != "" {
		return nil, invalid("leave the notice out, or disable the services", "callers of an enabled service are told nothing")
	}
	err := a.inDescription(in.DescriptionPath, in.Seen, func(c *serverconf.ClientEntry, i int) error {
		d := &c.Descriptions[i]
		if in.Body.Enabled {
			d.Disabled = nil
			note(ctx, "client %s: enable %s", c.ID, nameOf(d))
			return nil
		}
		notice := in.Body.Notice
		d.Disabled = &notice
		note(ctx, "client %s: disable %s: %q", c.ID, nameOf(d), notice)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.getDescription(ctx, &in.DescriptionPath)
}

func (a *API) deleteDescription(ctx context.Context, in *struct {
	DescriptionPath
	Seen
}) (*struct{}, error) {
	return nil, a.inDescription(in.DescriptionPath, in.Seen, func(c *serverconf.ClientEntry, i int) error {
		note(ctx, "client %s: delete %s", c.ID, nameOf(&c.Descriptions[i]))
		c.Descriptions = slices.Delete(c.Descriptions, i, i+1)
		dropRights(ctx, c, lostRights(c, nil))
		return nil
	})
}

// nameOf names a description in the audit log.
func nameOf(d *serverconf.DescriptionEntry) string {
	names := make([]string, len(d.Services))
	for i := range d.Services {
		names[i] = entryName(&d.Services[i])
	}
	return d.Type + " services " + strings.Join(names, ", ")
}
