// SPDX-License-Identifier: Apache-2.0

package published_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
	"kontor/registry/mirror"
)

var pin = []byte("4711")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := must(io.ReadAll(resp.Body))
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	return b
}

// identity is a certificate, good enough to be listed, with its key.
type identity struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate; without an issuer it is an authority's.
func issue(name string, issuer *identity) *identity {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: issuer == nil,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature}
	if issuer == nil {
		template.KeyUsage = x509.KeyUsageCertSign
		issuer = &identity{template, key}
	} else {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return &identity{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, issuer.Certificate, key.Public(), issuer.key)))), key}
}

func listedAs(i *identity) registry.Certificate { return registry.CertificateOf(i.Certificate) }

func client(s string) id.Client { return must(id.ParseClient(s)) }

// ecosystem uses everything that can be published.
func ecosystem(ca, auth *identity) *registry.Ecosystem {
	provider, interval, ignore := client("DEV/GOV/1/management"), 300, true
	ocsp := []registry.ResponderDecl{{URL: "http://ca.example/ocsp?a=1&b=2", Certificate: listedAs(issue("OCSP", ca)), Cost: "PAID"},
		{URL: "http://ca.example/second"}}
	return &registry.Ecosystem{
		Instance:      "DEV",
		Settings:      &registry.Settings{ManagementProvider: &provider, MonitoringClient: &provider, OCSPFetchInterval: &interval, IgnoreOCSPNextUpdate: &ignore},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government & <others>"}, {Code: "COM", Description: "Companies"}},
		Members: []registry.MemberDecl{
			{Class: "GOV", Code: "1", Name: "Behörde \"Eins\"", Subsystems: []registry.SubsystemDecl{{Code: "management", Name: "Verwaltung"}, {Code: "plain"}}},
			{Class: "COM", Code: "2", Name: "Firma", Subsystems: []registry.SubsystemDecl{{Code: "a"}, {Code: "b", Name: "B"}}}},
		SecurityServers: []registry.ServerDecl{
			{ID: must(id.ParseSecurityServer("DEV/GOV/1/ss1")), Address: "ss1.example", Certificates: []registry.Certificate{listedAs(auth)},
				Clients: []id.Client{client("DEV/GOV/1/management"), client("DEV/COM/2/a")}},
			{ID: must(id.ParseSecurityServer("DEV/COM/2/ss2")), Address: "2001:db8::1", Clients: []id.Client{client("DEV/COM/2/b")},
				Maintenance: &registry.MaintenanceDecl{Message: "back at <noon>"}}},
		GlobalGroups: []registry.GroupDecl{{Code: "friends", Description: "Friends", Members: []id.Client{client("DEV/COM/2"), client("DEV/GOV/1/plain")}}},
		CertificationServices: []registry.CADecl{{Name: "CA", Profile: "FiVRK", Certificate: listedAs(ca), OCSP: ocsp, CSRFormat: "DER",
			Intermediates: []registry.IntermediateDecl{{Certificate: listedAs(issue("Sub CA", nil)), OCSP: ocsp}},
			ACME:          &registry.ACMEDecl{DirectoryURL: "https://ca.example/acme", IPAddress: "192.0.2.1", AuthenticationProfile: "5", SigningProfile: "6"}},
			{Name: "TLS only", Profile: "Ejbca", AuthenticationOnly: true, Certificate: listedAs(issue("TLS CA", nil))}},
		TimestampingAuthorities: []registry.TSADecl{{Name: "TSA", URL: "http://tsa.example", Certificate: listedAs(issue("TSA", ca)), Cost: "FREE"}},
	}
}

