// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"kontor/pki"
	"kontor/pki/ca"
	"kontor/pki/ocsp"
	"kontor/registry/id"
)

// acmeNet is an authority on real HTTPS and an applicant's server for
// challenges.
type acmeNet struct {
	*ca.CA
	server *httptest.Server
	host   string // of the applicant
	port   int    // of the applicant's challenges

	mu      sync.Mutex
	answers map[string]string // by path
}

// newACME puts the applicant on a loopback address of the test's own.
func newACME(t testing.TB, host string, change func(*ca.Config)) *acmeNet {
	t.Helper()
	n := &acmeNet{host: host, answers: map[string]string{}}
	challenges := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		answer, ok := n.answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if to, ok := strings.CutPrefix(answer, "redirect:"); ok {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		w.Write([]byte(answer))
	}))
	challenges.Listener.Close()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	challenges.Listener = l
	challenges.Start()
	t.Cleanup(challenges.Close)

	n.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Handler().ServeHTTP(w, r) }))
	n.server.StartTLS()
	t.Cleanup(n.server.Close)
	n.port = l.Addr().(*net.TCPAddr).Port
	profile, _ := pki.ProfileByClass("FiVRK")
	cfg := ca.Config{OCSPURL: ocspURL, ACME: &ca.ACME{URL: n.server.URL, Profile: profile, ValidationPort: n.port}}
	if change != nil {
		change(&cfg)
	}
	n.CA = open(t, newDir(t), cfg)
	return n
}

func (n *acmeNet) client(key crypto.Signer) *acme.Client {
	return &acme.Client{Key: key, HTTPClient: n.server.Client(), DirectoryURL: n.server.URL + "/acme/directory",
		RetryBackoff: func(int, *http.Request, *http.Response) time.Duration { return -1 }}
}

var (
	acmeMember, _ = id.ParseMember("DEV/GOV/1234")
	acmeSS, _     = id.ParseSecurityServer("DEV/GOV/1234/ss1")
)

func (n *acmeNet) bind(t *testing.T, use pki.Usage, names ...string) *acme.ExternalAccountBinding {
	t.Helper()
	b, key, err := n.AddBinding(t.Context(), ca.Binding{Usage: use, Member: acmeMember, Server: acmeSS, MemberName: "Agency", DNSNames: names})
	if err != nil {
		t.Fatal(err)
	}
	return &acme.ExternalAccountBinding{KID: b.KID, Key: key}
}

