// SPDX-License-Identifier: Apache-2.0

// Package renewal_test lets a gateway get and renew its certificates by ACME
// while messages flow.
package renewal_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/admin"
	"kontor/gateway/renewal"
	"kontor/integration/testnet"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/pki/enrol"
	"kontor/pki/xades"
	"kontor/registry"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// world is a network with a second authority, which issues by ACME.
type world struct {
	*testnet.Network
	T   *testing.T
	api *admin.Client
}

func check[V any](t testing.TB) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func start(t *testing.T) *world {
	validity := 120
	w := &world{T: t, Network: testnet.Start(t, testnet.Options{Settings: registry.Settings{ConfigurationValidity: &validity}})}
	dir := t.TempDir()
	port := func() string {
		l := check[net.Listener](t)(net.Listen("tcp", w.IP(101)+":0"))
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		return p
	}
	challenges := port()
	secure := check[net.Listener](t)(net.Listen("tcp", w.IP(102)+":0"))

	if err := ca.Create(filepath.Join(dir, "ca"), []byte("passphrase"), ca.CreateConfig{Name: "ACME CA", Instance: testnet.Instance}); err != nil {
		t.Fatal(err)
	}
	profile, _ := pki.ProfileByClass("FiVRK")
	authority := check[*ca.CA](t)(ca.Open(filepath.Join(dir, "ca"), []byte("passphrase"), ca.Config{Now: w.Now,
		ACME: &ca.ACME{URL: "https://" + secure.Addr().String(), Profile: profile, ValidationPort: check[int](t)(strconv.Atoi(challenges))}}))
	t.Cleanup(func() {
		if err := authority.Close(); err != nil {
			t.Error(err)
		}
	})
	srv := &http.Server{Handler: authority.Handler(), TLSConfig: check[*tls.Config](t)(authority.TLSConfig(w.IP(102))), ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.ServeTLS(secure, "", "") }() // ends with Close
	t.Cleanup(func() { srv.Close(); <-ended })
	ocsp := w.Serve(103, authority.Handler())
	w.Apply(&registry.SetCA{CA: registry.CA{Name: "ACME CA", Profile: w.State().CAs()[0].Profile, Top: registry.CertifiedCA{
		Certificate: authority.Certificate().Raw,
		Responders:  []registry.Responder{{URL: "http://" + ocsp + "/ocsp", Certificate: authority.OCSPCertificate().Raw}}}}})

	var entries []config.ACMECertificate
	server := w.ServerID(testnet.Server1)
	for _, usage := range []pki.Usage{pki.Authentication, pki.Signing} {
		b, key, err := authority.AddBinding(t.Context(), ca.Binding{Usage: usage, Member: server.Owner(), Server: server, MemberName: "Agency", Country: "FI"})
		if err != nil {
			t.Fatal(err)
		}
		c := enrol.Credentials{Directory: "https://" + secure.Addr().String() + "/acme/directory", KID: b.KID, MACKey: key, Root: authority.Certificate()}
		file := filepath.Join(dir, string(usage)+".json")
		if err := os.WriteFile(file, check[[]byte](t)(c.Marshal()), 0o600); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, config.ACMECertificate{Usage: string(usage), Credentials: file, Profile: "FiVRK"})
	}
	w.A.Restart(func(c *config.Gateway) {
		c.ACME.Listen, c.ACME.DNSName, c.ACME.Country, c.ACME.Certificates = w.IP(101)+":"+challenges, w.IP(101), "FI", entries
		c.Listen.Admin = w.A.IP() + ":4000"
		if err := os.Remove(filepath.Join(c.DataDir, "admin-keys.json")); err != nil { // for a key that may do everything
			t.Fatal(err)
		}
	})
	certFile, _ := roles.InternalTLSFiles(&w.A.Cfg)
	pin := check[*x509.Certificate](t)(x509.ParseCertificate(check[[]byte](t)(roles.ReadDER(certFile, "CERTIFICATE"))))
	w.api = admin.NewClient("https://"+w.A.Cfg.Listen.Admin, string(check[[]byte](t)(roles.Secret(roles.AdminKeyFile(&w.A.Cfg), "key"))), pin)
	return w
}

// until waits until a certificate fares as wanted.
func (w *world) until(use pki.Usage, wanted func(renewal.Enrolment) bool) renewal.Enrolment {
	w.T.Helper()
	var found renewal.Enrolment
	last := time.Time{}
	testnet.Eventually(w.T, func() error {
		if time.Since(last) < 200*time.Millisecond { // calls are limited
			return errors.New("not asked lately")
		}
		last = time.Now()
		all, err := w.api.Enrolments(w.T.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(e renewal.Enrolment) bool { return e.Usage == use && wanted(e) })
		if i < 0 {
			return fmt.Errorf("%+v", all)
		}
		found = all[i]
		return nil
	})
	return found
}

// active returns the active certificates of a usage.
func (w *world) active(use pki.Usage) []string {
	w.T.Helper()
	var hashes []string
	for _, k := range check[[]admin.Key](w.T)(w.api.Keys(w.T.Context())) {
		for _, c := range k.Certificates {
			if c.Usage == use && c.Active {
				hashes = append(hashes, c.Hash)
			}
		}
	}
	return hashes
}

