// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/x509"
	"fmt"
	"net"
	"time"

	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// part is one file of one configuration version.
type part struct {
	identifier string
	file       string
	content    []byte
}

// renderer generates the configuration of a state.
type renderer struct {
	s       *State
	shared  *globalconf.SharedParams
	private *globalconf.PrivateParams
}

func newRenderer(s *State) (*renderer, error) {
	if s.system.ManagementProvider.IsZero() {
		return nil, fmt.Errorf("no subsystem provides the management services; name one (managementProvider)")
	}
	private, err := s.privateParams()
	if err != nil {
		return nil, err
	}
	return &renderer{s, s.sharedParams(), private}, nil
}

// parts generates the files of one version, and has them read back by the
// reader that gateways use.
func (r *renderer) parts(version int) ([]part, error) {
	private, err := r.private.Marshal(version)
	if err != nil {
		return nil, fmt.Errorf("private parameters: %w", err)
	}
	if _, err := globalconf.ParsePrivateParams(private, version); err != nil {
		return nil, fmt.Errorf("private parameters: %w", err)
	}
	shared, err := r.shared.Marshal(version)
	if err != nil {
		return nil, fmt.Errorf("shared parameters: %w", err)
	}
	if version != maxVersion { // which is rehearsed as a whole
		if _, err := globalconf.ParseSharedParams(shared, version); err != nil {
			return nil, fmt.Errorf("shared parameters: %w", err)
		}
	}
	all := []part{
		{globalconf.ContentPrivateParams, globalconf.FilePrivateParams, private},
		{globalconf.ContentSharedParams, globalconf.FileSharedParams, shared},
	}
	optional, err := r.optional()
	if err != nil {
		return nil, err
	}
	return append(all, optional...), nil
}

// optional generates the parts that state what differs from the defaults.
func (r *renderer) optional() ([]part, error) {
	var all []part
	sys := r.s.system
	if !sys.MonitoringClient.IsZero() {
		doc, err := (&globalconf.MonitoringParams{Client: sys.MonitoringClient}).Marshal()
		if err == nil {
			_, err = globalconf.ParseMonitoringParams(doc)
		}
		if err != nil {
			return nil, fmt.Errorf("monitoring parameters: %w", err)
		}
		all = append(all, part{globalconf.ContentMonitoring, globalconf.FileMonitoring, doc})
	}
	if sys.OCSPFetchInterval != 0 {
		doc, err := (&globalconf.FetchIntervalParams{Interval: time.Duration(sys.OCSPFetchInterval) * time.Second}).Marshal()
		if err == nil {
			_, err = globalconf.ParseFetchIntervalParams(doc)
		}
		if err != nil {
			return nil, fmt.Errorf("OCSP fetch interval: %w", err)
		}
		all = append(all, part{globalconf.ContentFetchInterval, globalconf.FileFetchInterval, doc})
	}
	if sys.IgnoreOCSPNextUpdate {
		doc, err := (&globalconf.NextUpdateParams{Verify: false}).Marshal()
		if err == nil {
			_, err = globalconf.ParseNextUpdateParams(doc)
		}
		if err != nil {
			return nil, fmt.Errorf("OCSP next update: %w", err)
		}
		all = append(all, part{globalconf.ContentNextUpdate, globalconf.FileNextUpdate, doc})
	}
	return all, nil
}

func (s *State) privateParams() (*globalconf.PrivateParams, error) {
	p := &globalconf.PrivateParams{
		Instance:           s.instance,
		RegistrationURL:    s.system.ManagementAddress,
		RegistrationCert:   s.system.ManagementCertificate,
		ManagementProvider: s.system.ManagementProvider,
		TimestampInterval:  time.Duration(s.system.TimestampingInterval) * time.Second,
	}
	if p.RegistrationURL == "" {
		host, _ := splitAddress(s.system.Address)
		p.RegistrationURL = "https://" + net.JoinHostPort(host, "4001") + "/managementservice/"
	}
	for _, a := range s.TrustedAnchors() {
		anchor, err := globalconf.ParseAnchor(a.XML)
		if err != nil {
			return nil, fmt.Errorf("trusted anchor of %s: %w", a.Instance, err)
		}
		p.Anchors = append(p.Anchors, *anchor)
	}
	return p, nil
}

