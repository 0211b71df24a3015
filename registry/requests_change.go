// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"fmt"
	"slices"

	"kontor/pki"
	"kontor/registry/id"
)

// maxMessage bounds the message that is kept with a request, in bytes.
const maxMessage = 128 << 10

// Codes of X-Road's central server for refused management requests.
const (
	codeExists         = "management_request_exists"
	codeCertExists     = "management_request_security_server_exists"
	codeBadCertificate = "management_request_invalid_auth_certificate"
	codeBadState       = "management_request_invalid_state"
	codeNotFound       = "management_request_not_found"
	codeNoOwner        = "management_request_server_owner_not_found"
	codeIsOwner        = "management_request_cannot_register_owner"
	codeNoMember       = "management_request_member_not_found"
	codeNoServer       = "management_request_server_not_found"
	codeNoRegistration = "management_request_client_registration_not_found"
	codeIsClient       = "management_request_client_already_registered"
	codeOwnerMember    = "management_request_owner_must_be_member"
	codeOwnerClient    = "management_request_owner_must_be_client"
	codeOwnerAlready   = "management_request_client_already_owner"
	codeServerExists   = "management_request_server_code_exists"
	codeBadAddress     = "management_request_invalid_server_address"
	codeBadName        = "management_request_invalid_subsystem_name"
	codeOnlySubsystem  = "management_request_only_subsystem_rename_allowed"
	codeNoClient       = "management_request_server_client_not_found"
	codeKeepProvider   = "mr_forbidden_disable_management_service_client"
	codeKeepServer     = "mr_forbidden_enable_maintenance_mode_for_management_service"
	codeMaintenance    = "management_request_server_already_in_maintenance_mode"
	codeNoMaintenance  = "management_request_server_not_in_maintenance_mode"
	codeNoClass        = "member_class_not_found"
	codeUnknownKind    = "management_request_unknown_type"
)

func refuseRequest(c Change, kind error, code, why, remedy string) error {
	return &Refusal{Change: c, Kind: kind, Why: why, Remedy: remedy, Code: code}
}

// submitRequest records a management request. What it asks for is done by
// further changes of the same set. It is made by Registry.Submit only.
type submitRequest struct {
	Number      uint64            `json:"number"`
	Kind        RequestKind       `json:"kind"`
	Origin      Origin            `json:"origin"`
	Server      id.SecurityServer `json:"server"`
	Client      id.Client         `json:"client,omitzero"`
	Address     string            `json:"address,omitempty"`
	Certificate []byte            `json:"certificate,omitempty"`
	Name        string            `json:"name,omitempty"`
	Text        string            `json:"text,omitempty"` // maintenance message
	Comment     string            `json:"comment,omitempty"`
	Complements uint64            `json:"complements,omitempty"`
	Message     *RequestMessage   `json:"message,omitempty"`
}

func (c *submitRequest) op() string { return "request.submit" }
func (c *submitRequest) String() string {
	switch {
	case len(c.Certificate) > 0:
		return fmt.Sprintf("request %d: %s of certificate %.16s for security server %s", c.Number, c.Kind, hashOf(c.Certificate), c.Server)
	case !c.Client.IsZero():
		return fmt.Sprintf("request %d: %s of %s at security server %s", c.Number, c.Kind, c.Client, c.Server)
	}
	return fmt.Sprintf("request %d: %s of security server %s", c.Number, c.Kind, c.Server)
}

func (c *submitRequest) check(s *State) error {
	if err := c.checkForm(s); err != nil {
		return err
	}
	switch c.Kind {
	case AuthCertReg:
		return c.checkAuthCertReg(s)
	case ClientReg:
		return c.checkClientReg(s)
	case OwnerChange:
		return c.checkOwnerChange(s)
	case AddressChange:
		if why := checkAddress(c.Address, false); why != "" {
			return refuseRequest(c, ErrInvalid, codeBadAddress, "address: "+why, "give a host name or an IP address")
		}
	case ClientRename:
		return c.checkName(true)
	case MaintenanceEnable:
		return checkText(c, "message", c.Text, false)
	}
	return nil
}

