// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// start is when the tests' world begins.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

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

// identity is a signing key with its certificate.
type identity struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newIdentity(t testing.TB, key crypto.Signer, name string) identity {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0).AddDate(1, 0, 0), // long expired: nobody asks
		KeyUsage: x509.KeyUsageContentCommitment | x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	return identity{key, must(x509.ParseCertificate(der))(t)}
}

func newEC(t testing.TB, curve elliptic.Curve, name string) identity {
	return newIdentity(t, must(ecdsa.GenerateKey(curve, rand.Reader))(t), name)
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// centre is a central server.
type centre struct {
	t        testing.TB
	instance string
	clock    *clock
	keys     map[string]identity // by source: internalconf, externalconf
	shared   *globalconf.SharedParams
	private  *globalconf.PrivateParams
	extra    map[string][]byte // further parts of the internal source, by identifier
	versions []int
	validity time.Duration
	folder   string // "" for one named by the clock

	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte // by path with query
	requests []string
	// intercept may answer instead.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newCentre(t testing.TB, clock *clock, instance string) *centre {
	t.Helper()
	c := &centre{t: t, instance: instance, clock: clock, versions: []int{2, 3, 4, 5, 6}, validity: 10 * time.Minute,
		keys:  map[string]identity{"internalconf": newEC(t, elliptic.P256(), "internalSigningKey"), "externalconf": newEC(t, elliptic.P256(), "externalSigningKey")},
		files: map[string][]byte{}, extra: map[string][]byte{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	c.shared = c.params()
	c.private = &globalconf.PrivateParams{Instance: instance, RegistrationURL: "https://cs.example:4001/managementservice/",
		ManagementProvider: client(t, instance+"/GOV/1/management"), TimestampInterval: time.Minute}
	c.publish()
	return c
}

// params returns two members with two servers.
func (c *centre) params() *globalconf.SharedParams {
	gov, com := must(id.NewMember(c.instance, "GOV", "1"))(c.t), must(id.NewMember(c.instance, "COM", "2"))(c.t)
	sub := func(m id.Member, code string) globalconf.Subsystem {
		return globalconf.Subsystem{ID: must(id.NewClient(m, code))(c.t), Name: "Name of " + code}
	}
	server := func(m id.Member, code string, clients ...id.Client) globalconf.SecurityServer {
		return globalconf.SecurityServer{ID: must(id.NewSecurityServer(m, code))(c.t), Address: strings.ToLower(code) + ".example",
			AuthCerts: []globalconf.AuthCert{globalconf.NewAuthCert(newEC(c.t, elliptic.P256(), code).cert)}, Clients: clients}
	}
	ca, ocsp, tsa := newEC(c.t, elliptic.P256(), c.instance+" CA"), newEC(c.t, elliptic.P256(), "OCSP"), newEC(c.t, elliptic.P256(), "TSA")
	return &globalconf.SharedParams{
		Instance: c.instance,
		Sources:  []globalconf.Source{c.source()},
		CAs: []globalconf.ApprovedCA{{Name: "CA", Profile: "ee.ria.xroad.common.certificateprofile.impl.FiVRKCertificateProfileInfoProvider",
			Top: globalconf.CA{Cert: ca.cert.Raw, OCSP: []globalconf.OCSPResponder{{URL: "http://ocsp.example", Cert: ocsp.cert.Raw, CostType: "FREE"}}}}},
		TSAs: []globalconf.ApprovedTSA{{Name: "TSA", URL: "http://tsa.example", Cert: tsa.cert.Raw}},
		Members: []globalconf.Member{
			{ID: com, ClassDescription: "Commercial", Name: "Company", Subsystems: []globalconf.Subsystem{sub(com, "portal")}},
			{ID: gov, ClassDescription: "Government", Name: "Board", Subsystems: []globalconf.Subsystem{sub(gov, "management"), sub(gov, "population")}},
		},
		Servers: []globalconf.SecurityServer{
			server(com, "SS2", sub(com, "portal").ID, sub(gov, "population").ID),
			server(gov, "SS1", sub(gov, "management").ID, sub(gov, "population").ID),
		},
		Groups:        []globalconf.GlobalGroup{{Code: "owners", Description: "Owners", Members: []id.Client{com.Client(), gov.Client()}}},
		MemberClasses: []globalconf.MemberClass{{Code: "COM", Description: "Commercial"}, {Code: "GOV", Description: "Government"}},
		OCSPFreshness: time.Hour,
	}
}

func (c *centre) source() globalconf.Source {
	return globalconf.Source{Address: strings.TrimPrefix(c.URL, "http://"),
		InternalCerts: [][]byte{c.keys["internalconf"].cert.Raw}, ExternalCerts: [][]byte{c.keys["externalconf"].cert.Raw}}
}

// publish generates all versions anew.
func (c *centre) publish() {
	c.t.Helper()
	files := map[string][]byte{}
	folder := c.folder
	if folder == "" {
		folder = globalconf.Folder(c.clock.now())
	}
	for _, v := range c.versions {
		at := fmt.Sprintf("/V%d/%s/", v, folder)
		part := func(identifier, file string, content []byte) globalconf.Part {
			files[at+file] = content
			return globalconf.NewPart(identifier, c.instance, at+file, content)
		}
		shared := part(globalconf.ContentSharedParams, globalconf.FileSharedParams, must(c.shared.Marshal(v))(c.t))
		private := part(globalconf.ContentPrivateParams, globalconf.FilePrivateParams, must(c.private.Marshal(v))(c.t))
		internal := []globalconf.Part{shared, private}
		for identifier, content := range c.extra {
			internal = append(internal, part(identifier, strings.ToLower(identifier)+"-params.xml", content))
		}
		for name, parts := range map[string][]globalconf.Part{"internalconf": internal, "externalconf": {shared}} {
			d := globalconf.Directory{Expires: c.clock.now().Add(c.validity), Version: v, Parts: parts}
			files[fmt.Sprintf("/%s?version=%d", name, v)] = c.sign(name, &d)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files = files
}

func (c *centre) sign(name string, d *globalconf.Directory) []byte {
	return must(d.Sign(c.keys[name].key, c.keys[name].cert))(c.t)
}

// set replaces one file and returns what was there.
func (c *centre) set(path string, content []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.files[path]
	c.files[path] = content
	return old
}

// path returns the path of a file of the current version.
func (c *centre) path(file string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.files {
		if strings.HasPrefix(p, "/V6/") && strings.HasSuffix(p, "/"+file) {
			return p
		}
	}
	c.t.Fatal("no ", file)
	return ""
}

func (c *centre) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests = append(c.requests, r.URL.RequestURI())
	body, ok := c.files[r.URL.RequestURI()]
	intercept := c.intercept
	c.mu.Unlock()
	switch {
	case intercept != nil && intercept(w, r):
	case !ok:
		http.NotFound(w, r)
	default:
		w.Write(body)
	}
}

func (c *centre) on(intercept func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intercept = intercept
}

// asked returns the requests since the last call.
func (c *centre) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.requests
	c.requests = nil
	return list
}

func (c *centre) anchor(name string) *globalconf.Anchor {
	return &globalconf.Anchor{Generated: start, Instance: c.instance,
		Sources: []globalconf.AnchorSource{{URL: c.URL + "/" + name, Certs: [][]byte{c.keys[name].cert.Raw}}}}
}

func (c *centre) anchorFile() []byte { return must(c.anchor("internalconf").Marshal())(c.t) }

// config returns the configuration of a client of this central server.
func (c *centre) config(dir string) globalconf.ClientConfig {
	return globalconf.ClientConfig{Anchor: c.anchorFile(), Dir: dir, Now: c.clock.now, HTTP: plainHTTP}
}

// plainHTTP refuses https at once: the servers of these tests have no TLS.
var plainHTTP = &http.Client{Transport: noTLS{&http.Transport{DisableKeepAlives: true}}}

type noTLS struct{ http.RoundTripper }

func (n noTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return nil, fmt.Errorf("no TLS here")
	}
	return n.RoundTripper.RoundTrip(r)
}

// snapshot reads a whole folder.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func keys(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
