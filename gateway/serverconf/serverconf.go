// SPDX-License-Identifier: Apache-2.0

// Package serverconf knows whom a security server serves: its clients, how
// they connect, the services they offer and who may call them.
//
// The configuration is one YAML file ([Model]). A [Store] holds it; [Conf] is
// an immutable snapshot of it, made for look-ups on the message path. A file
// with an unknown key, a duplicate or a dangling reference is refused whole.
package serverconf

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kontor/registry/id"
)

// Errors of [Conf.AuthenticateClient] and [Conf.Authorise].
var (
	ErrUnknownClient       = errors.New("client is not known to this security server")
	ErrNotRegistered       = errors.New("client is not registered")
	ErrHTTPSRequired       = errors.New("client must connect by HTTPS")
	ErrCertificateRequired = errors.New("client must present its certificate")
	ErrWrongCertificate    = errors.New("certificate does not belong to the client")
	ErrAccessDenied        = errors.New("access denied")
)

// Statuses of a client, as X-Road names them. Only a registered one exchanges
// messages.
const (
	Saved                  = "saved"
	RegistrationInProgress = "registration in progress"
	Registered             = "registered"
	Disabling              = "disabling"
	Disabled               = "disabled"
	Enabling               = "enabling"
	DeletionInProgress     = "deletion in progress"
	GlobalError            = "global error"
)

var statuses = []string{
	Saved, RegistrationInProgress, Registered, Disabling,
	Disabled, Enabling, DeletionInProgress, GlobalError,
}

// ConnectionType says how a client's information systems must connect.
type ConnectionType string

// The connection types: X-Road's NOSSL, SSLAUTH and SSLNOAUTH. The zero value
// in a file means HTTPS, the strictest.
const (
	HTTP        ConnectionType = "http"          // anything, HTTPS too
	HTTPS       ConnectionType = "https"         // HTTPS with one of the client's certificates
	HTTPSNoAuth ConnectionType = "https-no-auth" // HTTPS, any or no certificate
)

// Types of a service.
const (
	REST     = "REST"
	OpenAPI3 = "OPENAPI3"
	WSDL     = "WSDL"
)

// Conf is one immutable state of the configuration. It and everything
// reachable from it is safe for concurrent use and must not be changed.
type Conf struct {
	clients  map[id.Client]*Client
	order    []*Client
	services map[id.Service]*Service
	internal []byte // this server's own TLS certificate, in DER
	now      func() time.Time
}

// Client is a member or subsystem that this security server serves.
type Client struct {
	ID           id.Client
	Status       string
	Connection   ConnectionType
	Certificates []*x509.Certificate // of its information systems
	Descriptions []*Description      // in the order of the file
	Services     []*Service          // of all descriptions
	Groups       []*Group

	hashes map[[sha256.Size]byte]bool
}

// Registered tells whether the client may exchange messages.
func (c *Client) Registered() bool { return c.Status == Registered }

// Group is a local group of a client: others that its rights can name together.
type Group struct {
	Code        string
	Description string
	Members     []id.Client
}

// Description is a service description: services that are added, refreshed,
// enabled and disabled together, and the document that describes them.
type Description struct {
	Type           string     // REST, OPENAPI3 or WSDL
	URL            string     // of the document; empty if there is none, or it is in a file
	File           string     // with the document, relative to the folder of the configuration; see [Store.Document]
	Refreshed      time.Time  // when the document was last read; zero: never
	DisabledNotice *string    // not nil: its services are disabled, with this text for callers
	Services       []*Service // at least one; one alone of type REST or OPENAPI3
	Owner          *Client
}

