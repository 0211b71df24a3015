// SPDX-License-Identifier: Apache-2.0

// Package federation_test lets two instances trust each other, each with
// registry, authorities and gateways of its own, and tries to abuse that trust.
package federation_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

const partner = "PARTNER"

var author = registry.Author{Who: "operator"}

// federate permits federation at the gateways, which permits nothing yet.
func federate(with ...string) func(string, *config.Gateway) {
	return func(_ string, c *config.Gateway) { c.GlobalConf.Federations = with }
}

// allow lets the portal of another instance call what that of the own one may.
func allow(n, other *testnet.Network) {
	n.B.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, n.Name(testnet.Population))
		e.Access = append(e.Access, serverconf.AccessEntry{Service: "persons", Client: other.ClientID(testnet.Portal)})
	})
}

// trust gives the external anchor of one registry to another.
func trust(t *testing.T, n, other *testnet.Network) {
	t.Helper()
	anchor, err := other.Registry().ExternalAnchor()
	if err != nil {
		t.Fatal(err)
	}
	n.Apply(&registry.TrustAnchor{Instance: other.Registry().State().Instance(), Anchor: anchor})
}

func call(n, provider *testnet.Network, client string) *testnet.Result {
	return n.Call(n.Name(client), "GET", testnet.Path(provider.Name(testnet.Persons))+"/1", nil)
}

// works has the portal of one instance call the other's service until it is
// answered: federated configuration comes in its own time.
func works(t *testing.T, n, provider *testnet.Network) (res *testnet.Result) {
	t.Helper()
	testnet.Eventually(t, func() error {
		if res = call(n, provider, testnet.Portal); res.Err != nil || res.Status != http.StatusOK || string(res.Body) != testnet.Greeting {
			return fmt.Errorf("status %d, code %s: %s %v", res.Status, res.Code, res.Body, res.Err)
		}
		return nil
	})
	return res
}

// refused has the portal call until it is refused with that code.
func refused(t *testing.T, n, provider *testnet.Network, codes ...string) {
	t.Helper()
	var res *testnet.Result
	testnet.Eventually(t, func() error {
		if res = call(n, provider, testnet.Portal); res.Err == nil && res.Code == "" {
			return fmt.Errorf("status %d: not refused", res.Status)
		}
		return nil
	})
	for _, code := range codes {
		if res.Code == code {
			return
		}
	}
	t.Errorf("code %q (%s), want one of %q", res.Code, res.Fault.Message, codes)
}

const unknown = "server.clientproxy.unknown_member"

// stranger are the codes of a client whose security server the provider does
// not know: on a new connection, and on one from better days.
var stranger = []string{"server.clientproxy.ssl_authentication_failed", "server.serverproxy.service_failed.ssl_authentication_failed"}

