// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
)

var (
	pin    = []byte("1234")
	author = registry.Author{Who: "test", Why: "because", Request: "ticket 7"}
	start  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// clock is a time that only the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// created holds one registry that tests copy: making keys unreadable is slow
// on purpose.
var created = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-registry-")
	if err != nil {
		return "", err
	}
	template = dir
	err = registry.Create(dir, pin, registry.CreateConfig{
		Instance: "DEV", Address: "127.0.0.1:8001", Algorithm: pki.P256, By: author, Now: func() time.Time { return start.Add(-time.Hour) },
	})
	if err != nil {
		return dir, err
	}
	return dir, cheapen(filepath.Join(dir, "keys"))
})

// cheapen lets openssl, if there is one, encrypt the keys anew with fewer
// iterations, so that opening the copies is fast.
func cheapen(dir string) error {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return nil
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key.pem"))
	if err != nil {
		return err
	}
	for _, key := range keys {
		out, err := exec.Command(openssl, "pkcs8", "-topk8", "-iter", "1000", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256",
			"-in", key, "-out", key+".new", "-passin", "pass:"+string(pin), "-passout", "pass:"+string(pin)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("openssl: %w: %s", err, out)
		}
		if err := errors.Join(os.Rename(key+".new", key), os.Chmod(key, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// template is the directory that created made, if it did.
var template string

func TestMain(m *testing.M) {
	if dsn := os.Getenv(nodeProcess); dsn != "" {
		os.Exit(runNode(dsn))
	}
	code := m.Run()
	if template != "" {
		os.RemoveAll(template)
	}
	os.Exit(code)
}

func newDir(t testing.TB) string {
	t.Helper()
	source, err := created()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "registry")
	err = filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(source, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o700)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string, cfg registry.Config) *registry.Registry {
	t.Helper()
	r, err := registry.Open(dir, pin, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func memberID(s string) id.Member         { return must(id.ParseMember(s)) }
func clientID(s string) id.Client         { return must(id.ParseClient(s)) }
func serverID(s string) id.SecurityServer { return must(id.ParseSecurityServer(s)) }

// authority is a certification authority of the test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &authority{must(x509.ParseCertificate(der)), key}
}

func (a *authority) issue(cn string, usage x509.KeyUsage) *x509.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))), Subject: pkix.Name{CommonName: cn},
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0), KeyUsage: usage, BasicConstraintsValid: true,
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))))
}

func (a *authority) auth(cn string) *x509.Certificate {
	return a.issue(cn, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment)
}

func (a *authority) sign(cn string) *x509.Certificate {
	return a.issue(cn, x509.KeyUsageContentCommitment)
}

const fivrk = "ee.ria.xroad.common.certificateprofile.impl.FiVRKCertificateProfileInfoProvider"

// ecosystem declares a little of everything.
func ecosystem(ca *authority, auth ...*x509.Certificate) *registry.Ecosystem {
	provider := clientID("DEV/GOV/1234/MANAGEMENT")
	monitor := clientID("DEV/COM/99/monitor")
	fetch := 600
	eco := &registry.Ecosystem{
		Instance:      "DEV",
		Settings:      &registry.Settings{ManagementProvider: &provider, MonitoringClient: &monitor, OCSPFetchInterval: &fetch},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}, {Code: "COM", Description: "Commerce"}},
		Members: []registry.MemberDecl{
			{Class: "GOV", Code: "1234", Name: "Board & <Co>", Subsystems: []registry.SubsystemDecl{{Code: "MANAGEMENT", Name: "Management"}, {Code: "register"}}},
			{Class: "COM", Code: "99", Name: "Åland Trade", Subsystems: []registry.SubsystemDecl{{Code: "monitor"}}},
		},
		SecurityServers: []registry.ServerDecl{
			{ID: serverID("DEV/GOV/1234/SS0"), Address: "ss0.example", Certificates: []registry.Certificate{}, Clients: []id.Client{provider, clientID("DEV/COM/99/monitor")}},
			{ID: serverID("DEV/COM/99/SS1"), Address: "127.0.0.11", Clients: []id.Client{clientID("DEV/GOV/1234/register")}, Maintenance: &registry.MaintenanceDecl{Message: "moving house"}},
		},
		GlobalGroups: []registry.GroupDecl{{Code: "friends", Description: "Friends", Members: []id.Client{monitor, memberID("DEV/GOV/1234").Client()}}},
		CertificationServices: []registry.CADecl{{
			Name: "Test CA", Profile: "FiVRK", Certificate: registry.CertificateOf(ca.cert),
			OCSP: []registry.ResponderDecl{{URL: "http://ca.example:8888", Certificate: registry.CertificateOf(ca.sign("ocsp")), Cost: "FREE"}},
		}},
		TimestampingAuthorities: []registry.TSADecl{{Name: "Test TSA", URL: "http://ca.example:8899", Certificate: registry.CertificateOf(ca.sign("tsa"))}},
	}
	for _, cert := range auth {
		eco.SecurityServers[0].Certificates = append(eco.SecurityServers[0].Certificates, registry.CertificateOf(cert))
	}
	return eco
}

// fill makes the declaration true.
func fill(t testing.TB, r *registry.Registry, eco *registry.Ecosystem) {
	t.Helper()
	changes, err := registry.Plan(r.State(), eco)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), author, changes); err != nil {
		t.Fatal(err)
	}
	if again, err := registry.Plan(r.State(), eco); err != nil || len(again) > 0 {
		t.Fatalf("a second time: %v, %v", again, err)
	}
}

func texts(changes []registry.Change) []string {
	var all []string
	for _, c := range changes {
		all = append(all, c.String())
	}
	return slices.Clip(all)
}

// describe says all that a state holds.
func describe(t testing.TB, st *registry.State) string {
	t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	for _, part := range []any{
		st.Instance(), st.System(), st.MemberClasses(), st.Members(), st.Groups(), st.CAs(), st.TSAs(), st.TrustedAnchors(),
		st.Keys(registry.Internal), st.Keys(registry.External),
	} {
		if err := enc.Encode(part); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range st.Servers() {
		fmt.Fprintf(&b, "%s %s %v %+v", s.ID, s.Address, s.Maintenance, s.Clients)
		for _, c := range s.Certificates {
			fmt.Fprintf(&b, " %s", pki.HashOf(c))
		}
		b.WriteString("\n")
	}
	return b.String()
}
