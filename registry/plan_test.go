// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func TestPlanOfEmptyRegistry(t *testing.T) {
	t.Parallel()
	ca := newAuthority("Test CA")
	st, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := registry.Plan(st, ecosystem(ca))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"set member class GOV (Government)",
		"set member class COM (Commerce)",
		"add member DEV/GOV/1234 (Board & <Co>)",
		"add subsystem DEV/GOV/1234/MANAGEMENT (Management)",
		"add subsystem DEV/GOV/1234/register ()",
		"add member DEV/COM/99 (Åland Trade)",
		"add subsystem DEV/COM/99/monitor ()",
		"set global group friends (Friends)",
		"add DEV/COM/99/monitor to global group friends",
		"add DEV/GOV/1234 to global group friends",
		"approve certification service Test CA",
		"approve time-stamping authority Test TSA",
		"add security server DEV/GOV/1234/SS0 at ss0.example",
		"register client DEV/GOV/1234/MANAGEMENT at security server DEV/GOV/1234/SS0",
		"register client DEV/COM/99/monitor at security server DEV/GOV/1234/SS0",
		"add security server DEV/COM/99/SS1 at 127.0.0.11",
		"put security server DEV/COM/99/SS1 into maintenance (moving house)",
		"register client DEV/GOV/1234/register at security server DEV/COM/99/SS1",
		"set system parameters",
	}
	if got := texts(changes); !slices.Equal(got, want) {
		t.Errorf("plan\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(st.Members()) != 0 {
		t.Error("Plan changed the state")
	}
}

func TestWhatIsAbsentStays(t *testing.T) {
	t.Parallel()
	ca := newAuthority("Test CA")
	auth := ca.auth("ss0")
	st := populated(t, ca, auth)
	same := func(eco *registry.Ecosystem) {
		t.Helper()
		if changes, err := registry.Plan(st, eco); err != nil || len(changes) > 0 {
			t.Errorf("%v, %v", texts(changes), err)
		}
	}
	same(&registry.Ecosystem{Instance: "DEV"})
	eco := ecosystem(ca, auth)
	eco.CertificationServices = nil // made anew by ecosystem, with other responder keys
	eco.TimestampingAuthorities = nil
	same(eco)
	for i := range eco.Members {
		eco.Members[i].Subsystems = nil
	}
	for i := range eco.SecurityServers {
		eco.SecurityServers[i].Clients, eco.SecurityServers[i].Certificates = nil, nil
	}
	eco.GlobalGroups[0].Members = nil
	eco.Settings = &registry.Settings{}
	same(eco)

	// An empty list removes everything, in an order that is acceptable.
	none := &registry.Ecosystem{
		Instance: "DEV", Settings: &registry.Settings{ManagementProvider: new(id.Client), MonitoringClient: new(id.Client)},
		MemberClasses: []registry.ClassDecl{}, Members: []registry.MemberDecl{}, SecurityServers: []registry.ServerDecl{},
		GlobalGroups: []registry.GroupDecl{}, CertificationServices: []registry.CADecl{}, TimestampingAuthorities: []registry.TSADecl{},
		TrustedAnchors: []registry.File{},
	}
	changes, err := registry.Plan(st, none)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := st.Try(changes)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(empty.MemberClasses()) + len(empty.Members()) + len(empty.Servers()) + len(empty.CAs()) + len(empty.TSAs()); n > 0 || len(empty.Groups()) != 1 {
		t.Errorf("left: %s", describe(t, empty))
	}
}