func TestFederation(t *testing.T) {
	a := testnet.Start(t, testnet.Options{Gateway: federate(partner)})
	b := testnet.Start(t, testnet.Options{Instance: partner, Gateway: federate("test")}) // case does not matter
	allow(a, b)
	allow(b, a)

	// Nobody has said anything about trust: only the own instance exists.
	refused(t, a, b, unknown)

	// One-sided trust helps nobody: the provider does not know the client.
	trust(t, a, b)
	testnet.Eventually(t, func() error {
		if res := call(a, b, testnet.Portal); res.Code == unknown {
			return errors.New("the partner's configuration is not there yet")
		}
		return nil
	})
	refused(t, a, b, stranger...)
	refused(t, b, a, unknown)

	trust(t, b, a)
	evidence(t, a, b)
	evidence(t, b, a)
	// The right is the portal's.
	if res := call(a, b, testnet.Stranger); res.Code != "server.serverproxy.access_denied" {
		t.Errorf("a stranger of the other instance: %q (%s)", res.Code, res.Fault.Message)
	}

	t.Run("the partner rotates its key", func(t *testing.T) {
		r := b.Registry()
		old := r.State().Keys(registry.External)[0].Hash()
		key, err := r.GenerateKey(t.Context(), author, registry.External, pki.P256)
		if err != nil {
			t.Fatal(err)
		}
		b.Publish()
		// Both gateways of A must have read of the new key before it signs.
		for _, g := range []*testnet.Gateway{a.A, a.B} {
			testnet.Eventually(t, func() error { return announced(g, partner, 2) })
		}
		b.Apply(&registry.ActivateKey{Source: registry.External, Key: key}, &registry.RetireKey{Source: registry.External, Key: old})
		for _, g := range []*testnet.Gateway{a.A, a.B} {
			testnet.Eventually(t, func() error { return announced(g, partner, 1) })
		}
		works(t, a, b)
		works(t, b, a)
		// The anchor is still that of before.
		a.A.Restart(nil)
		works(t, a, b)
		a.B.Restart(nil)
		works(t, b, a)
		// Who comes new to the federation needs an anchor with the new key.
		trust(t, a, b)
		works(t, a, b)
	})

	t.Run("a gateway that opted out", func(t *testing.T) {
		a.A.Restart(func(c *config.Gateway) { c.GlobalConf.Federations = []string{partner, "none"} })
		refused(t, a, b, unknown)
		works(t, b, a) // its neighbour has not
		a.A.Restart(func(c *config.Gateway) { c.GlobalConf.Federations = []string{"all"} })
		works(t, a, b)
		a.B.Restart(func(c *config.Gateway) { c.GlobalConf.Federations = nil })
		refused(t, b, a, stranger...)
		a.B.Restart(func(c *config.Gateway) { c.GlobalConf.Federations = []string{partner} })
		works(t, b, a)
	})

	t.Run("revoked trust", func(t *testing.T) {
		a.Apply(&registry.DistrustAnchor{Instance: partner})
		refused(t, a, b, unknown)
		testnet.Eventually(t, func() error {
			if _, err := os.Stat(filepath.Join(confDir(a.A), partner)); err == nil {
				return errors.New("the distrusted configuration stays on disk")
			}
			return nil
		})
		refused(t, b, a, stranger...)
		trust(t, a, b)
		works(t, a, b)
		works(t, b, a)
	})

	t.Run("expired configuration", func(t *testing.T) {
		// Of two directories with the same parts the later expiry counts, so the
		// parameters change, too.
		validity, freshness := 120, 3601
		b.Settings(registry.Settings{ConfigurationValidity: &validity, OCSPFreshness: &freshness})
		for _, g := range []*testnet.Gateway{a.A, a.B} {
			testnet.Eventually(t, func() error { return expiresWithin(a, g, partner, 5*time.Minute) })
		}
		b.Unpublish()
		a.Advance(10 * time.Minute) // A's own is valid for an hour
		refused(t, a, b, unknown)
		a.Advance(-10 * time.Minute)
		b.Publish()
		works(t, a, b)
	})
}

// evidence exchanges a message and has both sides prove it.
func evidence(t *testing.T, n, provider *testnet.Network) {
	t.Helper()
	res := works(t, n, provider)
	for _, side := range []struct {
		n      *testnet.Network
		g      *testnet.Gateway
		holder string
	}{{n, n.A, n.Name(testnet.Portal)}, {provider, provider.B, provider.Name(testnet.Population)}} {
		proofs := side.n.Proofs(side.g, side.holder, res.ID)
		if len(proofs) != 2 {
			t.Fatalf("%d proofs at %s", len(proofs), side.holder)
		}
		if got := proofs[0].Report.Sender.String(); got != n.Name(testnet.Portal) {
			t.Errorf("the request is of %s", got)
		}
		if got := proofs[1].Report.Sender.String(); got != provider.Name(testnet.Population) {
			t.Errorf("the response is of %s", got)
		}
	}
}

// announced checks how many keys a gateway expects to sign an instance's
// external configuration.
func announced(g *testnet.Gateway, instance string, keys int) error {
	view, err := globalconf.LoadDir(confDir(g))
	if err != nil {
		return err
	}
	raw, version, ok := view.SharedParams(instance)
	if !ok {
		return errors.New("no shared parameters of " + instance)
	}
	p, err := globalconf.ParseSharedParams(raw, version)
	if err != nil {
		return err
	}
	if n := len(p.Sources[0].ExternalCerts); n != keys {
		return fmt.Errorf("gateway %s knows of %d keys of %s, not %d", g.Name, n, instance, keys)
	}
	return nil
}