func (n *acmeNet) register(t *testing.T, use pki.Usage, names ...string) *acme.Client {
	t.Helper()
	c := n.client(newKey(t))
	if _, err := c.Register(t.Context(), &acme.Account{ExternalAccountBinding: n.bind(t, use, names...)}, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// authorise orders a certificate for the applicant's host and proves control.
func (n *acmeNet) authorise(t *testing.T, c *acme.Client, opts ...acme.OrderOption) *acme.Order {
	t.Helper()
	order, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host), opts...)
	if err != nil {
		t.Fatal(err)
	}
	if order.Status != acme.StatusPending {
		t.Fatalf("a new order is %s: X-Road's client would never finalise it", order.Status)
	}
	for _, u := range order.AuthzURLs {
		az, err := c.GetAuthorization(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		if az.Status != acme.StatusPending || len(az.Challenges) != 1 || az.Challenges[0].Type != "http-01" {
			t.Fatalf("authorisation: %+v", az)
		}
		answer, _ := c.HTTP01ChallengeResponse(az.Challenges[0].Token)
		n.answer(c.HTTP01ChallengePath(az.Challenges[0].Token), answer)
		if _, err := c.Accept(t.Context(), az.Challenges[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitAuthorization(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if order, err = c.WaitOrder(t.Context(), order.URI); err != nil {
		t.Fatal(err)
	}
	return order
}

func (n *acmeNet) answer(path, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[path] = text
}

// asking is the key usage extension of a request.
func asking(bits byte, length int) []pkix.Extension {
	value, _ := asn1.Marshal(asn1.BitString{Bytes: []byte{bits}, BitLength: length})
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: value}}
}

func problem(t *testing.T, err error, typ, text string) {
	t.Helper()
	var e *acme.Error
	if !errors.As(err, &e) || e.ProblemType != "urn:ietf:params:acme:error:"+typ || !strings.Contains(e.Detail, text) {
		t.Errorf("got %v, want %s with %q", err, typ, text)
	}
}

func TestACMEIssue(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.1", nil)
	for _, tc := range []struct {
		use  pki.Usage
		csr  *x509.CertificateRequest
		want string // subject
	}{
		// What a security server asks for in this profile: the subject's
		// common name is no DNS name.
		{pki.Signing, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "1234"}, DNSNames: []string{n.host}, ExtraExtensions: asking(0x44, 6)},
			"SERIALNUMBER=DEV/ss1/GOV,CN=1234,O=Agency,C=FI"},
		{pki.Authentication, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "Somebody else"}, DNSNames: []string{n.host}, ExtraExtensions: asking(0xb0, 4)},
			"SERIALNUMBER=DEV/ss1/GOV,CN=" + n.host + ",O=Agency,C=FI"},
	} {
		t.Run(string(tc.use), func(t *testing.T) {
			t.Parallel()
			c := n.register(t, tc.use)
			want := time.Now().Add(365 * 24 * time.Hour).Truncate(time.Second)
			order := n.authorise(t, c, acme.WithOrderNotAfter(want))
			key := newKey(t)
			chain, url, err := c.CreateCertFromOrder(t.Context(), order, newCSR(t, key, tc.csr), true)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(chain[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(chain) != 2 || string(chain[1]) != string(n.Certificate().Raw) {
				t.Errorf("chain of %d", len(chain))
			}
			if pki.IsAuthCert(cert) != (tc.use == pki.Authentication) || pki.IsSignCert(cert) != (tc.use == pki.Signing) {
				t.Errorf("usage %b %v", cert.KeyUsage, cert.ExtKeyUsage)
			}
			if got := cert.Subject.String(); got != tc.want {
				t.Errorf("subject %s, want %s", got, tc.want)
			}
			if !slices.Equal(cert.DNSNames, []string{n.host}) || !slices.Equal(cert.OCSPServer, []string{ocspURL}) {
				t.Errorf("names %v, OCSP %v", cert.DNSNames, cert.OCSPServer)
			}
			if d := cert.NotAfter.Sub(want).Abs(); d > 2*time.Second {
				t.Errorf("valid until %v, asked for %v", cert.NotAfter, want)
			}
			if err := cert.CheckSignatureFrom(n.Certificate()); err != nil {
				t.Error(err)
			}
			again, err := c.FetchCert(t.Context(), url, false)
			if err != nil || string(again[0]) != string(chain[0]) {
				t.Errorf("second download: %v", err)
			}
			if o, err := c.GetOrder(t.Context(), order.URI); err != nil || o.Status != acme.StatusValid || o.Identifiers[0].Value != n.host {
				t.Errorf("order afterwards: %+v, %v", o, err)
			}
			opensslVerifies(t, n.Certificate(), cert)

			// Somebody else's account cannot revoke; the owner's can, and OCSP knows.
			other := n.register(t, tc.use)
			problem(t, other.RevokeCert(t.Context(), nil, cert.Raw, acme.CRLReasonSuperseded), "unauthorized", "")
			problem(t, c.RevokeCert(t.Context(), nil, cert.Raw, acme.CRLReasonCertificateHold), "badRevocationReason", "not allowed")
			if err := c.RevokeCert(t.Context(), nil, cert.Raw, acme.CRLReasonSuperseded); err != nil {
				t.Fatal(err)
			}
			answer, err := ocsp.NewClient(ocsp.ClientConfig{HTTP: n.server.Client()}).Fetch(t.Context(), cert, n.Certificate(), []string{n.server.URL + "/ocsp"})
			if err != nil {
				t.Fatal(err)
			}
			known := ocsp.Responders{Authorised: []*x509.Certificate{n.OCSPCertificate()}}
			if _, err := ocsp.Verify(answer, cert, n.Certificate(), known, time.Now(), ocsp.Policy{Freshness: time.Hour}); !errors.Is(err, ocsp.ErrRevoked) {
				t.Errorf("OCSP: %v", err)
			}
		})
	}
}

// opensslVerifies asks a stranger whether the chain holds.
func opensslVerifies(t *testing.T, root, leaf *x509.Certificate) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for name, c := range map[string]*x509.Certificate{"root.pem": root, "leaf.pem": leaf} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(openssl, "verify", "-x509_strict", "-CAfile", filepath.Join(dir, "root.pem"), filepath.Join(dir, "leaf.pem")).CombinedOutput(); err != nil {
		t.Errorf("openssl verify: %v: %s", err, out)
	}
}