func (s *State) sharedParams() *globalconf.SharedParams {
	p := &globalconf.SharedParams{
		Instance:      s.instance,
		OCSPFreshness: time.Duration(s.system.OCSPFreshness) * time.Second,
	}
	for _, n := range s.Nodes() {
		p.Sources = append(p.Sources, globalconf.Source{
			Address: urlHost(n.Address), InternalCerts: s.sourceCerts(n.Name, Internal), ExternalCerts: s.sourceCerts(n.Name, External),
		})
	}
	for _, ca := range s.CAs() {
		approved := globalconf.ApprovedCA{
			Name: ca.Name, AuthenticationOnly: ca.AuthenticationOnly, Profile: ca.Profile, CSRFormat: ca.CSRFormat,
			Top: approvedCA(ca.Top),
		}
		for _, i := range ca.Intermediates {
			approved.Intermediates = append(approved.Intermediates, approvedCA(i))
		}
		if a := ca.ACME; a != nil {
			approved.ACME = &globalconf.ACMEServer{
				DirectoryURL: a.DirectoryURL, IPAddress: a.IPAddress,
				AuthProfile: a.AuthenticationProfile, SignProfile: a.SigningProfile,
			}
		}
		p.CAs = append(p.CAs, approved)
	}
	for _, t := range s.TSAs() {
		p.TSAs = append(p.TSAs, globalconf.ApprovedTSA{Name: t.Name, URL: t.URL, Cert: t.Certificate, CostType: t.Cost})
	}
	for _, c := range s.MemberClasses() {
		p.MemberClasses = append(p.MemberClasses, globalconf.MemberClass(c))
	}
	for _, m := range s.Members() {
		member := globalconf.Member{ID: m.ID, ClassDescription: s.classes[m.ID.Class()], Name: m.Name}
		for _, sub := range m.Subsystems {
			member.Subsystems = append(member.Subsystems, globalconf.Subsystem(sub))
		}
		p.Members = append(p.Members, member)
	}
	for _, srv := range s.Servers() {
		p.Servers = append(p.Servers, sharedServer(srv))
	}
	for _, g := range s.Groups() {
		p.Groups = append(p.Groups, globalconf.GlobalGroup{Code: g.Code, Description: g.Description, Members: g.Members})
	}
	return p
}

func approvedCA(ca CertifiedCA) globalconf.CA {
	out := globalconf.CA{Cert: ca.Certificate}
	for _, r := range ca.Responders {
		out.OCSP = append(out.OCSP, globalconf.OCSPResponder{URL: r.URL, Cert: r.Certificate, CostType: r.Cost})
	}
	return out
}

func sharedServer(srv Server) globalconf.SecurityServer {
	out := globalconf.SecurityServer{ID: srv.ID, Address: srv.Address, Clients: []id.Client{}}
	for _, cert := range srv.Certificates {
		out.AuthCerts = append(out.AuthCerts, globalconf.NewAuthCert(cert))
	}
	for _, c := range srv.Clients {
		if c.Enabled {
			out.Clients = append(out.Clients, c.ID)
		}
	}
	if srv.Maintenance != nil {
		out.Maintenance = &globalconf.Maintenance{Message: srv.Maintenance.Message}
	}
	return out
}

func (s *State) sourceCerts(node string, src Source) [][]byte {
	var all [][]byte
	for _, k := range s.nodeKeys(node, src) {
		all = append(all, k.Certificate)
	}
	return all
}

// trusted are the certificates that a client takes from the anchor for one node.
func (s *State) trusted(node string, src Source) ([]*x509.Certificate, error) {
	doc, err := s.nodeAnchor(src, node)
	if err != nil {
		return nil, err
	}
	anchor, err := globalconf.ParseAnchor(doc)
	if err != nil {
		return nil, err
	}
	return anchor.Certificates(), nil
}

// Anchor returns the configuration anchor of a source, which names every node:
// for the own security servers the internal one, for federation partners the
// external one. Its bytes change only when an address or key does.
func (s *State) Anchor(src Source) ([]byte, error) {
	var nodes []string
	for _, n := range s.Nodes() {
		nodes = append(nodes, n.Name)
	}
	return s.nodeAnchor(src, nodes...)
}

// nodeAnchor is the anchor that names only some nodes.
func (s *State) nodeAnchor(src Source, nodes ...string) ([]byte, error) {
	if src != Internal && src != External {
		return nil, fmt.Errorf("there is no source %q; use internal or external", src)
	}
	anchor := &globalconf.Anchor{Generated: s.anchored.Truncate(time.Second), Instance: s.instance}
	for _, name := range nodes {
		node := s.node(name)
		if node == nil {
			return nil, fmt.Errorf("node %s is not one of the registry's any more", name)
		}
		schemes := []string{"http", "https"}
		if _, port := splitAddress(node.Address); port != "" {
			schemes = schemes[:1] // one port does not serve both
		}
		for _, scheme := range schemes {
			anchor.Sources = append(anchor.Sources, globalconf.AnchorSource{
				URL:   scheme + "://" + urlHost(node.Address) + "/" + directoryName(src),
				Certs: s.sourceCerts(name, src),
			})
		}
	}
	return anchor.Marshal()
}

// directoryName is the last segment of a source's download address.
func directoryName(src Source) string { return string(src) + "conf" }

// urlHost puts a bare IPv6 address into brackets.
func urlHost(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return "[" + address + "]"
	}
	return address
}