// expiresWithin checks how long the configuration of an instance that a
// gateway has is still valid.
func expiresWithin(n *testnet.Network, g *testnet.Gateway, instance string, d time.Duration) error {
	b, err := os.ReadFile(filepath.Join(confDir(g), instance, globalconf.FileSharedParams+".metadata"))
	if err != nil {
		return err
	}
	var meta struct{ ExpirationDate time.Time }
	if err := json.Unmarshal(b, &meta); err != nil {
		return err
	}
	if left := meta.ExpirationDate.Sub(n.Now()); left > d {
		return fmt.Errorf("the configuration of %s at gateway %s is valid for %s", instance, g.Name, left)
	}
	return nil
}

func confDir(g *testnet.Gateway) string { return filepath.Join(g.Cfg.DataDir, "globalconf") }

// A partner's registry that lies harms nobody but itself.
func TestLyingPartner(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: federate("all")})
	works(t, n, n)
	raw, version, _ := view(t, n.A).SharedParams(testnet.Instance)
	own, err := globalconf.ParseSharedParams(raw, version)
	if err != nil {
		t.Fatal(err)
	}

	liar := newSource(t, n, "LIAR")
	n.Apply(&registry.TrustAnchor{Instance: "LIAR", Anchor: liar.anchor()})
	// It claims the certificates of our servers, lists our authority with a
	// responder and a time-stamping authority of its own, and names our members
	// as its own.
	p := liar.params()
	p.Servers[0].AuthCerts = nil
	for _, s := range own.Servers {
		p.Servers[0].AuthCerts = append(p.Servers[0].AuthCerts, s.AuthCerts...)
	}
	p.CAs = []globalconf.ApprovedCA{own.CAs[0]}
	p.CAs[0].Top.OCSP = []globalconf.OCSPResponder{{URL: "http://" + n.A.IP() + ":1/", Cert: liar.cert.Raw}}
	liar.publish(p, part{instance: "LIAR"})
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		testnet.Eventually(t, func() error { return known(t, g, "LIAR") })
	}
	works(t, n, n)
	v := view(t, n.A)
	cert := n.Certificate(n.B).Cert
	if s, ok := v.ServerByCertificate(cert); !ok || s.ID != n.ServerID(testnet.Server2) {
		t.Errorf("the certificate of %s belongs to %v", testnet.Server2, s)
	}
	ca, err := x509.ParseCertificate(own.CAs[0].Top.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if r := v.OCSPResponders(testnet.Instance, ca); len(r.Authorised) != 1 || r.Authorised[0].Equal(liar.cert) {
		t.Errorf("%d responders vouch for our members", len(r.Authorised))
	}

	// What it says of another instance is not taken at all, and what was good
	// before stays.
	for name, parts := range map[string][]part{
		"parts of another instance only":            {{instance: testnet.Instance}},
		"its own part holds another's parameters":   {{instance: "LIAR", content: raw}},
		"another instance's part, badly hashed":     {{instance: "LIAR", spoil: true}},
		"private parameters instead of shared":      {{instance: "LIAR", identifier: globalconf.ContentPrivateParams}},
		"a part of another instance beside its own": {{instance: "LIAR"}, {instance: testnet.Instance, content: raw}},
	} {
		t.Run(name, func(t *testing.T) {
			p.Members[0].Name = name
			asked := liar.publish(p, parts...)
			testnet.Eventually(t, asked)
			works(t, n, n)
			v := view(t, n.A)
			got, want := v.Name(p.Members[0].ID.Client()), "before"
			if len(parts) == 2 { // only the foreign part is ignored
				want = name
				testnet.Eventually(t, func() error {
					if got = view(t, n.A).Name(p.Members[0].ID.Client()); got != want {
						return fmt.Errorf("member is called %q", got)
					}
					return nil
				})
			}
			if got != want {
				t.Errorf("member is called %q, want %q", got, want)
			}
			if name := v.Name(n.ClientID(testnet.Portal).Member().Client()); name != "Member 1001" {
				t.Errorf("our member is called %q", name)
			}
			p.Members[0].Name = "before"
			liar.publish(p, part{instance: "LIAR"})
			testnet.Eventually(t, func() error {
				if got := view(t, n.A).Name(p.Members[0].ID.Client()); got != "before" {
					return fmt.Errorf("member is called %q", got)
				}
				return nil
			})
		})
	}
}

