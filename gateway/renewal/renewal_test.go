// SPDX-License-Identifier: Apache-2.0

package renewal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/gateway/renewal"
	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

const directory = "https://acme.test/directory"

// world is a security server whose certificates come from an ACME authority
// that is never asked here, and a registry that lists what it is told.
type world struct {
	testing.TB
	dir      string
	token    *pki.Token
	accounts *enrol.Accounts
	service  *renewal.Service
	server   id.SecurityServer
	use      pki.Usage
	now      time.Time
	view     *globalconf.View
	listed   []*x509.Certificate
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	serial   int64

	calls  []string // of the Token
	refuse error    // of Register and Unregister
	crash  int      // calls until the process dies; 0: never
	dead   bool
	late   bool // it dies after the call took effect
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

func newWorld(t testing.TB, use pki.Usage) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir(), use: use, now: time.Now(), server: check[id.SecurityServer](t)(id.ParseSecurityServer("DEV/GOV/1001/ss1"))}
	w.token = check[*pki.Token](t)(pki.CreateToken(filepath.Join(w.dir, "token"), []byte("a long pin")))
	w.accounts = check[*enrol.Accounts](t)(enrol.OpenAccounts(filepath.Join(w.dir, "accounts"), []byte("a long pin")))
	w.caKey = check[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.ca = w.certify(&x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, w.caKey.Public(), 365*24*time.Hour)
	w.publish()
	w.restart()
	return w
}

func (w *world) certify(tmpl *x509.Certificate, public any, life time.Duration) *x509.Certificate {
	w.Helper()
	w.serial++
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(w.serial), w.now, w.now.Add(life)
	parent := w.ca
	if parent == nil {
		parent = tmpl
	}
	der := check[[]byte](w)(x509.CreateCertificate(rand.Reader, tmpl, parent, public, w.caKey))
	return check[*x509.Certificate](w)(x509.ParseCertificate(der))
}

func (w *world) tag() string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(directory+"\n"+w.server.Owner().String())))[:10]
}