// checkForm judges what all requests have in common.
func (c *submitRequest) checkForm(s *State) error {
	if !slices.Contains(RequestKinds(), c.Kind) {
		return refuseRequest(c, ErrInvalid, codeUnknownKind, fmt.Sprintf("there is no management request %q", c.Kind), "")
	}
	if c.Origin != FromServer && c.Origin != FromCenter {
		return refuse(c, ErrInvalid, fmt.Sprintf("there is no origin %q", c.Origin), "")
	}
	if c.Server.IsZero() {
		return refuse(c, ErrInvalid, "it names no security server", "")
	}
	owner := c.Server.Owner()
	codes := []string{owner.Class(), owner.Code(), c.Server.Code()}
	if !c.Client.IsZero() {
		codes = append(codes, c.Client.Member().Class(), c.Client.Member().Code())
		if !c.Client.IsMember() {
			codes = append(codes, c.Client.Subsystem())
		}
	}
	for _, code := range codes {
		if err := checkCode(c, "identifier part", code); err != nil {
			return err
		}
	}
	if owner.Instance() != s.instance || !c.Client.IsZero() && c.Client.Instance() != s.instance {
		return refuse(c, ErrInvalid, "it is about another instance than "+s.instance, "")
	}
	if c.aboutClient() == c.Client.IsZero() {
		return refuse(c, ErrInvalid, "the client is missing or superfluous", "")
	}
	if c.aboutCertificate() != (len(c.Certificate) > 0) {
		return refuseRequest(c, ErrInvalid, codeBadCertificate, "the certificate is missing or superfluous", "")
	}
	if len(c.Certificate) > maxCertificate {
		return refuseRequest(c, ErrInvalid, codeBadCertificate, "the certificate is too large", "")
	}
	if m := c.Message; m != nil && len(m.Body)+len(m.ContentType)+len(m.ID) > maxMessage {
		return refuse(c, ErrInvalid, "the message is too large", "")
	}
	return nil
}

func (c *submitRequest) aboutClient() bool {
	switch c.Kind {
	case ClientReg, OwnerChange, ClientDeletion, ClientDisable, ClientEnable, ClientRename:
		return true
	}
	return false
}

func (c *submitRequest) aboutCertificate() bool {
	return c.Kind == AuthCertReg || c.Kind == AuthCertDeletion
}

func (c *submitRequest) checkAuthCertReg(s *State) error {
	if _, ok := s.members[c.Server.Owner()]; c.Origin == FromCenter && !ok {
		return refuseRequest(c, ErrUnknown, codeNoOwner, fmt.Sprintf("there is no member %s", c.Server.Owner()), "add the member first")
	}
	if c.Origin == FromServer || c.Address != "" {
		if why := checkAddress(c.Address, false); why != "" {
			return refuseRequest(c, ErrInvalid, codeBadAddress, "address: "+why, "give a host name or an IP address")
		}
	}
	if err := checkRegistrable(c, s, c.Certificate); err != nil {
		return err
	}
	if owner, ok := s.certs[pki.CertHash(hashOf(c.Certificate))]; ok {
		return refuseRequest(c, ErrExists, codeCertExists, fmt.Sprintf("the certificate is registered for security server %s", owner), "a certificate is registered once")
	}
	return c.checkComplement(s, func(q *Request) bool { return bytes.Equal(q.Certificate, c.Certificate) })
}

// checkRegistrable refuses what is not a valid authentication certificate of
// an approved authority at the state's time.
func checkRegistrable(c Change, s *State, der []byte) error {
	bad := func(why, remedy string) error { return refuseRequest(c, ErrInvalid, codeBadCertificate, why, remedy) }
	cert, err := parseCertificate(der)
	switch {
	case err != nil:
		return bad(err.Error(), "")
	case !pki.IsAuthCert(cert):
		return bad("it is not an authentication certificate", "look at its key usage; a signing certificate is not registered")
	case !s.approves(cert):
		return bad(fmt.Sprintf("its issuer %s is not an approved certification service", cert.Issuer), "have it issued by an approved one")
	case s.time.Before(cert.NotBefore):
		return bad("the certificate is not valid yet", "wait until it is, or look at the clocks")
	case s.time.After(cert.NotAfter):
		return bad("the certificate has expired", "register a new one")
	}
	return nil
}

