// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// Plan returns the changes that turn the state into what the declaration says,
// in an order in which each is acceptable: first what would stand in the way
// of additions is removed, then comes what is new or different, then what
// nothing needs any more goes. If the declaration holds already, there are none.
//
// An error means that the declaration contradicts itself or belongs to another
// instance. Whether the changes are acceptable is for State.Try to say.
func Plan(s *State, eco *Ecosystem) ([]Change, error) {
	if eco.Instance != s.instance {
		return nil, fmt.Errorf("the declaration is for instance %q, the registry's is %q", eco.Instance, s.instance)
	}
	p := &planner{s: s}
	p.classes(eco.MemberClasses)
	p.membership(eco.Members)
	p.groups(eco.GlobalGroups)
	p.services(eco.CertificationServices)
	p.stamping(eco.TimestampingAuthorities)
	p.trustedAnchors(eco.TrustedAnchors)
	p.securityServers(eco.SecurityServers)
	p.settings(eco.Settings)
	if p.err != nil {
		return nil, fmt.Errorf("declaration: %w", p.err)
	}
	slices.Reverse(p.obsolete)
	return slices.Concat(p.clear, p.change, p.obsolete), nil
}

// planner collects changes. Its methods go from what is referred to towards
// what refers to it; obsolete is therefore carried out backwards.
type planner struct {
	s        *State
	clear    []Change // removals that make room
	change   []Change // additions and alterations
	obsolete []Change // removals of what is referred to until then
	err      error    // the first contradiction
}

func (p *planner) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// wanted indexes a list of the declaration by key and notes duplicates.
func wanted[K comparable, V any](p *planner, what string, list []V, key func(V) K) map[K]bool {
	seen := make(map[K]bool, len(list))
	for _, v := range list {
		k := key(v)
		if seen[k] {
			p.fail("%s %v occurs twice", what, k)
		}
		seen[k] = true
	}
	return seen
}

func itself[K any](k K) K { return k }

func (p *planner) classes(list []ClassDecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "member class", list, func(c ClassDecl) string { return c.Code })
	for _, c := range list {
		if have, ok := p.s.classes[c.Code]; !ok || have != c.Description {
			p.change = append(p.change, &SetMemberClass{c.Code, c.Description})
		}
	}
	for _, c := range p.s.MemberClasses() {
		if !keep[c.Code] {
			p.obsolete = append(p.obsolete, &DeleteMemberClass{c.Code})
		}
	}
}

func (p *planner) membership(list []MemberDecl) {
	if list == nil {
		return
	}
	keep := map[id.Member]bool{}
	for _, decl := range list {
		m, err := id.NewMember(p.s.instance, decl.Class, decl.Code)
		if err != nil {
			p.fail("member %q of class %q: %w", decl.Code, decl.Class, err)
			continue
		}
		if keep[m] {
			p.fail("member %s occurs twice", m)
		}
		keep[m] = true
		have, ok := p.s.members[m]
		switch {
		case !ok:
			have = &member{}
			p.change = append(p.change, &AddMember{m, decl.Name})
		case have.name != decl.Name:
			p.change = append(p.change, &RenameMember{m, decl.Name})
		}
		p.subsystems(m, have, decl.Subsystems)
	}
	for _, m := range p.s.Members() {
		if keep[m.ID] {
			continue
		}
		p.obsolete = append(p.obsolete, &DeleteMember{m.ID})
		for _, sub := range m.Subsystems {
			p.obsolete = append(p.obsolete, &DeleteSubsystem{sub.ID})
		}
	}
}

func (p *planner) subsystems(m id.Member, have *member, list []SubsystemDecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "subsystem of "+m.String(), list, func(s SubsystemDecl) string { return s.Code })
	for _, decl := range list {
		c, err := id.NewClient(m, decl.Code)
		if err != nil {
			p.fail("subsystem %q of %s: %w", decl.Code, m, err)
			continue
		}
		if name, ok := have.subsystems[decl.Code]; !ok {
			p.change = append(p.change, &AddSubsystem{c, decl.Name})
		} else if name != decl.Name {
			p.change = append(p.change, &RenameSubsystem{c, decl.Name})
		}
	}
	current, _ := p.s.Member(m)
	for _, sub := range current.Subsystems {
		if !keep[sub.ID.Subsystem()] {
			p.obsolete = append(p.obsolete, &DeleteSubsystem{sub.ID})
		}
	}
}

