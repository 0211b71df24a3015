// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/id"
)

// Defaults for what the optional parts and private parameters leave open.
const (
	defaultFetchInterval     = 20 * time.Minute
	defaultTimestampInterval = time.Minute
)

// Server is a registered security server. It must not be modified.
type Server struct {
	ID                 id.SecurityServer
	Address            string // "" if none is known
	Maintenance        bool
	MaintenanceMessage string
	AuthCerts          []pki.CertHash // empty in a configuration of version 2
}

// TSA is an approved time-stamping authority.
type TSA struct {
	Name, URL string
	Cert      *x509.Certificate
}

// View is the global configuration at one instant: the instance's own and that
// of the federated instances whose shared parameters have not expired. It never
// changes, so one View can judge a whole exchange; it is safe for concurrent
// use. What its methods return must not be modified.
type View struct {
	own         *instance
	instances   []*instance // own first, then by name
	byName      map[string]*instance
	authorities map[string][]*pki.Authority // by raw subject
	all         []*pki.Authority
	responders  map[responderKey][]*x509.Certificate
	known       []*x509.Certificate // all responder certificates
	tsaCerts    []*x509.Certificate
	generation  string
	problems    []error // about instances that are not there
	// visibleUntil is when the first federated instance expires; zero if none will.
	visibleUntil time.Time
}

// instance is one instance's configuration as of one directory.
type instance struct {
	expires time.Time // zero means never
	*content
}

// content is what does not change while only the expiry is renewed.
type content struct {
	name          string
	version       int
	parts         []part
	shared        *index
	private       *PrivateParams // nil for a federated instance
	monitoring    id.Client
	fetchInterval time.Duration
	ignoreNext    bool
	digest        [sha256.Size]byte
}

// part is a verified part with the metadata X-Road stores beside it.
type part struct {
	metadata metadata
	file     string
	raw      string
}

func (c *content) find(identifier string) (*part, bool) {
	for i := range c.parts {
		if c.parts[i].metadata.Identifier == identifier {
			return &c.parts[i], true
		}
	}
	return nil, false
}

func (i *instance) expired(now time.Time) bool {
	return !i.expires.IsZero() && now.After(i.expires)
}

// newContent parses the parts of one instance. What prev already parsed is
// shared with it.
func newContent(name string, version int, parts []part, prev *content) (*content, error) {
	c := &content{name: name, version: version, parts: parts, fetchInterval: defaultFetchInterval}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%d\n", name, version)
	for i := range parts {
		p := &parts[i]
		digest := sha256.Sum256([]byte(p.raw))
		fmt.Fprintf(sum, "%s\n%x\n", p.metadata.Identifier, digest)
		if err := c.add(p, prev); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", p.metadata.Identifier, name, err)
		}
	}
	if c.shared == nil {
		return nil, fmt.Errorf("%w: %s of %s", ErrMissingPart, ContentSharedParams, name)
	}
	sum.Sum(c.digest[:0])
	return c, nil
}

func (c *content) add(p *part, prev *content) error {
	var old *part
	if prev != nil && prev.version == c.version {
		old, _ = prev.find(p.metadata.Identifier)
	}
	same := old != nil && old.raw == p.raw
	if same {
		p.raw = old.raw // one copy in memory
	}
	switch p.metadata.Identifier {
	case ContentSharedParams:
		if same {
			c.shared = prev.shared
			return nil
		}
		s, err := parseShared(p.raw, c.version)
		if err != nil {
			return err
		}
		if s.Instance != c.name {
			return fmt.Errorf("%w: %q", ErrInstance, s.Instance)
		}
		c.shared = newIndex(s)
	case ContentPrivateParams:
		s, err := parsePrivate(p.raw, c.version)
		if err != nil {
			return err
		}
		if s.Instance != c.name {
			return fmt.Errorf("%w: %q", ErrInstance, s.Instance)
		}
		c.private = s
	case ContentMonitoring:
		s, err := ParseMonitoringParams([]byte(p.raw))
		if err != nil {
			return err
		}
		c.monitoring = s.Client
	case ContentFetchInterval:
		s, err := ParseFetchIntervalParams([]byte(p.raw))
		if err != nil {
			return err
		}
		c.fetchInterval = s.Interval
	case ContentNextUpdate:
		s, err := ParseNextUpdateParams([]byte(p.raw))
		if err != nil {
			return err
		}
		c.ignoreNext = !s.Verify
	}
	return nil
}

