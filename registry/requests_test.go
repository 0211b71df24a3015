// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
)

// office is a registry with a declaration and what is submitted to it.
type office struct {
	t   *testing.T
	r   *registry.Registry
	ca  *authority
	clk *clock
}

func newOffice(t *testing.T) *office {
	t.Helper()
	clk := newClock()
	o := &office{t, open(t, newDir(t), registry.Config{Now: clk.now}), newAuthority("Test CA"), clk}
	fill(t, o.r, ecosystem(o.ca))
	return o
}

func (o *office) submit(s registry.Submission) (registry.Request, error) {
	if s.Origin == "" {
		s.Origin = registry.FromServer
	}
	o.clk.advance(time.Second)
	return o.r.Submit(o.t.Context(), registry.Author{Who: "a security server"}, &s)
}

// accepted submits what must be accepted.
func (o *office) accepted(s registry.Submission) registry.Request {
	o.t.Helper()
	q, err := o.submit(s)
	if err != nil {
		o.t.Fatal(err)
	}
	return q
}

// refused submits what must be refused for a reason, and leave no trace.
func (o *office) refused(s registry.Submission, kind error, code string) {
	o.t.Helper()
	before := o.r.State().Number()
	_, err := o.submit(s)
	refusal := (*registry.Refusal)(nil)
	if !errors.As(err, &refusal) || !errors.Is(err, kind) || refusal.Code != code {
		o.t.Errorf("%s: %v (%+v), want %v, %s", s.Kind, err, refusal, kind, code)
	}
	if o.r.State().Number() != before {
		o.t.Errorf("%s left a trace although refused", s.Kind)
	}
}

func (o *office) approve(number uint64) registry.Request {
	o.t.Helper()
	o.clk.advance(time.Second)
	q, err := o.r.Approve(o.t.Context(), author, number)
	if err != nil {
		o.t.Fatal(err)
	}
	if q.Status != registry.Approved || q.DecidedBy != author.Who || q.Reason != author.Why || !q.Decided.Equal(o.clk.now()) {
		o.t.Fatalf("%+v", q)
	}
	return q
}

func (o *office) decline(number uint64, why string) registry.Request {
	o.t.Helper()
	q, err := o.r.Decline(o.t.Context(), registry.Author{Who: "test", Why: why}, number)
	if err != nil {
		o.t.Fatal(err)
	}
	return q
}

func (o *office) status(number uint64, want registry.RequestStatus) {
	o.t.Helper()
	if q, ok := o.r.Request(number); !ok || q.Status != want {
		o.t.Errorf("request %d is %q, want %q", number, q.Status, want)
	}
}

func (o *office) server(key string) registry.Server {
	o.t.Helper()
	srv, ok := o.r.State().Server(serverID(key))
	if !ok {
		o.t.Fatalf("there is no server %s", key)
	}
	return srv
}