// What a registry publishes, with RSA keys and with P-256, and what a mirror
// makes of it, is what X-Road's documents demand.
func TestPublished(t *testing.T) {
	ca := issue("CA", nil)
	auth := issue("ss1", ca)
	for _, alg := range []pki.Algorithm{pki.P256, pki.RSA2048} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			var handler http.Handler
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
			defer front.Close()
			dir := t.TempDir()
			err := registry.Create(filepath.Join(dir, "registry"), pin, registry.CreateConfig{Instance: "DEV", Address: front.Listener.Addr().String(), Algorithm: alg,
				By: registry.Author{Who: "test"}})
			if err != nil {
				t.Fatal(err)
			}
			r, err := registry.Open(filepath.Join(dir, "registry"), pin, registry.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			handler = r.Handler()
			external := must(r.ExternalAnchor())
			partner := bytes.ReplaceAll(external, []byte("DEV"), []byte("PARTNER"))
			changes, err := registry.Plan(r.State(), ecosystem(ca, auth))
			if err != nil {
				t.Fatal(err)
			}
			changes = append(changes, &registry.TrustAnchor{Instance: "PARTNER", Anchor: partner})
			if _, err := r.Apply(t.Context(), registry.Author{Who: "test"}, changes); err != nil {
				t.Fatal(err)
			}
			if err := r.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			for version := 2; version <= 6; version++ {
				w := walk{t, version, auth, ""}
				w.source(must(r.InternalAnchor()), true, false)
				w.source(external, false, false)
			}

			anchor := filepath.Join(dir, "anchor.xml")
			if err := os.WriteFile(anchor, must(r.InternalAnchor()), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := mirror.Create(filepath.Join(dir, "mirror"), pin, alg); err != nil {
				t.Fatal(err)
			}
			var mirrored http.Handler
			second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mirrored.ServeHTTP(w, r) }))
			defer second.Close()
			m, err := mirror.Open(filepath.Join(dir, "mirror"), pin, mirror.Config{AnchorFile: anchor, Address: second.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			mirrored = m.Handler()
			if err := m.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			for version := 2; version <= 6; version++ {
				walk{t, version, auth, second.Listener.Addr().String()}.source(m.Anchor(), true, true)
			}
		})
	}
}

// walk follows one version from an anchor.
type walk struct {
	t       *testing.T
	version int
	auth    *identity
	mirror  string // address of the mirror, if it is one
}

func (w walk) source(anchor []byte, internal, proxy bool) {
	t := w.t
	t.Helper()
	a, err := parse(anchor)
	if err == nil {
		err = validate(a, "configurationAnchor", "", w.version)
	}
	if err != nil {
		t.Fatalf("anchor: %v\n%s", err, anchor)
	}
	if len(a.all("generatedAt")) != 1 || a.all("instanceIdentifier")[0] != "DEV" || !strings.HasPrefix(a.all("source", "downloadURL")[0], "http://") {
		t.Errorf("anchor:\n%s", anchor)
	}
	base := a.all("source", "downloadURL")[0]
	var certs [][]byte
	for _, c := range a.all("source", "verificationCert") {
		certs = append(certs, must(base64.StdEncoding.DecodeString(c)))
	}
	doc := get(t, fmt.Sprintf("%s?version=%d", base, w.version))
	d, err := readDirectory(doc)
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	if err := d.verify(certs); err != nil {
		t.Fatalf("version %d: %v", w.version, err)
	}
	if left := time.Until(d.expires); d.version != w.version || left < time.Minute || left > 11*time.Minute {
		t.Errorf("version %d, expires in %s", d.version, left)
	}
	if bytes.Count(d.signed, []byte("\n")) != bytes.Count(d.signed, []byte("\r\n")) || !bytes.HasSuffix(d.signed, []byte("--\r\n")) {
		t.Errorf("line ends of the signed bytes: %q", d.signed)
	}
	form := `(?s)^Content-Type: multipart/related; charset=UTF-8; boundary=[A-Za-z0-9]{20}\r?\n\r?\n--[A-Za-z0-9]{20}\r\nContent-Type: multipart/mixed; charset=UTF-8; boundary=[A-Za-z0-9]{20}\r\n\r\n--`
	if !regexp.MustCompile(form).Match(doc) {
		t.Errorf("beginning of\n%s", doc)
	}
	var names []string
	for _, l := range d.parts {
		names = append(names, l.identifier)
		raw := get(t, must(l.resolve(base)))
		if sum := sha512.Sum512(raw); !bytes.Equal(sum[:], l.hash) {
			t.Errorf("version %d: hash of %s", w.version, l.location)
		}
		w.part(l, raw, proxy)
	}
	want := []string{"PRIVATE-PARAMETERS", "SHARED-PARAMETERS", "MONITORING", "FETCHINTERVAL", "NEXTUPDATE"}
	if !internal {
		want = want[1:2]
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("version %d: parts %q, want %q", w.version, names, want)
	}
}

func (w walk) part(l listed, raw []byte, proxy bool) {
	t := w.t
	t.Helper()
	n, err := parse(raw)
	if err == nil {
		err = validate(n, "conf", l.identifier, w.version)
	}
	if err != nil {
		t.Fatalf("version %d: %s: %v\n%s", w.version, l.identifier, err, raw)
	}
	location := fmt.Sprintf(`V%d/[0-9]{23}/[a-z-]+\.xml$`, w.version)
	if proxy {
		location = "mirror/[0-9]{13}/DEV/" + location
	}
	if !regexp.MustCompile("^/" + location).MatchString(l.location) {
		t.Errorf("location %s", l.location)
	}
	switch l.identifier {
	case "SHARED-PARAMETERS":
		if err := validateReferences(n, w.version); err != nil {
			t.Errorf("version %d: %v", w.version, err)
		}
		w.shared(n)
		fallthrough
	case "PRIVATE-PARAMETERS":
		if l.instance != "DEV" || n.all("instanceIdentifier")[0] != "DEV" {
			t.Errorf("%s of %q", l.identifier, l.instance)
		}
	}
}

