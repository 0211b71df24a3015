// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// populated is a state with a little of everything.
func populated(t testing.TB, ca *authority, auth ...*x509.Certificate) *registry.State {
	t.Helper()
	st, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := registry.Plan(st, ecosystem(ca, auth...))
	if err != nil {
		t.Fatal(err)
	}
	if st, err = st.Try(changes); err != nil {
		t.Fatal(err)
	}
	return st
}

func system() registry.System {
	return registry.System{Address: "registry.example", ConfigurationValidity: 600, OCSPFreshness: 3600, TimestampingInterval: 60, MinimumVersion: 2}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority("Test CA"), newAuthority("Other CA")
	auth := ca.auth("ss0")
	st := populated(t, ca, auth)
	sys := st.System()
	with := func(change func(*registry.System)) *registry.SetSystem {
		s := sys
		change(&s)
		return &registry.SetSystem{System: s}
	}
	service := func(change func(*registry.CA)) *registry.SetCA {
		c := st.CAs()[0]
		change(&c)
		return &registry.SetCA{CA: c}
	}
	long := strings.Repeat("x", 256)
	ss0, ss1 := serverID("DEV/GOV/1234/SS0"), serverID("DEV/COM/99/SS1")
	gov, com := memberID("DEV/GOV/1234"), memberID("DEV/COM/99")
	mgmt, monitor, register := clientID("DEV/GOV/1234/MANAGEMENT"), clientID("DEV/COM/99/monitor"), clientID("DEV/GOV/1234/register")
	own := must((&globalconf.Anchor{Generated: start, Instance: "DEV", Sources: []globalconf.AnchorSource{{URL: "http://x/externalconf", Certs: [][]byte{ca.cert.Raw}}}}).Marshal())

	for _, tc := range []struct {
		change registry.Change
		kind   error
		text   string
	}{
		{&registry.FoundInstance{Instance: "OTHER"}, registry.ErrExists, "registry of instance DEV"},
		{&registry.SetMemberClass{Code: "A/B", Description: "x"}, registry.ErrInvalid, "not allowed"},
		{&registry.SetMemberClass{Code: " A", Description: "x"}, registry.ErrInvalid, "white space"},
		{&registry.SetMemberClass{Code: "A"}, registry.ErrInvalid, "description is missing; give one"},
		{&registry.SetMemberClass{Code: "A", Description: long}, registry.ErrInvalid, "longer than 255"},
		{&registry.SetMemberClass{Code: "A", Description: "a\x00b"}, registry.ErrInvalid, "control characters"},
		{&registry.SetMemberClass{Code: "A", Description: "\xff"}, registry.ErrInvalid, "not UTF-8"},
		{&registry.DeleteMemberClass{Code: "GOV"}, registry.ErrInUse, "DEV/GOV/1234 is of this class; delete its members first"},
		{&registry.DeleteMemberClass{Code: "NGO"}, registry.ErrUnknown, "no such member class"},

		{&registry.AddMember{Member: gov, Name: "Again"}, registry.ErrExists, "exists already"},
		{&registry.AddMember{Member: memberID("DEV/NGO/1"), Name: "x"}, registry.ErrUnknown, "add the member class first"},
		{&registry.AddMember{Member: memberID("EE/GOV/1"), Name: "x"}, registry.ErrInvalid, "not the registry's own"},
		{&registry.AddMember{Member: memberID("DEV/GOV/a%3Ab"), Name: "x"}, registry.ErrInvalid, "not allowed"},
		{&registry.AddMember{Member: memberID("DEV/GOV/2")}, registry.ErrInvalid, "name is missing"},
		{&registry.AddMember{Name: "nobody"}, registry.ErrInvalid, ""},
		{&registry.RenameMember{Member: memberID("DEV/GOV/2"), Name: "x"}, registry.ErrUnknown, "add the member first"},
		{&registry.DeleteMember{Member: gov}, registry.ErrInUse, "has subsystem"},

		{&registry.AddSubsystem{Subsystem: mgmt}, registry.ErrExists, "exists already"},
		{&registry.AddSubsystem{Subsystem: gov.Client()}, registry.ErrInvalid, ""},
		{&registry.AddSubsystem{Subsystem: clientID("DEV/GOV/2/x")}, registry.ErrUnknown, "add the member first"},
		{&registry.RenameSubsystem{Subsystem: clientID("DEV/GOV/1234/x"), Name: "x"}, registry.ErrUnknown, "add it first"},
		{&registry.RenameSubsystem{Subsystem: gov.Client(), Name: "x"}, registry.ErrUnknown, ""},
		{&registry.DeleteSubsystem{Subsystem: register}, registry.ErrInUse, "client of security server DEV/COM/99/SS1; unregister it there first"},
		{&registry.DeleteSubsystem{Subsystem: clientID("DEV/GOV/1234/x")}, registry.ErrUnknown, ""},

		{&registry.AddServer{Server: ss0, Address: "x"}, registry.ErrExists, ""},
		{&registry.AddServer{Server: serverID("DEV/GOV/2/SS"), Address: "x"}, registry.ErrUnknown, "add the member first"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S"), Address: "x:5500"}, registry.ErrInvalid, "has a port"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S"), Address: ""}, registry.ErrInvalid, "missing"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S"), Address: "a b"}, registry.ErrInvalid, "not a host name"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S"), Address: "-a.example"}, registry.ErrInvalid, "not a host name"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S"), Address: strings.Repeat("a.", 130) + "a"}, registry.ErrInvalid, "longer than 253"},
		{&registry.AddServer{Server: serverID("DEV/GOV/1234/S%25"), Address: "x"}, registry.ErrInvalid, "not allowed"},
		{&registry.SetServerAddress{Server: ss0, Address: "http://x"}, registry.ErrInvalid, ""},
		{&registry.SetServerAddress{Server: serverID("DEV/GOV/1234/S"), Address: "x"}, registry.ErrUnknown, "add the server first"},
		{&registry.SetMaintenance{Server: serverID("DEV/GOV/1234/S"), On: true}, registry.ErrUnknown, ""},
		{&registry.SetMaintenance{Server: ss0, On: true, Message: long}, registry.ErrInvalid, ""},
		{&registry.DeleteServer{Server: serverID("DEV/GOV/1234/S")}, registry.ErrUnknown, ""},

		{&registry.RegisterCertificate{Server: ss1, Certificate: auth.Raw}, registry.ErrExists, "registered for security server DEV/GOV/1234/SS0"},
		{&registry.RegisterCertificate{Server: ss1, Certificate: ca.sign("x").Raw}, registry.ErrInvalid, "not an authentication certificate"},
		{&registry.RegisterCertificate{Server: ss1, Certificate: other.auth("x").Raw}, registry.ErrInvalid, "not an approved certification service; approve the issuer first"},
		{&registry.RegisterCertificate{Server: ss1, Certificate: newAuthority("Test CA").auth("x").Raw}, registry.ErrInvalid, "not an approved"},
		{&registry.RegisterCertificate{Server: ss1, Certificate: []byte("x")}, registry.ErrInvalid, "not a certificate"},
		{&registry.RegisterCertificate{Server: ss1}, registry.ErrInvalid, "missing"},
		{&registry.RegisterCertificate{Server: serverID("DEV/GOV/1234/S"), Certificate: ca.auth("x").Raw}, registry.ErrUnknown, ""},
		{&registry.UnregisterCertificate{Server: ss0}, registry.ErrUnknown, "no such certificate"},

		{&registry.RegisterClient{Server: ss0, Client: mgmt}, registry.ErrExists, ""},
		{&registry.RegisterClient{Server: ss0, Client: gov.Client()}, registry.ErrInvalid, "without registration"},
		{&registry.RegisterClient{Server: ss0, Client: clientID("DEV/GOV/1234/x")}, registry.ErrUnknown, "add it first"},
		{&registry.RegisterClient{Server: serverID("DEV/GOV/1234/S"), Client: mgmt}, registry.ErrUnknown, ""},
		{&registry.EnableClient{Server: ss0, Client: mgmt}, registry.ErrInUse, "provides the management services"},
		{&registry.EnableClient{Server: ss1, Client: mgmt, On: true}, registry.ErrUnknown, "not registered there"},
		{&registry.UnregisterClient{Server: ss1, Client: mgmt}, registry.ErrUnknown, "not registered there"},

		{&registry.SetGroup{Code: registry.OwnersGroup, Description: "x"}, registry.ErrInvalid, "follow from the security servers"},
		{&registry.SetGroup{Code: "a:b", Description: "x"}, registry.ErrInvalid, ""},
		{&registry.DeleteGroup{Code: registry.OwnersGroup}, registry.ErrInvalid, ""},
		{&registry.DeleteGroup{Code: "x"}, registry.ErrUnknown, ""},
		{&registry.AddGroupMember{Group: "friends", Client: monitor}, registry.ErrExists, ""},
		{&registry.AddGroupMember{Group: "friends", Client: clientID("DEV/GOV/1234/x")}, registry.ErrUnknown, ""},
		{&registry.AddGroupMember{Group: "x", Client: monitor}, registry.ErrUnknown, "add the group first"},
		{&registry.AddGroupMember{Group: registry.OwnersGroup, Client: monitor}, registry.ErrInvalid, ""},
		{&registry.RemoveGroupMember{Group: "friends", Client: register}, registry.ErrUnknown, ""},
		{&registry.RemoveGroupMember{Group: registry.OwnersGroup, Client: com.Client()}, registry.ErrInvalid, ""},

		{service(func(c *registry.CA) { c.Name = "Copy" }), registry.ErrExists, "belongs to certification service Test CA"},
		{service(func(c *registry.CA) { c.Top.Certificate = other.cert.Raw }), registry.ErrExists, "other certificates"},
		{service(func(c *registry.CA) { c.Name = "" }), registry.ErrInvalid, ""},
		{service(func(c *registry.CA) { c.Profile = "FiVRK" }), registry.ErrInvalid, "full class name"},
		{service(func(c *registry.CA) { c.Profile = "x" }), registry.ErrInvalid, "unknown"},
		{service(func(c *registry.CA) { c.CSRFormat = "XML" }), registry.ErrInvalid, ""},
		{service(func(c *registry.CA) { c.Top.Certificate = auth.Raw }), registry.ErrInvalid, "not the certificate of an authority"},
		{service(func(c *registry.CA) { c.Intermediates = []registry.CertifiedCA{{}} }), registry.ErrInvalid, "missing"},
		{service(func(c *registry.CA) { c.Top.Responders = []registry.Responder{{URL: "ocsp.example"}} }), registry.ErrInvalid, "OCSP responder"},
		{service(func(c *registry.CA) {
			c.Top.Responders = []registry.Responder{{URL: "http://ocsp.example", Certificate: []byte("x")}}
		}), registry.ErrInvalid, "OCSP responder"},
		{service(func(c *registry.CA) {
			c.Top.Responders = []registry.Responder{{URL: "http://ocsp.example", Cost: "CHEAP"}}
		}), registry.ErrInvalid, "cost"},
		{service(func(c *registry.CA) { c.ACME = &registry.ACMEServer{DirectoryURL: "x"} }), registry.ErrInvalid, "ACME"},
		{&registry.DeleteCA{Name: "x"}, registry.ErrUnknown, ""},

		{&registry.SetTSA{TSA: registry.TSA{URL: "http://x", Certificate: auth.Raw}}, registry.ErrInvalid, "name"},
		{&registry.SetTSA{TSA: registry.TSA{Name: "x", URL: "file:///x", Certificate: auth.Raw}}, registry.ErrInvalid, "address"},
		{&registry.SetTSA{TSA: registry.TSA{Name: "x", URL: "http://x"}}, registry.ErrInvalid, "certificate is missing"},
		{&registry.SetTSA{TSA: registry.TSA{Name: "x", URL: "http://x", Certificate: auth.Raw, Cost: "y"}}, registry.ErrInvalid, "cost"},
		{&registry.DeleteTSA{Name: "x"}, registry.ErrUnknown, ""},

		{&registry.TrustAnchor{Instance: "EE", Anchor: []byte("<x/>")}, registry.ErrInvalid, "partner's registry"},
		{&registry.TrustAnchor{Instance: "EE", Anchor: own}, registry.ErrInvalid, `of instance "DEV"`},
		{&registry.TrustAnchor{Instance: "DEV", Anchor: own}, registry.ErrInvalid, "own instance"},
		{&registry.DistrustAnchor{Instance: "EE"}, registry.ErrUnknown, ""},

		{&registry.AddKey{Source: "third", Certificate: auth.Raw}, registry.ErrUnknown, "internal or external"},
		{&registry.AddKey{Source: registry.Internal}, registry.ErrInvalid, "missing"},
		{&registry.ActivateKey{Source: registry.Internal}, registry.ErrUnknown, "no such key"},
		{&registry.RetireKey{Source: registry.Internal}, registry.ErrUnknown, "no such key"},

		{with(func(s *registry.System) { s.Address = "" }), registry.ErrInvalid, "address"},
		{with(func(s *registry.System) { s.Address = "x:y" }), registry.ErrInvalid, "port"},
		{with(func(s *registry.System) { s.ConfigurationValidity = 60 }), registry.ErrInvalid, "choose from 120"},
		{with(func(s *registry.System) { s.OCSPFreshness = 0 }), registry.ErrInvalid, ""},
		{with(func(s *registry.System) { s.TimestampingInterval = 0 }), registry.ErrInvalid, ""},
		{with(func(s *registry.System) { s.MinimumVersion = 7 }), registry.ErrInvalid, "choose from 2 to 6"},
		{with(func(s *registry.System) { s.OCSPFetchInterval = 59 }), registry.ErrInvalid, "60"},
		{with(func(s *registry.System) { s.ManagementAddress = "http://x/" }), registry.ErrInvalid, "https"},
		{with(func(s *registry.System) { s.ManagementCertificate = []byte("x") }), registry.ErrInvalid, ""},
		{with(func(s *registry.System) { s.ManagementProvider = clientID("DEV/GOV/1234/x") }), registry.ErrUnknown, "add it first"},
		{with(func(s *registry.System) { s.MonitoringClient = clientID("DEV/GOV/1234/x") }), registry.ErrUnknown, "add it first"},
	} {
		next, err := st.Try([]registry.Change{&registry.SetMemberClass{Code: "NEW", Description: "New"}, tc.change})
		var refusal *registry.Refusal
		if !errors.As(err, &refusal) || !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) || next != nil {
			t.Errorf("%T: %v, want %v with %q", tc.change, err, tc.kind, tc.text)
		}
	}
	if len(st.MemberClasses()) != 2 {
		t.Error("a refused set left something behind")
	}
}