func TestACMERevokeByCertificateKey(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.2", nil)
	c := n.register(t, pki.Signing)
	key := newKey(t)
	chain, _, err := c.CreateCertFromOrder(t.Context(), n.authorise(t, c), newCSR(t, key, &x509.CertificateRequest{DNSNames: []string{n.host}}), false)
	if err != nil {
		t.Fatal(err)
	}
	problem(t, n.client(newKey(t)).RevokeCert(t.Context(), newKey(t), chain[0], 1), "unauthorized", "")
	if err := n.client(newKey(t)).RevokeCert(t.Context(), key, chain[0], 1); err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(chain[0])
	if rec, err := n.Get(t.Context(), cert.SerialNumber); err != nil || rec.Revoked.IsZero() || rec.Reason != 1 {
		t.Errorf("record %+v, %v", rec, err)
	}
}

func TestACMEBindings(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.3", nil)
	register := func(key crypto.Signer, b *acme.ExternalAccountBinding) error {
		_, err := n.client(key).Register(t.Context(), &acme.Account{ExternalAccountBinding: b}, nil)
		return err
	}
	key := newKey(t)
	problem(t, register(key, nil), "externalAccountRequired", "")
	b := n.bind(t, pki.Signing)
	wrong := &acme.ExternalAccountBinding{KID: b.KID, Key: make([]byte, 32)}
	problem(t, register(key, wrong), "unauthorized", "MAC key")
	problem(t, register(key, &acme.ExternalAccountBinding{KID: "nobody", Key: b.Key}), "unauthorized", "no external account binding")
	if err := register(key, b); err != nil {
		t.Fatal(err)
	}
	problem(t, register(newKey(t), b), "unauthorized", "has an account already")
	if err := register(key, b); !errors.Is(err, acme.ErrAccountAlreadyExists) {
		t.Errorf("same key again: %v", err)
	}

	all, err := n.Bindings(t.Context())
	if err != nil || len(all) != 1 || all[0].KID != b.KID || all[0].Member != acmeMember || all[0].Bound.IsZero() {
		t.Fatalf("bindings %+v, %v", all, err)
	}
	c := n.client(key)
	if _, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err != nil {
		t.Fatal(err)
	}
	// Withdrawn: no orders, until the same key comes with a new binding.
	if err := n.DeleteBinding(t.Context(), b.KID); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBinding(t.Context(), b.KID); !errors.Is(err, ca.ErrUnknownBinding) {
		t.Errorf("deleted twice: %v", err)
	}
	_, err = c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host))
	problem(t, err, "unauthorized", "withdrawn")
	if err := register(key, n.bind(t, pki.Authentication)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client(key).AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err != nil {
		t.Error(err)
	}
}

// TestACMEOneAccountPerBinding races for a binding.
func TestACMEOneAccountPerBinding(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.4", nil)
	b := n.bind(t, pki.Signing)
	var wg sync.WaitGroup
	clients := make([]*acme.Client, 6)
	for i := range clients {
		clients[i] = n.client(newKey(t))
		wg.Go(func() { clients[i].Register(t.Context(), &acme.Account{ExternalAccountBinding: b}, nil) })
	}
	wg.Wait()
	able := 0
	for _, c := range clients {
		if _, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err == nil {
			able++
		}
	}
	if able != 1 {
		t.Errorf("%d accounts can order under one binding", able)
	}
}