// shared checks what versions say differently, and that nothing is lost.
func (w walk) shared(n *node) {
	t := w.t
	t.Helper()
	hash := sha256.New()
	if w.version == 2 {
		hash = sha1.New()
	}
	hash.Write(w.auth.Raw)
	if got := n.all("securityServer", "authCertHash"); len(got) != 1 || got[0] != base64.StdEncoding.EncodeToString(hash.Sum(nil)) {
		t.Errorf("version %d: certificate hashes %q", w.version, got)
	}
	count := func(want int, path ...string) {
		t.Helper()
		if got := len(n.all(path...)); got != want {
			t.Errorf("version %d: %d times %s, want %d", w.version, got, strings.Join(path, "/"), want)
		}
	}
	since := func(version, n int) int {
		if w.version < version {
			return 0
		}
		return n
	}
	count(2, "member")
	count(4, "member", "subsystem")
	count(since(5, 2), "member", "subsystem", "subsystemName")
	count(2, "securityServer")
	count(since(5, 1), "securityServer", "inMaintenanceMode")
	// A server in maintenance keeps its subsystems only where it can say so.
	count(2+since(5, 1), "securityServer", "client")
	count(2, "approvedCA")
	count(since(3, 1), "approvedCA", "acmeServer")
	count(since(4, 1), "approvedCA", "acmeServer", "signingCertificateProfileId")
	count(1, "approvedCA", "intermediateCA")
	count(since(6, 1), "approvedCA", "defaultCsrFormat")
	count(since(6, 1), "approvedTSA", "costType")
	count(since(3, 1), "source")
	count(2, "globalGroup") // and that of the servers' owners
	if got := n.all("member", "name"); !slices.Contains(got, `Behörde "Eins"`) {
		t.Errorf("names %q", got)
	}
	if w.mirror != "" && w.version >= 3 && n.all("source", "address")[0] != w.mirror {
		t.Errorf("source %q", n.all("source", "address"))
	}
}

// The reader reads what real central servers wrote; otherwise it would prove
// nothing.
func TestReaderReadsCentralServers(t *testing.T) {
	t.Parallel()
	root := "../../../shared/vectors/globalconf/central-server"
	if _, err := os.Stat(root); err != nil {
		t.Skip("no documents of central servers here: ", err)
	}
	for version := 3; version <= 6; version++ {
		for _, source := range []string{"internalconf", "externalconf"} {
			d, err := readDirectory(must(os.ReadFile(fmt.Sprintf("%s/V%d/%s", root, version, source))))
			if err != nil {
				t.Errorf("V%d/%s: %v", version, source, err)
				continue
			}
			if d.version != version {
				t.Errorf("V%d/%s: version %d", version, source, d.version)
			}
			var certs [][]byte
			if a, err := parse(must(os.ReadFile(root + "/../anchor-internal.xml"))); err != nil {
				t.Error(err)
			} else {
				for _, c := range a.all("source", "verificationCert") {
					certs = append(certs, must(base64.StdEncoding.DecodeString(c)))
				}
			}
			for _, l := range d.parts {
				raw := must(os.ReadFile(root + l.location))
				edited := version == 6 && source == "externalconf" // after it was signed
				if sum := sha512.Sum512(raw); bytes.Equal(sum[:], l.hash) == edited {
					t.Errorf("V%d/%s: hash of %s", version, source, l.location)
				}
				n, err := parse(raw)
				if err == nil {
					err = validateChildren(n, quirks(schemas[l.identifier]), version)
				}
				if err == nil && l.identifier == "SHARED-PARAMETERS" {
					err = validateReferences(n, version)
					for _, c := range slices.Concat(n.all("source", "internalVerificationCert"), n.all("source", "externalVerificationCert")) {
						certs = append(certs, must(base64.StdEncoding.DecodeString(c)))
					}
				}
				if err != nil {
					t.Errorf("V%d/%s: %s: %v", version, source, l.identifier, err)
				}
			}
			if err := d.verify(certs); err != nil {
				t.Errorf("V%d/%s: %v", version, source, err)
			}
			d.signed = append(d.signed, ' ')
			if d.verify(certs) == nil {
				t.Errorf("V%d/%s verifies after a change", version, source)
			}
		}
	}
}