// certificate puts a certificate for a new key on the token: one that came by
// ACME, or one of an operator.
func (w *world) certificate(acme bool, st pki.CertStatus) *x509.Certificate {
	w.Helper()
	label := "by hand"
	if acme {
		label = fmt.Sprintf("ACME %s %s %s", w.use, w.server.Owner().LogString(), w.tag())
	}
	k := w.key(label)
	tmpl := &x509.Certificate{Subject: pkix.Name{Country: []string{"DEV"}, Organization: []string{"GOV"}, CommonName: "1001"}, KeyUsage: x509.KeyUsageContentCommitment}
	if w.use == pki.Authentication {
		tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	c := w.certify(tmpl, k.Public(), 90*24*time.Hour)
	check[*pki.Key](w)(w.token.AddCertificate(c, st))
	return c
}

// key returns a key with a label and without certificates.
func (w *world) key(label string) *pki.Key {
	w.Helper()
	for _, k := range w.token.Keys() {
		if k.Label() == label && len(k.Certificates()) == 0 {
			return k
		}
	}
	return check[*pki.Key](w)(w.token.Generate(label, w.use, pki.P256))
}

// again begins anew with the same keys: to encrypt others takes long.
func (w *world) again(t testing.TB) {
	w.TB = t
	t.Helper()
	for _, k := range w.token.Keys() {
		for _, tc := range k.Certificates() {
			if err := w.token.RemoveCertificate(pki.HashOf(tc.Cert)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "acme")); err != nil {
		t.Fatal(err)
	}
	w.calls, w.refuse, w.crash = nil, nil, 0
	w.publish()
	w.restart()
}

// renewed makes a certificate the newest that came by ACME.
func (w *world) renewed(c *x509.Certificate) {
	w.Helper()
	b := check[[]byte](w)(json.Marshal(map[string]any{"certificate": pki.HashOf(c).Hex(), "delivered": true}))
	if err := os.WriteFile(filepath.Join(w.dir, "acme", fmt.Sprintf("%s-%s.json", w.use, w.tag())), b, 0o600); err != nil {
		w.Fatal(err)
	}
	w.restart()
}

// restart begins anew with what is on disk.
func (w *world) restart() {
	w.Helper()
	w.dead = false
	w.service = check[*renewal.Service](w)(renewal.New(renewal.Config{
		Server: w.server, Dir: filepath.Join(w.dir, "acme"), Token: w.token, Accounts: w.accounts, Signer: w, View: func() *globalconf.View { return w.view },
		Certificates: []renewal.Certificate{{Usage: w.use, Member: w.server.Owner(), Profile: "Ejbca",
			Credentials: enrol.Credentials{Directory: directory, KID: "kid", MACKey: []byte("0123456789abcdef")}}},
		DNSName: "ss1.test", Responder: new(enrol.Responder), Now: func() time.Time { return w.now },
	}))
}

// publish makes a global configuration that lists certificates, for ten minutes.
func (w *world) publish(certs ...*x509.Certificate) {
	w.Helper()
	w.listed = certs
	owner := w.server.Owner()
	p := globalconf.SharedParams{Instance: "DEV", OCSPFreshness: time.Hour,
		Sources:       []globalconf.Source{{Address: "cs", InternalCerts: [][]byte{w.ca.Raw}, ExternalCerts: [][]byte{w.ca.Raw}}},
		MemberClasses: []globalconf.MemberClass{{Code: "GOV", Description: "GOV"}},
		Members:       []globalconf.Member{{ID: owner, ClassDescription: "GOV", Name: "Owner"}},
		Servers:       []globalconf.SecurityServer{{ID: w.server, Address: "ss1.test"}}}
	for _, c := range certs {
		p.Servers[0].AuthCerts = append(p.Servers[0].AuthCerts, globalconf.NewAuthCert(c))
	}
	dir := w.TempDir()
	for name, b := range map[string][]byte{
		"instance-identifier":            []byte("DEV"),
		"DEV/shared-params.xml":          check[[]byte](w)(p.Marshal(6)),
		"DEV/shared-params.xml.metadata": fmt.Appendf(nil, `{"configurationVersion":"6","expirationDate":%q}`, w.now.Add(10*time.Minute).UTC().Format(time.RFC3339)),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	w.view = check[*globalconf.View](w)(globalconf.LoadDir(dir))
}

// Status is that of a signer with good OCSP responses for all.
func (w *world) Status() (all []signer.KeyStatus) {
	for _, k := range w.token.Keys() {
		for _, tc := range k.Certificates() {
			known := w.use == pki.Signing || slices.ContainsFunc(w.listed, tc.Cert.Equal)
			all = append(all, signer.KeyStatus{Hash: pki.HashOf(tc.Cert).Hex(), Usage: w.use, Member: w.server.Owner(), Active: tc.Status.Active, State: tc.Status.State,
				Usable: tc.Status.Active && known && w.now.Before(tc.Cert.NotAfter)})
		}
	}
	return all
}

// do is one call of the Token, in which the process may die.
func (w *world) do(call string, effect func() error) error {
	if w.dead {
		return errors.New("dead")
	}
	w.crash--
	if w.dead = w.crash == 0; w.dead && !w.late {
		return errors.New("dies")
	}
	if err := effect(); err != nil {
		return err
	}
	w.calls = append(w.calls, call)
	if w.dead {
		return errors.New("dies")
	}
	return nil
}

func (w *world) set(hash pki.CertHash, change func(*pki.CertStatus)) error {
	_, tc, ok := w.token.Certificate(hash)
	if !ok {
		return pki.ErrNoCertificate
	}
	change(&tc.Status)
	return w.token.SetCertificate(hash, tc.Status)
}

func (w *world) SetActive(hash pki.CertHash, active bool, _ string) error {
	return w.do(fmt.Sprintf("active=%t %s", active, hash.Hex()[:8]), func() error {
		return w.set(hash, func(st *pki.CertStatus) { st.Active = active })
	})
}

func (w *world) RemoveKey(key, _ string) error {
	return w.do("remove "+key, func() error { return w.token.RemoveKey(key) })
}

func (w *world) Register(_ context.Context, hash pki.CertHash, _ string) error {
	return w.do("register "+hash.Hex()[:8], func() error {
		if w.refuse != nil {
			return w.refuse
		}
		return w.set(hash, func(st *pki.CertStatus) { st.State = pki.StateRegistrationInProgress })
	})
}

func (w *world) Unregister(_ context.Context, hash pki.CertHash, _ string) error {
	return w.do("unregister "+hash.Hex()[:8], func() error {
		if w.refuse != nil {
			return w.refuse
		}
		return w.set(hash, func(st *pki.CertStatus) { st.State = pki.StateDeletionInProgress })
	})
}

// look has the service do what is due, until nothing is; it comes back if it
// dies.
func (w *world) look() {
	w.Helper()
	for range 3 {
		if err := w.service.Look(w.Context(), w); err != nil {
			w.Fatal(err)
		}
		if w.dead {
			w.restart()
			w.now = w.now.Add(time.Hour + time.Second) // past every pause after a failure
			w.renewView()
		}
	}
}

// renewView publishes the same again, with a new expiry.
func (w *world) renewView() {
	w.Helper()
	w.publish(w.listed...)
}

func (w *world) pass(d time.Duration) {
	w.Helper()
	w.now = w.now.Add(d)
	w.renewView()
	w.look()
}

func (w *world) status(c *x509.Certificate) pki.CertStatus {
	w.Helper()
	_, tc, ok := w.token.Certificate(pki.HashOf(c))
	if !ok {
		w.Fatal("the certificate is gone")
	}
	return tc.Status
}

func (w *world) enrolment() renewal.Enrolment { return w.service.Status()[0] }

func short(c *x509.Certificate) string { return pki.HashOf(c).Hex()[:8] }

var registered = pki.CertStatus{State: pki.StateRegistered, Active: true}

// takeover is the life of a renewed authentication certificate.
func takeover(w *world) (old, next *x509.Certificate) {
	old = w.certificate(false, registered)
	w.publish(old)
	w.now = w.now.Add(24 * time.Hour)
	next = w.certificate(true, pki.CertStatus{State: pki.StateSaved})
	w.renewView()
	w.renewed(next)
	w.look()
	if st := w.status(next); st.State != pki.StateRegistrationInProgress || st.Active {
		w.Fatalf("not registered by itself: %+v, %+v", st, w.enrolment())
	}
	w.pass(time.Hour)
	if st := w.status(next); st.Active || !w.status(old).Active {
		w.Fatalf("changed before the registry lists it: %+v", st)
	}
	// The registry lists it, and the gateway follows.
	w.publish(old, next)
	if err := w.set(pki.HashOf(next), func(st *pki.CertStatus) { st.State = pki.StateRegistered }); err != nil {
		w.Fatal(err)
	}
	w.look()
	if !w.status(next).Active {
		w.Fatalf("not active although it is listed: %+v", w.enrolment())
	}
	w.pass(11 * time.Minute) // all older configurations have expired
	w.pass(11 * time.Minute) // seen from a restart, too
	if w.status(old).Active || !w.status(next).Active || !w.enrolment().InUse {
		w.Fatalf("not taken over: %+v", w.enrolment())
	}
	w.pass(25 * time.Hour)
	if st := w.status(old); st.State != pki.StateDeletionInProgress {
		w.Fatalf("the registry was not asked to remove the old one: %+v, %+v", st, w.enrolment())
	}
	w.publish(next)
	w.look()
	return old, next
}

func TestAuthenticationTakeover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pki.Authentication)
	old, next := takeover(w)
	want := []string{"register " + short(next), "active=true " + short(next), "active=false " + short(old), "unregister " + short(old)}
	if !slices.Equal(w.calls, want) {
		t.Errorf("%q, want %q", w.calls, want)
	}
	// An operator who decides otherwise is not contradicted.
	for _, step := range []struct {
		c      *x509.Certificate
		active bool
	}{{old, true}, {next, false}} {
		if err := w.set(pki.HashOf(step.c), func(st *pki.CertStatus) { st.Active = step.active }); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(48 * time.Hour)
	w.restart()
	w.look()
	if len(w.calls) != len(want) {
		t.Errorf("%q", w.calls[len(want):])
	}
}

// The old certificate serves as long as some peer may not know the new one.
func TestPeersLearnFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pki.Authentication)
	old := w.certificate(false, registered)
	w.publish(old)
	w.now = w.now.Add(time.Hour)
	next := w.certificate(true, registered)
	w.publish(old, next)
	w.renewed(next)
	w.look()
	for range 9 {
		w.pass(time.Minute)
		if !w.status(old).Active || w.enrolment().InUse || !strings.Contains(w.enrolment().Now, "all peers know") {
			t.Fatalf("%+v", w.enrolment())
		}
	}
	w.pass(2 * time.Minute)
	if w.status(old).Active || !w.enrolment().InUse {
		t.Errorf("%+v", w.enrolment())
	}
	// One that an operator needs again stays listed.
	if err := w.set(pki.HashOf(old), func(st *pki.CertStatus) { st.Active = true }); err != nil {
		t.Fatal(err)
	}
	w.pass(48 * time.Hour)
	if st := w.status(old); st.State != pki.StateRegistered {
		t.Errorf("%+v", st)
	}
}

