// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"kontor/pki"
	"kontor/registry/id"
)

// Submission is a management request before it is accepted.
type Submission struct {
	Kind        RequestKind
	Origin      Origin
	Server      id.SecurityServer
	Client      id.Client       // of requests about a client
	Address     string          // of AuthCertReg and AddressChange
	Certificate []byte          // of AuthCertReg and AuthCertDeletion, DER
	Name        string          // of ClientReg (may be empty) and ClientRename
	Text        string          // of MaintenanceEnable; may be empty
	Message     *RequestMessage // in which it came; nil if the operator makes it
}

// Submit accepts a management request: it is recorded, and what can be decided
// at once takes effect, all in one durable step or not at all. A Refusal says
// why not.
//
// A message that is sent again, byte for byte in its SOAP, changes nothing and
// returns the request as it stands by now, possibly declined. Whether the
// message is genuine is for the caller to verify.
func (r *Registry) Submit(ctx context.Context, by Author, sub *Submission) (Request, error) {
	var number uint64
	_, err := r.Update(ctx, by, func(s *State) ([]Change, error) {
		c := &submitRequest{
			Number: uint64(len(s.requests)) + 1, Kind: sub.Kind, Origin: sub.Origin, Server: sub.Server, Client: sub.Client,
			Address: sub.Address, Certificate: sub.Certificate, Name: sub.Name, Text: sub.Text, Message: sub.Message,
		}
		if q := s.sent(sub.Message); q != nil {
			if q.Digest != sub.Message.Digest {
				return nil, refuseRequest(c, ErrExists, codeExists, fmt.Sprintf("the message identifier is that of request %d", q.Number), "give every message an identifier of its own")
			}
			number = q.Number
			return nil, nil
		}
		number = c.Number
		return s.accept(c)
	})
	if err != nil {
		return Request{}, err
	}
	q, _ := r.Request(number)
	return q, nil
}

// OwnRequest returns the changes that record a registration requested by the
// registry's operator, ahead of the security server's own request or to join
// it. What comes second from a security server needs no approval.
func (s *State) OwnRequest(sub Submission) ([]Change, error) {
	return s.accept(&submitRequest{Number: uint64(len(s.requests)) + 1, Kind: sub.Kind, Origin: FromCenter, Server: sub.Server, Client: sub.Client,
		Address: sub.Address, Certificate: sub.Certificate, Name: sub.Name})
}

// Approve lets a pending request take effect. by.Why is the reason, which may
// be empty. A Refusal says what stands in the way.
func (r *Registry) Approve(ctx context.Context, by Author, number uint64) (Request, error) {
	return r.decide(ctx, by, number, (*State).Approval)
}

// Decline refuses a pending request. by.Why, which must not be empty, is the
// reason that the applicant gets to read. A request of the operator's own that
// no security server has joined is revoked.
func (r *Registry) Decline(ctx context.Context, by Author, number uint64) (Request, error) {
	return r.decide(ctx, by, number, (*State).Rejection)
}

func (r *Registry) decide(ctx context.Context, by Author, number uint64, changes func(*State, uint64, string) ([]Change, error)) (Request, error) {
	_, err := r.Update(ctx, by, func(s *State) ([]Change, error) { return changes(s, number, by.Why) })
	if err != nil {
		return Request{}, err
	}
	q, _ := r.Request(number)
	return q, nil
}

// Approval returns the changes that approve a pending request and carry it out.
func (s *State) Approval(number uint64, why string) ([]Change, error) {
	c := &settleRequest{number, Approved, why}
	q, err := s.undecided(c)
	if err != nil {
		return nil, err
	}
	return append(s.approval(s.whole(q)), c), nil
}

// Rejection returns the change that declines or revokes a pending request.
func (s *State) Rejection(number uint64, why string) ([]Change, error) {
	c := &settleRequest{number, Declined, why}
	q, err := s.undecided(c)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(why) == "" {
		return nil, refuse(c, ErrInvalid, "the reason is missing", "give one; the applicant gets to read it")
	}
	if q.Origin == FromCenter && q.Complement == 0 {
		c.Status = Revoked
	}
	return []Change{c}, nil
}

// decision is one that cannot be made: nothing of what it says is so.
type decision struct{ *settleRequest }

func (d decision) String() string { return fmt.Sprintf("decide on request %d", d.Request) }

func (s *State) undecided(c *settleRequest) (*Request, error) {
	q := s.request(c.Request)
	if q == nil {
		return nil, refuseRequest(decision{c}, ErrUnknown, codeNotFound, "there is no such request", "")
	}
	if !q.Status.Pending() {
		return nil, refuseRequest(decision{c}, ErrExists, codeBadState, q.settled(), "")
	}
	return q, nil
}