// compose makes a View of what is visible at now.
func compose(own *instance, federated []*instance, now time.Time) *View {
	v := &View{own: own, instances: []*instance{own}, byName: map[string]*instance{},
		authorities: map[string][]*pki.Authority{}, responders: map[responderKey][]*x509.Certificate{}}
	for _, f := range federated {
		if f.expired(now) || f.name == own.name {
			continue
		}
		v.instances = append(v.instances, f)
		if !f.expires.IsZero() && (v.visibleUntil.IsZero() || f.expires.Before(v.visibleUntil)) {
			v.visibleUntil = f.expires
		}
	}
	slices.SortFunc(v.instances[1:], func(a, b *instance) int { return strings.Compare(a.name, b.name) })
	sum := sha256.New()
	for _, i := range v.instances {
		sum.Write(i.digest[:])
		v.byName[i.name] = i
		for _, a := range i.shared.authorities {
			key := string(a.Cert.RawSubject)
			v.authorities[key] = append(v.authorities[key], a)
			issuer := responderKey{i.name, pki.HashOf(a.Cert)}
			for _, r := range a.Responders {
				if r.Cert != nil {
					v.responders[issuer] = appendCertificate(v.responders[issuer], r.Cert)
					v.known = appendCertificate(v.known, r.Cert)
				}
			}
		}
		v.all = append(v.all, i.shared.authorities...)
		for _, t := range i.shared.tsas {
			v.tsaCerts = appendCertificate(v.tsaCerts, t.Cert)
		}
	}
	v.generation = hex.EncodeToString(sum.Sum(nil))
	return v
}

func appendCertificate(list []*x509.Certificate, c *x509.Certificate) []*x509.Certificate {
	if slices.ContainsFunc(list, func(have *x509.Certificate) bool { return bytes.Equal(have.Raw, c.Raw) }) {
		return list
	}
	return append(list, c)
}

// Instance returns the instance's own identifier.
func (v *View) Instance() string { return v.own.name }

// Version returns the configuration version of the instance's own configuration.
func (v *View) Version() int { return v.own.version }

// Expires returns when the instance's own configuration expires; zero if never.
func (v *View) Expires() time.Time { return v.own.expires }

// Generation identifies the contents: two views of one generation give the same
// answers and differ in nothing but their expiry.
func (v *View) Generation() string { return v.generation }

