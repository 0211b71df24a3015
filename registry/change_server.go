// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"kontor/pki"
	"kontor/registry/id"
)

// AddServer adds a security server of an existing member.
type AddServer struct {
	Server  id.SecurityServer `json:"server"`
	Address string            `json:"address"`
}

func (c *AddServer) op() string { return "server.add" }
func (c *AddServer) String() string {
	return fmt.Sprintf("add security server %s at %s", c.Server, c.Address)
}

func (c *AddServer) check(*State) error {
	if err := checkCode(c, "server code", c.Server.Code()); err != nil {
		return err
	}
	if why := checkAddress(c.Address, false); why != "" {
		return refuse(c, ErrInvalid, "address: "+why, "give a host name or an IP address")
	}
	return nil
}

func (c *AddServer) apply(s *State) error {
	if _, err := s.member(c, c.Server.Owner()); err != nil {
		return err
	}
	if _, ok := s.servers[c.Server]; ok {
		return refuse(c, ErrExists, "the server exists already", "")
	}
	s.servers[c.Server] = &server{c.Address, map[pki.CertHash][]byte{}, map[id.Client]bool{}, nil}
	return nil
}

// SetServerAddress changes where other security servers reach a server.
type SetServerAddress struct {
	Server  id.SecurityServer `json:"server"`
	Address string            `json:"address"`
}

func (c *SetServerAddress) op() string { return "server.address" }
func (c *SetServerAddress) String() string {
	return fmt.Sprintf("set address of security server %s to %s", c.Server, c.Address)
}

func (c *SetServerAddress) check(*State) error {
	if why := checkAddress(c.Address, false); why != "" {
		return refuse(c, ErrInvalid, "address: "+why, "give a host name or an IP address")
	}
	return nil
}

func (c *SetServerAddress) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	srv.address = c.Address
	return nil
}

// SetMaintenance puts a security server into maintenance or takes it out.
type SetMaintenance struct {
	Server  id.SecurityServer `json:"server"`
	On      bool              `json:"on"`
	Message string            `json:"message,omitempty"`
}

func (c *SetMaintenance) op() string { return "server.maintenance" }
func (c *SetMaintenance) String() string {
	if c.On {
		return fmt.Sprintf("put security server %s into maintenance (%s)", c.Server, c.Message)
	}
	return fmt.Sprintf("take security server %s out of maintenance", c.Server)
}

func (c *SetMaintenance) check(*State) error { return checkText(c, "message", c.Message, false) }

func (c *SetMaintenance) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	if !c.On {
		srv.maintenance = nil
		return nil
	}
	message := c.Message
	srv.maintenance = &message
	return nil
}

// DeleteServer removes a security server with its certificates and the
// registrations of its clients.
type DeleteServer struct {
	Server id.SecurityServer `json:"server"`
}

func (c *DeleteServer) op() string         { return "server.delete" }
func (c *DeleteServer) String() string     { return "delete security server " + c.Server.String() }
func (c *DeleteServer) check(*State) error { return nil }

func (c *DeleteServer) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	for h := range srv.certs {
		delete(s.certs, h)
	}
	delete(s.servers, c.Server)
	return nil
}

// RegisterCertificate adds an authentication certificate (DER) to a server.
type RegisterCertificate struct {
	Server      id.SecurityServer `json:"server"`
	Certificate []byte            `json:"certificate"`
}

func (c *RegisterCertificate) op() string { return "server.certificate.register" }
func (c *RegisterCertificate) String() string {
	return fmt.Sprintf("register authentication certificate %.16s of security server %s", hashOf(c.Certificate), c.Server)
}

func (c *RegisterCertificate) check(s *State) error {
	cert, err := parseCertificate(c.Certificate)
	if err != nil {
		return refuse(c, ErrInvalid, err.Error(), "")
	}
	if !pki.IsAuthCert(cert) {
		return refuse(c, ErrInvalid, "it is not an authentication certificate", "look at its key usage; a signing certificate is not registered")
	}
	if !s.approves(cert) {
		return refuse(c, ErrInvalid, fmt.Sprintf("its issuer %s is not an approved certification service", cert.Issuer), "approve the issuer first, or have the certificate issued by an approved one")
	}
	return nil
}

