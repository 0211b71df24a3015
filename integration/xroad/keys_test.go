// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"kontor/integration/testnet"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/registry"
)

// newAuthority approves another authority, which has keys of an algorithm; its
// responder is at a host of the network.
func newAuthority(t *testing.T, n *testnet.Network, host int, alg pki.Algorithm) *ca.CA {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	name := string(alg) + " CA"
	if err := ca.Create(dir, []byte("passphrase"), ca.CreateConfig{Name: name, Instance: testnet.Instance, Algorithm: alg}); err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(dir, []byte("passphrase"), ca.Config{Now: n.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := authority.Close(); err != nil {
			t.Error(err)
		}
	})
	responder := "http://" + n.Serve(host, authority.Handler()) + "/ocsp"
	n.Apply(&registry.SetCA{CA: registry.CA{Name: name, Profile: n.State().CAs()[0].Profile, Top: registry.CertifiedCA{
		Certificate: authority.Certificate().Raw, Responders: []registry.Responder{{URL: responder, Certificate: authority.OCSPCertificate().Raw}}}}})
	return authority
}

// rekey gives a stopped gateway other keys, with certificates of an authority.
func rekey(t *testing.T, n *testnet.Network, authority *ca.CA, g *testnet.Gateway, algs map[pki.Usage]pki.Algorithm) {
	t.Helper()
	token, err := pki.OpenToken(filepath.Join(g.Cfg.DataDir, "token"), []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range token.Keys() {
		if algs[k.Usage()] != "" {
			if err := token.RemoveKey(k.ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, _ := pki.ProfileByClass(n.State().CAs()[0].Profile)
	server := g.Cfg.Server
	for usage, alg := range algs {
		key, err := token.Generate(string(usage), usage, alg)
		if err != nil {
			t.Fatal(err)
		}
		subject := p.SignSubject
		if usage == pki.Authentication {
			subject = p.AuthSubject
		}
		name, err := subject(pki.SubjectParams{Server: server, Member: server.Owner(), MemberName: "Company", DNSName: "server.example", Country: "FI"})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := key.CSR(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := authority.Issue(t.Context(), csr, ca.Request{Usage: usage})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.AddCertificate(cert, pki.CertStatus{State: pki.StateRegistered, Active: true}); err != nil {
			t.Fatal(err)
		}
		if usage == pki.Authentication {
			n.Apply(&registry.RegisterCertificate{Server: server, Certificate: cert.Raw})
		}
	}
}

// TestLiveKeys lets both sides call each other with keys of other kinds.
func TestLiveKeys(t *testing.T) {
	j := newJudge(t)
	const auth, sign = pki.Authentication, pki.Signing
	for _, tt := range []struct {
		name         string
		authority    pki.Algorithm
		ours, theirs map[pki.Usage]pki.Algorithm
	}{
		{"RSA", pki.RSA2048, map[pki.Usage]pki.Algorithm{auth: pki.RSA2048, sign: pki.RSA3072}, map[pki.Usage]pki.Algorithm{auth: pki.RSA3072, sign: pki.RSA2048}},
		{"RSA of X-Road alone", pki.RSA3072, nil, map[pki.Usage]pki.Algorithm{auth: pki.RSA2048, sign: pki.RSA3072}},
		{"P-384", pki.P384, map[pki.Usage]pki.Algorithm{auth: pki.P384, sign: pki.P384}, map[pki.Usage]pki.Algorithm{auth: pki.P384, sign: pki.P384}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := testnet.Start(t, testnet.Options{})
			n.A.Stop()
			n.B.Stop()
			authority := newAuthority(t, n, 103, tt.authority)
			rekey(t, n, authority, n.A, tt.ours)
			rekey(t, n, authority, n.B, tt.theirs)
			n.A.Restart(nil)
			becomeXRoad(t, n)
			echo(n)
			provide(n)
			exchanges(t, ways(n))

			// These were the keys, and verifiers know them, too.
			conf := verificationConf(t, n)
			j := &judge{t, j.in, j.out}
			for i, w := range ways(n) {
				for k, p := range w.evidence(t, w.id("post"), 1) {
					want := "Test CA"
					if i != k || tt.ours != nil {
						want = string(tt.authority) + " CA"
					}
					if !strings.Contains(p.Report.Authority, want) {
						t.Errorf("%s: signature %d is of a key certified by %q", w.name, k, p.Report.Authority)
					}
					j.must("container", conf, write(t, filepath.Join(t.TempDir(), "evidence.asice"), p.File))
				}
				want := tt.ours[auth]
				if i == 1 {
					want = tt.theirs[auth]
				}
				if got := presented(t, w.address); want != "" && got != want {
					t.Errorf("%s has a key %s", w.address, got)
				}
			}
		})
	}
}

// presented is the kind of key with which a server authenticates itself.
func presented(t *testing.T, address string) (kind pki.Algorithm) {
	t.Helper()
	conn, err := tls.Dial("tcp", address+":5500", &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		switch k := s.PeerCertificates[0].PublicKey.(type) {
		case *rsa.PublicKey:
			kind = pki.Algorithm(fmt.Sprint("RSA-", k.N.BitLen()))
		case *ecdsa.PublicKey:
			kind = pki.Algorithm("EC-" + strings.ReplaceAll(k.Curve.Params().Name, "-", ""))
		}
		return nil
	}})
	if err == nil { // it asks for a certificate, too late to matter here
		err = conn.Close()
	}
	if kind == "" {
		t.Fatal(err)
	}
	return kind
}