// sent returns the request that came in a message of that sender and
// identifier, or nil.
func (s *State) sent(m *RequestMessage) *Request {
	if m == nil {
		return nil
	}
	for i := len(s.requests) - 1; i >= 0; i-- { // messages sent again are mostly recent
		if q := s.requests[i]; q.MessageID == m.ID && q.Sender == m.Sender && !q.Sender.IsZero() {
			return q
		}
	}
	return nil
}

// accept returns the changes that record a request and carry it out, as far as
// nobody needs to decide. What is wrong with the request itself is for the
// first of them to refuse.
func (s *State) accept(c *submitRequest) ([]Change, error) {
	if !c.Kind.decided() {
		if err := c.checkForm(s); err != nil {
			return nil, err
		}
		effect, err := s.effect(c)
		if err != nil || effect == nil {
			return []Change{c}, err
		}
		return []Change{c, effect}, nil
	}
	c.Complements = c.complement(s)
	if c.Kind == ClientReg && c.Name != "" {
		c.Comment = s.renaming(c)
	}
	if !s.approvesItself(c) {
		return []Change{c}, nil
	}
	effects := s.approval(s.whole(&Request{
		Kind: c.Kind, Origin: c.Origin, Server: c.Server, Client: c.Client, Address: c.Address,
		Certificate: c.Certificate, Name: c.Name, Complement: c.Complements,
	}))
	return slices.Concat([]Change{c}, effects, []Change{&settleRequest{c.Number, Approved, "approved automatically"}}), nil
}

// approvesItself reports whether nobody has to look at the request: both sides
// have made it, or the system parameters say so; and it brings no new member.
func (s *State) approvesItself(c *submitRequest) bool {
	_, server := s.servers[c.Server]
	switch c.Kind {
	case AuthCertReg:
		_, owner := s.members[c.Server.Owner()]
		return (s.system.AutoApproveCertificates || c.Complements != 0) && c.Origin == FromServer && owner
	case ClientReg:
		_, member := s.members[c.Client.Member()]
		return (s.system.AutoApproveClients || c.Complements != 0) && c.Origin == FromServer && server && member
	case OwnerChange:
		_, member := s.members[c.Client.Member()]
		return s.system.AutoApproveOwners && member
	}
	return false
}

// whole is a request with what only its complement says. The security server
// knows its own address best.
func (s *State) whole(q *Request) Request {
	whole := *q
	if other := s.request(q.Complement); other != nil {
		if other.Address != "" && (other.Origin == FromServer || whole.Address == "") {
			whole.Address = other.Address
		}
		if other.Name != "" && (other.Origin == FromServer || whole.Name == "") {
			whole.Name = other.Name
		}
	}
	return whole
}

// approval returns what follows from approving a request.
func (s *State) approval(q Request) []Change {
	var all []Change
	add := func(c ...Change) { all = append(all, c...) }
	admit := func(m id.Member) {
		if _, ok := s.members[m]; !ok {
			add(&AddMember{m, m.Code()})
		}
	}
	switch q.Kind {
	case AuthCertReg:
		admit(q.Server.Owner())
		if srv, ok := s.servers[q.Server]; !ok {
			add(&AddServer{q.Server, q.Address})
		} else if q.Address != "" && q.Address != srv.address {
			add(&SetServerAddress{q.Server, q.Address})
		}
		add(&RegisterCertificate{q.Server, q.Certificate})
	case ClientReg:
		admit(q.Client.Member())
		if !q.Client.IsMember() {
			if !s.Known(q.Client) {
				add(&AddSubsystem{q.Client, q.Name})
			} else if q.Name != "" && q.Name != s.subsystemName(q.Client) {
				add(&RenameSubsystem{q.Client, q.Name})
			}
		}
		add(&RegisterClient{q.Server, q.Client})
	case OwnerChange:
		add(&ChangeOwner{q.Server, q.Client.Member()})
	}
	return all
}

