// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"kontor/registry/id"
)

// Names of X-Road's headers, as security servers write them.
const (
	HeaderClient           = "x-road-client"
	HeaderID               = "x-road-id"
	HeaderIssue            = "x-road-issue"
	HeaderRepresentedParty = "x-road-represented-party"
	HeaderRequestHash      = "x-road-request-hash"
	HeaderRequestID        = "x-road-request-id"
	HeaderSecurityServer   = "x-road-security-server"
	HeaderService          = "x-road-service"
	HeaderUserID           = "x-road-userid"
)

// Request is the head of a REST request, or the envelope of a SOAP request,
// with what it says.
type Request struct {
	Head RequestHead // of REST only
	SOAP *SOAP       // of SOAP only, else nil
	Raw  []byte      // the serialised head or the envelope: what is hashed, logged and forwarded

	Client           id.Client
	Service          id.Service
	ServicePath      string              // raw: "" or "/…"; of REST only
	Query            string              // raw, without "?"; of REST only
	Server           id.SecurityServer   // zero if the client named none
	RepresentedParty id.RepresentedParty // zero if none
	ID               string              // x-road-id, in REST never empty
	RequestID        string              // x-road-request-id, never empty
	UserID           string
	Issue            string

	digest digest
}

// digest is the SHA-512 of a head, computed once.
type digest struct {
	sum  [sha512.Size]byte
	done bool
}

func (d *digest) of(raw []byte) [sha512.Size]byte {
	if !d.done {
		d.sum, d.done = sha512.Sum512(raw), true
	}
	return d.sum
}

// Digest returns the SHA-512 of Raw, which must not change any more. It is
// computed by the first call; two must not run at once.
func (r *Request) Digest() [sha512.Size]byte { return r.digest.of(r.Raw) }

// ServiceTarget returns service path and query as the client sent them, to be
// appended to the address of the service: "", "/pets", "?", "/pets?limit=2".
func (r *Request) ServiceTarget() string {
	if i := strings.IndexByte(r.Head.Target, '?'); i >= 0 {
		return r.ServicePath + r.Head.Target[i:]
	}
	return r.ServicePath
}

// FromHTTP makes the message head of a client's request. Path and query are
// the bytes that the client sent. Fields come in the order of their canonical
// names, because net/http does not keep the order of different names; equal
// names keep theirs. Headers of one hop are dropped, and those that only
// security servers may set; x-road-request-id and, if the client sent none,
// x-road-id are appended. newID returns a fresh UUID.
//
// Errors wrap ErrMissingClient, ErrMethod, ErrTarget, ErrIdentifier, ErrHeader
// or ErrTooLarge.
func FromHTTP(r *http.Request, instance string, newID func() string) (*Request, error) {
	if err := checkMethod(r.Method); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.Header))
	count := 2
	for name, values := range r.Header {
		if forbidden(name) || strings.EqualFold(name, HeaderRequestID) || strings.EqualFold(name, HeaderRequestHash) {
			continue
		}
		names = append(names, name)
		count += len(values)
	}
	if count > MaxFields {
		return nil, fmt.Errorf("%w: more than %d header fields", ErrTooLarge, MaxFields-2)
	}
	slices.Sort(names)

	req := &Request{Head: RequestHead{
		Method: r.Method,
		Target: rawTarget(r),
		Fields: make([]Field, 0, count),
	}}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		for _, value := range r.Header[name] {
			if !validValue(value) || !ascii(value) {
				return nil, fmt.Errorf("%w: the value of %s has characters other than printable ASCII", ErrHeader, name)
			}
			req.Head.Fields = append(req.Head.Fields, Field{name, value})
		}
	}
	req.Head.Fields = append(req.Head.Fields, Field{HeaderRequestID, newID()})
	if _, ok := req.Head.Get(HeaderID); !ok {
		req.Head.Fields = append(req.Head.Fields, Field{HeaderID, instance + "-" + newID()})
	}
	size := len(req.Head.Method) + len(req.Head.Target) + 4 + fieldsSize(req.Head.Fields)
	if size > MaxHead {
		return nil, fmt.Errorf("%w: head longer than %d bytes", ErrTooLarge, MaxHead)
	}
	req.Raw = req.Head.Append(make([]byte, 0, size))
	if err := req.decode(); err != nil {
		return nil, err
	}
	return req, nil
}