func TestContradictionsInDeclaration(t *testing.T) {
	t.Parallel()
	ca := newAuthority("Test CA")
	auth := ca.auth("x")
	st := populated(t, ca)
	for name, change := range map[string]func(*registry.Ecosystem){
		`for instance "EE"`: func(e *registry.Ecosystem) { e.Instance = "EE" },
		"member class GOV":  func(e *registry.Ecosystem) { e.MemberClasses = append(e.MemberClasses, e.MemberClasses[0]) },
		"member DEV/GOV/1234 occurs twice": func(e *registry.Ecosystem) {
			e.Members = append(e.Members, registry.MemberDecl{Class: "GOV", Code: "1234", Name: "x"})
		},
		`member "" of class "GOV"`: func(e *registry.Ecosystem) { e.Members[0].Code = "" },
		"subsystem of DEV/GOV/1234 MANAGEMENT": func(e *registry.Ecosystem) {
			e.Members[0].Subsystems = append(e.Members[0].Subsystems, e.Members[0].Subsystems[0])
		},
		`subsystem "" of DEV/GOV/1234`: func(e *registry.Ecosystem) { e.Members[0].Subsystems[0].Code = "" },
		"security server DEV/GOV/1234/SS0": func(e *registry.Ecosystem) {
			e.SecurityServers = append(e.SecurityServers, e.SecurityServers[0])
		},
		"client of DEV/GOV/1234/SS0": func(e *registry.Ecosystem) {
			e.SecurityServers[0].Clients = append(e.SecurityServers[0].Clients, e.SecurityServers[0].Clients[0])
		},
		"certificate of DEV/GOV/1234/SS0": func(e *registry.Ecosystem) {
			e.SecurityServers[0].Certificates = []registry.Certificate{registry.CertificateOf(auth), registry.CertificateOf(auth)}
		},
		"global group friends": func(e *registry.Ecosystem) { e.GlobalGroups = append(e.GlobalGroups, e.GlobalGroups[0]) },
		"in global group friends": func(e *registry.Ecosystem) {
			e.GlobalGroups[0].Members = append(e.GlobalGroups[0].Members, e.GlobalGroups[0].Members[0])
		},
		"certification service": func(e *registry.Ecosystem) {
			e.CertificationServices = append(e.CertificationServices, e.CertificationServices[0])
		},
		"time-stamping authority": func(e *registry.Ecosystem) {
			e.TimestampingAuthorities = append(e.TimestampingAuthorities, e.TimestampingAuthorities[0])
		},
		"trusted anchor": func(e *registry.Ecosystem) { e.TrustedAnchors = []registry.File{registry.FileOf([]byte("x"))} },
	} {
		eco := ecosystem(ca)
		change(eco)
		if changes, err := registry.Plan(st, eco); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, texts(changes), err)
		}
	}
}

// pool is what random ecosystems are made of: keys are too slow to make anew.
var pool = sync.OnceValue(func() (p struct {
	cas     []*authority
	auth    [][]registry.Certificate // by authority
	anchors []registry.File
}) {
	for i := range 3 {
		ca := newAuthority(fmt.Sprint("CA", i))
		p.cas = append(p.cas, ca)
		var certs []registry.Certificate
		for j := range 3 {
			certs = append(certs, registry.CertificateOf(ca.auth(fmt.Sprint(i, j))))
		}
		p.auth = append(p.auth, certs)
		for _, instance := range []string{"EE", "FI"} {
			a := globalconf.Anchor{Generated: start, Instance: instance, Sources: []globalconf.AnchorSource{{URL: "http://x/externalconf", Certs: [][]byte{ca.cert.Raw}}}}
			p.anchors = append(p.anchors, registry.FileOf(must(a.Marshal())))
		}
	}
	return p
})