// TestACMEKeyChange rolls an account's key over, as security servers do.
func TestACMEKeyChange(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.12", nil)
	c := n.register(t, pki.Signing)
	order := n.authorise(t, c)
	taken, old, next := n.register(t, pki.Signing), c.Key, newKey(t)
	err := c.AccountKeyRollover(t.Context(), taken.Key)
	var problem *acme.Error
	if !errors.As(err, &problem) || problem.StatusCode != http.StatusConflict || problem.Header.Get("Location") == "" {
		t.Errorf("another account's key: %v", err)
	}
	if err := c.AccountKeyRollover(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	// It is the same account, for the new key only.
	if _, _, err := c.CreateCertFromOrder(t.Context(), order, newCSR(t, newKey(t), &x509.CertificateRequest{DNSNames: []string{n.host}}), false); err != nil {
		t.Error(err)
	}
	fresh := n.client(next)
	if acc, err := fresh.GetReg(t.Context(), ""); err != nil || acc.Status != acme.StatusValid {
		t.Errorf("account of the new key: %+v, %v", acc, err)
	}
	if _, err := fresh.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err != nil {
		t.Error(err)
	}
	if _, err := n.client(old).GetReg(t.Context(), ""); !errors.Is(err, acme.ErrNoAccount) {
		t.Errorf("account of the old key: %v", err)
	}
	stale := n.client(old)
	stale.KID = fresh.KID
	if stale.KID == "" {
		t.Fatal("no account address")
	}
	if _, err := stale.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err == nil {
		t.Error("the old key still orders")
	}
	if err := stale.AccountKeyRollover(t.Context(), newKey(t)); err == nil {
		t.Error("the old key still changes keys")
	}
	// Nothing that another client would send by mistake changes anything.
	if err := n.client(newKey(t)).AccountKeyRollover(t.Context(), newKey(t)); err == nil {
		t.Error("a key changed without an account")
	}
}

func TestACMERefusedBindings(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.5", nil)
	foreign, _ := id.ParseSecurityServer("DEV/GOV/9999/ss1")
	for name, b := range map[string]ca.Binding{
		"no usage":          {Member: acmeMember, Server: acmeSS, MemberName: "Agency"},
		"no member":         {Usage: pki.Signing, Server: acmeSS, MemberName: "Agency"},
		"no server":         {Usage: pki.Authentication, Member: acmeMember, MemberName: "Agency"},
		"another's server":  {Usage: pki.Authentication, Member: acmeMember, Server: foreign, MemberName: "Agency"},
		"no name":           {Usage: pki.Signing, Member: acmeMember, Server: acmeSS},
		"wildcard":          {Usage: pki.Signing, Member: acmeMember, Server: acmeSS, MemberName: "Agency", DNSNames: []string{"*.example"}},
		"server in signing": {Usage: pki.Signing, Member: acmeMember, MemberName: "Agency"},
	} {
		if _, _, err := n.AddBinding(t.Context(), b); !errors.Is(err, ca.ErrBinding) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := newCA(t).AddBinding(t.Context(), ca.Binding{}); !errors.Is(err, ca.ErrBinding) {
		t.Errorf("ACME off: %v", err)
	}
}

func TestACMERefusedOrders(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.6", nil)
	c := n.register(t, pki.Signing, "ss1.example", n.host)
	for _, tc := range []struct {
		ids       []acme.AuthzID
		opts      []acme.OrderOption
		typ, text string
	}{
		{acme.DomainIDs("other.example"), nil, "rejectedIdentifier", "does not include"},
		{acme.DomainIDs("*.ss1.example"), nil, "rejectedIdentifier", "one server"},
		{acme.IPIDs(n.host), nil, "unsupportedIdentifier", "only dns"},
		{acme.DomainIDs(n.host), []acme.OrderOption{acme.WithOrderNotAfter(time.Now().Add(-time.Hour))}, "malformed", "past"},
		{acme.DomainIDs(n.host), []acme.OrderOption{acme.WithOrderNotBefore(time.Now().Add(time.Hour))}, "malformed", "notBefore"},
		{acme.DomainIDs(slices.Repeat([]string{n.host}, 11)...), nil, "malformed", "at most"},
	} {
		_, err := c.AuthorizeOrder(t.Context(), tc.ids, tc.opts...)
		problem(t, err, tc.typ, tc.text)
	}
	var err error
	for range 30 {
		if _, err = c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host)); err != nil {
			break
		}
	}
	problem(t, err, "rateLimited", "unfinished")
}

