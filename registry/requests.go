// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kontor/registry/id"
)

// RequestKind is what a management request asks for, named as the management
// service that takes it.
type RequestKind string

// Kinds of management requests. The first three await approval, the others
// are carried out when they are accepted.
const (
	AuthCertReg        RequestKind = "authCertReg"
	ClientReg          RequestKind = "clientReg"
	OwnerChange        RequestKind = "ownerChange"
	AuthCertDeletion   RequestKind = "authCertDeletion"
	ClientDeletion     RequestKind = "clientDeletion"
	AddressChange      RequestKind = "addressChange"
	ClientDisable      RequestKind = "clientDisable"
	ClientEnable       RequestKind = "clientEnable"
	ClientRename       RequestKind = "clientRename"
	MaintenanceEnable  RequestKind = "maintenanceModeEnable"
	MaintenanceDisable RequestKind = "maintenanceModeDisable"
)

// RequestKinds lists all kinds.
func RequestKinds() []RequestKind {
	return []RequestKind{
		AuthCertReg, ClientReg, OwnerChange, AuthCertDeletion, ClientDeletion, AddressChange,
		ClientDisable, ClientEnable, ClientRename, MaintenanceEnable, MaintenanceDisable,
	}
}

// decided reports whether somebody has to decide about requests of the kind.
func (k RequestKind) decided() bool { return k == AuthCertReg || k == ClientReg || k == OwnerChange }

// Origin tells who made a management request.
type Origin string

// Origins of management requests.
const (
	FromServer Origin = "SECURITY_SERVER" // a security server, by message
	FromCenter Origin = "CENTER"          // the registry's operator
)

// RequestStatus is how far a management request has come.
type RequestStatus string

// Statuses of requests that somebody decides about. Waiting and Submitted are
// pending; the others are final.
const (
	Waiting   RequestStatus = "WAITING"
	Submitted RequestStatus = "SUBMITTED FOR APPROVAL" // requested by both sides
	Approved  RequestStatus = "APPROVED"
	Declined  RequestStatus = "DECLINED"
	Revoked   RequestStatus = "REVOKED" // withdrawn by who made it
)

// Pending reports whether a decision is awaited.
func (s RequestStatus) Pending() bool { return s == Waiting || s == Submitted }

// Request is a management request as the registry keeps it.
type Request struct {
	Number      uint64 // counts from 1
	Kind        RequestKind
	Origin      Origin
	Status      RequestStatus // empty if the request was carried out at once
	Created     time.Time
	CreatedBy   string // Who of the author
	Server      id.SecurityServer
	Client      id.Client // zero for requests about a server only
	Address     string
	Certificate []byte // authentication certificate, DER
	Name        string // of a subsystem
	Message     string // of a server in maintenance
	Comment     string // what the request changed
	Complement  uint64 // request of the other origin that shares the decision; 0: none

	Decided   time.Time // zero while pending, and without a status
	DecidedBy string
	Reason    string // of the decision, for the applicant too

	// Sender and MessageID name the message of a security server, Digest is
	// the SHA-256 of its SOAP. RequestMessage has the whole of it.
	Sender    id.Client
	MessageID string
	Digest    Hash

	entry uint64 // of the journal, which has the message
}

// RequestFilter selects requests; zero fields select all.
type RequestFilter struct {
	Pending bool // only those that await a decision
	Status  RequestStatus
	Kind    RequestKind
	Origin  Origin
	Server  id.SecurityServer
	Client  id.Client
	After   uint64 // only later ones
	Limit   int    // at most so many
}

func (f *RequestFilter) selects(q *Request) bool {
	return (!f.Pending || q.Status.Pending()) &&
		(f.Status == "" || f.Status == q.Status) &&
		(f.Kind == "" || f.Kind == q.Kind) &&
		(f.Origin == "" || f.Origin == q.Origin) &&
		(f.Server.IsZero() || f.Server == q.Server) &&
		(f.Client.IsZero() || f.Client == q.Client)
}

// Requests returns the management requests that the filter selects, oldest first.
func (s *State) Requests(f RequestFilter) []Request {
	var all []Request
	for _, q := range s.requests[min(f.After, uint64(len(s.requests))):] {
		if f.Limit > 0 && len(all) == f.Limit {
			break
		}
		if f.selects(q) {
			all = append(all, *q)
		}
	}
	return all
}

// Request returns one management request.
func (s *State) Request(number uint64) (Request, bool) {
	if q := s.request(number); q != nil {
		return *q, true
	}
	return Request{}, false
}

// Requests returns the management requests that the filter selects, oldest first.
func (r *Registry) Requests(f RequestFilter) []Request { return r.State().Requests(f) }

// Request returns one management request.
func (r *Registry) Request(number uint64) (Request, bool) { return r.State().Request(number) }

// RequestMessage is the message in which a security server sent a request,
// kept in the journal as it was received.
type RequestMessage struct {
	Sender      id.Client `json:"sender"`
	ID          string    `json:"id"`
	Digest      Hash      `json:"digest"` // SHA-256 of the SOAP
	ContentType string    `json:"contentType"`
	Body        []byte    `json:"body"`
}

// RequestMessage returns the message of a request, or nil if it came without
// one, from the registry's operator.
func (r *Registry) RequestMessage(ctx context.Context, number uint64) (*RequestMessage, error) {
	q := r.State().request(number)
	if q == nil {
		return nil, fmt.Errorf("%w: there is no request %d", ErrUnknown, number)
	}
	var found *RequestMessage
	stop := errors.New("stop")
	err := r.Journal(ctx, q.entry, func(e *Entry) error {
		if c, ok := e.Change.(*submitRequest); ok && c.Number == number {
			found = c.Message
			return stop
		}
		return fmt.Errorf("%w: entry %d is not request %d", ErrJournal, e.Number, number)
	})
	if err != nil && !errors.Is(err, stop) {
		return nil, err
	}
	return found, nil
}

// request returns a request, which must not be altered, or nil.
func (s *State) request(number uint64) *Request {
	if number == 0 || number > uint64(len(s.requests)) {
		return nil
	}
	return s.requests[number-1]
}

// awaiting returns the pending request for which fn holds, or nil.
func (s *State) awaiting(fn func(*Request) bool) *Request {
	for _, number := range s.pending {
		if q := s.request(number); fn(q) {
			return q
		}
	}
	return nil
}

// alter replaces a request by a changed one.
func (s *State) alter(number uint64, fn func(*Request)) {
	q := *s.requests[number-1]
	fn(&q)
	s.requests[number-1] = &q
	s.pending = slices.DeleteFunc(s.pending, func(n uint64) bool { return n == number && !q.Status.Pending() })
}