// randomEcosystem draws a complete and consistent declaration of few names, so
// that two of them have much in common.
func randomEcosystem(t *rapid.T) *registry.Ecosystem {
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	some := func(what string) bool { return rapid.Bool().Draw(t, what) }
	eco := &registry.Ecosystem{
		Instance: "DEV", MemberClasses: []registry.ClassDecl{}, Members: []registry.MemberDecl{}, SecurityServers: []registry.ServerDecl{},
		GlobalGroups: []registry.GroupDecl{}, CertificationServices: []registry.CADecl{}, TimestampingAuthorities: []registry.TSADecl{},
		TrustedAnchors: []registry.File{},
		Settings:       &registry.Settings{ManagementProvider: new(id.Client), MonitoringClient: new(id.Client)},
	}
	p := pool()
	certs := rapid.Permutation([]int{0, 1, 2}).Draw(t, "authorities")
	var approved []int
	for i, n := range []string{"X", "Y", "Z"} {
		if !some("service " + n) {
			continue
		}
		approved = append(approved, certs[i])
		eco.CertificationServices = append(eco.CertificationServices, registry.CADecl{
			Name: n, Profile: rapid.SampledFrom([]string{"FiVRK", "Ejbca"}).Draw(t, "profile"), Certificate: registry.CertificateOf(p.cas[certs[i]].cert),
			AuthenticationOnly: some("authentication only"),
		})
	}
	free := map[int][]registry.Certificate{}
	for _, i := range approved {
		free[i] = slices.Clone(p.auth[i])
	}
	var clients []id.Client
	var members []id.Member
	for _, class := range []string{"A", "B"} {
		if !some("class " + class) {
			continue
		}
		eco.MemberClasses = append(eco.MemberClasses, registry.ClassDecl{Code: class, Description: name.Draw(t, "description")})
		for _, code := range []string{"1", "2"} {
			if !some("member " + code) {
				continue
			}
			m := must(id.NewMember("DEV", class, code))
			members, clients = append(members, m), append(clients, m.Client())
			decl := registry.MemberDecl{Class: class, Code: code, Name: name.Draw(t, "name"), Subsystems: []registry.SubsystemDecl{}}
			for _, sub := range []string{"s", "t"} {
				if some("subsystem " + sub) {
					decl.Subsystems = append(decl.Subsystems, registry.SubsystemDecl{Code: sub, Name: name.Draw(t, "name")})
					clients = append(clients, must(id.NewClient(m, sub)))
				}
			}
			eco.Members = append(eco.Members, decl)
		}
	}
	subset := func(what string, except id.Client) []id.Client {
		list := []id.Client{}
		for _, c := range clients {
			if c != except && some(what) {
				list = append(list, c)
			}
		}
		return list
	}
	for _, m := range members {
		for _, code := range []string{"S", "T"} {
			if !some("server " + code) {
				continue
			}
			decl := registry.ServerDecl{ID: must(id.NewSecurityServer(m, code)), Address: name.Draw(t, "address"), Clients: subset("client", m.Client()), Certificates: []registry.Certificate{}}
			if some("maintenance") {
				decl.Maintenance = &registry.MaintenanceDecl{Message: name.Draw(t, "message")}
			}
			for _, i := range approved {
				if len(free[i]) > 0 && some("certificate") {
					decl.Certificates, free[i] = append(decl.Certificates, free[i][0]), free[i][1:]
				}
			}
			eco.SecurityServers = append(eco.SecurityServers, decl)
		}
	}
	for _, code := range []string{"g", "h"} {
		if some("group " + code) {
			eco.GlobalGroups = append(eco.GlobalGroups, registry.GroupDecl{Code: code, Description: name.Draw(t, "description"), Members: subset("in group", id.Client{})})
		}
	}
	for _, n := range []string{"P", "Q"} {
		if some("stamping " + n) {
			eco.TimestampingAuthorities = append(eco.TimestampingAuthorities, registry.TSADecl{Name: n, URL: "http://" + name.Draw(t, "url"), Certificate: registry.CertificateOf(p.cas[0].cert)})
		}
	}
	for i := range 2 {
		if some("anchor") {
			eco.TrustedAnchors = append(eco.TrustedAnchors, p.anchors[i+2*rapid.IntRange(0, 2).Draw(t, "key")])
		}
	}
	if len(clients) > 0 {
		for _, to := range []*id.Client{eco.Settings.ManagementProvider, eco.Settings.MonitoringClient} {
			if some("named") {
				*to = rapid.SampledFrom(clients).Draw(t, "client")
			}
		}
	}
	return eco
}