// Whenever the process dies, before or after what it does, the next one goes on.
func TestDiesAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pki.Authentication)
	for at := 1; at <= 4; at++ {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d, late %t", at, late), func(t *testing.T) {
				w.again(t)
				w.crash, w.late = at, late
				old, next := takeover(w)
				if st := w.status(old); st.Active {
					t.Errorf("the old certificate: %+v", st)
				}
				if st := w.status(next); st != registered || !w.enrolment().InUse {
					t.Errorf("the new certificate: %+v, %+v", st, w.enrolment())
				}
				b := check[[]byte](t)(os.ReadFile(filepath.Join(w.dir, "acme", "taken.json")))
				if strings.Contains(string(b), "replaced") {
					t.Errorf("something is still to be removed: %s", b)
				}
			})
		}
	}
}

// A registry that is away is asked again with growing pauses, one that has
// declined is not, until an operator asks.
func TestRegistryRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pki.Authentication)
	next := w.certificate(true, pki.CertStatus{State: pki.StateSaved})
	w.renewed(next)
	w.refuse = errors.New("the registry is away")
	tries := &tries{world: w}
	for range 120 {
		w.now = w.now.Add(time.Minute)
		w.renewView()
		if err := w.service.Look(t.Context(), tries); err != nil {
			t.Fatal(err)
		}
	}
	if tries.n < 6 || tries.n > 9 || !strings.Contains(w.enrolment().Now, "the registry is away") {
		t.Errorf("asked %d times in two hours: %+v", tries.n, w.enrolment())
	}
	w.refuse = fmt.Errorf("%w: Request 7 was declined: who are you?", renewal.ErrDeclined)
	w.pass(2 * time.Hour)
	if now := w.enrolment().Now; !strings.Contains(now, "who are you?") || !strings.Contains(now, "kontor cert register") {
		t.Error(now)
	}
	if st := w.status(next); st.State != pki.StateSaved || st.Active {
		t.Errorf("%+v", st)
	}
	// The operator has sent another request.
	w.refuse = nil
	if err := w.set(pki.HashOf(next), func(st *pki.CertStatus) { st.State = pki.StateRegistrationInProgress }); err != nil {
		t.Fatal(err)
	}
	w.look()
	if now := w.enrolment().Now; !strings.Contains(now, "waits until the registry lists") {
		t.Error(now)
	}
}