func TestACMERefusedRequests(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.7", nil)
	c := n.register(t, pki.Signing)
	order := n.authorise(t, c)
	for name, tc := range map[string]struct {
		csr  *x509.CertificateRequest
		text string
	}{
		"authentication": {&x509.CertificateRequest{DNSNames: []string{n.host}, ExtraExtensions: asking(0xb0, 4)}, "key usages"},
		"both":           {&x509.CertificateRequest{DNSNames: []string{n.host}, ExtraExtensions: asking(0xc0, 2)}, "key usages"},
		"another name":   {&x509.CertificateRequest{DNSNames: []string{n.host, "bank.example"}}, "bank.example"},
		"no name":        {&x509.CertificateRequest{Subject: pkix.Name{CommonName: "1234"}}, "does not ask for"},
		"address":        {&x509.CertificateRequest{DNSNames: []string{n.host}, IPAddresses: []net.IP{net.IPv4(1, 2, 3, 4)}}, ""},
		"mail":           {&x509.CertificateRequest{DNSNames: []string{n.host}, EmailAddresses: []string{"a@b.example"}}, ""},
	} {
		_, _, err := c.CreateCertFromOrder(t.Context(), order, newCSR(t, newKey(t), tc.csr), false)
		t.Run(name, func(t *testing.T) { problem(t, err, "badCSR", tc.text) })
	}
	// The order survives: the applicant may correct the request.
	good := newCSR(t, newKey(t), &x509.CertificateRequest{DNSNames: []string{n.host}})
	// Not before another account has tried to finalise it.
	_, _, err := n.register(t, pki.Signing).CreateCertFromOrder(t.Context(), order, good, false)
	problem(t, err, "unauthorized", "")
	if _, _, err := c.CreateCertFromOrder(t.Context(), order, good, false); err != nil {
		t.Fatal(err)
	}
	records, err := n.List(t.Context())
	if issued := slices.DeleteFunc(records, func(r *ca.Record) bool { return r.Usage == "" }); err != nil || len(issued) != 1 {
		t.Errorf("%d certificates issued, %v", len(issued), err)
	}
	// Not ready: nothing is issued without proof.
	pending, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = c.CreateCertFromOrder(t.Context(), pending, good, false)
	problem(t, err, "orderNotReady", "")
}

func TestACMEChallengeFails(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.8", nil)
	c := n.register(t, pki.Signing)
	for name, answer := range map[string]string{
		"nothing": "", "wrong": "wrong", "redirect": "redirect:http://127.0.0.1:1/", "long": strings.Repeat("x", 1<<20),
	} {
		order, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(n.host))
		if err != nil {
			t.Fatal(err)
		}
		az, err := c.GetAuthorization(t.Context(), order.AuthzURLs[0])
		if err != nil {
			t.Fatal(err)
		}
		if answer != "" {
			n.answer(c.HTTP01ChallengePath(az.Challenges[0].Token), answer)
		}
		ch, err := c.Accept(t.Context(), az.Challenges[0])
		if err != nil {
			t.Fatal(err)
		}
		if ch.Status == acme.StatusValid || ch.Error == nil {
			t.Errorf("%s: challenge %s, %v", name, ch.Status, ch.Error)
		}
		if o, err := c.GetOrder(t.Context(), order.URI); err != nil || o.Status == acme.StatusReady {
			t.Errorf("%s: order %+v, %v", name, o, err)
		}
	}
}