func (p *planner) groups(list []GroupDecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "global group", list, func(g GroupDecl) string { return g.Code })
	for _, decl := range list {
		have, ok := p.s.groups[decl.Code]
		if !ok || have.description != decl.Description {
			p.change = append(p.change, &SetGroup{decl.Code, decl.Description})
		}
		if decl.Members == nil {
			continue
		}
		members := wanted(p, "in global group "+decl.Code+" member", decl.Members, itself)
		for _, c := range decl.Members {
			if !ok || !have.members[c] {
				p.change = append(p.change, &AddGroupMember{decl.Code, c})
			}
		}
		if !ok {
			continue
		}
		for _, c := range slices.SortedFunc(maps.Keys(have.members), compareClients) {
			if !members[c] {
				p.obsolete = append(p.obsolete, &RemoveGroupMember{decl.Code, c})
			}
		}
	}
	for _, g := range p.s.Groups() {
		if !keep[g.Code] && g.Code != OwnersGroup {
			p.obsolete = append(p.obsolete, &DeleteGroup{g.Code})
		}
	}
}

func (p *planner) services(list []CADecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "certification service", list, func(c CADecl) string { return c.Name })
	for _, have := range p.s.CAs() {
		if !keep[have.Name] {
			p.clear = append(p.clear, &DeleteCA{have.Name})
		}
	}
	for _, decl := range list {
		ca := decl.service()
		have, ok := p.s.cas[ca.Name]
		if ok && same(*have, ca) {
			continue
		}
		if ok && !have.sameCertificates(&ca) {
			p.clear = append(p.clear, &DeleteCA{ca.Name})
		}
		p.change = append(p.change, &SetCA{ca})
	}
}

func (decl CADecl) service() CA {
	ca := CA{
		Name:               decl.Name,
		Profile:            decl.Profile,
		AuthenticationOnly: decl.AuthenticationOnly,
		Top:                CertifiedCA{decl.Certificate.der, responders(decl.OCSP)},
		CSRFormat:          decl.CSRFormat,
	}
	if profile, ok := pki.ProfileByClass(decl.Profile); ok {
		ca.Profile = profile.ClassName()
	}
	for _, i := range decl.Intermediates {
		ca.Intermediates = append(ca.Intermediates, CertifiedCA{i.Certificate.der, responders(i.OCSP)})
	}
	if decl.ACME != nil {
		a := ACMEServer(*decl.ACME)
		ca.ACME = &a
	}
	return ca
}

func responders(list []ResponderDecl) []Responder {
	var all []Responder
	for _, r := range list {
		all = append(all, Responder{r.URL, r.Certificate.der, r.Cost})
	}
	return all
}

// same compares what is stored: the journal's bytes.
func same(a, b any) bool {
	x, errX := marshal(a)
	y, errY := marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func (p *planner) stamping(list []TSADecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "time-stamping authority", list, func(t TSADecl) string { return t.Name })
	for _, decl := range list {
		tsa := TSA{decl.Name, decl.URL, decl.Certificate.der, decl.Cost}
		if have, ok := p.s.tsas[tsa.Name]; !ok || !same(*have, tsa) {
			p.change = append(p.change, &SetTSA{tsa})
		}
	}
	for _, have := range p.s.TSAs() {
		if !keep[have.Name] {
			p.obsolete = append(p.obsolete, &DeleteTSA{have.Name})
		}
	}
}

func (p *planner) trustedAnchors(list []File) {
	if list == nil {
		return
	}
	keep := map[string]bool{}
	for _, f := range list {
		anchor, err := globalconf.ParseAnchor(f.content)
		if err != nil {
			p.fail("trusted anchor %s: %w", f.file, err)
			continue
		}
		if keep[anchor.Instance] {
			p.fail("two trusted anchors of instance %s", anchor.Instance)
		}
		keep[anchor.Instance] = true
		if have, ok := p.s.anchors[anchor.Instance]; !ok || !bytes.Equal(have.XML, f.content) {
			p.change = append(p.change, &TrustAnchor{anchor.Instance, f.content})
		}
	}
	for _, have := range p.s.TrustedAnchors() {
		if !keep[have.Instance] {
			p.obsolete = append(p.obsolete, &DistrustAnchor{have.Instance})
		}
	}
}