func view(t *testing.T, g *testnet.Gateway) *globalconf.View {
	t.Helper()
	var v *globalconf.View
	testnet.Eventually(t, func() (err error) { v, err = globalconf.LoadDir(confDir(g)); return err })
	return v
}

func known(t *testing.T, g *testnet.Gateway, instance string) error {
	if !slices.Contains(view(t, g).Instances(), instance) {
		return errors.New("the configuration of " + instance + " is not there yet")
	}
	return nil
}

// source is an external source whose operator says whatever he wants.
type source struct {
	t        *testing.T
	instance string
	address  string
	key      *ecdsa.PrivateKey
	cert     *x509.Certificate
	now      func() time.Time

	mu    sync.Mutex
	files map[string][]byte
	asked int
}

type part struct {
	instance, identifier string
	content              []byte // nil: the parameters
	spoil                bool
}

func newSource(t *testing.T, n *testnet.Network, instance string) *source {
	t.Helper()
	s := &source{t: t, instance: instance, now: n.Now, files: map[string][]byte{}}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	s.address = n.Serve(100, s)
	return s
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc, ok := s.files[r.URL.RequestURI()]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.URL.Path == "/externalconf" {
		s.asked++
	}
	_, _ = w.Write(doc)
}

func (s *source) anchor() []byte {
	a := &globalconf.Anchor{Generated: s.now(), Instance: s.instance,
		Sources: []globalconf.AnchorSource{{URL: "http://" + s.address + "/externalconf", Certs: [][]byte{s.cert.Raw}}}}
	doc, err := a.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	return doc
}

// params are those of an instance with one member and one server.
func (s *source) params() *globalconf.SharedParams {
	member, err := id.NewMember(s.instance, "GOV", "1")
	if err != nil {
		s.t.Fatal(err)
	}
	server, err := id.NewSecurityServer(member, "ss")
	if err != nil {
		s.t.Fatal(err)
	}
	return &globalconf.SharedParams{
		Instance: s.instance, OCSPFreshness: time.Hour,
		Sources:       []globalconf.Source{{Address: s.address, ExternalCerts: [][]byte{s.cert.Raw}}},
		MemberClasses: []globalconf.MemberClass{{Code: "GOV", Description: "Government"}},
		Members:       []globalconf.Member{{ID: member, ClassDescription: "Government", Name: "before"}},
		Servers:       []globalconf.SecurityServer{{ID: server, Address: s.address}},
	}
}

// publish signs a directory of the parts. The function that it returns tells
// whether both gateways have asked for it since.
func (s *source) publish(p *globalconf.SharedParams, parts ...part) func() error {
	s.t.Helper()
	params, err := p.Marshal(globalconf.CurrentVersion)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	folder := "/V6/" + globalconf.Folder(s.now())
	d := &globalconf.Directory{Version: globalconf.CurrentVersion, Expires: s.now().Add(time.Hour)}
	for i, q := range parts {
		location := fmt.Sprintf("%s/%d/shared-params.xml", folder, i)
		content := q.content
		if content == nil {
			content = params
		}
		d.Parts = append(d.Parts, globalconf.NewPart(cmp.Or(q.identifier, globalconf.ContentSharedParams), q.instance, location, content))
		if q.spoil {
			content = append([]byte(" "), content...)
		}
		s.files[location] = content
	}
	doc, err := d.Sign(s.key, s.cert)
	if err != nil {
		s.t.Fatal(err)
	}
	s.files["/externalconf?version=6"] = doc
	was := s.asked
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked < was+6 { // two gateways, which may have been asking just now
			return errors.New("the gateways do not ask the partner")
		}
		return nil
	}
}