// TestPlanIsExactAndIdempotent goes from one random ecosystem to another: each
// plan is acceptable, leads to what was declared, and then nothing is left to do.
func TestPlanIsExactAndIdempotent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		st, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			eco := randomEcosystem(t)
			changes, err := registry.Plan(st, eco)
			if err != nil {
				t.Fatal(err)
			}
			next, err := st.Try(changes)
			if err != nil {
				t.Fatalf("%v in\n%s", err, strings.Join(texts(changes), "\n"))
			}
			again, err := registry.Plan(next, eco)
			if err != nil || len(again) > 0 {
				t.Fatalf("a second time: %v, %v", texts(again), err)
			}
			direct, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
			if err != nil {
				t.Fatal(err)
			}
			all, err := registry.Plan(direct, eco)
			if err != nil {
				t.Fatal(err)
			}
			if direct, err = direct.Try(all); err != nil {
				t.Fatal(err)
			}
			if got, want := content(next), content(direct); got != want {
				t.Fatalf("by steps\n%s\nat once\n%s", got, want)
			}
			st = next
		}
	})
}

// content is describe for rapid, which is no testing.TB.
func content(st *registry.State) string {
	b := fmt.Sprintf("%+v\n%+v\n%+v\n%+v\n%+v\n%+v\n", st.System(), st.MemberClasses(), st.Members(), st.Groups(), st.TSAs(), st.TrustedAnchors())
	for _, ca := range st.CAs() {
		b += fmt.Sprintf("%+v\n", ca)
	}
	for _, s := range st.Servers() {
		b += fmt.Sprintf("%s %s %+v %+v", s.ID, s.Address, s.Maintenance != nil, s.Clients)
		if s.Maintenance != nil {
			b += s.Maintenance.Message
		}
		for _, c := range s.Certificates {
			b += fmt.Sprintf(" %x", c.Raw[:40]) + c.Subject.CommonName
		}
		b += "\n"
	}
	return b
}

const declaration = `
instance: DEV
settings:
  address: registry.example
  managementProvider: DEV/GOV/0123/MANAGEMENT
  timestampingInterval: 30
memberClasses:
  - {code: GOV, description: Government}
members:
  - class: GOV
    code: 0123
    name: Board
    subsystems:
      - code: MANAGEMENT
securityServers:
  - id: DEV/GOV/0123/SS0
    address: ss0.example
    certificates: [certs/auth.pem]
    clients: [DEV/GOV/0123/MANAGEMENT]
    maintenance: {message: soon back}
globalGroups: []
certificationServices:
  - name: Test CA
    profile: FiVRK
    certificate: |
%s
    ocsp:
      - {url: "http://ca.example:8888", certificate: certs/auth.der, cost: FREE}
    acme: {directoryURL: "https://ca.example/acme"}
    csrFormat: DER
timestampingAuthorities:
  - {name: TSA, url: "http://ca.example:8899", certificate: certs/auth.pem}
trustedAnchors: [partner.xml]
`

func writeDeclaration(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	ca := newAuthority("Test CA")
	auth := ca.auth("ss0")
	encode := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	anchor := globalconf.Anchor{Generated: start, Instance: "EE", Sources: []globalconf.AnchorSource{{URL: "http://x/externalconf", Certs: [][]byte{ca.cert.Raw}}}}
	indented := "      " + strings.ReplaceAll(strings.TrimSpace(string(encode(ca.cert.Raw))), "\n", "\n      ")
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "certs"), 0o700),
		os.WriteFile(filepath.Join(dir, "certs", "auth.pem"), encode(auth.Raw), 0o600),
		os.WriteFile(filepath.Join(dir, "certs", "auth.der"), auth.Raw, 0o600),
		os.WriteFile(filepath.Join(dir, "partner.xml"), must(anchor.Marshal()), 0o600),
		os.WriteFile(filepath.Join(dir, "ecosystem.yaml"), []byte(strings.Replace(text, "%s", indented, 1)), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "ecosystem.yaml")
}