// traffic calls until stop, and demands that every call succeeds.
func (w *world) traffic() (stop func() []string) {
	var ids []string
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			r := w.Call(testnet.Portal, http.MethodGet, testnet.Path(testnet.Persons), nil, "X-Road-Id: during-"+strconv.Itoa(i))
			if r.Err != nil || r.Status != http.StatusOK {
				w.T.Errorf("call %d is lost: %d %s %v", i, r.Status, r.Body, r.Err)
			}
			ids = append(ids, "during-"+strconv.Itoa(i))
			time.Sleep(20 * time.Millisecond) // two cores serve all of this
		}
	})
	return func() []string {
		close(done)
		wg.Wait()
		return ids
	}
}

// signer returns who signed the request of an exchange, by verified evidence of
// both gateways.
func (w *world) signer(messageID string) string {
	w.T.Helper()
	var hash string
	for g, holder := range map[*testnet.Gateway]string{w.A: testnet.Portal, w.B: testnet.Population} {
		proofs := w.Proofs(g, holder, messageID)
		if len(proofs) != 2 {
			w.T.Fatalf("%d proofs of %s", len(proofs), messageID)
		}
		s := check[*xades.Signature](w.T)(xades.Parse(proofs[0].Container.Signatures))
		hash = pki.HashOf(s.Certificate()).Hex()
	}
	return hash
}

// TestEnrolAndRenew: a gateway that was set up by hand gets both certificates
// by ACME, changes to them, and renews that for signing, while calls go on. None
// is lost, and the evidence of before and after verifies.
func TestEnrolAndRenew(t *testing.T) {
	t.Parallel()
	w := start(t)
	stop := w.traffic()

	first := w.until(pki.Signing, func(e renewal.Enrolment) bool { return e.InUse })
	if got := w.active(pki.Signing); !slices.Equal(got, []string{first.Certificate}) {
		t.Errorf("active for signing: %v, want %s", got, first.Certificate)
	}

	// The certificate for authentication waits for the registry, then for the
	// peers.
	auth := w.until(pki.Authentication, func(e renewal.Enrolment) bool { return e.Certificate != "" })
	if got := w.active(pki.Authentication); len(got) != 1 || got[0] == auth.Certificate || auth.InUse {
		t.Errorf("active for authentication before the registry lists it: %v, %+v", got, auth)
	}
	c, _, err := w.api.Certificate(t.Context(), auth.Certificate)
	if err != nil || c.State != pki.StateSaved {
		t.Fatalf("%+v, %v", c, err)
	}
	block, _ := pem.Decode([]byte(c.PEM))
	w.Apply(&registry.RegisterCertificate{Server: w.ServerID(testnet.Server1), Certificate: block.Bytes})
	testnet.Eventually(t, func() error {
		c, _, err := w.api.Certificate(t.Context(), auth.Certificate)
		if err == nil && !c.Usable {
			time.Sleep(200 * time.Millisecond) // calls are limited
			err = fmt.Errorf("%+v", c)
		}
		return err
	})
	if got := w.active(pki.Authentication); len(got) != 2 {
		t.Errorf("active for authentication before all peers know it: %v", got)
	}
	for range 3 {
		w.Advance(time.Minute)
		w.Publish()
	}
	w.until(pki.Authentication, func(e renewal.Enrolment) bool { return e.InUse })
	if got := w.active(pki.Authentication); !slices.Equal(got, []string{auth.Certificate}) {
		t.Errorf("active for authentication: %v, want %s", got, auth.Certificate)
	}

	if err := w.api.RenewCertificate(t.Context(), admin.RenewNow{Usage: pki.Signing}); err != nil {
		t.Fatal(err)
	}
	second := w.until(pki.Signing, func(e renewal.Enrolment) bool { return e.InUse && e.Certificate != first.Certificate })
	if got := w.active(pki.Signing); !slices.Equal(got, []string{second.Certificate}) {
		t.Errorf("active for signing: %v, want %s", got, second.Certificate)
	}
	for i := range 100 { // the old choice of key ends meanwhile
		w.Advance(100 * time.Millisecond)
		if r := w.Call(testnet.Portal, http.MethodGet, testnet.Path(testnet.Persons), nil, "X-Road-Id: after-"+strconv.Itoa(i)); r.Status != http.StatusOK {
			t.Errorf("call %d after the renewal: %d %s %v", i, r.Status, r.Body, r.Err)
		}
	}
	ids := stop()
	if t.Failed() {
		t.Log(w.A.LogText(), "=== B", w.B.LogText())
		return
	}
	seen := map[string]bool{}
	for _, i := range []int{0, len(ids) / 2, len(ids) - 1} {
		seen[w.signer(ids[i])] = true
	}
	if got := w.signer("after-99"); got != second.Certificate {
		t.Errorf("%s signs, want %s", got, second.Certificate)
	}
	if seen[second.Certificate] = true; len(seen) < 3 {
		t.Errorf("signed by %v in %d exchanges; want the old key and both new ones", seen, len(ids))
	}
}