// The registry's key is rotated under traffic, with the anchor of before, and
// no gateway notices.
func TestRotation(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	works(t, n, n)
	stop, stopped := make(chan struct{}), make(chan struct{})
	var calls, failed atomic.Int64
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil); res.Status != http.StatusOK {
				failed.Add(1)
				t.Errorf("a call failed: %+v", res)
				return
			}
			calls.Add(1)
		}
	}()
	before := [2]int{}
	const complaint = "global configuration was not updated"
	for i, g := range []*testnet.Gateway{n.A, n.B} {
		before[i] = len(g.Logged(complaint))
	}
	r := n.Registry()
	for range 2 { // the second rotation has no key left that the anchor names
		old := r.State().Keys(registry.Internal)[0].Hash()
		key, err := r.GenerateKey(t.Context(), author, registry.Internal, pki.P256)
		if err != nil {
			t.Fatal(err)
		}
		n.Publish()
		n.Apply(&registry.ActivateKey{Source: registry.Internal, Key: key})
		n.Apply(&registry.RetireKey{Source: registry.Internal, Key: old})
	}
	close(stop)
	<-stopped
	if calls.Load() == 0 || failed.Load() > 0 {
		t.Errorf("%d calls, %d failed", calls.Load(), failed.Load())
	}
	for i, g := range []*testnet.Gateway{n.A, n.B} {
		if now := len(g.Logged(complaint)); now != before[i] {
			t.Errorf("gateway %s could not update %d times:\n%s", g.Name, now-before[i], g.LogText())
		}
	}
	// A restart, too, with the old anchor and with what is stored.
	n.A.Restart(nil)
	n.B.Restart(nil)
	works(t, n, n)
	n.Publish()
	works(t, n, n)
	// Whoever trusts the new anchor verifies the evidence.
	anchor, err := r.InternalAnchor()
	if err != nil {
		t.Fatal(err)
	}
	n.Anchor = anchor
	evidence(t, n, n)
}

// A gateway that loads through a mirror exchanges messages with one that does
// not, and lives on when the registry is gone.
func TestMirror(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	dir := t.TempDir()
	anchor := filepath.Join(dir, "registry.xml")
	if err := os.WriteFile(anchor, n.Anchor, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Mirror{Anchor: anchor, DataDir: filepath.Join(dir, "mirror"), PINFile: filepath.Join(dir, "pin"), Name: "test",
		Address: n.IP(101) + ":8080", Interval: 150 * time.Millisecond, Validity: time.Hour}
	cfg.Listen.HTTP, cfg.Listen.Metrics = cfg.Address, n.IP(101)+":9100"
	if err := roles.InitMirror(cfg, pki.P256); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- roles.RunMirror(ctx, cfg, roles.Options{Now: n.Now, Ready: func() { close(ready) }})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	fetch := func(url string) (body []byte, err error) {
		resp, err := http.Get(url)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
		}
		return body, err
	}
	testnet.Eventually(t, func() error { _, err := fetch("http://" + cfg.Listen.Metrics + "/readyz"); return err })
	own, err := fetch("http://" + cfg.Address + "/test/anchor")
	if err != nil {
		t.Fatal(err)
	}
	through := filepath.Join(dir, "mirror.xml")
	if err := os.WriteFile(through, own, 0o600); err != nil {
		t.Fatal(err)
	}
	n.A.Restart(func(c *config.Gateway) { c.Anchor = through })
	works(t, n, n)

	// A change reaches it, too.
	changed := "renamed " + n.Name(testnet.Portal)
	r := n.Registry()
	if _, err := r.Apply(t.Context(), author, []registry.Change{&registry.RenameMember{Member: n.ClientID(testnet.Portal).Member(), Name: changed}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, func() error {
		if got := view(t, n.A).Name(n.ClientID(testnet.Portal).Member().Client()); got != changed {
			return fmt.Errorf("the member is called %q", got)
		}
		return nil
	})
	n.Unpublish()
	n.A.Restart(nil)
	works(t, n, n)
}