// ID names the description: within its client by the document of a WSDL
// description, else by its service.
func (d *Description) ID() string {
	name := d.Services[0].ID.String()
	if d.Type == WSDL && (d.URL != "" || d.File != "") {
		name = d.URL
		if d.File != "" {
			name = d.File
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", d.Owner.ID.String(), d.Type, name))
	return fmt.Sprintf("%x", sum[:6])
}

// Service is one service of a client.
type Service struct {
	ID             id.Service
	Type           string // REST, OPENAPI3 or WSDL: its description's
	Title          string // what its document calls it; may be empty
	URL            string // absolute, http or https
	Description    *Description
	Timeout        time.Duration
	VerifyTLS      bool    // the service must present one of the owner's certificates
	DisabledNotice *string // not nil: disabled, with this text for callers
	Endpoints      []Endpoint
	Rights         []Right // of every version of the service
	Owner          *Client

	access    *access
	globs     []*glob           // of the paths of Endpoints
	generated map[Endpoint]bool // every endpoint; whether it comes from the document
}

// Generated tells whether an endpoint of the service comes from its document.
func (s *Service) Generated(e Endpoint) bool { return s.generated[e] }

// Endpoint is a method and a path pattern of a service (see [Authorise] for
// the patterns).
type Endpoint struct {
	Method string `yaml:"method"`
	Path   string `yaml:"path"`
}

// Base is the endpoint that stands for the whole service.
var base = Endpoint{Method: "*", Path: "**"}

// IsBase tells whether the endpoint stands for the whole service.
func (e Endpoint) IsBase() bool { return e == base }

// Right lets one subject call one endpoint: exactly one of Client, LocalGroup
// and GlobalGroup is set.
type Right struct {
	Client      id.Client
	LocalGroup  string // code of a group of the service's owner
	GlobalGroup id.GlobalGroup
	Endpoint    Endpoint
	Expires     time.Time // zero: never
	Note        string
}

// access holds the rights of one service, by subject.
type access struct {
	clients map[id.Client][]grant // named or through a local group
	groups  []groupGrant
}

type grant struct {
	endpoint Endpoint
	base     bool
	path     *glob
	expires  time.Time
}

type groupGrant struct {
	group id.GlobalGroup
	grant
}

func (g *grant) valid(at time.Time) bool { return g.expires.IsZero() || at.Before(g.expires) }

func (g *grant) allows(method, path string) bool {
	if g.base {
		return true
	}
	// SOAP knows neither method nor path: only the whole service can be granted.
	return method != "" && g.method(method) && g.path.match(path)
}

func (g *grant) method(m string) bool {
	return g.endpoint.Method == "*" || strings.EqualFold(g.endpoint.Method, m)
}

// Client returns the client with that exact id.
func (c *Conf) Client(cl id.Client) (*Client, bool) {
	v, ok := c.clients[cl]
	return v, ok
}

// Clients returns all clients in the order of the file.
func (c *Conf) Clients() []*Client { return slices.Clone(c.order) }

// Service returns the service with that exact id, version included.
func (c *Conf) Service(s id.Service) (*Service, bool) {
	v, ok := c.services[s]
	return v, ok
}

// AuthenticateClient decides whether a connection may speak for client cl.
// https tells how the information system connected, peer is the certificate it
// presented, nil if none.
//
// A client of connection type HTTPS needs one of its own certificates, byte for
// byte; their dates are not looked at, since the operator pinned them. This
// server's own TLS certificate ([Config.Internal]) passes for every client.
//
// Errors: ErrUnknownClient, ErrNotRegistered, ErrHTTPSRequired,
// ErrCertificateRequired, ErrWrongCertificate.
func (c *Conf) AuthenticateClient(cl id.Client, https bool, peer *x509.Certificate) error {
	client, ok := c.clients[cl]
	if !ok {
		return ErrUnknownClient
	}
	if !client.Registered() {
		return fmt.Errorf("%w: its status is %q", ErrNotRegistered, client.Status)
	}
	switch {
	case client.Connection == HTTP:
		return nil
	case !https:
		return ErrHTTPSRequired
	case client.Connection == HTTPSNoAuth:
		return nil
	case peer == nil:
		return ErrCertificateRequired
	}
	if client.hashes[sha256.Sum256(peer.Raw)] || bytes.Equal(c.internal, peer.Raw) {
		return nil
	}
	return ErrWrongCertificate
}

// Authorise decides whether client may call service s of this configuration.
// For REST, method is the HTTP method and path the raw service path, which
// [NormalisePath] turns into what patterns are compared with. For SOAP both are
// empty; then only rights to the whole service count. inGroup tells whether a client belongs to a global
// group; nil means none does.
//
// A right applies to its exact client (a member does not stand for its
// subsystems), to the members of a local group of the owner, or to those of a
// global group; there is no implicit right for the owner. Methods compare
// without case, "*" is any. Rights cover every version of a service.
//
// A path pattern must match the whole path, case-sensitively. "*" stands for
// any run of characters, also an empty one, without "/"; two or more "*" for
// any run of any characters. `\*` and `\\` are the literal characters. Two
// oddities of X-Road's matcher are not copied: there "?" is a quantifier, here
// it is a literal; there "*" never gives characters back, so that /foo*bar
// refuses /foobazbar, here it does.
//
// Errors: a *[PathError], or ErrAccessDenied, wrapped with the reason.
func (c *Conf) Authorise(client id.Client, s *Service, method, path string, inGroup func(id.Client, id.GlobalGroup) bool) error {
	path, err := NormalisePath(path)
	if err != nil {
		return err
	}
	at := c.now()
	expired := false
	for i := range s.access.clients[client] {
		if g := &s.access.clients[client][i]; g.allows(method, path) {
			if g.valid(at) {
				return nil
			}
			expired = true
		}
	}
	if inGroup != nil {
		for i := range s.access.groups {
			if g := &s.access.groups[i]; g.allows(method, path) && inGroup(client, g.group) {
				if g.valid(at) {
					return nil
				}
				expired = true
			}
		}
	}
	if expired {
		return fmt.Errorf("%w: the right has expired", ErrAccessDenied)
	}
	return ErrAccessDenied
}

// Allowed returns what client may call of service s: the listed endpoints that
// a right of the client covers, and whether it has any right at all. A
// metadata answer lists the service if it has.
func (c *Conf) Allowed(client id.Client, s *Service, inGroup func(id.Client, id.GlobalGroup) bool) (endpoints []Endpoint, any bool) {
	at := c.now()
	var grants []*grant
	for i := range s.access.clients[client] {
		if g := &s.access.clients[client][i]; g.valid(at) {
			grants = append(grants, g)
		}
	}
	if inGroup != nil {
		for i := range s.access.groups {
			if g := &s.access.groups[i]; g.valid(at) && inGroup(client, g.group) {
				grants = append(grants, &g.grant)
			}
		}
	}
	for _, e := range s.Endpoints {
		covered := func(g *grant) bool {
			return g.base || (g.endpoint.Method == "*" || strings.EqualFold(g.endpoint.Method, e.Method)) && (g.endpoint.Path == e.Path || g.path.match(e.Path))
		}
		if slices.ContainsFunc(grants, covered) {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, len(grants) > 0
}