func (p *planner) securityServers(list []ServerDecl) {
	if list == nil {
		return
	}
	keep := wanted(p, "security server", list, func(d ServerDecl) id.SecurityServer { return d.ID })
	for _, have := range p.s.Servers() {
		if !keep[have.ID] {
			p.clear = append(p.clear, &DeleteServer{have.ID})
		}
	}
	for _, decl := range list {
		have, ok := p.s.servers[decl.ID]
		switch {
		case !ok:
			have = &server{}
			p.change = append(p.change, &AddServer{decl.ID, decl.Address})
		case have.address != decl.Address:
			p.change = append(p.change, &SetServerAddress{decl.ID, decl.Address})
		}
		switch {
		case decl.Maintenance == nil && have.maintenance != nil:
			p.change = append(p.change, &SetMaintenance{Server: decl.ID})
		case decl.Maintenance != nil && (have.maintenance == nil || *have.maintenance != decl.Maintenance.Message):
			p.change = append(p.change, &SetMaintenance{decl.ID, true, decl.Maintenance.Message})
		}
		p.serverCertificates(decl, have)
		p.serverClients(decl, have)
	}
}

func (p *planner) serverCertificates(decl ServerDecl, have *server) {
	if decl.Certificates == nil {
		return
	}
	keep := wanted(p, "certificate of "+decl.ID.String(), decl.Certificates, func(c Certificate) pki.CertHash { return pki.CertHash(hashOf(c.der)) })
	for _, h := range sortedHashes(have.certs) {
		if !keep[h] {
			p.clear = append(p.clear, &UnregisterCertificate{decl.ID, Hash(h)})
		}
	}
	for _, c := range decl.Certificates {
		if have.certs[pki.CertHash(hashOf(c.der))] == nil {
			p.change = append(p.change, &RegisterCertificate{decl.ID, c.der})
		}
	}
}

func (p *planner) serverClients(decl ServerDecl, have *server) {
	if decl.Clients == nil {
		return
	}
	keep := wanted(p, "client of "+decl.ID.String(), decl.Clients, itself)
	for _, c := range decl.Clients {
		if _, ok := have.clients[c]; !ok {
			p.change = append(p.change, &RegisterClient{decl.ID, c})
		}
	}
	for _, c := range slices.SortedFunc(maps.Keys(have.clients), compareClients) {
		if !keep[c] {
			p.obsolete = append(p.obsolete, &UnregisterClient{decl.ID, c})
		}
	}
}

func (p *planner) settings(d *Settings) {
	if d == nil {
		return
	}
	next := p.s.system
	assign(&next.Address, d.Address)
	assign(&next.ConfigurationValidity, d.ConfigurationValidity)
	assign(&next.OCSPFreshness, d.OCSPFreshness)
	assign(&next.TimestampingInterval, d.TimestampingInterval)
	assign(&next.OCSPFetchInterval, d.OCSPFetchInterval)
	assign(&next.IgnoreOCSPNextUpdate, d.IgnoreOCSPNextUpdate)
	assign(&next.MinimumVersion, d.MinimumVersion)
	assign(&next.ManagementProvider, d.ManagementProvider)
	assign(&next.ManagementAddress, d.ManagementAddress)
	assign(&next.MonitoringClient, d.MonitoringClient)
	assign(&next.AutoApproveCertificates, d.AutoApproveCertificates)
	assign(&next.AutoApproveClients, d.AutoApproveClients)
	assign(&next.AutoApproveOwners, d.AutoApproveOwners)
	if d.ManagementCertificate != nil {
		next.ManagementCertificate = d.ManagementCertificate.der
	}
	if !same(next, p.s.system) {
		p.change = append(p.change, &SetSystem{next})
	}
}

// assign sets what the declaration says, if it says anything.
func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}
