// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"kontor/registry/id"
)

// Bounds and defaults of the file.
const (
	// DefaultTimeout of a service is X-Road's.
	DefaultTimeout = 60 * time.Second
	// maxTimeout: nobody waits a day for an answer.
	maxTimeout = 24 * time.Hour
	// maxFile bounds what is read into memory; 100 services and 1,000 rights
	// are about 100 KB.
	maxFile = 64 << 20
	// MaxDocument bounds a service description, in bytes; X-Road's own
	// documents have some ten thousand.
	MaxDocument = 8 << 20
)

// Model is the configuration file. Identifiers stand in their REST form, as in
// "DEV/GOV/1234/portal".
type Model struct {
	Clients []ClientEntry `yaml:"clients"`
}

// ClientEntry describes a client of this security server.
type ClientEntry struct {
	ID           id.Client          `yaml:"id"`
	Status       string             `yaml:"status,omitempty"`     // default: saved
	Connection   ConnectionType     `yaml:"connection,omitempty"` // default: https
	Certificates []Certificate      `yaml:"certificates,omitempty"`
	Groups       []GroupEntry       `yaml:"groups,omitempty"`
	Descriptions []DescriptionEntry `yaml:"descriptions,omitempty"`
	Access       []AccessEntry      `yaml:"access,omitempty"`
}

// GroupEntry describes a local group.
type GroupEntry struct {
	Code        string      `yaml:"code"`
	Description string      `yaml:"description,omitempty"`
	Members     []id.Client `yaml:"members,omitempty"`
}

// DescriptionEntry is a service description: services that are added, refreshed,
// enabled and disabled together, and the document that describes them. One of
// type REST or OPENAPI3 has one service. The document is at a URL or in a file;
// services of type REST have none, others may do without.
type DescriptionEntry struct {
	Type      string         `yaml:"type"`                // REST, OPENAPI3 or WSDL
	URL       string         `yaml:"url,omitempty"`       // of the document
	File      string         `yaml:"file,omitempty"`      // with the document, relative to the folder of this file
	Refreshed time.Time      `yaml:"refreshed,omitempty"` // when the document was last read
	Disabled  *string        `yaml:"disabled,omitempty"`  // present: disabled, with this notice
	Services  []ServiceEntry `yaml:"services"`
}

// ServiceEntry describes a service.
type ServiceEntry struct {
	Code      string          `yaml:"code"`
	Version   *string         `yaml:"version,omitempty"` // WSDL services only
	Title     string          `yaml:"title,omitempty"`
	URL       string          `yaml:"url"`
	Timeout   time.Duration   `yaml:"timeout,omitempty"`    // default: 60 s
	VerifyTLS *bool           `yaml:"verify_tls,omitempty"` // default: true
	Endpoints []EndpointEntry `yaml:"endpoints,omitempty"`
}

// EndpointEntry is an endpoint in the file.
type EndpointEntry struct {
	Endpoint  `yaml:",inline"`
	Generated bool `yaml:"generated,omitempty"` // from the document; a refresh may remove it
}

// AccessEntry grants a right: exactly one of Client, Group and GlobalGroup may
// call an endpoint of all versions of a service.
type AccessEntry struct {
	Service     string         `yaml:"service"` // its code
	Client      id.Client      `yaml:"client,omitempty"`
	Group       string         `yaml:"group,omitempty"` // a local group of the same client
	GlobalGroup id.GlobalGroup `yaml:"global_group,omitempty"`
	Method      string         `yaml:"method,omitempty"` // default: *
	Path        string         `yaml:"path,omitempty"`   // default: **
	Expires     time.Time      `yaml:"expires,omitempty"`
	Note        string         `yaml:"note,omitempty"`
}

// Certificate is a certificate that stands in the file as one PEM block.
type Certificate struct{ *x509.Certificate }

// MarshalText returns the PEM form.
func (c Certificate) MarshalText() ([]byte, error) {
	if c.Certificate == nil {
		return nil, errors.New("no certificate")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), nil
}

