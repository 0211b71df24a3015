// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kontor/pki"
	"kontor/registry/id"
)

// OwnersGroup is the global group that always exists and whose members follow
// from the security servers: their owners.
const OwnersGroup = "security-server-owners"

// Names of the two configuration sources.
const (
	Internal Source = "internal"
	External Source = "external"
)

// Source is where a part of the configuration comes from: the internal source
// serves the own security servers, the external one federation partners.
type Source string

// State is the ecosystem after some entry of the journal. It is immutable;
// what its methods return belongs to the caller, except for the bytes of
// certificates.
type State struct {
	instance string
	number   uint64    // entries folded
	time     time.Time // of the entry being folded
	author   Author    // of the entry being folded
	anchored time.Time // when an anchor's content last changed
	stamp    time.Time // of the last entry, but later than any before: the same on every node

	system  System
	classes map[string]string
	members map[id.Member]*member
	servers map[id.SecurityServer]*server
	certs   map[pki.CertHash]id.SecurityServer
	groups  map[string]*group
	cas     map[string]*CA
	tsas    map[string]*TSA
	anchors map[string]*TrustedAnchor
	keys    []SourceKey
	nodes   []Node // without the first

	requests []*Request // management requests: number n is at n-1
	pending  []uint64   // numbers of those that await a decision
}

type member struct {
	name       string
	subsystems map[string]string // code to name
}

type server struct {
	address     string
	certs       map[pki.CertHash][]byte
	clients     map[id.Client]bool // true: enabled
	maintenance *string            // message
}

type group struct {
	description string
	members     map[id.Client]bool
}

// System holds what applies to the whole instance.
type System struct {
	// Address is the registry's host name or IP address under which all
	// clients reach it, with a port if that is not 80.
	Address string `json:"address"`
	// ConfigurationValidity is how long a published configuration may be used, in seconds.
	ConfigurationValidity int `json:"configurationValidity"`
	// OCSPFreshness is how old an OCSP response may be, in seconds.
	OCSPFreshness int `json:"ocspFreshness"`
	// TimestampingInterval is the time between two batch time-stamps, in seconds.
	TimestampingInterval int `json:"timestampingInterval"`
	// OCSPFetchInterval, if not zero, is the time between two OCSP requests
	// for a certificate, in seconds; at least 60.
	OCSPFetchInterval int `json:"ocspFetchInterval,omitempty"`
	// IgnoreOCSPNextUpdate tells security servers to accept OCSP responses
	// past their nextUpdate.
	IgnoreOCSPNextUpdate bool `json:"ignoreOCSPNextUpdate,omitempty"`
	// MinimumVersion is the oldest configuration version published, 2 to 6.
	MinimumVersion int `json:"minimumVersion"`
	// ManagementProvider is the subsystem that offers the management services.
	ManagementProvider id.Client `json:"managementProvider,omitzero"`
	// ManagementAddress is where authentication certificates are registered;
	// empty means https://HOST:4001/managementservice/.
	ManagementAddress string `json:"managementAddress,omitempty"`
	// ManagementCertificate is the TLS certificate of that address.
	ManagementCertificate []byte `json:"managementCertificate,omitempty"`
	// MonitoringClient may ask every security server for its metrics.
	MonitoringClient id.Client `json:"monitoringClient,omitzero"`
	// AutoApproveCertificates approves registrations of authentication
	// certificates at once if the server's owner is a member.
	AutoApproveCertificates bool `json:"autoApproveCertificates,omitempty"`
	// AutoApproveClients approves registrations of clients at once if the
	// security server exists and the client belongs to a member.
	AutoApproveClients bool `json:"autoApproveClients,omitempty"`
	// AutoApproveOwners approves changes of a security server's owner at once.
	AutoApproveOwners bool `json:"autoApproveOwners,omitempty"`
}