// approves reports whether an approved authority issued the certificate.
func (s *State) approves(cert *x509.Certificate) bool {
	for _, ca := range s.cas {
		for _, issuer := range ca.authorities() {
			parent, err := x509.ParseCertificate(issuer.Certificate)
			if err == nil && bytes.Equal(parent.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(parent) == nil {
				return true
			}
		}
	}
	return false
}

func (c *RegisterCertificate) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	h := pki.CertHash(hashOf(c.Certificate))
	if owner, ok := s.certs[h]; ok {
		return refuse(c, ErrExists, fmt.Sprintf("the certificate is registered for security server %s", owner), "a certificate stands for one server only; unregister it there first")
	}
	s.certs[h] = c.Server
	srv.certs[h] = c.Certificate
	return nil
}

// UnregisterCertificate removes an authentication certificate, named by the
// hash of its DER, from a server.
type UnregisterCertificate struct {
	Server      id.SecurityServer `json:"server"`
	Certificate Hash              `json:"certificate"`
}

func (c *UnregisterCertificate) op() string { return "server.certificate.unregister" }
func (c *UnregisterCertificate) String() string {
	return fmt.Sprintf("unregister authentication certificate %.16s of security server %s", c.Certificate, c.Server)
}
func (c *UnregisterCertificate) check(*State) error { return nil }

func (c *UnregisterCertificate) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	h := pki.CertHash(c.Certificate)
	if _, ok := srv.certs[h]; !ok {
		return refuse(c, ErrUnknown, "the server has no such certificate", "")
	}
	delete(srv.certs, h)
	delete(s.certs, h)
	return nil
}

// RegisterClient makes a client reachable through a security server. The
// server's owner is its client without registration.
type RegisterClient struct {
	Server id.SecurityServer `json:"server"`
	Client id.Client         `json:"client"`
}

func (c *RegisterClient) op() string { return "server.client.register" }
func (c *RegisterClient) String() string {
	return fmt.Sprintf("register client %s at security server %s", c.Client, c.Server)
}
func (c *RegisterClient) check(*State) error { return nil }

func (c *RegisterClient) apply(s *State) error {
	srv, err := s.server(c, c.Server)
	if err != nil {
		return err
	}
	if !s.Known(c.Client) {
		return refuse(c, ErrUnknown, fmt.Sprintf("there is no client %s", c.Client), "add it first")
	}
	if c.Client == c.Server.Owner().Client() {
		return refuse(c, ErrInvalid, "the owner is a client of its server without registration", "")
	}
	if _, ok := srv.clients[c.Client]; ok {
		return refuse(c, ErrExists, "the client is registered there already", "")
	}
	srv.clients[c.Client] = true
	return nil
}

// EnableClient makes a registered client reachable again or, with On false,
// unreachable for a while.
type EnableClient struct {
	Server id.SecurityServer `json:"server"`
	Client id.Client         `json:"client"`
	On     bool              `json:"on"`
}

func (c *EnableClient) op() string { return "server.client.enable" }
func (c *EnableClient) String() string {
	if c.On {
		return fmt.Sprintf("enable client %s at security server %s", c.Client, c.Server)
	}
	return fmt.Sprintf("disable client %s at security server %s", c.Client, c.Server)
}
func (c *EnableClient) check(*State) error { return nil }

func (c *EnableClient) apply(s *State) error {
	srv, err := s.registered(c, c.Server, c.Client)
	if err != nil {
		return err
	}
	if !c.On && c.Client == s.system.ManagementProvider {
		return refuse(c, ErrInUse, "it provides the management services", "name another management provider first")
	}
	srv.clients[c.Client] = c.On
	return nil
}

// UnregisterClient removes a client from a security server.
type UnregisterClient struct {
	Server id.SecurityServer `json:"server"`
	Client id.Client         `json:"client"`
}

func (c *UnregisterClient) op() string { return "server.client.unregister" }
func (c *UnregisterClient) String() string {
	return fmt.Sprintf("unregister client %s from security server %s", c.Client, c.Server)
}
func (c *UnregisterClient) check(*State) error { return nil }

func (c *UnregisterClient) apply(s *State) error {
	srv, err := s.registered(c, c.Server, c.Client)
	if err != nil {
		return err
	}
	delete(srv.clients, c.Client)
	return nil
}