// TestACMERestart reopens the authority in the middle of an order.
func TestACMERestart(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.9", nil)
	profile, _ := pki.ProfileByClass("FiVRK")
	dir := newDir(t)
	cfg := ca.Config{ACME: &ca.ACME{URL: n.server.URL, Profile: profile, ValidationPort: n.port}}
	first, err := ca.Open(dir, pass, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.CA.Close()
	n.CA = first
	c := n.register(t, pki.Signing)
	order := n.authorise(t, c)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	n.CA = open(t, dir, cfg)
	c = n.client(c.Key) // with default retries: its nonces are forgotten
	c.RetryBackoff = nil
	if _, _, err := c.CreateCertFromOrder(t.Context(), order, newCSR(t, newKey(t), &x509.CertificateRequest{DNSNames: []string{n.host}}), false); err != nil {
		t.Fatal(err)
	}
}

func TestACMERenewalInfo(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.10", nil)
	cert := issue(t, n.CA, ca.Request{Usage: pki.Signing})
	get := func(certID string) (int, map[string]any, http.Header) {
		resp, err := n.server.Client().Get(n.server.URL + "/acme/renewal-info/" + certID)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		json.NewDecoder(resp.Body).Decode(&body)
		return resp.StatusCode, body, resp.Header
	}
	window := func() (start, end time.Time) {
		status, body, header := get(certID(cert.AuthorityKeyId, cert.SerialNumber.Bytes()))
		w, _ := body["suggestedWindow"].(map[string]any)
		if status != http.StatusOK || w == nil || header.Get("Retry-After") == "" {
			t.Fatalf("status %d, %v", status, body)
		}
		start, err1 := time.Parse(time.RFC3339, w["start"].(string))
		end, err2 := time.Parse(time.RFC3339, w["end"].(string))
		if err1 != nil || err2 != nil || !start.Before(end) {
			t.Fatalf("window %v", w)
		}
		return start, end
	}
	if start, end := window(); !start.After(time.Now()) || !end.Before(cert.NotAfter) {
		t.Errorf("window %v to %v of a certificate until %v", start, end, cert.NotAfter)
	}
	if err := n.Revoke(t.Context(), cert.SerialNumber, 1); err != nil {
		t.Fatal(err)
	}
	if _, end := window(); end.After(time.Now().Add(time.Second)) {
		t.Errorf("a revoked certificate may wait until %v", end)
	}
	for _, bad := range []string{"x", "x.y", certID([]byte("other"), cert.SerialNumber.Bytes()), certID(cert.AuthorityKeyId, []byte{1}),
		certID(cert.AuthorityKeyId, n.OCSPCertificate().SerialNumber.Bytes()), strings.Repeat("A", 4000)} {
		if status, body, _ := get(bad); status < 400 || status >= 500 {
			t.Errorf("%.20s: %d %v", bad, status, body)
		}
	}
}

func certID(aki, serial []byte) string {
	return base64.RawURLEncoding.EncodeToString(aki) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

func TestACMEHostileRequests(t *testing.T) {
	t.Parallel()
	n := newACME(t, "127.81.1.11", nil)
	for _, body := range []string{"", "{}", "x", `{"protected":"","payload":"","signature":""}`, strings.Repeat("a", 100<<10)} {
		for _, path := range []string{"new-account", "new-order", "order/x/finalize", "revoke-cert", "key-change", "nothing", "order/" + strings.Repeat("y", 1000)} {
			resp, err := n.server.Client().Post(n.server.URL+"/acme/"+path, "application/jose+json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("%s: %d", path, resp.StatusCode)
			}
		}
	}
	// Off by default.
	rec := httptest.NewRecorder()
	newCA(t).Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/acme/directory", nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("ACME off: %d", rec.Code)
	}
}

func FuzzACMERequest(f *testing.F) {
	n := newACME(f, "127.81.1.13", nil)
	for _, path := range []string{"directory", "new-nonce", "new-account", "new-order", "order/x", "order/x/finalize", "authz/x", "challenge/x/y", "revoke-cert", "key-change", "renewal-info/AA.AA"} {
		f.Add(path, []byte(`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"e30","signature":"AA"}`))
	}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		req := httptest.NewRequest(http.MethodPost, n.server.URL, bytes.NewReader(body))
		req.URL.Path = "/acme/" + path
		req.Header.Set("Content-Type", "application/jose+json")
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			req.Method = method
			rec := httptest.NewRecorder()
			if n.Handler().ServeHTTP(rec, req); rec.Code >= 500 {
				t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
			}
		}
	})
}

func TestACMEConfig(t *testing.T) {
	t.Parallel()
	profile, _ := pki.ProfileByClass("FiVRK")
	dir := newDir(t)
	for _, bad := range []ca.ACME{
		{URL: "http://ca.example", Profile: profile}, {URL: "https://ca.example/pki", Profile: profile}, {URL: "", Profile: profile},
		{URL: "https://ca.example"}, {URL: "https://ca.example", Profile: profile, ValidationPort: 1 << 16},
	} {
		if c, err := ca.Open(dir, pass, ca.Config{ACME: &bad}); err == nil {
			c.Close()
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestTLSConfig(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	c := open(t, newDir(t), ca.Config{Now: clock})
	for _, host := range []string{"ca.example", "127.0.0.1"} {
		cfg, err := c.TLSConfig(host)
		if err != nil {
			t.Fatal(err)
		}
		first, err := cfg.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(c.Certificate())
		if _, err := first.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: clock(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Error(err)
		}
		if again, _ := cfg.GetCertificate(nil); again != first {
			t.Error("a new certificate for each connection")
		}
		mu.Lock()
		now = now.Add(25 * 24 * time.Hour)
		mu.Unlock()
		if again, err := cfg.GetCertificate(nil); err != nil || again == first {
			t.Errorf("not replaced in time: %v", err)
		}
	}
}