func defaultSystem() System {
	return System{
		ConfigurationValidity: 600,
		OCSPFreshness:         3600,
		TimestampingInterval:  60,
		MinimumVersion:        2,
	}
}

// MemberClass groups members, as "GOV" or "COM".
type MemberClass struct{ Code, Description string }

// Member is a member with its subsystems.
type Member struct {
	ID         id.Member
	Name       string
	Subsystems []Subsystem
}

// Subsystem is a subsystem; its name may be empty.
type Subsystem struct {
	ID   id.Client
	Name string
}

// Server is a security server.
type Server struct {
	ID           id.SecurityServer
	Address      string
	Certificates []*x509.Certificate // authentication certificates
	Clients      []ServerClient
	Maintenance  *Maintenance // nil: not in maintenance
}

// ServerClient is a client registered at a security server.
type ServerClient struct {
	ID      id.Client
	Enabled bool
}

// Maintenance is the state of a server that takes no messages for a while.
type Maintenance struct{ Message string }

// Group is a global group.
type Group struct {
	Code, Description string
	Members           []id.Client
}

// CA is an approved certification service.
type CA struct {
	Name               string        `json:"name"`
	Profile            string        `json:"profile"` // full class name of the certificate profile
	AuthenticationOnly bool          `json:"authenticationOnly,omitempty"`
	Top                CertifiedCA   `json:"top"`
	Intermediates      []CertifiedCA `json:"intermediates,omitempty"`
	CSRFormat          string        `json:"csrFormat,omitempty"` // DER or PEM; empty: unsaid
	ACME               *ACMEServer   `json:"acme,omitempty"`
}

// CertifiedCA is one authority of a certification service with its OCSP responders.
type CertifiedCA struct {
	Certificate []byte      `json:"certificate"`
	Responders  []Responder `json:"responders,omitempty"`
}

// Responder is an OCSP responder; Certificate may be empty if the authority
// itself or a certificate that it issued for the purpose signs.
type Responder struct {
	URL         string `json:"url"`
	Certificate []byte `json:"certificate,omitempty"`
	Cost        string `json:"cost,omitempty"` // FREE, PAID, UNDEFINED or empty
}

// ACMEServer is where certificates of a certification service can be ordered.
type ACMEServer struct {
	DirectoryURL          string `json:"directoryURL"`
	IPAddress             string `json:"ipAddress,omitempty"`
	AuthenticationProfile string `json:"authenticationProfile,omitempty"`
	SigningProfile        string `json:"signingProfile,omitempty"`
}

// TSA is an approved time-stamping authority.
type TSA struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	Certificate []byte `json:"certificate"`
	Cost        string `json:"cost,omitempty"`
}

// TrustedAnchor is the configuration anchor of a federation partner.
type TrustedAnchor struct {
	Instance string
	XML      []byte
}

// SourceKey is a key that signs one of the two configurations. The private key
// is in the registry's token.
type SourceKey struct {
	Source      Source
	Node        string // that has the private key
	Certificate []byte
	Active      bool
	Added       time.Time
}

// Node is one of the servers that publish the configuration of one registry.
// The first has no name; its address is the registry's.
type Node struct{ Name, Address string }

// Hash identifies the key.
func (k SourceKey) Hash() Hash { return hashOf(k.Certificate) }

func newState() *State {
	return &State{
		system:  defaultSystem(),
		classes: map[string]string{},
		members: map[id.Member]*member{},
		servers: map[id.SecurityServer]*server{},
		certs:   map[pki.CertHash]id.SecurityServer{},
		groups:  map[string]*group{},
		cas:     map[string]*CA{},
		tsas:    map[string]*TSA{},
		anchors: map[string]*TrustedAnchor{},
	}
}

