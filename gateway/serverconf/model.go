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
)

// Model is the configuration file. Identifiers stand in their REST form, as in
// "DEV/GOV/1234/portal".
type Model struct {
	Clients []ClientEntry `yaml:"clients"`
}

// ClientEntry describes a client of this security server.
type ClientEntry struct {
	ID           id.Client      `yaml:"id"`
	Status       string         `yaml:"status,omitempty"`     // default: saved
	Connection   ConnectionType `yaml:"connection,omitempty"` // default: https
	Certificates []Certificate  `yaml:"certificates,omitempty"`
	Groups       []GroupEntry   `yaml:"groups,omitempty"`
	Services     []ServiceEntry `yaml:"services,omitempty"`
	Access       []AccessEntry  `yaml:"access,omitempty"`
}

// GroupEntry describes a local group.
type GroupEntry struct {
	Code        string      `yaml:"code"`
	Description string      `yaml:"description,omitempty"`
	Members     []id.Client `yaml:"members,omitempty"`
}

// ServiceEntry describes a service.
type ServiceEntry struct {
	Code        string        `yaml:"code"`
	Version     *string       `yaml:"version,omitempty"` // WSDL services only
	Type        string        `yaml:"type"`              // REST, OPENAPI3 or WSDL
	URL         string        `yaml:"url"`
	Description string        `yaml:"description,omitempty"` // URL of the WSDL or OpenAPI document
	Timeout     time.Duration `yaml:"timeout,omitempty"`     // default: 60 s
	VerifyTLS   *bool         `yaml:"verify_tls,omitempty"`  // default: true
	Disabled    *string       `yaml:"disabled,omitempty"`    // present: disabled, with this notice
	Endpoints   []Endpoint    `yaml:"endpoints,omitempty"`
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

// decode reads a file strictly: one document, no unknown keys.
func decode(b []byte) (*Model, error) {
	var m Model
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	switch err := dec.Decode(&m); {
	case errors.Is(err, io.EOF):
		return &m, nil // empty, or comments only
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file must hold one YAML document")
	}
	return &m, nil
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
func compile(m *Model, now func() time.Time, internal map[[sha256.Size]byte]bool) (*Conf, error) {
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
	for i := range e.Services {
		if s := compileService(client, &e.Services[i], where, bad); s != nil {
			client.Services = append(client.Services, s)
		}
	}
	compileAccess(client, e.Access, groups, where, bad)
	return client
}

func compileService(owner *Client, e *ServiceEntry, where string, bad *findings) *Service {
	name, err := id.NewService(owner.ID, e.Code)
	if err == nil && e.Version != nil {
		name, err = id.NewServiceVersion(owner.ID, e.Code, *e.Version)
	}
	if err != nil {
		bad.add(where, "service %q: %w", e.Code, err)
		return nil
	}
	where += ": service " + name.Code()
	if slices.ContainsFunc(owner.Services, func(s *Service) bool { return s.ID == name }) {
		bad.add(where, "stands in the file twice")
		return nil
	}
	s := &Service{
		ID: name, Type: e.Type, URL: e.URL, Description: e.Description, Timeout: e.Timeout,
		VerifyTLS: e.VerifyTLS == nil || *e.VerifyTLS, Endpoints: slices.Clone(e.Endpoints), Owner: owner,
	}
	if e.Disabled != nil {
		notice := *e.Disabled
		s.DisabledNotice = &notice
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
	default:
		bad.add(where, "type %q is none of: %s, %s, %s", e.Type, REST, OpenAPI3, WSDL)
	}
	if err := checkURL(e.URL, s.Type == WSDL); err != nil {
		bad.add(where, "url: %w", err)
	}
	if e.Description != "" {
		if err := checkURL(e.Description, true); err != nil {
			bad.add(where, "description: %w", err)
		}
	}
	switch {
	case s.Timeout == 0:
		s.Timeout = DefaultTimeout
	case s.Timeout < 0 || s.Timeout > maxTimeout:
		bad.add(where, "timeout must be between 0 and %s", maxTimeout)
	}
	for i, endpoint := range s.Endpoints {
		if err := checkEndpoint(endpoint); err != nil {
			bad.add(where, "endpoints[%d]: %w", i, err)
		}
		if slices.Contains(s.Endpoints[:i], endpoint) {
			bad.add(where, "endpoints[%d] stands in the file twice", i)
		}
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