func (c *submitRequest) checkClientReg(s *State) error {
	if c.Client == c.Server.Owner().Client() {
		return refuseRequest(c, ErrInvalid, codeIsOwner, "the owner is a client of its server without registration", "")
	}
	if c.Origin == FromCenter {
		if _, ok := s.servers[c.Server]; !ok {
			return refuseRequest(c, ErrUnknown, codeNoServer, fmt.Sprintf("there is no security server %s", c.Server), "add the server first")
		}
		if _, ok := s.members[c.Client.Member()]; !ok {
			return refuseRequest(c, ErrUnknown, codeNoMember, fmt.Sprintf("there is no member %s", c.Client.Member()), "add the member first")
		}
	}
	if srv, ok := s.servers[c.Server]; ok {
		if _, ok := srv.clients[c.Client]; ok {
			return refuseRequest(c, ErrExists, codeIsClient, "the client is registered there already", "")
		}
	}
	if c.Name != "" {
		if err := c.checkName(false); err != nil {
			return err
		}
	}
	return c.checkComplement(s, func(q *Request) bool { return q.Server == c.Server && q.Client == c.Client })
}

func (c *submitRequest) checkName(needed bool) error {
	if c.Client.IsMember() {
		return refuseRequest(c, ErrInvalid, codeOnlySubsystem, "only a subsystem's name can be set by request", "")
	}
	if err := checkText(c, "subsystem name", c.Name, needed); err != nil {
		err.(*Refusal).Code = codeBadName
		return err
	}
	return nil
}

func (c *submitRequest) checkOwnerChange(s *State) error {
	if q := s.awaiting(func(q *Request) bool { return q.Kind == OwnerChange && q.Server == c.Server }); q != nil {
		return refuseRequest(c, ErrExists, codeExists, fmt.Sprintf("request %d to change the owner of this server is pending", q.Number), "wait for its decision")
	}
	return (&ChangeOwner{c.Server, c.Client.Member()}).possible(s, c, c.Client.IsMember())
}

// checkComplement refuses a second request of the same origin, and one that
// names another server, while one is pending that same finds.
func (c *submitRequest) checkComplement(s *State, same func(*Request) bool) error {
	q := s.awaiting(func(q *Request) bool { return q.Kind == c.Kind && same(q) })
	if q == nil || q.Number == c.Complements {
		return nil
	}
	return refuseRequest(c, ErrExists, codeExists, fmt.Sprintf("request %d for the same is pending (%s)", q.Number, q.Status), "wait for its decision")
}

// complement finds the request of the other origin that awaits this one.
func (c *submitRequest) complement(s *State) uint64 {
	q := s.awaiting(func(q *Request) bool {
		return q.Status == Waiting && q.Kind == c.Kind && q.Origin != c.Origin && q.Server == c.Server &&
			(c.Kind == AuthCertReg && bytes.Equal(q.Certificate, c.Certificate) || c.Kind == ClientReg && q.Client == c.Client)
	})
	if q == nil {
		return 0
	}
	return q.Number
}

func (c *submitRequest) apply(s *State) error {
	if c.Number != uint64(len(s.requests))+1 {
		return refuse(c, ErrInvalid, fmt.Sprintf("the next request is number %d", len(s.requests)+1), "")
	}
	q := &Request{
		Number: c.Number, Kind: c.Kind, Origin: c.Origin, Created: s.time, CreatedBy: s.author.Who,
		Server: c.Server, Client: c.Client, Address: c.Address, Certificate: c.Certificate, Name: c.Name, Message: c.Text,
		Comment: c.Comment, Complement: c.Complements, entry: s.number + 1,
	}
	if m := c.Message; m != nil {
		q.Sender, q.MessageID, q.Digest = m.Sender, m.ID, m.Digest
	}
	if c.Kind.decided() {
		q.Status = Waiting
	}
	if c.Complements != 0 {
		other := s.request(c.Complements)
		if other == nil || other.Status != Waiting || other.Kind != c.Kind || other.Origin == c.Origin {
			return refuse(c, ErrInvalid, fmt.Sprintf("request %d does not await it", c.Complements), "")
		}
		q.Status = Submitted
		s.alter(other.Number, func(o *Request) { o.Status, o.Complement = Submitted, c.Number })
	}
	s.requests = append(s.requests, q)
	if q.Status.Pending() {
		s.pending = append(s.pending, q.Number)
	}
	return nil
}