func (s *State) server(c Change, key id.SecurityServer) (*server, error) {
	srv, ok := s.servers[key]
	if !ok {
		return nil, refuse(c, ErrUnknown, fmt.Sprintf("there is no security server %s", key), "add the server first")
	}
	return srv, nil
}

func (s *State) registered(c Change, key id.SecurityServer, client id.Client) (*server, error) {
	srv, err := s.server(c, key)
	if err != nil {
		return nil, err
	}
	if _, ok := srv.clients[client]; !ok {
		return nil, refuse(c, ErrUnknown, "the client is not registered there", "")
	}
	return srv, nil
}

// SetGroup adds a global group or changes its description.
type SetGroup struct {
	Code        string `json:"code"`
	Description string `json:"description"`
}

func (c *SetGroup) op() string { return "group.set" }
func (c *SetGroup) String() string {
	return fmt.Sprintf("set global group %s (%s)", c.Code, c.Description)
}

func (c *SetGroup) check(*State) error {
	if err := checkCode(c, "group code", c.Code); err != nil {
		return err
	}
	return checkText(c, "description", c.Description, true)
}

func (c *SetGroup) apply(s *State) error {
	if err := notOwners(c, c.Code); err != nil {
		return err
	}
	if g, ok := s.groups[c.Code]; ok {
		g.description = c.Description
		return nil
	}
	s.groups[c.Code] = &group{c.Description, map[id.Client]bool{}}
	return nil
}

// DeleteGroup removes a global group with its memberships. Access rights that
// security servers gave to the group lose their effect.
type DeleteGroup struct {
	Code string `json:"code"`
}

func (c *DeleteGroup) op() string         { return "group.delete" }
func (c *DeleteGroup) String() string     { return "delete global group " + c.Code }
func (c *DeleteGroup) check(*State) error { return nil }

func (c *DeleteGroup) apply(s *State) error {
	if err := notOwners(c, c.Code); err != nil {
		return err
	}
	if _, err := s.group(c, c.Code); err != nil {
		return err
	}
	delete(s.groups, c.Code)
	return nil
}

// AddGroupMember puts a client into a global group. A member does not stand
// for its subsystems.
type AddGroupMember struct {
	Group  string    `json:"group"`
	Client id.Client `json:"client"`
}

func (c *AddGroupMember) op() string { return "group.member.add" }
func (c *AddGroupMember) String() string {
	return fmt.Sprintf("add %s to global group %s", c.Client, c.Group)
}
func (c *AddGroupMember) check(*State) error { return nil }

func (c *AddGroupMember) apply(s *State) error {
	if err := notOwners(c, c.Group); err != nil {
		return err
	}
	g, err := s.group(c, c.Group)
	if err != nil {
		return err
	}
	if !s.Known(c.Client) {
		return refuse(c, ErrUnknown, fmt.Sprintf("there is no client %s", c.Client), "add it first")
	}
	if g.members[c.Client] {
		return refuse(c, ErrExists, "it is in the group already", "")
	}
	g.members[c.Client] = true
	return nil
}

// RemoveGroupMember takes a client out of a global group.
type RemoveGroupMember struct {
	Group  string    `json:"group"`
	Client id.Client `json:"client"`
}

func (c *RemoveGroupMember) op() string { return "group.member.remove" }
func (c *RemoveGroupMember) String() string {
	return fmt.Sprintf("remove %s from global group %s", c.Client, c.Group)
}
func (c *RemoveGroupMember) check(*State) error { return nil }

func (c *RemoveGroupMember) apply(s *State) error {
	if err := notOwners(c, c.Group); err != nil {
		return err
	}
	g, err := s.group(c, c.Group)
	if err != nil {
		return err
	}
	if !g.members[c.Client] {
		return refuse(c, ErrUnknown, "it is not in the group", "")
	}
	delete(g.members, c.Client)
	return nil
}

func (s *State) group(c Change, code string) (*group, error) {
	g, ok := s.groups[code]
	if !ok {
		return nil, refuse(c, ErrUnknown, fmt.Sprintf("there is no global group %s", code), "add the group first")
	}
	return g, nil
}

func notOwners(c Change, code string) error {
	if code == OwnersGroup {
		return refuse(c, ErrInvalid, "this group always exists, and its members follow from the security servers", "")
	}
	return nil
}