// Valid returns ErrOutdated if the instance's own configuration has expired.
// Then no message may be exchanged.
func (v *View) Valid(now time.Time) error {
	if v.own.expired(now) {
		return fmt.Errorf("%w: it expired at %s", ErrOutdated, v.own.expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Problems lists what was left out because it could not be understood, such as
// a certificate that does not parse.
func (v *View) Problems() []error {
	all := slices.Clone(v.problems)
	for _, i := range v.instances {
		all = append(all, i.shared.problems...)
	}
	return all
}

// index returns the shared parameters that speak for an instance.
func (v *View) index(instance string) *index {
	if i, ok := v.byName[instance]; ok {
		return i.shared
	}
	return nil
}

func (v *View) client(c id.Client) *client {
	if x := v.index(c.Instance()); x != nil {
		return x.client(c)
	}
	return nil
}

// Providers returns the servers at which c is registered. A member is a client
// of its own servers.
func (v *View) Providers(c id.Client) []*Server {
	if e := v.client(c); e != nil {
		return e.providers
	}
	return nil
}

// Server finds a security server.
func (v *View) Server(s id.SecurityServer) (*Server, bool) {
	x := v.index(s.Owner().Instance())
	if x == nil {
		return nil, false
	}
	srv, ok := x.servers[s]
	return srv, ok
}

// Servers returns the security servers of an instance.
func (v *View) Servers(instance string) iter.Seq[*Server] {
	return func(yield func(*Server) bool) {
		if x := v.index(instance); x != nil {
			for i := range x.list {
				if !yield(&x.list[i]) {
					return
				}
			}
		}
	}
}

// ServerByCert finds the server that an authentication certificate is
// registered for. Configurations of version 2 know certificates by another
// hash: see ServerByCertificate.
func (v *View) ServerByCert(h pki.CertHash) (*Server, bool) {
	for _, i := range v.instances {
		if s := i.shared.bySHA256[h]; s != nil {
			return s, true
		}
	}
	return nil, false
}

// ServerByCertificate finds the server that c is registered for. Should several
// instances register it, the own one counts, else the first by name.
func (v *View) ServerByCertificate(c *x509.Certificate) (*Server, bool) {
	for _, i := range v.instances {
		if s := i.shared.server(c); s != nil {
			return s, true
		}
	}
	return nil, false
}

// ServerIn finds the server of an instance that c is registered for, whatever
// other instances say of c.
func (v *View) ServerIn(instance string, c *x509.Certificate) (*Server, bool) {
	if x := v.index(instance); x != nil {
		s := x.server(c)
		return s, s != nil
	}
	return nil, false
}

// Registered reports whether c is a client or the owner of s.
func (v *View) Registered(s id.SecurityServer, c id.Client) bool {
	e := v.client(c)
	if e == nil {
		return false
	}
	if e.registered != nil {
		return e.registered[s]
	}
	for _, p := range e.providers {
		if p.ID == s {
			return true
		}
	}
	return false
}

// Authorities returns the approved authorities whose certificate has exactly
// this DER subject, those of the own instance first.
func (v *View) Authorities(rawSubject []byte) []*pki.Authority {
	return v.authorities[string(rawSubject)]
}

// AllAuthorities returns all approved authorities, top and intermediate.
func (v *View) AllAuthorities() []*pki.Authority { return v.all }

// OCSPPolicy returns how fresh OCSP responses must be. The own instance decides.
func (v *View) OCSPPolicy() ocsp.Policy {
	return ocsp.Policy{Freshness: v.own.shared.model.OCSPFreshness, IgnoreNextUpdate: v.own.ignoreNext}
}

// OCSPResponders returns the certificates that may sign OCSP responses about
// certificates of issuer that members and servers of an instance have: those
// that this instance lists for it, whatever others list.
func (v *View) OCSPResponders(instance string, issuer *x509.Certificate) ocsp.Responders {
	return ocsp.Responders{Authorised: v.responders[responderKey{instance, pki.HashOf(issuer)}], Known: v.known}
}

type responderKey struct {
	instance string
	issuer   pki.CertHash
}

// OCSPFetchInterval returns how often OCSP responses are renewed.
func (v *View) OCSPFetchInterval() time.Duration { return v.own.fetchInterval }

// TimestampInterval returns how often the message log is time-stamped.
func (v *View) TimestampInterval() time.Duration {
	if v.own.private == nil {
		return defaultTimestampInterval
	}
	return v.own.private.TimestampInterval
}

// TSAs returns the approved time-stamping authorities of an instance.
func (v *View) TSAs(instance string) []TSA {
	if x := v.index(instance); x != nil {
		return x.tsas
	}
	return nil
}

// TSACertificates returns the certificates of all approved time-stamping
// authorities of all instances.
func (v *View) TSACertificates() []*x509.Certificate { return v.tsaCerts }

// InGlobalGroup reports whether exactly c belongs to g: a member's membership
// does not extend to its subsystems.
func (v *View) InGlobalGroup(c id.Client, g id.GlobalGroup) bool {
	x := v.index(g.Instance())
	return x != nil && x.groups[g.Code()][c]
}

// GlobalGroups returns the global groups of an instance.
func (v *View) GlobalGroups(instance string) []GlobalGroup {
	if x := v.index(instance); x != nil {
		return x.model.Groups
	}
	return nil
}

// Known reports whether c is a registered member or subsystem.
func (v *View) Known(c id.Client) bool { return v.client(c) != nil }

// Name returns the display name of a member or subsystem, "" if it has none.
func (v *View) Name(c id.Client) string {
	if e := v.client(c); e != nil {
		return e.name
	}
	return ""
}

// Clients returns the members and subsystems of an instance with their names,
// each member before its subsystems.
func (v *View) Clients(instance string) iter.Seq2[id.Client, string] {
	return func(yield func(id.Client, string) bool) {
		if x := v.index(instance); x != nil {
			for i := range x.clients {
				if !yield(x.clients[i].id, x.clients[i].name) {
					return
				}
			}
		}
	}
}

// Instances returns the visible instances, the own one first.
func (v *View) Instances() []string {
	names := make([]string, len(v.instances))
	for i, x := range v.instances {
		names[i] = x.name
	}
	return names
}

// MemberClasses returns the member classes of an instance.
func (v *View) MemberClasses(instance string) []MemberClass {
	if x := v.index(instance); x != nil {
		return x.model.MemberClasses
	}
	return nil
}

// CertificationServices returns the certification services of an instance as
// its shared parameters describe them.
func (v *View) CertificationServices(instance string) []ApprovedCA {
	if x := v.index(instance); x != nil {
		return x.model.CAs
	}
	return nil
}

// SharedParams returns an instance's shared parameters as they were downloaded.
func (v *View) SharedParams(instance string) (raw []byte, version int, ok bool) {
	i, ok := v.byName[instance]
	if !ok {
		return nil, 0, false
	}
	p, ok := i.find(ContentSharedParams)
	if !ok {
		return nil, 0, false
	}
	return []byte(p.raw), i.version, true
}

// Document is one part as it was downloaded.
type Document struct {
	Identifier string // ContentSharedParams or another content identifier
	Location   string
	FileName   string // "" where the location tells it
	Content    string
}

// Documents returns all parts that an instance's configuration consists of, and
// when they expire; nil if the instance is not visible.
func (v *View) Documents(instance string) (docs []Document, expires time.Time) {
	i, ok := v.byName[instance]
	if !ok {
		return nil, time.Time{}
	}
	for _, p := range i.parts {
		docs = append(docs, Document{p.metadata.Identifier, p.metadata.Location, p.metadata.FileName, p.raw})
	}
	return docs, i.expires
}

// Management returns where registration requests go, the TLS certificate found
// there (nil if none is configured), and which client provides the management
// services. All are zero without private parameters.
func (v *View) Management() (addr string, cert *x509.Certificate, provider id.Client) {
	p := v.own.private
	if p == nil {
		return "", nil, id.Client{}
	}
	if c, err := parseCertificate(p.RegistrationCert); err == nil {
		cert = c
	}
	return p.RegistrationURL, cert, p.ManagementProvider
}

// MonitoringClient returns the client that may read all monitoring data; zero
// if there is none.
func (v *View) MonitoringClient() id.Client { return v.own.monitoring }

// index answers questions about the shared parameters of one instance.
type index struct {
	model       *SharedParams // without Members and Servers
	clients     []client
	byID        map[id.Client]int32 // into clients
	list        []Server
	servers     map[id.SecurityServer]*Server
	bySHA256    map[pki.CertHash]*Server
	bySHA1      map[[sha1.Size]byte]*Server
	groups      map[string]map[id.Client]bool
	authorities []*pki.Authority
	tsas        []TSA
	problems    []error
}

type client struct {
	id         id.Client
	name       string
	providers  []*Server
	registered map[id.SecurityServer]bool // only beyond manyProviders
}

// manyProviders is where a set becomes faster than a list.
const manyProviders = 8

func (x *index) client(c id.Client) *client {
	if i, ok := x.byID[c]; ok {
		return &x.clients[i]
	}
	return nil
}

// server returns the server that a certificate is registered for, or nil.
func (x *index) server(c *x509.Certificate) *Server {
	if s := x.bySHA256[pki.HashOf(c)]; s != nil || len(x.bySHA1) == 0 {
		return s
	}
	return x.bySHA1[sha1.Sum(c.Raw)]
}

// newIndex prepares the look-ups; p was parsed, so its references hold.
func newIndex(p *SharedParams) *index {
	n := len(p.Members)
	for i := range p.Members {
		n += len(p.Members[i].Subsystems)
	}
	x := &index{
		clients: make([]client, 0, n), byID: make(map[id.Client]int32, n),
		list: make([]Server, len(p.Servers)), servers: make(map[id.SecurityServer]*Server, len(p.Servers)),
		bySHA256: map[pki.CertHash]*Server{}, bySHA1: map[[sha1.Size]byte]*Server{}, groups: map[string]map[id.Client]bool{},
	}
	add := func(c id.Client, name string) {
		x.byID[c] = int32(len(x.clients))
		x.clients = append(x.clients, client{id: c, name: name})
	}
	for i := range p.Members {
		m := &p.Members[i]
		add(m.ID.Client(), m.Name)
		for _, s := range m.Subsystems {
			add(s.ID, s.Name)
		}
	}
	x.addServers(p)
	for _, g := range p.Groups {
		set := make(map[id.Client]bool, len(g.Members))
		for _, c := range g.Members {
			set[c] = true
		}
		x.groups[g.Code] = set
	}
	for i := range p.CAs {
		x.addService(p.Instance, &p.CAs[i])
	}
	for _, t := range p.TSAs {
		c, err := parseCertificate(t.Cert)
		if err != nil {
			x.problem(p.Instance, "time-stamping authority "+t.Name, err)
			continue
		}
		x.tsas = append(x.tsas, TSA{Name: t.Name, URL: t.URL, Cert: c})
	}
	rest := *p
	rest.Members, rest.Servers = nil, nil
	x.model = &rest
	return x
}

func (x *index) problem(instance, what string, err error) {
	x.problems = append(x.problems, fmt.Errorf("%s of %s is ignored: %w", what, instance, err))
}

// addServers links servers and clients. All provider lists share one array.
func (x *index) addServers(p *SharedParams) {
	list := p.Servers
	total, counts := 0, make([]int32, len(x.clients))
	each := func(s *SecurityServer, do func(i int32)) {
		owner := x.byID[s.ID.Owner().Client()]
		do(owner)
		for _, c := range s.Clients {
			if i := x.byID[c]; i != owner {
				do(i)
			}
		}
	}
	for i := range list {
		each(&list[i], func(c int32) { counts[c]++; total++ })
	}
	links := make([]*Server, total)
	for c, n := range counts {
		x.clients[c].providers = links[:0:n]
		links = links[n:]
	}
	for i := range list {
		s, out := &list[i], &x.list[i]
		*out = Server{ID: s.ID, Address: s.Address}
		if s.Maintenance != nil {
			out.Maintenance, out.MaintenanceMessage = true, s.Maintenance.Message
		}
		x.servers[s.ID] = out
		for _, c := range s.AuthCerts {
			if c.SHA256 != (pki.CertHash{}) {
				out.AuthCerts = append(out.AuthCerts, c.SHA256)
				claim(x, p.Instance, x.bySHA256, c.SHA256, out)
			} else {
				claim(x, p.Instance, x.bySHA1, c.SHA1, out)
			}
		}
		each(s, func(c int32) {
			e := &x.clients[c]
			if n := len(e.providers); n == 0 || e.providers[n-1] != out { // a repeated client
				e.providers = append(e.providers, out)
			}
		})
	}
	for i := range x.clients {
		if e := &x.clients[i]; len(e.providers) > manyProviders {
			e.registered = make(map[id.SecurityServer]bool, len(e.providers))
			for _, s := range e.providers {
				e.registered[s.ID] = true
			}
		}
	}
}

// claim notes that a certificate belongs to s; one that two servers claim
// belongs to nobody, which a nil server says.
func claim[K comparable](x *index, instance string, servers map[K]*Server, hash K, s *Server) {
	other, used := servers[hash]
	if used && other != s {
		x.problem(instance, fmt.Sprintf("an authentication certificate that %s shares", s.ID.LogString()), errShared)
		s = nil
	}
	servers[hash] = s
}

var errShared = errors.New("several security servers claim it")

func (x *index) addService(instance string, ca *ApprovedCA) {
	profile, ok := pki.ProfileByClass(ca.Profile)
	if !ok {
		x.problem(instance, "certificate profile of "+ca.Name, fmt.Errorf("unknown class %q", ca.Profile))
	}
	for _, c := range append([]CA{ca.Top}, ca.Intermediates...) {
		cert, err := parseCertificate(c.Cert)
		if err != nil {
			x.problem(instance, "certification authority "+ca.Name, err)
			continue
		}
		a := &pki.Authority{Cert: cert, Instance: instance, Name: ca.Name, AuthenticationOnly: ca.AuthenticationOnly}
		if ok {
			a.Profile = profile
		}
		for _, r := range c.OCSP {
			responder := pki.Responder{URL: r.URL}
			if r.Cert != nil {
				if responder.Cert, err = parseCertificate(r.Cert); err != nil {
					x.problem(instance, "OCSP responder "+r.URL, err)
				}
			}
			a.Responders = append(a.Responders, responder)
		}
		x.authorities = append(x.authorities, a)
	}
}