func (o *office) clients(key string) string {
	var all []string
	for _, c := range o.server(key).Clients {
		text := c.ID.String()
		if !c.Enabled {
			text += " (disabled)"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func (o *office) set(change func(*registry.System)) {
	o.t.Helper()
	system := o.r.State().System()
	change(&system)
	if _, err := o.r.Apply(o.t.Context(), author, []registry.Change{&registry.SetSystem{System: system}}); err != nil {
		o.t.Fatal(err)
	}
}

func certReg(server string, cert *x509.Certificate) registry.Submission {
	return registry.Submission{Kind: registry.AuthCertReg, Server: serverID(server), Address: "new.example", Certificate: cert.Raw}
}

func about(kind registry.RequestKind, server, client string) registry.Submission {
	s := registry.Submission{Kind: kind, Server: serverID(server)}
	if client != "" {
		s.Client = clientID(client)
	}
	return s
}

func fromCenter(s registry.Submission) registry.Submission {
	s.Origin = registry.FromCenter
	return s
}

func TestCertificateRequests(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	cert := o.ca.auth("one")

	// a new organisation: the operator decides, and all of it appears at once
	q := o.accepted(certReg("DEV/COM/4321/SS1", cert))
	o.status(q.Number, registry.Waiting)
	o.refused(certReg("DEV/COM/4321/SS1", cert), registry.ErrExists, "management_request_exists")
	o.refused(certReg("DEV/COM/4321/OTHER", cert), registry.ErrExists, "management_request_exists")
	o.refused(fromCenter(certReg("DEV/COM/4321/SS1", cert)), registry.ErrUnknown, "management_request_server_owner_not_found")
	entries := o.r.State().Number()
	o.approve(q.Number)
	var journal []string
	if err := o.r.Journal(t.Context(), entries+1, func(e *registry.Entry) error {
		journal = append(journal, e.Change.String())
		return nil
	}); err != nil || len(journal) != 4 || !strings.HasPrefix(journal[0], "add member DEV/COM/4321 (4321)") || journal[3] != "request 1 is APPROVED (because)" {
		t.Errorf("%q, %v", journal, err)
	}
	if srv := o.server("DEV/COM/4321/SS1"); srv.Address != "new.example" || len(srv.Certificates) != 1 {
		t.Errorf("%+v", srv)
	}
	for _, g := range o.r.State().Groups() {
		if g.Code == registry.OwnersGroup && !slices.Contains(g.Members, memberID("DEV/COM/4321").Client()) {
			t.Errorf("owners: %v", g.Members)
		}
	}
	o.refused(certReg("DEV/COM/4321/SS1", cert), registry.ErrExists, "management_request_security_server_exists")
	if _, err := o.r.Approve(t.Context(), author, q.Number); !errors.Is(err, registry.ErrExists) || !strings.HasPrefix(err.Error(), "decide on request 1: ") {
		t.Errorf("approved twice: %v", err)
	}
	if _, err := o.r.Approve(t.Context(), author, 99); !errors.Is(err, registry.ErrUnknown) || err.Error() != "decide on request 99: there is no such request" {
		t.Errorf("approved what is not there: %v", err)
	}
	if _, err := o.r.Decline(t.Context(), author, q.Number); !errors.Is(err, registry.ErrExists) {
		t.Errorf("declined what was approved: %v", err)
	}

	// another certificate is added, and the address is the newer one
	second := certReg("DEV/COM/4321/SS1", o.ca.auth("two"))
	second.Address = "moved.example"
	o.approve(o.accepted(second).Number)
	if srv := o.server("DEV/COM/4321/SS1"); srv.Address != "moved.example" || len(srv.Certificates) != 2 {
		t.Errorf("%+v", srv)
	}

	// the class of a new owner must exist by the time of approval
	q = o.accepted(certReg("DEV/ORG/1/SS1", o.ca.auth("three")))
	before := o.r.State().Number()
	if _, err := o.r.Approve(t.Context(), author, q.Number); !errors.Is(err, registry.ErrUnknown) {
		t.Errorf("approved without a member class: %v", err)
	}
	if o.r.State().Number() != before {
		t.Error("half approved")
	}
	if _, err := o.r.Apply(t.Context(), author, []registry.Change{&registry.SetMemberClass{Code: "ORG", Description: "Others"}}); err != nil {
		t.Fatal(err)
	}
	o.approve(q.Number)

	// declined, with the reason; then the applicant may try again
	cert = o.ca.auth("four")
	q = o.accepted(certReg("DEV/COM/4321/SS2", cert))
	if _, err := o.r.Decline(t.Context(), registry.Author{Who: "test"}, q.Number); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("declined without a reason: %v", err)
	}
	if q := o.decline(q.Number, "call us first"); q.Status != registry.Declined || q.Reason != "call us first" {
		t.Errorf("%+v", q)
	}
	q = o.accepted(certReg("DEV/COM/4321/SS2", cert))

	// withdrawn by the server before it was decided
	deletion := registry.Submission{Kind: registry.AuthCertDeletion, Server: serverID("DEV/COM/4321/SS2"), Certificate: cert.Raw}
	if d := o.accepted(deletion); d.Status != "" {
		t.Errorf("%+v", d)
	}
	o.status(q.Number, registry.Revoked)
	o.refused(deletion, registry.ErrUnknown, "management_request_invalid_auth_certificate")

	// a registered certificate is deleted by its server only
	registered := o.server("DEV/COM/4321/SS1").Certificates[0]
	o.refused(registry.Submission{Kind: registry.AuthCertDeletion, Server: serverID("DEV/COM/99/SS1"), Certificate: registered.Raw}, registry.ErrUnknown, "management_request_server_not_found")
	o.accepted(registry.Submission{Kind: registry.AuthCertDeletion, Server: serverID("DEV/COM/4321/SS1"), Certificate: registered.Raw})
	if n := len(o.server("DEV/COM/4321/SS1").Certificates); n != 1 {
		t.Errorf("%d certificates are left", n)
	}
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const code = "management_request_invalid_auth_certificate"
	o.refused(certReg("DEV/COM/99/SS1", o.ca.sign("signing")), registry.ErrInvalid, code)
	o.refused(certReg("DEV/COM/99/SS1", newAuthority("Foreign CA").auth("foreign")), registry.ErrInvalid, code)
	o.refused(certReg("DEV/COM/99/SS1", newAuthority("Test CA").auth("same name")), registry.ErrInvalid, code)
	o.refused(certReg("DEV/COM/99/SS1", &x509.Certificate{Raw: []byte("no certificate")}), registry.ErrInvalid, code)
	o.refused(certReg("DEV/COM/99/SS1", &x509.Certificate{}), registry.ErrInvalid, code)
	cert := o.ca.auth("old")
	q := o.accepted(certReg("DEV/COM/99/SS1", cert))
	o.clk.advance(2 * 365 * 24 * time.Hour)
	o.refused(certReg("DEV/COM/99/SS1", o.ca.auth("older")), registry.ErrInvalid, code)
	if _, err := o.r.Approve(t.Context(), author, q.Number); !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("approved a certificate that expired while it waited: %v", err)
	}
	o.clk.advance(-4 * 365 * 24 * time.Hour)
	o.refused(certReg("DEV/COM/99/SS1", o.ca.auth("young")), registry.ErrInvalid, code)
}

func TestBadForm(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	cert := o.ca.auth("x")
	bad := certReg("DEV/COM/99/SS1", cert)
	bad.Address = "not a host"
	o.refused(bad, registry.ErrInvalid, "management_request_invalid_server_address")
	bad.Address = ""
	o.refused(bad, registry.ErrInvalid, "management_request_invalid_server_address")
	for _, code := range []string{"a;b", "a/b", "a%b", "a\\b", "a:b", "a\x01b", "\u200bab", "\ufeffab", strings.Repeat("x", 256), " a"} {
		s := certReg("DEV/COM/99/SS1", cert)
		s.Server = must(id.NewSecurityServer(memberID("DEV/COM/99"), code))
		o.refused(s, registry.ErrInvalid, "")
		c := about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/COM/99/x")
		c.Client = must(id.NewClient(memberID("DEV/COM/99"), code))
		o.refused(c, registry.ErrInvalid, "")
	}
	o.refused(certReg("OTHER/COM/99/SS1", cert), registry.ErrInvalid, "")
	o.refused(about(registry.ClientReg, "DEV/COM/99/SS1", "OTHER/COM/99/x"), registry.ErrInvalid, "")
	o.refused(about(registry.ClientReg, "DEV/COM/99/SS1", ""), registry.ErrInvalid, "")
	o.refused(about("nonsense", "DEV/COM/99/SS1", ""), registry.ErrInvalid, "management_request_unknown_type")
	o.refused(registry.Submission{Kind: registry.AddressChange}, registry.ErrInvalid, "")
	o.refused(registry.Submission{Kind: registry.AuthCertReg, Origin: "nowhere"}, registry.ErrInvalid, "")
	big := certReg("DEV/COM/99/SS1", cert)
	big.Message = &registry.RequestMessage{ID: "x", Body: make([]byte, 129<<10)}
	o.refused(big, registry.ErrInvalid, "")
}

func TestComplementaryRequests(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const server = "DEV/COM/99/SS2"

	// the operator first: the server's request completes the pair
	cert := o.ca.auth("one")
	announced := fromCenter(certReg(server, cert))
	announced.Address = ""
	first := o.accepted(announced)
	o.refused(announced, registry.ErrExists, "management_request_exists")
	second := o.accepted(certReg(server, cert))
	if second.Status != registry.Approved || second.Complement != first.Number || second.Reason != "approved automatically" {
		t.Errorf("%+v", second)
	}
	if q, _ := o.r.Request(first.Number); q.Status != registry.Approved || q.Complement != second.Number {
		t.Errorf("%+v", q)
	}
	if srv := o.server(server); srv.Address != "new.example" || len(srv.Certificates) != 1 {
		t.Errorf("%+v", srv)
	}

	// the server first: then the operator decides, by either number
	cert = o.ca.auth("two")
	first = o.accepted(certReg(server, cert))
	o.refused(fromCenter(certReg("DEV/COM/99/SS3", cert)), registry.ErrExists, "management_request_exists")
	second = o.accepted(fromCenter(certReg(server, cert)))
	o.status(first.Number, registry.Submitted)
	o.status(second.Number, registry.Submitted)
	o.refused(certReg(server, cert), registry.ErrExists, "management_request_exists")
	if got := o.r.Requests(registry.RequestFilter{Pending: true}); len(got) != 2 {
		t.Errorf("%d requests are pending", len(got))
	}
	// which cannot be withdrawn any more
	o.refused(registry.Submission{Kind: registry.AuthCertDeletion, Server: serverID(server), Certificate: cert.Raw}, registry.ErrUnknown, "management_request_invalid_auth_certificate")
	o.decline(second.Number, "not now")
	o.status(first.Number, registry.Declined)
	o.status(second.Number, registry.Declined)

	// a request of the operator's own that nobody joined is revoked
	lone := o.accepted(fromCenter(about(registry.ClientReg, server, "DEV/GOV/1234/register")))
	if q := o.decline(lone.Number, "a mistake"); q.Status != registry.Revoked {
		t.Errorf("%+v", q)
	}

	// clients pair by server and client; the name may come from either side
	named := fromCenter(about(registry.ClientReg, server, "DEV/GOV/1234/fresh"))
	named.Name = "Fresh"
	first = o.accepted(named)
	second = o.accepted(about(registry.ClientReg, server, "DEV/GOV/1234/fresh"))
	o.status(first.Number, registry.Approved)
	o.status(second.Number, registry.Approved)
	if m, _ := o.r.State().Member(memberID("DEV/GOV/1234")); !slices.Contains(m.Subsystems, registry.Subsystem{ID: clientID("DEV/GOV/1234/fresh"), Name: "Fresh"}) {
		t.Errorf("%+v", m)
	}
	o.refused(fromCenter(about(registry.ClientReg, "DEV/COM/99/NONE", "DEV/GOV/1234/x")), registry.ErrUnknown, "management_request_server_not_found")
	o.refused(fromCenter(about(registry.ClientReg, server, "DEV/GOV/nobody/x")), registry.ErrUnknown, "management_request_member_not_found")
}

func TestClientRequests(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const server, client = "DEV/COM/99/SS1", "DEV/GOV/777/new"

	// registration brings member and subsystem into being
	reg := about(registry.ClientReg, server, client)
	reg.Name = "New one"
	q := o.accepted(reg)
	o.refused(reg, registry.ErrExists, "management_request_exists")
	o.approve(q.Number)
	o.refused(reg, registry.ErrExists, "management_request_client_already_registered")
	if got := o.clients(server); got != "DEV/GOV/1234/register, DEV/GOV/777/new" {
		t.Error(got)
	}
	// and renames what exists
	reg = about(registry.ClientReg, "DEV/GOV/1234/SS0", client)
	reg.Name = "Newer"
	q = o.accepted(reg)
	if q.Comment != "Changing subsystem name from 'New one' to 'Newer'." {
		t.Error(q.Comment)
	}
	o.approve(q.Number)
	// a member itself can be a client; it has no name here
	member := about(registry.ClientReg, server, "DEV/GOV/1234")
	o.approve(o.accepted(member).Number)
	member.Name, member.Server = "x", serverID("DEV/COM/99/SS9")
	o.refused(member, registry.ErrInvalid, "management_request_only_subsystem_rename_allowed")
	o.refused(about(registry.ClientReg, server, "DEV/COM/99"), registry.ErrInvalid, "management_request_cannot_register_owner")

	// a server that is not there yet: accepted, but not approved
	q = o.accepted(about(registry.ClientReg, "DEV/COM/99/SS9", client))
	if _, err := o.r.Approve(t.Context(), author, q.Number); !errors.Is(err, registry.ErrUnknown) {
		t.Errorf("approved at no server: %v", err)
	}

	// disable, enable, rename
	o.accepted(about(registry.ClientDisable, server, client))
	if got := o.clients(server); got != "DEV/GOV/1234, DEV/GOV/1234/register, DEV/GOV/777/new (disabled)" {
		t.Error(got)
	}
	o.accepted(about(registry.ClientEnable, server, client))
	rename := about(registry.ClientRename, server, client)
	rename.Name = "Newest"
	if q := o.accepted(rename); q.Comment != "Changing subsystem name from 'Newer' to 'Newest'." || q.Status != "" {
		t.Errorf("%+v", q)
	}
	if m, _ := o.r.State().Member(memberID("DEV/GOV/777")); m.Subsystems[0].Name != "Newest" {
		t.Errorf("%+v", m)
	}
	rename.Name = " "
	o.refused(rename, registry.ErrInvalid, "management_request_invalid_subsystem_name")
	rename = about(registry.ClientRename, server, "DEV/GOV/1234")
	rename.Name = "x"
	o.refused(rename, registry.ErrInvalid, "management_request_only_subsystem_rename_allowed")
	for _, kind := range []registry.RequestKind{registry.ClientDisable, registry.ClientEnable, registry.ClientRename} {
		s := about(kind, server, "DEV/COM/99/monitor")
		s.Name = "x"
		o.refused(s, registry.ErrUnknown, "management_request_server_client_not_found")
	}
	o.refused(about(registry.ClientDisable, "DEV/GOV/1234/SS0", "DEV/GOV/1234/MANAGEMENT"), registry.ErrInUse, "mr_forbidden_disable_management_service_client")

	// deletion: of what is registered, of what waits, after what was declined
	o.accepted(about(registry.ClientDeletion, server, client))
	o.refused(about(registry.ClientDeletion, server, client), registry.ErrUnknown, "management_request_client_registration_not_found")
	q = o.accepted(about(registry.ClientReg, server, client))
	o.accepted(about(registry.ClientDeletion, server, client))
	o.status(q.Number, registry.Revoked)
	q = o.accepted(about(registry.ClientReg, server, client))
	o.decline(q.Number, "no")
	o.accepted(about(registry.ClientDeletion, server, client))
	o.status(q.Number, registry.Declined)
	o.refused(about(registry.ClientDeletion, "DEV/GOV/1234/SS0", "DEV/GOV/1234/MANAGEMENT"), registry.ErrInUse, "mr_forbidden_disable_management_service_client")
	o.approve(o.accepted(about(registry.ClientReg, server, "DEV/GOV/1234/MANAGEMENT")).Number)
	o.accepted(about(registry.ClientDeletion, "DEV/GOV/1234/SS0", "DEV/GOV/1234/MANAGEMENT"))
}

func TestOwnerChange(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	cert := o.ca.auth("one")
	o.approve(o.accepted(certReg("DEV/COM/99/SS1", cert)).Number)
	const server = "DEV/COM/99/SS1"
	o.refused(about(registry.OwnerChange, server, "DEV/GOV/1234/register"), registry.ErrInvalid, "management_request_owner_must_be_member")
	o.refused(about(registry.OwnerChange, server, "DEV/GOV/1234"), registry.ErrInvalid, "management_request_owner_must_be_client")
	o.refused(about(registry.OwnerChange, server, "DEV/COM/99"), registry.ErrInvalid, "management_request_client_already_owner")
	o.refused(about(registry.OwnerChange, "DEV/COM/99/NONE", "DEV/GOV/1234"), registry.ErrUnknown, "management_request_server_not_found")
	o.approve(o.accepted(about(registry.ClientReg, server, "DEV/GOV/1234")).Number)

	q := o.accepted(about(registry.OwnerChange, server, "DEV/GOV/1234"))
	o.refused(about(registry.OwnerChange, server, "DEV/GOV/1234"), registry.ErrExists, "management_request_exists")
	o.approve(q.Number)
	if got := o.clients("DEV/GOV/1234/SS1"); got != "DEV/COM/99, DEV/GOV/1234/register" {
		t.Error(got)
	}
	if srv := o.server("DEV/GOV/1234/SS1"); len(srv.Certificates) != 1 {
		t.Errorf("%+v", srv)
	}
	if _, ok := o.r.State().Server(serverID(server)); ok {
		t.Error("the old name is still there")
	}
	for _, g := range o.r.State().Groups() {
		if g.Code == registry.OwnersGroup && slices.Contains(g.Members, memberID("DEV/COM/99").Client()) {
			t.Errorf("owners: %v", g.Members)
		}
	}
	// the certificate stands for the renamed server
	o.accepted(registry.Submission{Kind: registry.AuthCertDeletion, Server: serverID("DEV/GOV/1234/SS1"), Certificate: cert.Raw})

	// a server of the same code stands in the way
	other := o.ca.auth("two")
	o.approve(o.accepted(certReg("DEV/COM/99/SS1", other)).Number)
	o.refused(about(registry.OwnerChange, "DEV/GOV/1234/SS1", "DEV/COM/99"), registry.ErrExists, "management_request_server_code_exists")
	if err := o.r.Publish(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServerRequests(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const server = "DEV/COM/99/SS1" // in maintenance
	move := registry.Submission{Kind: registry.AddressChange, Server: serverID(server), Address: "192.0.2.7"}
	if q := o.accepted(move); q.Comment != "Changing from '127.0.0.11'." || o.server(server).Address != "192.0.2.7" {
		t.Errorf("%+v", q)
	}
	move.Address = "http://x"
	o.refused(move, registry.ErrInvalid, "management_request_invalid_server_address")
	move.Server = serverID("DEV/COM/99/NONE")
	o.refused(move, registry.ErrUnknown, "management_request_server_not_found")

	o.refused(about(registry.MaintenanceEnable, server, ""), registry.ErrExists, "management_request_server_already_in_maintenance_mode")
	o.accepted(about(registry.MaintenanceDisable, server, ""))
	o.refused(about(registry.MaintenanceDisable, server, ""), registry.ErrExists, "management_request_server_not_in_maintenance_mode")
	on := about(registry.MaintenanceEnable, server, "")
	on.Text = "back at nine"
	if q := o.accepted(on); q.Message != on.Text || o.server(server).Maintenance == nil || o.server(server).Maintenance.Message != on.Text {
		t.Errorf("%+v", q)
	}
	o.refused(about(registry.MaintenanceEnable, "DEV/GOV/1234/SS0", ""), registry.ErrInUse, "mr_forbidden_enable_maintenance_mode_for_management_service")
	o.refused(about(registry.MaintenanceDisable, "DEV/GOV/1234/NONE", ""), registry.ErrUnknown, "management_request_server_not_found")
}

func TestAutomaticApproval(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.set(func(s *registry.System) { s.AutoApproveCertificates = true })
	o.status(o.accepted(certReg("DEV/COM/99/SS2", o.ca.auth("one"))).Number, registry.Approved)
	o.status(o.accepted(certReg("DEV/COM/nobody/SS2", o.ca.auth("two"))).Number, registry.Waiting)
	o.status(o.accepted(fromCenter(certReg("DEV/COM/99/SS3", o.ca.auth("three")))).Number, registry.Waiting)
	o.status(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS2", "DEV/GOV/1234")).Number, registry.Waiting)

	o.set(func(s *registry.System) { s.AutoApproveCertificates, s.AutoApproveClients = false, true })
	o.status(o.accepted(certReg("DEV/COM/99/SS2", o.ca.auth("four"))).Number, registry.Waiting)
	o.status(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/GOV/1234")).Number, registry.Approved)
	o.status(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/GOV/1234/brandnew")).Number, registry.Approved)
	o.status(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/GOV/nobody/x")).Number, registry.Waiting)
	o.status(o.accepted(about(registry.ClientReg, "DEV/COM/99/NONE", "DEV/GOV/1234/x")).Number, registry.Waiting)
	q := o.accepted(about(registry.OwnerChange, "DEV/COM/99/SS1", "DEV/GOV/1234"))
	o.status(q.Number, registry.Waiting)
	o.decline(q.Number, "wait")

	o.set(func(s *registry.System) { s.AutoApproveOwners = true })
	o.status(o.accepted(about(registry.OwnerChange, "DEV/COM/99/SS1", "DEV/GOV/1234")).Number, registry.Approved)
	o.server("DEV/GOV/1234/SS1")
}

func message(id, content string) *registry.RequestMessage {
	return &registry.RequestMessage{Sender: clientID("DEV/COM/99"), ID: id, Digest: sha256.Sum256([]byte(content)), ContentType: "text/xml", Body: []byte(content)}
}

func TestMessagesSentAgain(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	reg := about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/COM/99/app")
	reg.Message = message("m-1", "once")
	q := o.accepted(reg)
	before := o.r.State().Number()
	again := o.accepted(reg)
	if again.Number != q.Number || again.Status != registry.Waiting {
		t.Errorf("%+v", again)
	}
	o.decline(q.Number, "who are you?")
	if again = o.accepted(reg); again.Number != q.Number || again.Status != registry.Declined || again.Reason != "who are you?" {
		t.Errorf("%+v", again)
	}
	if n := o.r.State().Number(); n != before+1 {
		t.Errorf("%d entries instead of the decision", n-before)
	}
	// an identifier of another message is no repetition, whoever uses it
	reg.Message = message("m-1", "twice")
	o.refused(reg, registry.ErrExists, "management_request_exists")
	reg.Message.Sender = clientID("DEV/GOV/1234")
	o.accepted(reg)

	// deletions are not done twice
	o.approve(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/COM/99/gone")).Number)
	del := about(registry.ClientDeletion, "DEV/COM/99/SS1", "DEV/COM/99/gone")
	del.Message = message("m-2", "delete")
	first := o.accepted(del)
	if second := o.accepted(del); second.Number != first.Number {
		t.Errorf("%+v", second)
	}
	got, err := o.r.RequestMessage(t.Context(), first.Number)
	if err != nil || got.ID != "m-2" || string(got.Body) != "delete" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := o.r.RequestMessage(t.Context(), first.Number-1); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := o.r.RequestMessage(t.Context(), 99); !errors.Is(err, registry.ErrUnknown) {
		t.Error(err)
	}
}

func TestConcurrentDecisions(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	cert := o.ca.auth("one")
	q := o.accepted(certReg("DEV/COM/4321/SS1", cert))
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 8 {
		wg.Go(func() {
			decide := o.r.Approve
			if i%2 == 1 {
				decide = o.r.Decline
			}
			_, err := decide(context.Background(), author, q.Number)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			} else if !errors.Is(err, registry.ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done != 1 {
		t.Errorf("decided %d times", done)
	}
}

func TestRequestsFilter(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for i := range 4 {
		o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", fmt.Sprintf("DEV/COM/99/app%d", i)))
	}
	o.approve(2)
	o.accepted(about(registry.MaintenanceDisable, "DEV/COM/99/SS1", ""))
	for _, tt := range []struct {
		filter registry.RequestFilter
		want   string
	}{
		{registry.RequestFilter{}, "[1 2 3 4 5]"},
		{registry.RequestFilter{Pending: true}, "[1 3 4]"},
		{registry.RequestFilter{Status: registry.Approved}, "[2]"},
		{registry.RequestFilter{Kind: registry.MaintenanceDisable}, "[5]"},
		{registry.RequestFilter{Origin: registry.FromCenter}, "[]"},
		{registry.RequestFilter{Client: clientID("DEV/COM/99/app2")}, "[3]"},
		{registry.RequestFilter{Server: serverID("DEV/COM/99/SS1"), After: 1, Limit: 2}, "[2 3]"},
		{registry.RequestFilter{After: 99}, "[]"},
	} {
		got := []uint64{}
		for _, q := range o.r.Requests(tt.filter) {
			got = append(got, q.Number)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%+v: %v, want %s", tt.filter, got, tt.want)
		}
	}
	if _, ok := o.r.Request(0); ok {
		t.Error("there is a request 0")
	}
}

// TestRequestsSurvive folds the journal of a registry again.
func TestRequestsSurvive(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := must(registry.Open(dir, pin, registry.Config{Now: clk.now}))
	o := &office{t, r, newAuthority("Test CA"), clk}
	fill(t, r, ecosystem(o.ca))
	cert := o.ca.auth("one")
	o.accepted(fromCenter(certReg("DEV/COM/99/SS2", cert)))
	reg := certReg("DEV/COM/99/SS2", cert)
	reg.Message = message("m-1", "content")
	o.accepted(reg)
	o.approve(o.accepted(about(registry.ClientReg, "DEV/COM/99/SS1", "DEV/GOV/1234")).Number)
	o.accepted(about(registry.OwnerChange, "DEV/COM/99/SS1", "DEV/GOV/1234"))
	o.approve(4)
	o.decline(o.accepted(about(registry.ClientReg, "DEV/GOV/1234/SS1", "DEV/GOV/9/x")).Number, "no")
	o.accepted(about(registry.ClientReg, "DEV/GOV/1234/SS1", "DEV/GOV/9/y"))
	before, state := r.Requests(registry.RequestFilter{}), describe(t, r.State())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	o.r = open(t, dir, registry.Config{Now: clk.now})
	if after := o.r.Requests(registry.RequestFilter{}); fmt.Sprint(after) != fmt.Sprint(before) || describe(t, o.r.State()) != state {
		t.Errorf("%+v\nbefore\n%+v", after, before)
	}
	if again := o.accepted(reg); again.Number != 2 || again.Status != registry.Approved {
		t.Errorf("%+v", again)
	}
	if srv := o.server("DEV/COM/99/SS2"); pki.HashOf(srv.Certificates[0]) != pki.HashOf(cert) {
		t.Errorf("%+v", srv)
	}
	o.approve(6)
}
