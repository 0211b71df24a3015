// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/guard"
	"kontor/registry/id"
)

func why(text string) admin.ChangeTerms { return admin.ChangeTerms{Why: text} }

// done asserts that a change says what was done.
func done(t *testing.T, what string) func(*admin.Done, error) {
	t.Helper()
	return func(d *admin.Done, err error) {
		t.Helper()
		switch {
		case err != nil:
			t.Errorf("%s: %v", what, err)
		case what == "" && len(d.Changes) > 0:
			t.Errorf("something was changed: %q", d.Changes)
		case !strings.Contains(strings.Join(d.Changes, "; "), what):
			t.Errorf("done %q, want %q", d.Changes, what)
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.client(), admin.ChangeTerms{}
	done(t, "set member class GOV (Government)")(c.AddMemberClass(ctx, none, admin.MemberClass{Code: "GOV", Description: "Government"}))
	done(t, "set member class GOV (State)")(c.ChangeMemberClass(ctx, none, "GOV", "State"))
	done(t, "")(c.ChangeMemberClass(ctx, none, "GOV", "State"))
	if got, err := c.MemberClasses(ctx); err != nil || !slices.Equal(got, []admin.MemberClass{{Code: "GOV", Description: "State"}}) {
		t.Errorf("%v, %v", got, err)
	}
	done(t, "add member DEV/GOV/1001 (Agency)")(c.AddMember(ctx, why("decision 17"), member("DEV/GOV/1001"), "Agency"))
	done(t, "add member DEV/GOV/20%2002 (Board)")(c.AddMember(ctx, none, must(id.NewMember("DEV", "GOV", "20 02")), "Board"))
	done(t, "rename member DEV/GOV/1001 to Office")(c.RenameMember(ctx, none, member("DEV/GOV/1001"), "Office"))
	done(t, "")(c.RenameMember(ctx, none, member("DEV/GOV/1001"), "Office"))
	done(t, "add subsystem DEV/GOV/1001/portal (Portal)")(c.AddSubsystem(ctx, none, client("DEV/GOV/1001/portal"), "Portal"))
	done(t, "rename subsystem DEV/GOV/1001/portal to Citizens")(c.RenameSubsystem(ctx, none, client("DEV/GOV/1001/portal"), "Citizens"))
	done(t, "")(c.RenameSubsystem(ctx, none, client("DEV/GOV/1001/portal"), "Citizens"))

	m, etag, err := c.Member(ctx, member("DEV/GOV/1001"))
	if err != nil || m.Name != "Office" || len(m.Subsystems) != 1 || m.Subsystems[0] != (admin.Subsystem{ID: client("DEV/GOV/1001/portal"), Name: "Citizens"}) || etag != `"13"` {
		t.Errorf("%+v, %s, %v", m, etag, err)
	}
	for _, tc := range []struct {
		class, query string
		want         int
	}{{"", "", 2}, {"GOV", "", 2}, {"COM", "", 0}, {"", "oFFice", 1}, {"", "20%2002", 1}, {"", "nobody", 0}} {
		if got, err := c.Members(ctx, tc.class, tc.query); err != nil || len(got) != tc.want {
			t.Errorf("%+v: %v, %v", tc, got, err)
		}
	}
	if got, err := c.Subsystems(ctx, "citizens"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	_, header, body := w.call(w.key(admin.Observer), "GET", "/api/v1/members?limit=1&offset=1", "")
	if !strings.Contains(body, `"total":2`) || strings.Contains(body, "1001") || header.Get("Cache-Control") != "no-store" {
		t.Error(header, body)
	}

	done(t, "delete subsystem DEV/GOV/1001/portal")(c.DeleteSubsystem(ctx, none, client("DEV/GOV/1001/portal")))
	done(t, "delete member DEV/GOV/1001")(c.DeleteMember(ctx, none, member("DEV/GOV/1001")))
	done(t, "delete member DEV/GOV/20%2002")(c.DeleteMember(ctx, none, must(id.NewMember("DEV", "GOV", "20 02"))))
	done(t, "delete member class GOV")(c.DeleteMemberClass(ctx, none, "GOV"))
	w.everythingIsAbout()
}

// everythingIsAbout demands that every change in the journal is known to the
// table of subjects and roles.
func (w *world) everythingIsAbout() {
	w.t.Helper()
	err := w.reg.Journal(w.t.Context(), 1, func(e *registry.Entry) error {
		if subject, role := admin.About(e.Change); subject == "" || !slices.Contains(admin.Roles(), role) {
			w.t.Errorf("nobody may decide on %T", e.Change)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// small gives the registry two members with a subsystem each.
func (w *world) small() *admin.Client {
	w.t.Helper()
	_, err := w.reg.Apply(w.t.Context(), registry.Author{Who: "test"}, []registry.Change{
		&registry.SetMemberClass{Code: "GOV", Description: "Government"},
		&registry.AddMember{Member: member("DEV/GOV/1001"), Name: "Agency"},
		&registry.AddMember{Member: member("DEV/GOV/2002"), Name: "Board"},
		&registry.AddSubsystem{Subsystem: client("DEV/GOV/1001/portal")},
		&registry.AddSubsystem{Subsystem: client("DEV/GOV/2002/population")},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client()
}

func TestServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	key, portal := server("DEV/GOV/1001/ss1"), client("DEV/GOV/1001/portal")
	done(t, "add security server DEV/GOV/1001/ss1 at ss1.example.org")(c.AddServer(ctx, none, key, "ss1.example.org"))
	done(t, "to 192.0.2.1")(c.MoveServer(ctx, none, key, "192.0.2.1"))
	done(t, "")(c.MoveServer(ctx, none, key, "192.0.2.1"))
	done(t, "register client")(c.AddClient(ctx, none, key, portal))
	done(t, "register client")(c.AddClient(ctx, none, key, member("DEV/GOV/2002").Client()))
	done(t, "disable client")(c.EnableClient(ctx, none, key, portal, false))
	done(t, "")(c.EnableClient(ctx, none, key, portal, false))
	done(t, "into maintenance (back at six)")(c.BeginMaintenance(ctx, none, key, "back at six"))
	done(t, "")(c.BeginMaintenance(ctx, none, key, "back at six"))

	ca := newAuthority("CA")
	done(t, "approve certification service CA")(c.AddCA(ctx, none, admin.NewCA{Name: "CA", Profile: "FiVRK", Certificate: pemOf(ca.cert.Raw)}))
	cert := ca.auth("ss1")
	done(t, "register authentication certificate")(c.AddCertificate(ctx, none, key, cert))

	s, _, err := c.Server(ctx, key)
	if err != nil || s.Address != "192.0.2.1" || s.Maintenance == nil || s.Maintenance.Message != "back at six" || len(s.Certificates) != 1 || s.Certificates[0].PEM != cert ||
		!slices.Equal(s.Clients, []admin.ServerClient{{ID: portal}, {ID: member("DEV/GOV/2002").Client(), Enabled: true}}) {
		t.Errorf("%+v, %v", s, err)
	}
	if all, err := c.Servers(ctx, "192.0.2"); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	done(t, "enable client")(c.EnableClient(ctx, none, key, portal, true))
	done(t, "out of maintenance")(c.EndMaintenance(ctx, none, key))
	done(t, "")(c.EndMaintenance(ctx, none, key))
	done(t, "unregister client")(c.DeleteClient(ctx, none, key, portal))
	done(t, "unregister client")(c.DeleteClient(ctx, none, key, member("DEV/GOV/2002").Client()))
	done(t, "unregister authentication certificate")(c.DeleteCertificate(ctx, none, key, s.Certificates[0].SHA256))
	done(t, "delete security server")(c.DeleteServer(ctx, none, key))
	w.everythingIsAbout()
}

func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	done(t, "set global group all (Everybody)")(c.AddGroup(ctx, none, "all", "Everybody"))
	done(t, "(All)")(c.ChangeGroup(ctx, none, "all", "All"))
	done(t, "")(c.ChangeGroup(ctx, none, "all", "All"))
	done(t, "add DEV/GOV/1001/portal to global group all")(c.AddGroupMember(ctx, none, "all", client("DEV/GOV/1001/portal")))
	g, _, err := c.Group(ctx, "all")
	if err != nil || g.Description != "All" || !slices.Equal(g.Members, []id.Client{client("DEV/GOV/1001/portal")}) {
		t.Errorf("%+v, %v", g, err)
	}
	if all, err := c.Groups(ctx); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
	done(t, "remove DEV/GOV/1001/portal")(c.DeleteGroupMember(ctx, none, "all", client("DEV/GOV/1001/portal")))
	done(t, "delete global group all")(c.DeleteGroup(ctx, none, "all"))
	w.everythingIsAbout()
}

func TestTrustServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.client(), admin.ChangeTerms{}
	top, sub := newAuthority("Top"), newAuthority("Sub")
	ocsp := top.issue("OCSP", x509.KeyUsageDigitalSignature, x509.ExtKeyUsageOCSPSigning)
	done(t, "approve certification service CA")(c.AddCA(ctx, none, admin.NewCA{Name: "CA", Profile: "FiVRK", Certificate: pemOf(top.cert.Raw), CSRFormat: "DER",
		Responders: []admin.NewResponder{{URL: "http://ocsp.example.org", Certificate: ocsp, Cost: "FREE"}}}))
	yes, ejbca, pemFormat := true, "Ejbca", "PEM"
	done(t, "approve certification service CA")(c.ChangeCA(ctx, none, "CA", admin.CAChange{AuthenticationOnly: &yes, Profile: &ejbca, CSRFormat: &pemFormat, ACME: &admin.ACME{DirectoryURL: "https://acme.example.org/d"}}))
	done(t, "")(c.ChangeCA(ctx, none, "CA", admin.CAChange{AuthenticationOnly: &yes}))
	done(t, "approve certification service CA")(c.AddIntermediate(ctx, none, "CA", admin.NewIntermediate{Certificate: pemOf(sub.cert.Raw)}))
	ca, _, err := c.CA(ctx, "CA")
	if err != nil || !ca.AuthenticationOnly || !strings.Contains(ca.Profile, "jbca") || ca.CSRFormat != "PEM" ||
		ca.ACME == nil || len(ca.Authorities) != 2 || len(ca.Authorities[0].Responders) != 1 || ca.Authorities[0].Responders[0].Certificate.PEM != ocsp {
		t.Errorf("%+v, %v", ca, err)
	}
	second := ca.Authorities[1].Certificate.SHA256
	done(t, "approve certification service CA")(c.AddResponder(ctx, none, "CA", second, admin.NewResponder{URL: "http://ocsp.example.org/sub?a=b"}))
	if ca, _, err = c.CA(ctx, "CA"); err != nil || len(ca.Authorities[1].Responders) != 1 {
		t.Errorf("%+v, %v", ca, err)
	}
	done(t, "approve certification service CA")(c.DeleteResponder(ctx, none, "CA", second, "http://ocsp.example.org/sub?a=b"))
	done(t, "approve certification service CA")(c.DeleteIntermediate(ctx, none, "CA", second))
	done(t, "approve certification service CA")(c.ChangeCA(ctx, none, "CA", admin.CAChange{ACME: &admin.ACME{}}))
	if ca, _, err = c.CA(ctx, "CA"); err != nil || len(ca.Authorities) != 1 || len(ca.Authorities[0].Responders) != 1 || ca.ACME != nil {
		t.Errorf("%+v, %v", ca, err)
	}
	if all, err := c.CAs(ctx); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	done(t, "delete certification service CA")(c.DeleteCA(ctx, none, "CA"))

	tsa, paid := top.issue("TSA", x509.KeyUsageDigitalSignature, x509.ExtKeyUsageTimeStamping), "PAID"
	done(t, "approve time-stamping authority TSA")(c.AddTSA(ctx, none, admin.NewTSA{Name: "TSA", URL: "http://tsa.example.org", Certificate: tsa}))
	done(t, "approve time-stamping authority TSA")(c.ChangeTSA(ctx, none, "TSA", admin.TSAChange{Cost: &paid}))
	done(t, "")(c.ChangeTSA(ctx, none, "TSA", admin.TSAChange{Cost: &paid}))
	if got, _, err := c.TSA(ctx, "TSA"); err != nil || got.Cost != "PAID" || got.Certificate.PEM != tsa || got.URL != "http://tsa.example.org" {
		t.Errorf("%+v, %v", got, err)
	}
	if all, err := c.TSAs(ctx); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	done(t, "delete time-stamping authority TSA")(c.DeleteTSA(ctx, none, "TSA"))

	partner := bytes.Replace(must(w.reg.ExternalAnchor()), []byte("DEV"), []byte("EE"), 1)
	done(t, "trust the anchor of instance EE")(c.TrustAnchor(ctx, none, partner))
	done(t, "")(c.TrustAnchor(ctx, none, partner))
	if got, _, err := c.TrustedAnchor(ctx, "EE"); err != nil || got.Anchor != string(partner) || len(got.URLs) == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if all, err := c.TrustedAnchors(ctx); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	done(t, "distrust the anchor of instance EE")(c.DistrustAnchor(ctx, none, "EE"))
	for src, want := range map[string]func() ([]byte, error){"internal": w.reg.InternalAnchor, "external": w.reg.ExternalAnchor} {
		if got, err := c.Anchor(ctx, src); err != nil || !bytes.Equal(got, must(want())) {
			t.Errorf("%s anchor: %s, %v", src, got, err)
		}
	}
	w.everythingIsAbout()
}

func TestSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	fresh := 1800
	done(t, "set system parameters")(c.ChangeParameters(ctx, none, admin.ParameterChange{OCSPFreshness: &fresh}))
	done(t, "")(c.ChangeParameters(ctx, none, admin.ParameterChange{OCSPFreshness: &fresh}))
	p, _, err := c.Parameters(ctx)
	if err != nil || p.OCSPFreshness != 1800 || p.Address != "127.0.0.1:8001" || p.MinimumVersion != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	provider, cert := client("DEV/GOV/1001/portal"), pemOf(newAuthority("TLS").cert.Raw)
	done(t, "set system parameters")(c.ChangeManagement(ctx, none, admin.ManagementChange{Provider: &provider, Certificate: &cert}))
	empty := ""
	done(t, "")(c.ChangeManagement(ctx, none, admin.ManagementChange{Address: &empty}))
	m, _, err := c.Management(ctx)
	if err != nil || *m.Provider != provider || m.Certificate.PEM != cert || m.Address != "" {
		t.Errorf("%+v, %v", m, err)
	}
	done(t, "set system parameters")(c.ChangeManagement(ctx, none, admin.ManagementChange{Certificate: &empty}))
	if m, _, err := c.Management(ctx); err != nil || m.Certificate != nil || *m.Provider != provider {
		t.Errorf("%+v, %v", m, err)
	}
	done(t, "set system parameters")(c.ChangeMonitoring(ctx, none, provider))
	if got, _, err := c.Monitoring(ctx); err != nil || *got.Client != provider {
		t.Error(got, err)
	}
	done(t, "set system parameters")(c.ChangeMonitoring(ctx, none, id.Client{}))
	done(t, "")(c.ChangeMonitoring(ctx, none, id.Client{}))
	if err := w.reg.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(ctx)
	if err != nil || !s.Healthy || s.Instance != "DEV" || s.Entries != s.Published || len(s.Versions) != 5 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.client(), admin.ChangeTerms{}
	before, err := c.SigningKeys(ctx)
	if err != nil || len(before) != 2 || !before[0].Active || before[0].Source != "internal" {
		t.Fatal(before, err)
	}
	again := admin.ChangeTerms{IdempotencyKey: "rotation 1"}
	done(t, "add internal signing key")(c.GenerateSigningKey(ctx, again, admin.NewSigningKey{Source: "internal", Algorithm: "EC-P256"}))
	done(t, "add internal signing key")(c.GenerateSigningKey(ctx, again, admin.NewSigningKey{Source: "internal", Algorithm: "EC-P256"}))
	keys, err := c.SigningKeys(ctx)
	if err != nil || len(keys) != 3 || keys[1].Active {
		t.Fatal(keys, err)
	}
	_, err = c.GenerateSigningKey(ctx, admin.ChangeTerms{IfMatch: `"1"`}, admin.NewSigningKey{Source: "internal", Algorithm: "EC-P256"})
	problem(t, err, 412, guard.CodeChangedMeanwhile, "add internal signing key")
	_, err = c.RetireSigningKey(ctx, none, "internal", keys[0].Key)
	problem(t, err, 409, guard.CodeInUse, "activate another key first")
	done(t, "activate internal signing key")(c.ActivateSigningKey(ctx, none, "internal", keys[1].Key[:12]))
	done(t, "")(c.ActivateSigningKey(ctx, none, "internal", keys[1].Key))
	done(t, "retire internal signing key")(c.RetireSigningKey(ctx, none, "internal", keys[0].Key))
	if keys, err = c.SigningKeys(ctx); err != nil || len(keys) != 2 || !keys[0].Active {
		t.Fatal(keys, err)
	}
	_, err = c.ActivateSigningKey(ctx, none, "internal", before[1].Key)
	problem(t, err, 404, guard.CodeUnknown, "there is no internal signing key")
	w.everythingIsAbout()
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.client()
	made, err := c.AddAPIKey(ctx, "new colleague", admin.NewAPIKey{Name: "alice", Roles: []string{admin.SystemAdministrator, admin.Observer}})
	if err != nil || made.Secret == "" {
		t.Fatal(made, err)
	}
	w.restart()
	alice := admin.NewClient(w.server.URL, made.Secret, w.server.Certificate())
	if _, err := alice.Status(ctx); err != nil {
		t.Error(err)
	}
	_, err = alice.AddAPIKey(ctx, "", admin.NewAPIKey{Name: "bob", Roles: []string{admin.SecurityOfficer}})
	problem(t, err, 403, guard.CodeRoleNeeded, "does not have the role security-officer")
	_, err = alice.AddAPIKey(ctx, "", admin.NewAPIKey{Name: "root", Roles: []string{admin.Observer}})
	problem(t, err, 409, guard.CodeExists, "choose another name")
	_, err = alice.AddAPIKey(ctx, "", admin.NewAPIKey{Name: "../x", Roles: []string{admin.Observer}})
	problem(t, err, 422, guard.CodeInvalid, "must begin with a letter")
	_, err = alice.AddAPIKey(ctx, "", admin.NewAPIKey{Name: "x", Roles: []string{"king"}})
	problem(t, err, 422, guard.CodeInvalid, "body.roles[0]")
	all, err := alice.APIKeys(ctx)
	if err != nil || len(all) != 2 || all[1].Name != "alice" {
		t.Error(all, err)
	}
	if _, _, body := w.call(made.Secret, "GET", "/api/v1/api-keys", ""); strings.Contains(body, made.Secret) || strings.Contains(body, "sha256") {
		t.Error("the list tells secrets: ", body)
	}
	if err := alice.DeleteAPIKey(ctx, "", "root"); err != nil {
		t.Error(err)
	}
	problem(t, alice.DeleteAPIKey(ctx, "", "root"), 404, guard.CodeUnknown, "no API key of this name")
	problem(t, alice.DeleteAPIKey(ctx, "", "alice"), 409, guard.CodeInUse, "add another key")
	_, err = w.client().Status(ctx)
	problem(t, err, 401, guard.CodeKeyNeeded, "does not know the API key")
	for _, name := range []string{"admin-keys.json", "audit.jsonl"} {
		if b := must(os.ReadFile(w.path(name))); bytes.Contains(b, []byte(made.Secret)) {
			t.Errorf("%s holds an API key", name)
		}
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.small()
	done(t, "add member")(c.AddMember(ctx, why("decision 18"), member("DEV/GOV/3"), "Three"))
	for _, tc := range []struct {
		from   uint64
		limit  int
		newest bool
		want   []uint64
		next   uint64
	}{
		{0, 3, false, []uint64{1, 2, 3}, 4},
		{4, 3, false, []uint64{4, 5, 6}, 7},
		{10, 5, false, []uint64{10, 11, 12}, 0},
		{10, 3, false, []uint64{10, 11, 12}, 0},
		{13, 5, false, nil, 0},
		{0, 2, true, []uint64{12, 11}, 10},
		{3, 2, true, []uint64{3, 2}, 1},
		{1, 2, true, []uint64{1}, 0},
		{99, 2, true, []uint64{12, 11}, 10},
	} {
		page, err := c.Journal(ctx, tc.from, tc.limit, tc.newest)
		var got []uint64
		for _, e := range page.Entries {
			got = append(got, e.Number)
		}
		if err != nil || !slices.Equal(got, tc.want) || page.Next != tc.next {
			t.Errorf("%+v: got %v, next %d, %v", tc, got, page.Next, err)
		}
	}
	page, err := c.Journal(ctx, 12, 1, false)
	if e := page.Entries[0]; err != nil || e.Who != "root" || e.Why != "decision 18" || !strings.HasPrefix(e.Request, "call ") || e.Change != "add member DEV/GOV/3 (Three)" {
		t.Errorf("%+v, %v", e, err)
	}
}

const declaration = `instance: DEV
memberClasses: [{code: GOV, description: Government}]
members: [{class: GOV, code: "1001", name: Agency, subsystems: [{code: portal}]}]
certificationServices: [{name: CA, profile: FiVRK, certificate: ca.pem}]
`

func TestDeclarations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, dir := t.Context(), w.client(), t.TempDir()
	for name, content := range map[string]string{"eco.yaml": declaration, "ca.pem": pemOf(newAuthority("CA").cert.Raw)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := admin.LoadDeclaration(filepath.Join(dir, "eco.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	officer := w.client(admin.RegistrationOfficer)
	_, err = officer.Apply(ctx, admin.ChangeTerms{}, d)
	problem(t, err, 403, guard.CodeRoleNeeded, "set member class GOV (Government): this takes the role system-administrator")

	plan, etag, err := c.Plan(ctx, d)
	if err != nil || len(plan.Changes) != 4 {
		t.Fatal(plan, err)
	}
	done(t, "set member class COM")(c.AddMemberClass(ctx, admin.ChangeTerms{}, admin.MemberClass{Code: "COM", Description: "Companies"}))
	_, err = c.Apply(ctx, admin.ChangeTerms{IfMatch: etag}, d)
	problem(t, err, 412, guard.CodeChangedMeanwhile, "since the plan was made")
	plan, etag, err = c.Plan(ctx, d)
	if err != nil || !slices.Contains(plan.Changes, "delete member class COM") {
		t.Fatal(plan, err)
	}
	got, err := c.Apply(ctx, admin.ChangeTerms{IfMatch: etag}, d)
	if err != nil || !slices.Equal(got.Changes, plan.Changes) {
		t.Errorf("%v, %v; planned %v", got, err, plan.Changes)
	}
	done(t, "")(c.Apply(ctx, admin.ChangeTerms{}, d))

	for name, tc := range map[string]struct {
		d    admin.Declaration
		code string
		text string
	}{
		"other instance":    {admin.Declaration{Document: "instance: EE\n"}, guard.CodeInvalid, `the registry's is "DEV"`},
		"unknown key":       {admin.Declaration{Document: "instance: DEV\nmember: []\n"}, guard.CodeInvalid, "line 2"},
		"no YAML":           {admin.Declaration{Document: "["}, guard.CodeInvalid, "declaration"},
		"the server's file": {admin.Declaration{Document: "instance: DEV\ntrustedAnchors: [/etc/passwd]\n"}, guard.CodeInvalid, "file does not exist"},
		"not acceptable":    {admin.Declaration{Document: "instance: DEV\nmembers: [{class: XX, code: '1', name: x}]\n"}, guard.CodeUnknown, "there is no member class XX"},
		"still in use":      {admin.Declaration{Document: "instance: DEV\nmemberClasses: []\n"}, guard.CodeInUse, "delete its members first"},
	} {
		before := w.reg.State().Number()
		_, _, planned := c.Plan(ctx, tc.d)
		_, applied := c.Apply(ctx, admin.ChangeTerms{}, tc.d)
		for _, err := range []error{planned, applied} {
			var p *guard.Problem
			if !asProblem(err, &p) || p.Code != tc.code || !strings.Contains(p.Error(), tc.text) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if w.reg.State().Number() != before {
			t.Errorf("%s: something was changed", name)
		}
	}
	if _, err := admin.LoadDeclaration(filepath.Join(dir, "ca.pem")); err == nil {
		t.Error("a certificate was taken for a declaration")
	}
	w.everythingIsAbout()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	must(c.AddServer(ctx, none, server("DEV/GOV/1001/ss1"), "ss1.example.org"))
	must(c.AddClient(ctx, none, server("DEV/GOV/1001/ss1"), client("DEV/GOV/1001/portal")))
	must(c.AddGroup(ctx, none, "all", "All"))
	ca := newAuthority("CA")
	must(c.AddCA(ctx, none, admin.NewCA{Name: "CA", Profile: "FiVRK", Certificate: pemOf(ca.cert.Raw)}))
	top := must(c.CAs(ctx))[0].Authorities[0].Certificate.SHA256
	stranger := newAuthority("Stranger").auth("x")
	before := w.reg.State().Number()

	_, _, err := c.Member(ctx, member("DEV/GOV/9"))
	problem(t, err, 404, guard.CodeUnknown, "there is no member DEV/GOV/9")
	for name, tc := range map[string]struct {
		call   func() (*admin.Done, error)
		status int
		code   string
		text   string
	}{
		"member twice":       {func() (*admin.Done, error) { return c.AddMember(ctx, none, member("DEV/GOV/1001"), "x") }, 409, guard.CodeExists, "the member exists already"},
		"member of no class": {func() (*admin.Done, error) { return c.AddMember(ctx, none, member("DEV/COM/1"), "x") }, 404, guard.CodeUnknown, "there is no member class COM; add the member class first"},
		"illegal character": {func() (*admin.Done, error) {
			return c.AddMember(ctx, none, must(id.NewMember("DEV", "GOV", "a:b")), "x")
		}, 422, guard.CodeInvalid, "character ':' is not allowed"},
		"blank name":    {func() (*admin.Done, error) { return c.AddMember(ctx, none, member("DEV/GOV/5"), " ") }, 422, guard.CodeInvalid, "name is missing"},
		"member in use": {func() (*admin.Done, error) { return c.DeleteMember(ctx, none, member("DEV/GOV/1001")) }, 409, guard.CodeInUse, "delete its subsystems first"},
		"class in use":  {func() (*admin.Done, error) { return c.DeleteMemberClass(ctx, none, "GOV") }, 409, guard.CodeInUse, "is of this class"},
		"class twice": {func() (*admin.Done, error) {
			return c.AddMemberClass(ctx, none, admin.MemberClass{Code: "GOV", Description: "x"})
		}, 409, guard.CodeExists, "change it instead"},
		"class unknown":     {func() (*admin.Done, error) { return c.ChangeMemberClass(ctx, none, "XX", "x") }, 404, guard.CodeUnknown, "no member class XX"},
		"subsystem in use":  {func() (*admin.Done, error) { return c.DeleteSubsystem(ctx, none, client("DEV/GOV/1001/portal")) }, 409, guard.CodeInUse, "unregister it there first"},
		"subsystem unknown": {func() (*admin.Done, error) { return c.RenameSubsystem(ctx, none, client("DEV/GOV/1001/x"), "x") }, 404, guard.CodeUnknown, "no such subsystem"},
		"subsystem twice":   {func() (*admin.Done, error) { return c.AddSubsystem(ctx, none, client("DEV/GOV/1001/portal"), "") }, 409, guard.CodeExists, "exists already"},
		"server twice":      {func() (*admin.Done, error) { return c.AddServer(ctx, none, server("DEV/GOV/1001/ss1"), "a.b") }, 409, guard.CodeExists, "exists already"},
		"server of nobody":  {func() (*admin.Done, error) { return c.AddServer(ctx, none, server("DEV/GOV/9/ss1"), "a.b") }, 404, guard.CodeUnknown, "add the member first"},
		"bad address":       {func() (*admin.Done, error) { return c.MoveServer(ctx, none, server("DEV/GOV/1001/ss1"), "a b") }, 422, guard.CodeInvalid, "not a host name"},
		"foreign CA":        {func() (*admin.Done, error) { return c.AddCertificate(ctx, none, server("DEV/GOV/1001/ss1"), stranger) }, 422, guard.CodeInvalid, ""},
		"no certificate": {func() (*admin.Done, error) {
			return c.AddCertificate(ctx, none, server("DEV/GOV/1001/ss1"), "nonsense!")
		}, 422, guard.CodeInvalid, "neither PEM nor base64"},
		"two certificates": {func() (*admin.Done, error) {
			return c.AddCertificate(ctx, none, server("DEV/GOV/1001/ss1"), stranger+stranger)
		}, 422, guard.CodeInvalid, "exactly one"},
		"certificate unknown": {func() (*admin.Done, error) { return c.DeleteCertificate(ctx, none, server("DEV/GOV/1001/ss1"), top) }, 404, guard.CodeUnknown, "no such certificate"},
		"no hash":             {func() (*admin.Done, error) { return c.DeleteCertificate(ctx, none, server("DEV/GOV/1001/ss1"), "12") }, 422, guard.CodeInvalid, "not a SHA-256 hash"},
		"client twice": {func() (*admin.Done, error) {
			return c.AddClient(ctx, none, server("DEV/GOV/1001/ss1"), client("DEV/GOV/1001/portal"))
		}, 409, guard.CodeExists, "registered there already"},
		"group that follows": {func() (*admin.Done, error) { return c.DeleteGroup(ctx, none, registry.OwnersGroup) }, 422, guard.CodeInvalid, "always exists"},
		"group twice":        {func() (*admin.Done, error) { return c.AddGroup(ctx, none, "all", "x") }, 409, guard.CodeExists, "global group all exists already"},
		"not in group": {func() (*admin.Done, error) {
			return c.DeleteGroupMember(ctx, none, "all", client("DEV/GOV/1001/portal"))
		}, 404, guard.CodeUnknown, "not in the group"},
		"CA twice": {func() (*admin.Done, error) {
			return c.AddCA(ctx, none, admin.NewCA{Name: "CA", Profile: "FiVRK", Certificate: pemOf(ca.cert.Raw)})
		}, 409, guard.CodeExists, "certification service CA exists"},
		"profile unknown": {func() (*admin.Done, error) {
			return c.AddCA(ctx, none, admin.NewCA{Name: "B", Profile: "Nope", Certificate: pemOf(ca.cert.Raw)})
		}, 422, guard.CodeInvalid, "profile"},
		"no authority": {func() (*admin.Done, error) {
			return c.AddCA(ctx, none, admin.NewCA{Name: "B", Profile: "FiVRK", Certificate: stranger})
		}, 422, guard.CodeInvalid, "not the certificate of an authority"},
		"authority unknown": {func() (*admin.Done, error) {
			return c.AddResponder(ctx, none, "CA", strings.Repeat("00", 32), admin.NewResponder{URL: "http://x"})
		}, 404, guard.CodeUnknown, "no authority with this certificate"},
		"top stays": {func() (*admin.Done, error) { return c.DeleteIntermediate(ctx, none, "CA", top) }, 404, guard.CodeUnknown, "it is the top one"},
		"intermediate twice": {func() (*admin.Done, error) {
			return c.AddIntermediate(ctx, none, "CA", admin.NewIntermediate{Certificate: pemOf(ca.cert.Raw)})
		}, 409, guard.CodeExists, "exists already"},
		"TSA unknown":    {func() (*admin.Done, error) { return c.DeleteTSA(ctx, none, "x") }, 404, guard.CodeUnknown, "no such time-stamping authority"},
		"no anchor":      {func() (*admin.Done, error) { return c.TrustAnchor(ctx, none, []byte("<x/>")) }, 422, guard.CodeInvalid, ""},
		"own anchor":     {func() (*admin.Done, error) { return c.TrustAnchor(ctx, none, must(w.reg.ExternalAnchor())) }, 422, guard.CodeInvalid, "registry's own instance"},
		"anchor unknown": {func() (*admin.Done, error) { return c.DistrustAnchor(ctx, none, "EE") }, 404, guard.CodeUnknown, "no such trusted anchor"},
		"out of range": {func() (*admin.Done, error) {
			n := 1
			return c.ChangeParameters(ctx, none, admin.ParameterChange{MinimumVersion: &n})
		}, 422, guard.CodeInvalid, "choose from 2 to 6"},
		"provider unknown": {func() (*admin.Done, error) {
			p := client("DEV/GOV/9/x")
			return c.ChangeManagement(ctx, none, admin.ManagementChange{Provider: &p})
		}, 404, guard.CodeUnknown, "does not exist; add it first"},
		"source unknown": {func() (*admin.Done, error) {
			return c.GenerateSigningKey(ctx, none, admin.NewSigningKey{Source: "inner"})
		}, 422, guard.CodeInvalid, "body.source"},
		"algorithm unknown": {func() (*admin.Done, error) {
			return c.GenerateSigningKey(ctx, none, admin.NewSigningKey{Source: "internal", Algorithm: "DSA"})
		}, 422, guard.CodeInvalid, "DSA"},
		"control character in the reason": {func() (*admin.Done, error) { return c.AddMember(ctx, why("a\x07b"), member("DEV/GOV/5"), "x") }, 422, guard.CodeInvalid, "why"},
		"endless reason": {func() (*admin.Done, error) {
			return c.AddMember(ctx, why(strings.Repeat("a", 2001)), member("DEV/GOV/5"), "x")
		}, 422, guard.CodeInvalid, "why"},
	} {
		_, err := tc.call()
		var p *guard.Problem
		if !asProblem(err, &p) || p.Status != tc.status || p.Code != tc.code || !strings.Contains(p.Error(), tc.text) {
			t.Errorf("%s: %v (%+v)", name, err, p)
		}
	}
	if w.reg.State().Number() != before {
		t.Error("a refused call changed something")
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.small()
	key, body := w.secrets["root"], `{"class":"GOV","code":"7","name":"Seven"}`
	post := func(secret, path, body, idempotency string) (int, http.Header, string) {
		t.Helper()
		return w.call(secret, "POST", path, body, "Idempotency-Key", idempotency)
	}
	status, header, first := post(key, "/api/v1/members?why=a", body, "k1")
	if status != 201 || header.Get("Idempotency-Replayed") != "" {
		t.Fatal(status, header, first)
	}
	number := w.reg.State().Number()
	replayed := func(when string) {
		t.Helper()
		status, header, again := post(key, "/api/v1/members?why=a", body, "k1")
		if status != 201 || again != first || header.Get("Idempotency-Replayed") != "true" || header.Get("ETag") == "" {
			t.Errorf("%s: %d %v %s", when, status, header, again)
		}
	}
	replayed("at once")
	w.restart()
	replayed("after a restart")
	for name, path := range map[string]string{"another body": "/api/v1/members?why=a", "another reason": "/api/v1/members?why=b"} {
		other := body
		if name == "another body" {
			other = strings.Replace(body, "Seven", "Sieben", 1)
		}
		if status, _, text := post(key, path, other, "k1"); status != 422 || !strings.Contains(text, guard.CodeKeyReused) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	// Somebody else's key of the same text is another key.
	if status, _, text := post(w.key(admin.RegistrationOfficer), "/api/v1/members?why=a", body, "k1"); status != 409 || !strings.Contains(text, guard.CodeExists) {
		t.Error(status, text)
	}
	// A refused call has done nothing: it may succeed when it is repeated.
	subsystem := func() int {
		status, _, _ := post(key, "/api/v1/members/GOV/8/subsystems", `{"code":"s"}`, "k2")
		return status
	}
	if got := subsystem(); got != 404 {
		t.Error(got)
	}
	must(w.client().AddMember(t.Context(), admin.ChangeTerms{}, member("DEV/GOV/8"), "Eight"))
	if got := subsystem(); got != 201 {
		t.Error(got)
	}
	// Several changes in one call come back together.
	d := `{"document":"instance: DEV\nmemberClasses: [{code: GOV, description: A}, {code: COM, description: B}, {code: NGO, description: C}]\n"}`
	_, _, one := post(key, "/api/v1/declarations/apply", d, "k3")
	w.restart()
	if _, _, two := post(key, "/api/v1/declarations/apply", d, "k3"); one != two || !strings.Contains(one, "NGO") {
		t.Errorf("%s\n%s", one, two)
	}
	w.clock.advance(25 * time.Hour)
	if status, _, text := post(key, "/api/v1/members?why=a", body, "k1"); status != 409 {
		t.Errorf("after a day: %d %s", status, text)
	}
	if n := w.reg.State().Number(); n != number+5 {
		t.Errorf("%d entries were made, want 5", n-number)
	}
}

// Of two operators who look at the same thing and change it, the second is
// told; those who change different things do not notice each other.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.small()
	_, etag, err := c.Member(ctx, member("DEV/GOV/1001"))
	if err != nil {
		t.Fatal(err)
	}
	var done, refused atomic.Int32
	var operators sync.WaitGroup
	for i := range 8 {
		operators.Go(func() {
			_, err := c.RenameMember(ctx, admin.ChangeTerms{IfMatch: etag}, member("DEV/GOV/1001"), "Name "+string(rune('A'+i)))
			var p *guard.Problem
			switch {
			case err == nil:
				done.Add(1)
			case asProblem(err, &p) && p.Status == 412 && p.Code == guard.CodeChangedMeanwhile && strings.Contains(p.Detail, "meanwhile root has changed it: rename member DEV/GOV/1001 to Name"):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	operators.Wait()
	if done.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d done, %d refused", done.Load(), refused.Load())
	}
	if _, err := c.RenameMember(ctx, admin.ChangeTerms{IfMatch: etag}, member("DEV/GOV/2002"), "Untouched"); err != nil {
		t.Errorf("another member: %v", err)
	}
	if _, err := c.RenameMember(ctx, admin.ChangeTerms{IfMatch: "*"}, member("DEV/GOV/2002"), "Any"); err != nil {
		t.Error(err)
	}
	for ifMatch, want := range map[string]int{`"999"`: 412, "7": 400, `"x"`: 400, `W/"12`: 400, `"-1"`: 400} {
		_, err := c.RenameMember(ctx, admin.ChangeTerms{IfMatch: ifMatch}, member("DEV/GOV/2002"), "Never")
		var p *guard.Problem
		if !asProblem(err, &p) || p.Status != want {
			t.Errorf("%s: %v", ifMatch, err)
		}
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.small()
	must(c.AddMember(ctx, why("decision 17\nof today"), member("DEV/GOV/3"), "Three"))
	_, err := c.DeleteMember(ctx, admin.ChangeTerms{}, member("DEV/GOV/1001"))
	problem(t, err, 409, guard.CodeInUse, "")
	w.call("", "DELETE", "/api/v1/members/GOV/3", "")
	w.call(w.key(admin.Observer), "DELETE", "/api/v1/members/GOV/3", "")
	w.call(w.secrets["root"], "POST", "/api/v1/members", `{"class":7}`)
	w.call(w.secrets["root"], "POST", "/api/v1/members", `{`)
	w.call(w.secrets["root"], "GET", "/api/v1/members", "")
	w.call("", "GET", "/api/v1/members", "")
	must(c.AddAPIKey(ctx, "colleague", admin.NewAPIKey{Name: "bob", Roles: []string{admin.Observer}}))
	if _, _, err := c.Plan(ctx, admin.Declaration{Document: "instance: DEV\n"}); err != nil {
		t.Error(err)
	}
	want := []guard.Record{
		{Who: "registry", Operation: "begin", Outcome: guard.Done},
		{Who: "root", Operation: "add-member", Target: "POST /api/v1/members", What: []string{"add member DEV/GOV/3 (Three)"}, Why: "decision 17\nof today", Outcome: guard.Done, Status: 201, Entry: 12},
		{Who: "root", Operation: "delete-member", Target: "DELETE /api/v1/members/GOV/1001", What: []string{"delete member DEV/GOV/1001"}, Outcome: guard.Refused, Status: 409, Code: guard.CodeInUse},
		{Who: "", Operation: "delete-member", Target: "DELETE /api/v1/members/GOV/3", Outcome: guard.Refused, Status: 401, Code: guard.CodeKeyNeeded},
		{Who: "observer", Operation: "delete-member", Target: "DELETE /api/v1/members/GOV/3", Outcome: guard.Refused, Status: 403, Code: guard.CodeRoleNeeded},
		{Who: "root", Operation: "add-member", Target: "POST /api/v1/members", Outcome: guard.Refused, Status: 422, Code: guard.CodeInvalid},
		{Who: "root", Operation: "add-member", Target: "POST /api/v1/members", Outcome: guard.Refused, Status: 400, Code: guard.CodeMalformed},
		{Who: "root", Operation: "add-api-key", Target: "POST /api/v1/api-keys", What: []string{"add API key bob with roles observer"}, Why: "colleague", Outcome: guard.Done, Status: 201},
	}
	got := w.records()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d: %+v", len(got), len(want), got)
	}
	for i, r := range got {
		if i > 0 && (r.From != "127.0.0.1" || r.Time.IsZero() || r.Status < 300 && r.Call == "" || r.Status >= 300 && r.Text == "") {
			t.Errorf("record %d is incomplete: %+v", i, r)
		}
		x := want[i]
		if r.Who != x.Who || r.Operation != x.Operation || r.Target != x.Target || !slices.Equal(r.What, x.What) || r.Why != x.Why || r.Outcome != x.Outcome ||
			r.Status != x.Status || r.Code != x.Code || x.Entry != 0 && r.Entry != x.Entry {
			t.Errorf("record %d: got %+v, want %+v", i, r, x)
		}
	}
}

// What a crash kept out of the audit log is added from the journal, once; a
// record cut in half is not counted.
func TestAuditAfterCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.small()
	must(c.AddMember(ctx, why("one"), member("DEV/GOV/3"), "Three"))
	must(c.AddMember(ctx, why("two"), member("DEV/GOV/4"), "Four"))
	file := w.path("audit.jsonl")
	b := must(os.ReadFile(file))
	if err := os.WriteFile(file, b[:len(b)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.restart()
		r := w.records()
		if last := r[len(r)-1]; len(r) != 3 || last.Who != "root" || last.Why != "two" || last.Entry != 13 || !slices.Equal(last.What, []string{"add member DEV/GOV/4 (Four)"}) || last.Outcome != guard.Done {
			t.Fatalf("%+v", r)
		}
	}
}

// Nothing is changed that cannot be written to the audit log.
func TestAuditFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c := t.Context(), w.small()
	before := w.reg.State().Number()
	w.audit.Close()
	_, err := c.AddMember(ctx, admin.ChangeTerms{}, member("DEV/GOV/3"), "Three")
	problem(t, err, 503, guard.CodeUnavailable, "the audit log cannot be written")
	_, err = c.AddAPIKey(ctx, "", admin.NewAPIKey{Name: "bob", Roles: []string{admin.Observer}})
	problem(t, err, 503, guard.CodeUnavailable, "the audit log cannot be written")
	if w.reg.State().Number() != before || len(w.keys.List()) != 1 {
		t.Error("something was changed")
	}
	if _, err := c.Status(ctx); err != nil {
		t.Error(err)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hurry = true
	for i := range 20 {
		if status, _, text := w.call("", "GET", "/api/v1/status", ""); status != 401 {
			t.Fatal(i, status, text)
		}
	}
	status, header, text := w.call(w.secrets["root"], "DELETE", "/api/v1/members/GOV/1", "")
	if status != 429 || header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(text, guard.CodeTooManyCalls) {
		t.Error(status, header, text)
	}
	w.clock.advance(time.Second)
	if status, _, _ := w.call(w.secrets["root"], "GET", "/api/v1/status", ""); status != 200 {
		t.Error(status)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.small()
	before := w.reg.State().Number()
	for name, tc := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		text               string
	}{
		"oversize":           {"POST", "/api/v1/members", `{"name":"` + strings.Repeat("x", 300<<10) + `"}`, nil, 413, guard.CodeTooLarge},
		"not JSON":           {"POST", "/api/v1/members", `<xml/>`, nil, 400, guard.CodeMalformed},
		"no body":            {"POST", "/api/v1/members", ``, nil, 400, "request body is required"},
		"cut off":            {"POST", "/api/v1/members", `{"class":"GOV"`, nil, 400, guard.CodeMalformed},
		"wrong type":         {"POST", "/api/v1/members", `{"class":1,"code":"2","name":"x"}`, nil, 422, "body.class"},
		"missing":            {"POST", "/api/v1/members", `{"class":"GOV"}`, nil, 422, "code"},
		"unknown member":     {"POST", "/api/v1/members", `{"class":"GOV","code":"2","name":"x","king":true}`, nil, 422, "king"},
		"deep":               {"POST", "/api/v1/members", strings.Repeat("[", 100_000), nil, 400, guard.CodeMalformed},
		"media type":         {"POST", "/api/v1/members", `a=b`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, guard.CodeMediaType},
		"unknown parameter":  {"GET", "/api/v1/members?classs=GOV", "", nil, 422, "classs"},
		"bad parameter":      {"GET", "/api/v1/members?limit=many", "", nil, 422, "limit"},
		"too much":           {"GET", "/api/v1/members?limit=10001", "", nil, 422, "limit"},
		"bad identifier":     {"DELETE", "/api/v1/global-groups/all/members/DEV", "", nil, 422, "client"},
		"blank part":         {"GET", "/api/v1/members/GOV/%20", "", nil, 422, "blank"},
		"nowhere":            {"GET", "/api/v1/kings", "", nil, 404, "openapi.json"},
		"wrong method":       {"PUT", "/api/v1/members", "", nil, 405, guard.CodeMethod},
		"encoded slash":      {"GET", "/api/v1/members/GOV%2F1001", "", nil, 404, "nothing at this path"},
		"endless key":        {"DELETE", "/api/v1/members/GOV/1001", "", []string{"Idempotency-Key", strings.Repeat("k", 256)}, 422, "Idempotency-Key"},
		"bad source":         {"GET", "/api/v1/configuration-anchors/x", "", nil, 422, "source"},
		"identifier in body": {"POST", "/api/v1/global-groups/all/members", `{"client":"DEV/GOV"}`, nil, 422, "client"},
	} {
		status, header, text := w.call(w.secrets["root"], tc.method, tc.path, tc.body, tc.header...)
		if status != tc.status || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(text, tc.text) {
			t.Errorf("%s: %d %s %s", name, status, header.Get("Content-Type"), text)
		}
	}
	if w.reg.State().Number() != before {
		t.Error("a bad request changed something")
	}
}

// Another server than the one that was pinned gets no API key.
func TestPin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := admin.NewClient(w.server.URL, w.secrets["root"], newAuthority("somebody").cert)
	if _, err := c.Status(context.WithoutCancel(t.Context())); err == nil || !strings.Contains(err.Error(), "not the registry whose certificate was given") {
		t.Error(err)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	first := must(c.Nodes(ctx))
	if len(first) != 1 || first[0].Name != "" || !first[0].Answers || len(first[0].Internal) != 64 || len(first[0].External) != 64 || first[0].Address == "" {
		t.Errorf("%+v", first)
	}
	_, err := c.MoveNode(ctx, none, "two", "cs2.example.org")
	problem(t, err, 404, guard.CodeUnknown, "registry init --join")
	if _, err := w.reg.Apply(ctx, registry.Author{Who: "joining"}, []registry.Change{&registry.SetNode{Node: "two", Address: "cs2.example.org"}}); err != nil {
		t.Fatal(err)
	}
	must(c.MoveNode(ctx, none, "two", "cs2.example.net"))
	if all := must(c.Nodes(ctx)); len(all) != 2 || all[1].Name != "two" || all[1].Address != "cs2.example.net" || all[1].Answers {
		t.Errorf("%+v", all)
	}
	_, err = c.MoveNode(ctx, none, "two", first[0].Address)
	problem(t, err, 409, guard.CodeExists, "another node has the address")
	must(c.RemoveNode(ctx, none, "two"))
	_, err = c.RemoveNode(ctx, none, "two")
	problem(t, err, 404, guard.CodeUnknown, `node "two"`)
}

// The operator requests a registration, which takes effect when the security
// server requests the same. If it has already, both await an approval.
func TestOwnRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, c, none := t.Context(), w.small(), admin.ChangeTerms{}
	ss1, portal := server("DEV/GOV/1001/ss1"), client("DEV/GOV/1001/portal")
	must(c.AddServer(ctx, none, ss1, "ss1.example.org"))
	own := func() (*admin.Done, error) {
		return c.SubmitRequest(ctx, none, admin.NewRequest{Kind: "clientReg", Server: ss1, Client: &portal})
	}
	theirs := func() registry.Request {
		return must(w.reg.Submit(ctx, registry.Author{Who: "ss1"}, &registry.Submission{Kind: registry.ClientReg, Origin: registry.FromServer, Server: ss1, Client: portal}))
	}
	registered := func() bool { s, _, err := c.Server(ctx, ss1); return err == nil && len(s.Clients) == 1 }
	must(own())
	if q, _, err := c.Request(ctx, 1); err != nil || q.Origin != registry.FromCenter || q.Status != registry.Waiting || registered() {
		t.Fatalf("%+v, %v", q, err)
	}
	_, err := own()
	problem(t, err, 409, guard.CodeExists, "pending")
	must(c.DeclineRequest(ctx, why("a mistake"), 1))
	if q, _, err := c.Request(ctx, 1); err != nil || q.Status != registry.Revoked {
		t.Errorf("%+v, %v", q, err)
	}
	must(own())
	if q := theirs(); q.Status != registry.Approved || q.Complement != 2 || !registered() {
		t.Errorf("%+v", q)
	}
	must(c.DeleteClient(ctx, none, ss1, portal))
	theirs()
	must(own())
	if q, _, err := c.Request(ctx, 5); err != nil || q.Complement != 4 || q.Status != registry.Submitted || registered() {
		t.Errorf("%+v, %v", q, err)
	}
	_, err = c.SubmitRequest(ctx, none, admin.NewRequest{Kind: "authCertReg", Server: ss1, Certificate: newAuthority("Stranger").auth("x")})
	problem(t, err, 422, guard.CodeInvalid, "")
}