// clone copies everything that applying a change may alter. Values behind the
// maps cas, tsas and anchors and in requests are replaced, never altered.
func (s *State) clone() *State {
	c := *s
	c.classes = maps.Clone(s.classes)
	c.members = make(map[id.Member]*member, len(s.members))
	for k, v := range s.members {
		c.members[k] = &member{v.name, maps.Clone(v.subsystems)}
	}
	c.servers = make(map[id.SecurityServer]*server, len(s.servers))
	for k, v := range s.servers {
		c.servers[k] = &server{v.address, maps.Clone(v.certs), maps.Clone(v.clients), v.maintenance}
	}
	c.certs = maps.Clone(s.certs)
	c.groups = make(map[string]*group, len(s.groups))
	for k, v := range s.groups {
		c.groups[k] = &group{v.description, maps.Clone(v.members)}
	}
	c.cas, c.tsas, c.anchors = maps.Clone(s.cas), maps.Clone(s.tsas), maps.Clone(s.anchors)
	c.keys, c.nodes = slices.Clone(s.keys), slices.Clone(s.nodes)
	c.requests, c.pending = slices.Clone(s.requests), slices.Clone(s.pending)
	return &c
}

// fold applies an accepted entry. Rules of taste (characters, lengths) are not
// checked again: they may have become stricter since.
func (s *State) fold(e *Entry) error {
	s.time, s.author = e.Time, e.Author
	if s.instance == "" {
		if _, ok := e.Change.(*FoundInstance); !ok {
			return fmt.Errorf("the first entry must found the instance, not %s", e.Change)
		}
	}
	if err := e.Change.apply(s); err != nil {
		return err
	}
	s.number = e.Number
	s.tick()
	return nil
}

// tick ends an entry.
func (s *State) tick() {
	if s.time.After(s.stamp) {
		s.stamp = s.time
	} else {
		s.stamp = s.stamp.Add(1)
	}
}

// Try returns the state after the changes, or the refusal of the first one that is not
// acceptable. s itself stays as it is.
func (s *State) Try(changes []Change) (*State, error) {
	return s.try(s.time, Author{}, changes)
}

func (s *State) try(at time.Time, by Author, changes []Change) (*State, error) {
	next := s.clone()
	next.time, next.author = at, by
	for _, c := range changes {
		if next.instance == "" {
			if _, ok := c.(*FoundInstance); !ok {
				return nil, refuse(c, ErrInvalid, "the registry has no instance yet", "create the registry first")
			}
		}
		if err := c.check(next); err != nil {
			return nil, err
		}
		if err := c.apply(next); err != nil {
			return nil, err
		}
		next.number++
		next.tick()
	}
	return next, nil
}

// Instance is the instance identifier.
func (s *State) Instance() string { return s.instance }

// Number is the number of the last journal entry in this state.
func (s *State) Number() uint64 { return s.number }

// System returns the parameters of the instance.
func (s *State) System() System { return s.system }

// MemberClasses returns the member classes by code.
func (s *State) MemberClasses() []MemberClass {
	all := make([]MemberClass, 0, len(s.classes))
	for _, code := range slices.Sorted(maps.Keys(s.classes)) {
		all = append(all, MemberClass{code, s.classes[code]})
	}
	return all
}

// Members returns all members with their subsystems, ordered by class and code.
func (s *State) Members() []Member {
	all := make([]Member, 0, len(s.members))
	for m := range s.members {
		member, _ := s.Member(m)
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b Member) int { return compareMembers(a.ID, b.ID) })
	return all
}

// Member returns one member.
func (s *State) Member(m id.Member) (Member, bool) {
	got, ok := s.members[m]
	if !ok {
		return Member{}, false
	}
	out := Member{ID: m, Name: got.name}
	for _, code := range slices.Sorted(maps.Keys(got.subsystems)) {
		out.Subsystems = append(out.Subsystems, Subsystem{mustClient(m, code), got.subsystems[code]})
	}
	return out, true
}

