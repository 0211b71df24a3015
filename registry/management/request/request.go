// SPDX-License-Identifier: Apache-2.0

// Package request is X-Road's management requests as messages: the SOAP in
// which a security server asks the registry to register, change or delete
// something about itself, the multipart with signatures around it, the answers
// and faults, and a client that sends them.
//
// Both sides use it: gateways build and send, the registry reads. It judges
// form only; whether certificates and signatures are good, and whether the
// request is acceptable, it leaves to the registry.
package request

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"kontor/registry/id"
)

// Service is the code of a management service.
type Service string

// The management services. AuthCertReg is called directly, the others through
// the security server that provides them.
const (
	AuthCertReg        Service = "authCertReg"
	AuthCertDeletion   Service = "authCertDeletion"
	ClientReg          Service = "clientReg"
	ClientDeletion     Service = "clientDeletion"
	ClientDisable      Service = "clientDisable"
	ClientEnable       Service = "clientEnable"
	ClientRename       Service = "clientRename"
	OwnerChange        Service = "ownerChange"
	AddressChange      Service = "addressChange"
	MaintenanceEnable  Service = "maintenanceModeEnable"
	MaintenanceDisable Service = "maintenanceModeDisable"
)

// element is a child of a request's body element.
type element struct {
	name     string
	optional bool
	write    func(*Request) string // the content; "" leaves an optional element out
	read     func(*Request, *node) error
}

var (
	server  = element{"server", false, func(r *Request) string { return serverXML(r.Server) }, func(r *Request, n *node) (err error) { r.Server, err = n.server(); return err }}
	client  = element{"client", false, func(r *Request) string { return clientXML(r.Client) }, func(r *Request, n *node) (err error) { r.Client, err = n.client(); return err }}
	address = element{"address", false, func(r *Request) string { return escape(r.Address) }, func(r *Request, n *node) (err error) { r.Address, err = n.content(); return err }}
	cert    = element{"authCert", false, func(r *Request) string { return base64.StdEncoding.EncodeToString(r.Certificate) }, func(r *Request, n *node) (err error) { r.Certificate, err = n.base64(); return err }}
	name    = element{"subsystemName", false, func(r *Request) string { return escape(r.Name) }, func(r *Request, n *node) (err error) { r.Name, err = n.content(); return err }}
	text    = element{"message", true, func(r *Request) string { return escape(r.Text) }, func(r *Request, n *node) (err error) { r.Text, err = n.content(); return err }}
	dryRun  = element{"dryRun", true, func(r *Request) string { return strconv.FormatBool(r.DryRun) }, func(r *Request, n *node) (err error) { r.DryRun, err = n.boolean(); return err }}
)

func optional(e element) element { e.optional = true; return e }

// bodies are the children of each request's body element, in order.
var bodies = map[Service][]element{
	AuthCertReg:        {server, optional(address), cert, dryRun},
	AuthCertDeletion:   {server, cert},
	ClientReg:          {server, client, optional(name)},
	ClientDeletion:     {server, client},
	ClientDisable:      {server, client},
	ClientEnable:       {server, client},
	ClientRename:       {server, client, name},
	OwnerChange:        {server, client},
	AddressChange:      {server, address},
	MaintenanceEnable:  {server, text},
	MaintenanceDisable: {server},
}

// Services lists the management services.
func Services() []Service {
	return []Service{
		AuthCertReg, AuthCertDeletion, ClientReg, ClientDeletion, ClientDisable, ClientEnable, ClientRename,
		OwnerChange, AddressChange, MaintenanceEnable, MaintenanceDisable,
	}
}

// Signed reports whether requests to the service carry signatures of their
// own. Deletions do not: the message that brings them is proof enough.
func (s Service) Signed() bool { return s != AuthCertDeletion && s != ClientDeletion }

// HasClient reports whether requests to the service are about a client.
func (s Service) HasClient() bool {
	return slices.ContainsFunc(bodies[s], func(e element) bool { return e.name == client.name })
}