// UnmarshalText reads exactly one PEM block.
func (c *Certificate) UnmarshalText(b []byte) error {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("a certificate must be one PEM block of type CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	c.Certificate = cert
	return nil
}

// file is what is read: services may also stand directly in their client. They
// are taken for descriptions, and written as such.
type file struct {
	Clients []struct {
		ClientEntry `yaml:",inline"`
		Services    []plainService `yaml:"services"`
	} `yaml:"clients"`
}

// plainService is a service that stands directly in its client.
type plainService struct {
	ServiceEntry `yaml:",inline"`
	Type         string  `yaml:"type"`
	Description  string  `yaml:"description"` // URL of the document
	Disabled     *string `yaml:"disabled"`
}

// decode reads a file strictly: one document, no unknown keys.
func decode(b []byte) (*Model, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	switch err := dec.Decode(&f); {
	case errors.Is(err, io.EOF):
		return &Model{}, nil // empty, or comments only
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file must hold one YAML document")
	}
	m := new(Model)
	for _, c := range f.Clients {
		for _, s := range c.Services {
			c.describe(s)
		}
		m.Clients = append(m.Clients, c.ClientEntry)
	}
	return m, nil
}

// describe adds a service that stood directly in the client: SOAP services of
// one document to its description, each other service to one of its own.
func (e *ClientEntry) describe(s plainService) {
	same := func(d DescriptionEntry) bool {
		return d.Type == WSDL && s.Type == WSDL && d.URL == s.Description && (d.Disabled == nil) == (s.Disabled == nil) && (d.Disabled == nil || *d.Disabled == *s.Disabled)
	}
	if i := slices.IndexFunc(e.Descriptions, same); i >= 0 && s.Description != "" {
		e.Descriptions[i].Services = append(e.Descriptions[i].Services, s.ServiceEntry)
		return
	}
	e.Descriptions = append(e.Descriptions, DescriptionEntry{Type: s.Type, URL: s.Description, Disabled: s.Disabled, Services: []ServiceEntry{s.ServiceEntry}})
}

func encode(m *Model) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// findings collects everything that is wrong with a model.
type findings []error

func (f *findings) add(where string, format string, args ...any) {
	*f = append(*f, fmt.Errorf(where+": "+format, args...))
}

// compile checks a model and builds its snapshot. The error lists all findings.
func compile(m *Model, now func() time.Time, internal []byte) (*Conf, error) {
	c := &Conf{
		clients: make(map[id.Client]*Client, len(m.Clients)), services: map[id.Service]*Service{},
		internal: internal, now: now,
	}
	var bad findings
	for i := range m.Clients {
		e := &m.Clients[i]
		where := fmt.Sprintf("clients[%d]", i)
		if e.ID.IsZero() {
			bad.add(where, "id is missing")
			continue
		}
		where = "client " + e.ID.String()
		if c.clients[e.ID] != nil {
			bad.add(where, "stands in the file twice")
			continue
		}
		client := compileClient(e, where, &bad)
		c.clients[e.ID] = client
		c.order = append(c.order, client)
		for _, s := range client.Services {
			c.services[s.ID] = s
		}
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return c, nil
}

func compileClient(e *ClientEntry, where string, bad *findings) *Client {
	client := &Client{
		ID: e.ID, Status: e.Status, Connection: e.Connection,
		hashes: make(map[[sha256.Size]byte]bool, len(e.Certificates)),
	}
	if client.Status == "" {
		client.Status = Saved
	}
	if !slices.Contains(statuses, client.Status) {
		bad.add(where, "status %q is none of: %s", e.Status, strings.Join(statuses, ", "))
	}
	switch client.Connection {
	case "":
		client.Connection = HTTPS
	case HTTP, HTTPS, HTTPSNoAuth:
	default:
		bad.add(where, "connection %q is none of: %s, %s, %s", e.Connection, HTTP, HTTPS, HTTPSNoAuth)
	}
	for i, cert := range e.Certificates {
		if cert.Certificate == nil {
			bad.add(where, "certificates[%d] is empty", i)
			continue
		}
		client.Certificates = append(client.Certificates, cert.Certificate)
		client.hashes[sha256.Sum256(cert.Raw)] = true
	}
	groups := map[string]*Group{}
	for _, g := range e.Groups {
		group := &Group{Code: g.Code, Description: g.Description, Members: slices.Clone(g.Members)}
		switch {
		case strings.TrimSpace(g.Code) == "":
			bad.add(where, "a group has no code")
			continue
		case groups[g.Code] != nil:
			bad.add(where, "group %q stands in the file twice", g.Code)
			continue
		case slices.ContainsFunc(g.Members, id.Client.IsZero):
			bad.add(where, "group %q has an empty member", g.Code)
			continue
		}
		groups[g.Code] = group
		client.Groups = append(client.Groups, group)
	}
	for i := range e.Descriptions {
		compileDescription(client, &e.Descriptions[i], where, bad)
	}
	compileAccess(client, e.Access, groups, where, bad)
	return client
}

// compileDescription adds a description and its services to their client.
func compileDescription(owner *Client, e *DescriptionEntry, where string, bad *findings) {
	d := &Description{Type: e.Type, URL: e.URL, File: e.File, Refreshed: e.Refreshed, Owner: owner}
	if e.Disabled != nil {
		notice := *e.Disabled
		d.DisabledNotice = &notice
	}
	here := fmt.Sprintf("%s: descriptions[%d]", where, len(owner.Descriptions))
	switch known := e.Type == REST || e.Type == OpenAPI3 || e.Type == WSDL; {
	case !known && len(e.Services) == 1:
		here = where + ": service " + e.Services[0].Code
		fallthrough
	case !known:
		bad.add(here, "type %q is none of: %s, %s, %s", e.Type, REST, OpenAPI3, WSDL)
	case len(e.Services) == 0:
		bad.add(here, "it has no services")
	case e.Type != WSDL && len(e.Services) > 1:
		bad.add(here, "a description of type %s has one service, not %d", e.Type, len(e.Services))
	case e.Type == REST && (e.URL != "" || e.File != ""):
		bad.add(here, "services of type REST have no document")
	case e.URL != "" && e.File != "":
		bad.add(here, "a document is at a URL or in a file, not both")
	case e.File != "" && !filepath.IsLocal(e.File):
		bad.add(here, "file %q must lie below the folder of this file", e.File)
	}
	if e.URL != "" {
		if err := checkURL(e.URL, true); err != nil {
			bad.add(here, "url of the document: %w", err)
		}
	}
	for i := range e.Services {
		if s := compileService(d, &e.Services[i], where, bad); s != nil {
			d.Services = append(d.Services, s)
			owner.Services = append(owner.Services, s)
		}
	}
	if slices.ContainsFunc(owner.Descriptions, func(o *Description) bool { return len(o.Services) > 0 && len(d.Services) > 0 && o.ID() == d.ID() }) {
		bad.add(here, "the document stands in the file twice")
	}
	owner.Descriptions = append(owner.Descriptions, d)
}

func compileService(d *Description, e *ServiceEntry, where string, bad *findings) *Service {
	owner := d.Owner
	name, err := id.NewService(owner.ID, e.Code)
	if err == nil && e.Version != nil {
		name, err = id.NewServiceVersion(owner.ID, e.Code, *e.Version)
	}
	if err != nil {
		bad.add(where, "service %q: %w", e.Code, err)
		return nil
	}
	where += ": service " + name.Code()
	if Reserved(name.Code()) {
		bad.add(where, "the code is that of a service which every security server has; choose another")
		return nil
	}
	for _, s := range owner.Services {
		switch {
		case s.ID == name:
			bad.add(where, "stands in the file twice")
			return nil
		case s.ID.Code() == name.Code() && s.Type != d.Type:
			bad.add(where, "is of type %s and of type %s; rights are to all services of one code", s.Type, d.Type)
			return nil
		}
	}
	s := &Service{
		ID: name, Type: d.Type, Title: e.Title, URL: e.URL, Description: d, Timeout: e.Timeout,
		VerifyTLS: e.VerifyTLS == nil || *e.VerifyTLS, DisabledNotice: d.DisabledNotice, Owner: owner,
		generated: make(map[Endpoint]bool, len(e.Endpoints)),
	}
	switch s.Type {
	case REST, OpenAPI3:
		if e.Version != nil {
			bad.add(where, "a REST service has no version")
		}
		if owner.ID.IsMember() {
			bad.add(where, "a REST service must belong to a subsystem")
		}
	case WSDL:
		if len(e.Endpoints) > 0 {
			bad.add(where, "a SOAP service has no endpoints")
		}
	}
	if err := checkURL(e.URL, s.Type == WSDL); err != nil {
		bad.add(where, "url: %w", err)
	}
	switch {
	case s.Timeout == 0:
		s.Timeout = DefaultTimeout
	case s.Timeout < 0 || s.Timeout > maxTimeout:
		bad.add(where, "timeout must be between 0 and %s", maxTimeout)
	}
	for i, endpoint := range e.Endpoints {
		var g *glob
		err := checkEndpoint(endpoint.Endpoint)
		if err == nil {
			g, err = compileGlob(endpoint.Path)
		}
		if err != nil {
			bad.add(where, "endpoints[%d]: %w", i, err)
		}
		if _, twice := s.generated[endpoint.Endpoint]; twice {
			bad.add(where, "endpoints[%d] stands in the file twice", i)
		}
		s.generated[endpoint.Endpoint] = endpoint.Generated
		s.Endpoints, s.globs = append(s.Endpoints, endpoint.Endpoint), append(s.globs, g)
	}
	return s
}

// compileAccess spreads a client's rights over its services.
func compileAccess(owner *Client, entries []AccessEntry, groups map[string]*Group, where string, bad *findings) {
	byCode := map[string][]*Service{}
	for _, s := range owner.Services {
		if byCode[s.ID.Code()] == nil {
			s.access = &access{clients: map[id.Client][]grant{}}
		} else {
			s.access = byCode[s.ID.Code()][0].access
		}
		byCode[s.ID.Code()] = append(byCode[s.ID.Code()], s)
	}
	for i, e := range entries {
		where := fmt.Sprintf("%s: access[%d]", where, i)
		services := byCode[e.Service]
		if services == nil {
			bad.add(where, "service %q does not exist", e.Service)
			continue
		}
		r := Right{
			Client: e.Client, LocalGroup: e.Group, GlobalGroup: e.GlobalGroup,
			Endpoint: Endpoint{Method: e.Method, Path: e.Path}, Expires: e.Expires, Note: e.Note,
		}
		if r.Endpoint.Method == "" {
			r.Endpoint.Method = base.Method
		}
		if r.Endpoint.Path == "" {
			r.Endpoint.Path = base.Path
		}
		g, err := compileGrant(&r)
		if err != nil {
			bad.add(where, "%w", err)
			continue
		}
		if !r.Endpoint.IsBase() && services[0].Type == WSDL {
			bad.add(where, "a right to a SOAP service names no method or path")
			continue
		}
		subjects := 0
		a := services[0].access
		if !e.Client.IsZero() {
			subjects++
			a.clients[e.Client] = append(a.clients[e.Client], g)
		}
		if e.Group != "" {
			subjects++
			group := groups[e.Group]
			if group == nil {
				bad.add(where, "group %q does not exist", e.Group)
				continue
			}
			for _, member := range group.Members {
				a.clients[member] = append(a.clients[member], g)
			}
		}
		if !e.GlobalGroup.IsZero() {
			subjects++
			a.groups = append(a.groups, groupGrant{e.GlobalGroup, g})
		}
		if subjects != 1 {
			bad.add(where, "exactly one of client, group and global_group must be given")
		}
		for _, s := range services {
			s.Rights = append(s.Rights, r)
		}
	}
}

func compileGrant(r *Right) (grant, error) {
	g, err := compileGlob(r.Endpoint.Path)
	if err == nil {
		err = checkEndpoint(r.Endpoint)
	}
	return grant{endpoint: r.Endpoint, base: r.Endpoint.IsBase(), path: g, expires: r.Expires}, err
}

var methods = []string{
	"*", http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
	http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodTrace,
}

func checkEndpoint(e Endpoint) error {
	if !slices.Contains(methods, strings.ToUpper(e.Method)) {
		return fmt.Errorf("method %q is none of: %s", e.Method, strings.Join(methods, ", "))
	}
	if e.Path == "" || e.Path[0] != '/' && e.Path[0] != '*' {
		return fmt.Errorf("path %q must begin with / or *", e.Path)
	}
	if _, err := compileGlob(e.Path); err != nil {
		return fmt.Errorf("path %q: %w", e.Path, err)
	}
	return nil
}

// checkURL demands an absolute URL that a request can be sent to. Path and
// query of a REST request are put behind its service's URL, which therefore
// has no query of its own.
func checkURL(s string, query bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q is not an http or https URL", s)
	case u.User != nil:
		return errors.New("a URL must not hold a user name or password")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return errors.New("a URL must not have a fragment")
	case !query && (u.RawQuery != "" || u.ForceQuery):
		return errors.New("the URL of a REST service must not have a query")
	}
	return nil
}