// tries counts how often the registry is asked.
type tries struct {
	*world
	n int
}

func (c *tries) Register(ctx context.Context, hash pki.CertHash, why string) error {
	c.n++
	return c.world.Register(ctx, hash, why)
}

// Signing needs no registry: the new certificate takes over at once, and the
// keys that ACME made go 30 days after their certificates have ended.
func TestSigningTakeoverAndOldKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pki.Signing)
	byHand := w.certificate(false, registered)
	w.now = w.now.Add(time.Hour)
	first := w.certificate(true, pki.CertStatus{State: pki.StateRegistered})
	w.publish()
	w.renewed(first)
	w.look()
	if w.status(byHand).Active || !w.status(first).Active || !w.enrolment().InUse {
		t.Fatalf("%+v", w.enrolment())
	}
	w.pass(80 * 24 * time.Hour)
	second := w.certificate(true, pki.CertStatus{State: pki.StateRegistered})
	w.renewed(second)
	w.look()
	if w.status(first).Active || !w.status(second).Active {
		t.Fatalf("%+v", w.enrolment())
	}
	calls := len(w.calls)
	w.pass(39 * 24 * time.Hour) // 29 days after the first has ended
	if len(w.calls) != calls {
		t.Fatalf("too early: %q", w.calls[calls:])
	}
	w.pass(2 * 24 * time.Hour)
	if len(w.calls) != calls+1 || !strings.HasPrefix(w.calls[calls], "remove ") {
		t.Fatalf("%q", w.calls[calls:])
	}
	if _, _, ok := w.token.Certificate(pki.HashOf(first)); ok {
		t.Error("the old key is still there")
	}
	w.status(byHand) // is not ours to remove
	w.status(second)
}