// Request is what a management request says.
type Request struct {
	Service  Service
	Sender   id.Client // the server's owner
	Provider id.Client // of the management services, as the global configuration names it
	ID       string    // of the message; never used twice

	Server      id.SecurityServer
	Client      id.Client // the zero value if the service takes none, and so on
	Address     string
	Certificate []byte // authentication certificate, DER
	Name        string // of a subsystem
	Text        string // for those who call a server in maintenance
	DryRun      bool   // of AuthCertReg: verify and answer only
}

const (
	soapNS  = "http://schemas.xmlsoap.org/soap/envelope/"
	idNS    = "http://x-road.eu/xsd/identifiers"
	xroadNS = "http://x-road.eu/xsd/xroad.xsd"
)

// SOAP writes the message. Keep its bytes to send the very same request again,
// which is how to ask what became of it.
func (r *Request) SOAP() ([]byte, error) {
	elements, ok := bodies[r.Service]
	if !ok {
		return nil, fmt.Errorf("there is no management service %q", r.Service)
	}
	if r.Sender.IsZero() || r.Provider.IsZero() || r.Server.IsZero() || r.Service.HasClient() == r.Client.IsZero() {
		return nil, errors.New("sender, provider, server or client of the management request is missing or superfluous")
	}
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	for _, s := range []string{r.Address, r.Name, r.Text} {
		if !utf8.ValidString(s) {
			return nil, errors.New("management request is not UTF-8")
		}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header + `<SOAP-ENV:Envelope xmlns:SOAP-ENV="` + soapNS + `" xmlns:id="` + idNS + `" xmlns:xroad="` + xroadNS + `"><SOAP-ENV:Header>`)
	b.WriteString(`<xroad:client` + clientXML(r.Sender) + `</xroad:client>`)
	b.WriteString(`<xroad:service id:objectType="SERVICE">` + parts(r.Provider.Member()) + part("subsystemCode", r.Provider.Subsystem()) + part("serviceCode", string(r.Service)) + `</xroad:service>`)
	b.WriteString(`<xroad:id>` + escape(r.ID) + `</xroad:id><xroad:protocolVersion>4.0</xroad:protocolVersion></SOAP-ENV:Header><SOAP-ENV:Body>`)
	b.WriteString(`<xroad:` + string(r.Service) + `>`)
	for _, e := range elements {
		content := e.write(r)
		if content == "" && e.optional {
			continue
		}
		if e.name != server.name && e.name != client.name {
			content = ">" + content
		}
		b.WriteString(`<xroad:` + e.name + content + `</xroad:` + e.name + `>`)
	}
	b.WriteString(`</xroad:` + string(r.Service) + `></SOAP-ENV:Body></SOAP-ENV:Envelope>`)
	return b.Bytes(), nil
}

// clientXML is the rest of a start tag, and the content.
func clientXML(c id.Client) string {
	if c.IsMember() {
		return ` id:objectType="MEMBER">` + parts(c.Member())
	}
	return ` id:objectType="SUBSYSTEM">` + parts(c.Member()) + part("subsystemCode", c.Subsystem())
}

func serverXML(s id.SecurityServer) string {
	return ` id:objectType="SERVER">` + parts(s.Owner()) + part("serverCode", s.Code())
}

func parts(m id.Member) string {
	return part("xRoadInstance", m.Instance()) + part("memberClass", m.Class()) + part("memberCode", m.Code())
}

func part(name, value string) string {
	if value == "" {
		return ""
	}
	return "<id:" + name + ">" + escape(value) + "</id:" + name + ">"
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// maxID bounds identifiers of messages, in characters.
const maxID = 255

func checkID(s string) error {
	if n := utf8.RuneCountInString(s); n == 0 || n > maxID || !utf8.ValidString(s) {
		return fmt.Errorf("message identifier has %d characters, from 1 to %d are allowed", n, maxID)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("message identifier has a control character %q", r)
		}
	}
	return nil
}