func TestDeclarationFile(t *testing.T) {
	t.Parallel()
	eco, err := registry.LoadEcosystem(writeDeclaration(t, declaration))
	if err != nil {
		t.Fatal(err)
	}
	if eco.GlobalGroups == nil || eco.MemberClasses == nil || eco.SecurityServers[0].Clients == nil {
		t.Error("an empty list is not an absent one")
	}
	st, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := registry.Plan(st, eco)
	if err != nil {
		t.Fatal(err)
	}
	if st, err = st.Try(changes); err != nil {
		t.Fatal(err)
	}
	srv, ok := st.Server(serverID("DEV/GOV/0123/SS0"))
	if !ok || srv.Maintenance.Message != "soon back" || len(srv.Certificates) != 1 || !srv.Clients[0].Enabled {
		t.Errorf("server %+v", srv)
	}
	ca := st.CAs()[0]
	if ca.Profile != fivrk || ca.Top.Responders[0].Cost != "FREE" || len(ca.Top.Responders[0].Certificate) == 0 || ca.ACME == nil {
		t.Errorf("service %+v", ca)
	}
	if sys := st.System(); sys.TimestampingInterval != 30 || sys.OCSPFreshness != 3600 || sys.ManagementProvider != clientID("DEV/GOV/0123/MANAGEMENT") {
		t.Errorf("system %+v", sys)
	}
	if again, err := registry.Plan(st, eco); err != nil || len(again) > 0 {
		t.Errorf("a second time: %v, %v", texts(again), err)
	}
}

func TestBadDeclarationFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":     {"instance: DEV\nmembrs: []", "line 2: field membrs not found"},
		"duplicate key":   {"instance: DEV\ninstance: DEV", "already defined"},
		"empty":           {"", "at least name its instance"},
		"no instance":     {"members: []", "does not name its instance"},
		"two documents":   {"instance: DEV\n---\ninstance: DEV", "single YAML document"},
		"not YAML":        {"\t{", "yaml"},
		"bad identifier":  {"instance: DEV\nsecurityServers: [{id: DEV/GOV}]", "malformed identifier"},
		"missing file":    {"instance: DEV\ntimestampingAuthorities: [{certificate: x.pem}]", "no such file"},
		"not PEM":         {"instance: DEV\ntimestampingAuthorities: [{certificate: partner.xml}]", "not a certificate"},
		"broken PEM":      {"instance: DEV\ntimestampingAuthorities: [{certificate: '-----BEGIN CERTIFICATE-----'}]", "line 2"},
		"key as PEM":      {"instance: DEV\nsettings:\n  managementCertificate: |\n    -----BEGIN X-----\n    AAAA\n    -----END X-----", "not exactly one certificate"},
		"missing anchor":  {"instance: DEV\ntrustedAnchors: [x.xml]", "trusted anchor"},
		"list for a name": {"instance: DEV\ntimestampingAuthorities: [{certificate: [x]}]", "cannot unmarshal"},
	} {
		if eco, err := registry.LoadEcosystem(writeDeclaration(t, tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v; want %q", name, eco, err, tc.want)
		}
	}
	if _, err := registry.LoadEcosystem(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzParseEcosystem(f *testing.F) {
	f.Add([]byte(declaration))
	f.Add([]byte("instance: DEV\nmembers: [{class: A, code: 1, name: x, subsystems: [{code: s}]}]"))
	f.Add([]byte("instance: &a DEV\nmembers: [*a]"))
	st := must(registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()}))
	f.Fuzz(func(t *testing.T, doc []byte) {
		eco, err := registry.ParseEcosystem(doc, func(string) ([]byte, error) { return nil, os.ErrNotExist })
		if err != nil {
			return
		}
		changes, err := registry.Plan(st, eco)
		if err != nil {
			return
		}
		next, err := st.Try(changes)
		if err != nil {
			return
		}
		if again, err := registry.Plan(next, eco); err != nil || len(again) > 0 {
			t.Fatalf("not idempotent: %v, %v", texts(again), err)
		}
	})
}