// settleRequest ends a pending request and its complement. It is made by
// Registry.Approve, Decline and Submit only, with the changes that follow from it.
type settleRequest struct {
	Request uint64        `json:"request"`
	Status  RequestStatus `json:"status"`
	Reason  string        `json:"reason,omitempty"`
}

func (c *settleRequest) op() string { return "request.settle" }
func (c *settleRequest) String() string {
	if c.Reason == "" {
		return fmt.Sprintf("request %d is %s", c.Request, c.Status)
	}
	return fmt.Sprintf("request %d is %s (%s)", c.Request, c.Status, c.Reason)
}

func (c *settleRequest) check(s *State) error {
	if q := s.request(c.Request); c.Status == Approved && q != nil && q.Kind == AuthCertReg {
		return checkRegistrable(c, s, q.Certificate)
	}
	return nil
}

func (c *settleRequest) apply(s *State) error {
	q := s.request(c.Request)
	if q == nil {
		return refuseRequest(c, ErrUnknown, codeNotFound, "there is no such request", "")
	}
	if !q.Status.Pending() {
		return refuseRequest(c, ErrExists, codeBadState, q.settled(), "look at it again")
	}
	if c.Status != Approved && c.Status != Declined && c.Status != Revoked {
		return refuse(c, ErrInvalid, fmt.Sprintf("%q is not a decision", c.Status), "")
	}
	for _, number := range []uint64{q.Number, q.Complement} {
		if number != 0 {
			s.alter(number, func(q *Request) {
				q.Status, q.Reason, q.Decided, q.DecidedBy = c.Status, c.Reason, s.time, s.author.Who
			})
		}
	}
	return nil
}

// settled tells why nothing is left to decide.
func (q *Request) settled() string {
	if q.Status == "" {
		return "the request was carried out when it came"
	}
	return fmt.Sprintf("the request is %s already, by %s", q.Status, q.DecidedBy)
}

// ChangeOwner gives a security server to a member that is its client, which
// changes the server's identifier. The old owner becomes a client.
type ChangeOwner struct {
	Server id.SecurityServer `json:"server"`
	Owner  id.Member         `json:"owner"`
}

func (c *ChangeOwner) op() string { return "server.owner" }
func (c *ChangeOwner) String() string {
	return fmt.Sprintf("give security server %s to %s", c.Server, c.Owner)
}
func (c *ChangeOwner) check(*State) error { return nil }

// possible refuses, on behalf of the change by, what cannot be done.
func (c *ChangeOwner) possible(s *State, by Change, toMember bool) error {
	srv, ok := s.servers[c.Server]
	switch {
	case !toMember:
		return refuseRequest(by, ErrInvalid, codeOwnerMember, "a subsystem cannot own a security server", "name the member")
	case !ok:
		return refuseRequest(by, ErrUnknown, codeNoServer, fmt.Sprintf("there is no security server %s", c.Server), "")
	case c.Owner == c.Server.Owner():
		return refuseRequest(by, ErrInvalid, codeOwnerAlready, "it is the owner already", "")
	}
	if _, ok := srv.clients[c.Owner.Client()]; !ok {
		return refuseRequest(by, ErrInvalid, codeOwnerClient, "the new owner is not a client of the server", "register it as a client first")
	}
	if key, err := id.NewSecurityServer(c.Owner, c.Server.Code()); err != nil || s.servers[key] != nil {
		return refuseRequest(by, ErrExists, codeServerExists, fmt.Sprintf("the new owner has a server with code %s", c.Server.Code()), "")
	}
	return nil
}

func (c *ChangeOwner) apply(s *State) error {
	if err := c.possible(s, c, true); err != nil {
		return err
	}
	key, err := id.NewSecurityServer(c.Owner, c.Server.Code())
	if err != nil {
		return refuse(c, ErrInvalid, err.Error(), "")
	}
	srv := s.servers[c.Server]
	delete(s.servers, c.Server)
	s.servers[key] = srv
	delete(srv.clients, c.Owner.Client())
	srv.clients[c.Server.Owner().Client()] = true
	for h := range srv.certs {
		s.certs[h] = key
	}
	return nil
}