// TestDeletingWhatIsNeeded takes a member's ties away one by one.
func TestDeletingWhatIsNeeded(t *testing.T) {
	t.Parallel()
	st := populated(t, newAuthority("Test CA"))
	gov, mgmt, register := memberID("DEV/GOV/1234"), clientID("DEV/GOV/1234/MANAGEMENT"), clientID("DEV/GOV/1234/register")
	step := func(want string, change, cure registry.Change) {
		t.Helper()
		if _, err := st.Try([]registry.Change{change}); !errors.Is(err, registry.ErrInUse) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
		next, err := st.Try([]registry.Change{cure})
		if err != nil {
			t.Fatal(err)
		}
		st = next
	}
	step("client of security server DEV/COM/99/SS1", &registry.DeleteSubsystem{Subsystem: register}, &registry.UnregisterClient{Server: serverID("DEV/COM/99/SS1"), Client: register})
	step("has subsystem", &registry.DeleteMember{Member: gov}, &registry.DeleteSubsystem{Subsystem: register})
	step("client of security server", &registry.DeleteSubsystem{Subsystem: mgmt}, &registry.UnregisterClient{Server: serverID("DEV/GOV/1234/SS0"), Client: mgmt})
	sys := st.System()
	sys.ManagementProvider = gov.Client()
	step("provides the management services", &registry.DeleteSubsystem{Subsystem: mgmt}, &registry.SetSystem{System: sys})
	step("has subsystem", &registry.DeleteMember{Member: gov}, &registry.DeleteSubsystem{Subsystem: mgmt})
	step("owns security server", &registry.DeleteMember{Member: gov}, &registry.DeleteServer{Server: serverID("DEV/GOV/1234/SS0")})
	step("in global group friends", &registry.DeleteMember{Member: gov}, &registry.RemoveGroupMember{Group: "friends", Client: gov.Client()})
	sys.ManagementProvider, sys.MonitoringClient = id.Client{}, gov.Client()
	step("provides the management services", &registry.DeleteMember{Member: gov}, &registry.SetSystem{System: sys})
	sys.MonitoringClient = id.Client{}
	step("monitoring client", &registry.DeleteMember{Member: gov}, &registry.SetSystem{System: sys})
	if _, err := st.Try([]registry.Change{&registry.DeleteMember{Member: gov}, &registry.DeleteMemberClass{Code: "GOV"}}); err != nil {
		t.Error(err)
	}
}