// effect returns what a request that nobody decides about does; nil: nothing
// but being recorded.
func (s *State) effect(c *submitRequest) (Change, error) {
	srv, ok := s.servers[c.Server]
	if !ok {
		srv = &server{} // a registration that waits can be revoked nonetheless
		if !slices.Contains([]RequestKind{AuthCertDeletion, ClientDeletion}, c.Kind) {
			return nil, refuseRequest(c, ErrUnknown, codeNoServer, fmt.Sprintf("there is no security server %s", c.Server), "register an authentication certificate of it first")
		}
	}
	_, registered := srv.clients[c.Client]
	switch c.Kind {
	case AuthCertDeletion:
		return s.certificateDeletion(c)
	case ClientDeletion:
		return s.clientDeletion(c, registered)
	case AddressChange:
		c.Comment = fmt.Sprintf("Changing from '%s'.", srv.address)
		return &SetServerAddress{c.Server, c.Address}, nil
	case MaintenanceEnable:
		switch {
		case s.provides(c.Server):
			return nil, refuseRequest(c, ErrInUse, codeKeepServer, fmt.Sprintf("%s provides the management services through this server", s.system.ManagementProvider), "")
		case srv.maintenance != nil:
			return nil, refuseRequest(c, ErrExists, codeMaintenance, "the server is in maintenance already", "")
		}
		return &SetMaintenance{c.Server, true, c.Text}, nil
	case MaintenanceDisable:
		if srv.maintenance == nil {
			return nil, refuseRequest(c, ErrExists, codeNoMaintenance, "the server is not in maintenance", "")
		}
		return &SetMaintenance{c.Server, false, ""}, nil
	}
	switch {
	case !registered:
		return nil, refuseRequest(c, ErrUnknown, codeNoClient, "the client is not registered there", "")
	case c.Kind == ClientDisable && c.Client == s.system.ManagementProvider:
		return nil, refuseRequest(c, ErrInUse, codeKeepProvider, "it provides the management services", "")
	case c.Kind == ClientRename && c.Client.IsMember():
		return nil, nil // which is refused for that
	case c.Kind == ClientRename:
		c.Comment = s.renaming(c)
		return &RenameSubsystem{c.Client, c.Name}, nil
	}
	return &EnableClient{c.Server, c.Client, c.Kind == ClientEnable}, nil
}

func (s *State) certificateDeletion(c *submitRequest) (Change, error) {
	if owner, ok := s.certs[pki.CertHash(hashOf(c.Certificate))]; ok {
		if owner != c.Server {
			return nil, refuseRequest(c, ErrUnknown, codeNoServer, fmt.Sprintf("security server %s has no such certificate", c.Server), "")
		}
		return &UnregisterCertificate{c.Server, hashOf(c.Certificate)}, nil
	}
	q := s.awaiting(func(q *Request) bool {
		return q.Kind == AuthCertReg && q.Status == Waiting && q.Server == c.Server && bytes.Equal(q.Certificate, c.Certificate)
	})
	if q == nil {
		return nil, refuseRequest(c, ErrUnknown, codeBadCertificate, "the certificate is not registered, nor does its registration wait", "")
	}
	return &settleRequest{q.Number, Revoked, "its deletion was requested"}, nil
}

func (s *State) clientDeletion(c *submitRequest, registered bool) (Change, error) {
	if registered {
		if c.Client == s.system.ManagementProvider && s.providers() == 1 {
			return nil, refuseRequest(c, ErrInUse, codeKeepProvider, "it provides the management services through this server only", "register it at another server first")
		}
		return &UnregisterClient{c.Server, c.Client}, nil
	}
	same := func(q *Request) bool { return q.Kind == ClientReg && q.Server == c.Server && q.Client == c.Client }
	if q := s.awaiting(func(q *Request) bool { return q.Status == Waiting && same(q) }); q != nil {
		return &settleRequest{q.Number, Revoked, "its deletion was requested"}, nil
	}
	if slices.ContainsFunc(s.requests, func(q *Request) bool { return q.Status == Declined && same(q) }) {
		return nil, nil
	}
	return nil, refuseRequest(c, ErrUnknown, codeNoRegistration, "the client is not registered there, nor does its registration wait", "")
}

// provides reports whether the management services are offered through the server.
func (s *State) provides(key id.SecurityServer) bool {
	provider := s.system.ManagementProvider
	srv, ok := s.servers[key]
	if !ok || provider.IsZero() {
		return false
	}
	_, registered := srv.clients[provider]
	return registered || provider == key.Owner().Client()
}

// providers counts the servers at which the management services are registered.
func (s *State) providers() int {
	n := 0
	for _, srv := range s.servers {
		if _, ok := srv.clients[s.system.ManagementProvider]; ok {
			n++
		}
	}
	return n
}

// renaming says that a request gives its subsystem another name, or "".
func (s *State) renaming(c *submitRequest) string {
	if old := s.subsystemName(c.Client); old != "" && old != c.Name {
		return fmt.Sprintf("Changing subsystem name from '%s' to '%s'.", old, c.Name)
	}
	return ""
}

// subsystemName is the name of a subsystem, "" if it has none or does not exist.
func (s *State) subsystemName(c id.Client) string {
	if m, ok := s.members[c.Member()]; ok {
		return m.subsystems[c.Subsystem()]
	}
	return ""
}