// rawTarget returns the request target in origin form, as the client sent it.
// The absolute form, which proxies get, loses scheme and authority.
func rawTarget(r *http.Request) string {
	t := r.RequestURI
	if t == "" { // not from a server
		return r.URL.RequestURI()
	}
	if !strings.HasPrefix(t, "/") {
		if _, rest, ok := strings.Cut(t, "://"); ok {
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				return rest[i:]
			}
		}
	}
	return t
}

// ReadRequest reads a head received from a peer. requestID is the one of the
// transport header; the head must have the same, or none. raw is kept and must
// not be changed.
//
// Errors wrap those of FromHTTP or ErrHead.
func ReadRequest(raw []byte, requestID string) (*Request, error) {
	head, err := ParseRequestHead(raw)
	if err != nil {
		return nil, err
	}
	req := &Request{Head: *head, Raw: raw, RequestID: requestID}
	if err := req.decode(); err != nil {
		return nil, err
	}
	if req.RequestID == "" {
		return nil, fmt.Errorf("%w: no %s", ErrHeader, HeaderRequestID)
	}
	if requestID != "" && req.RequestID != requestID {
		return nil, fmt.Errorf("%w: %s differs between transport and message", ErrHeader, HeaderRequestID)
	}
	return req, nil
}

// decode fills in what the head says.
func (r *Request) decode() error {
	path, query, err := splitTarget(r.Head.Target)
	if err != nil {
		return err
	}
	r.Query = strings.TrimPrefix(query, "?")
	// "", r1, instance, class, member, subsystem, service, rest
	end := len(path)
	for i, slashes := len("/r1/"), 0; i < len(path); i++ {
		if path[i] == '/' {
			if slashes++; slashes == 5 {
				end = i
				break
			}
		}
	}
	r.ServicePath = path[end:]
	service := path[len("/r1/"):end]
	if r.Service, err = id.ParseService(service); err != nil {
		return fmt.Errorf("%w: the path must be /r1/INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE[/…]: %w", ErrIdentifier, err)
	}
	if err := r.decodeFields(); err != nil {
		return err
	}
	if r.Client.IsZero() {
		return ErrMissingClient
	}
	if r.ID == "" {
		return fmt.Errorf("%w: %s must not be empty", ErrHeader, HeaderID)
	}
	return nil
}

// decodeFields reads the headers of X-Road. The last one of a name counts, yet
// all must be well formed.
func (r *Request) decodeFields() (err error) {
	for _, f := range r.Head.Fields {
		if !isXRoad(f.Name) {
			continue
		}
		switch {
		case strings.EqualFold(f.Name, HeaderClient):
			r.Client, err = id.ParseClient(f.Value)
		case strings.EqualFold(f.Name, HeaderSecurityServer):
			r.Server, err = id.ParseSecurityServer(f.Value)
		case strings.EqualFold(f.Name, HeaderRepresentedParty):
			r.RepresentedParty, err = id.ParseRepresentedParty(f.Value)
		case strings.EqualFold(f.Name, HeaderID):
			r.ID = f.Value
		case strings.EqualFold(f.Name, HeaderRequestID):
			r.RequestID = f.Value
		case strings.EqualFold(f.Name, HeaderUserID):
			r.UserID = f.Value
		case strings.EqualFold(f.Name, HeaderIssue):
			r.Issue = f.Value
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrIdentifier, f.Name, err)
		}
	}
	return nil
}

func isXRoad(name string) bool {
	return len(name) > 7 && strings.EqualFold(name[:7], "x-road-")
}

// RequestHash returns the value of x-road-request-hash: base64 of the SHA-512
// of the head or, if there is a body, of the digests of both. It seals body,
// which may be nil.
func RequestHash(head []byte, body *Body) string {
	return requestHash(sha512.Sum512(head), body)
}

func requestHash(sum [sha512.Size]byte, body *Body) string {
	if body.Present() {
		var both [2 * sha512.Size]byte
		digest := body.Digest()
		copy(both[:], sum[:])
		copy(both[sha512.Size:], digest[:])
		sum = sha512.Sum512(both[:])
	}
	return base64Digest(sum)
}

func base64Digest(sum [sha512.Size]byte) string {
	var text [88]byte // 64 bytes in base64
	base64.StdEncoding.Encode(text[:], sum[:])
	return string(text[:])
}