func TestStateIsImmutable(t *testing.T) {
	t.Parallel()
	ca := newAuthority("Test CA")
	auth := ca.auth("ss0")
	st := populated(t, ca, auth)
	before := describe(t, st)
	ss0 := serverID("DEV/GOV/1234/SS0")
	next, err := st.Try([]registry.Change{
		&registry.SetMemberClass{Code: "GOV", Description: "x"},
		&registry.RenameMember{Member: memberID("DEV/GOV/1234"), Name: "x"},
		&registry.RenameSubsystem{Subsystem: clientID("DEV/GOV/1234/register"), Name: "x"},
		&registry.AddSubsystem{Subsystem: clientID("DEV/GOV/1234/new")},
		&registry.SetServerAddress{Server: ss0, Address: "x"},
		&registry.SetMaintenance{Server: ss0, On: true},
		&registry.EnableClient{Server: ss0, Client: clientID("DEV/COM/99/monitor")},
		&registry.UnregisterCertificate{Server: ss0, Certificate: registry.Hash(pki.HashOf(auth))},
		&registry.RegisterCertificate{Server: serverID("DEV/COM/99/SS1"), Certificate: auth.Raw},
		&registry.SetGroup{Code: "friends", Description: "x"},
		&registry.AddGroupMember{Group: "friends", Client: clientID("DEV/GOV/1234/new")},
		&registry.DeleteCA{Name: "Test CA"}, &registry.DeleteTSA{Name: "Test TSA"},
		&registry.DeleteServer{Server: ss0},
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := describe(t, st); after != before {
		t.Errorf("the old state changed from\n%s\nto\n%s", before, after)
	}
	if describe(t, next) == before {
		t.Error("the new state is the old one")
	}
	// What accessors return is the caller's.
	st.Members()[0].Subsystems[0].Name = "mine"
	st.Servers()[0].Clients[0].Enabled = false
	st.Groups()[0].Members[0] = id.Client{}
	if after := describe(t, st); after != before {
		t.Error("the state can be changed from outside")
	}
}

func TestKeysOfSources(t *testing.T) {
	t.Parallel()
	a, b := newAuthority("a").cert.Raw, newAuthority("b").cert.Raw
	st := populated(t, newAuthority("Test CA"))
	hash := func(der []byte) registry.Hash { return registry.SourceKey{Certificate: der}.Hash() }
	st, err := st.Try([]registry.Change{
		&registry.AddKey{Source: registry.Internal, Certificate: a}, &registry.ActivateKey{Source: registry.Internal, Key: hash(a)},
		&registry.AddKey{Source: registry.Internal, Certificate: b}, &registry.ActivateKey{Source: registry.Internal, Key: hash(b)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys := st.Keys(registry.Internal); len(keys) != 2 || keys[0].Active || !keys[1].Active {
		t.Errorf("keys %v", keys)
	}
	if _, err := st.Try([]registry.Change{&registry.AddKey{Source: registry.Internal, Certificate: a}}); !errors.Is(err, registry.ErrExists) {
		t.Error(err)
	}
	if _, err := st.Try([]registry.Change{&registry.RetireKey{Source: registry.Internal, Key: hash(b)}}); !errors.Is(err, registry.ErrInUse) {
		t.Error(err)
	}
	next, err := st.Try([]registry.Change{&registry.RetireKey{Source: registry.Internal, Key: hash(a)}})
	if err != nil || len(next.Keys(registry.Internal)) != 1 || len(st.Keys(registry.Internal)) != 2 {
		t.Errorf("after retirement: %v", err)
	}
	var many []registry.Change
	for range 10 {
		many = append(many, &registry.AddKey{Source: registry.External, Certificate: newAuthority("x").cert.Raw})
	}
	full, err := next.Try(many)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Try(many[:1:1]); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("an eleventh key: %v", err)
	}
}

func TestAnchorAddresses(t *testing.T) {
	t.Parallel()
	cert := newAuthority("key").cert.Raw
	for address, want := range map[string][]string{
		"registry.example":      {"http://registry.example/internalconf", "https://registry.example/internalconf"},
		"registry.example:8080": {"http://registry.example:8080/internalconf"},
		"192.0.2.1":             {"http://192.0.2.1/internalconf", "https://192.0.2.1/internalconf"},
		"2001:db8::1":           {"http://[2001:db8::1]/internalconf", "https://[2001:db8::1]/internalconf"},
		"[2001:db8::1]:8080":    {"http://[2001:db8::1]:8080/internalconf"},
	} {
		sys := system()
		sys.Address = address
		st, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: sys}, &registry.AddKey{Source: registry.Internal, Certificate: cert})
		if err != nil {
			t.Fatal(err)
		}
		doc, err := st.Anchor(registry.Internal)
		if err != nil {
			t.Fatal(err)
		}
		anchor, err := globalconf.ParseAnchor(doc)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range anchor.Sources {
			got = append(got, s.URL)
		}
		if !slices.Equal(got, want) || anchor.Instance != "DEV" || len(anchor.Certificates()) != 1 {
			t.Errorf("%s: %v", address, got)
		}
	}
	if _, err := populated(t, newAuthority("Test CA")).Anchor("third"); err == nil {
		t.Error("anchor of an unknown source")
	}
}