// Known reports whether c is a member or subsystem of this state.
func (s *State) Known(c id.Client) bool {
	m, ok := s.members[c.Member()]
	if !ok || c.IsMember() {
		return ok
	}
	_, ok = m.subsystems[c.Subsystem()]
	return ok
}

// Servers returns all security servers, ordered by owner and code.
func (s *State) Servers() []Server {
	all := make([]Server, 0, len(s.servers))
	for key := range s.servers {
		srv, _ := s.Server(key)
		all = append(all, srv)
	}
	slices.SortFunc(all, func(a, b Server) int { return compareServers(a.ID, b.ID) })
	return all
}

// Server returns one security server.
func (s *State) Server(key id.SecurityServer) (Server, bool) {
	got, ok := s.servers[key]
	if !ok {
		return Server{}, false
	}
	out := Server{ID: key, Address: got.address}
	for _, h := range sortedHashes(got.certs) {
		if cert, err := x509.ParseCertificate(got.certs[h]); err == nil { // was parsed when accepted
			out.Certificates = append(out.Certificates, cert)
		}
	}
	for _, c := range slices.SortedFunc(maps.Keys(got.clients), compareClients) {
		out.Clients = append(out.Clients, ServerClient{c, got.clients[c]})
	}
	if got.maintenance != nil {
		out.Maintenance = &Maintenance{*got.maintenance}
	}
	return out, true
}

// Groups returns the global groups by code, OwnersGroup among them.
func (s *State) Groups() []Group {
	owners := map[id.Client]bool{}
	for key := range s.servers {
		owners[key.Owner().Client()] = true
	}
	all := []Group{{OwnersGroup, "Security server owners", slices.SortedFunc(maps.Keys(owners), compareClients)}}
	for code, g := range s.groups {
		all = append(all, Group{code, g.description, slices.SortedFunc(maps.Keys(g.members), compareClients)})
	}
	slices.SortFunc(all, func(a, b Group) int { return cmp.Compare(a.Code, b.Code) })
	return all
}

// CAs returns the approved certification services by name.
func (s *State) CAs() []CA { return sortedValues(s.cas) }

// TSAs returns the approved time-stamping authorities by name.
func (s *State) TSAs() []TSA { return sortedValues(s.tsas) }

// TrustedAnchors returns the anchors of federation partners by instance.
func (s *State) TrustedAnchors() []TrustedAnchor { return sortedValues(s.anchors) }

// Nodes returns the servers that publish the configuration, the first one first.
func (s *State) Nodes() []Node {
	return append([]Node{{Address: s.system.Address}}, s.nodes...)
}

// Keys returns the signing keys of a source, of all nodes, oldest first.
func (s *State) Keys(src Source) []SourceKey {
	return slices.DeleteFunc(slices.Clone(s.keys), func(k SourceKey) bool { return k.Source != src })
}

func sortedValues[V any](m map[string]*V) []V {
	all := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, *m[k])
	}
	return all
}

func sortedHashes(m map[pki.CertHash][]byte) []pki.CertHash {
	return slices.SortedFunc(maps.Keys(m), func(a, b pki.CertHash) int { return strings.Compare(a.Hex(), b.Hex()) })
}

func compareMembers(a, b id.Member) int {
	return cmp.Or(cmp.Compare(a.Instance(), b.Instance()), cmp.Compare(a.Class(), b.Class()), cmp.Compare(a.Code(), b.Code()))
}

func compareClients(a, b id.Client) int {
	return cmp.Or(compareMembers(a.Member(), b.Member()), cmp.Compare(a.Subsystem(), b.Subsystem()))
}

func compareServers(a, b id.SecurityServer) int {
	return cmp.Or(compareMembers(a.Owner(), b.Owner()), cmp.Compare(a.Code(), b.Code()))
}

// mustClient is for codes that were checked when they were accepted.
func mustClient(m id.Member, subsystem string) id.Client {
	c, err := id.NewClient(m, subsystem)
	if err != nil {
		panic(err)
	}
	return c
}
