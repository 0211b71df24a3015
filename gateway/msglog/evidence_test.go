// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	xocsp "golang.org/x/crypto/ocsp"

	"kontor/gateway/msglog"
	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/tsa"
	"kontor/pki/xades"
)

// authority is an ecosystem's trust: a CA, a time-stamping authority, a member.
type authority struct {
	ca, tsa *x509.Certificate
	tsaKey  crypto.Signer
	signer  *signer
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	now := time.Now()
	key := func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }
	issue := func(tmpl, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		tmpl.NotBefore, tmpl.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, pub, by))))
	}
	caKey, tsaKey, memberKey := key(), key(), key()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	a := &authority{ca: issue(root, root, caKey.Public(), caKey), tsaKey: tsaKey}
	a.tsa = issue(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TSA"},
		KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true,
			Value: must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}))}},
	}, a.ca, tsaKey.Public(), caKey)
	member := issue(&x509.Certificate{SerialNumber: big.NewInt(3), KeyUsage: x509.KeyUsageContentCommitment,
		Subject: pkix.Name{Country: []string{"DEV"}, Organization: []string{"GOV"}, CommonName: "111"}}, a.ca, memberKey.Public(), caKey)
	status := must(xocsp.CreateResponse(a.ca, a.ca, xocsp.Response{Status: xocsp.Good, SerialNumber: member.SerialNumber,
		ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}, caKey))
	a.signer = &signer{&xades.Credentials{Key: memberKey, Cert: member, OCSP: [][]byte{status}}}
	return a
}

func (a *authority) Authorities(rawSubject []byte) []*pki.Authority {
	if !bytes.Equal(rawSubject, a.ca.RawSubject) {
		return nil
	}
	profile, _ := pki.ProfileByClass("Ejbca")
	return []*pki.Authority{{Cert: a.ca, Instance: "DEV", Name: "CA", Profile: profile}}
}

func (a *authority) OCSPPolicy() ocsp.Policy { return ocsp.Policy{Freshness: time.Hour} }

func (a *authority) OCSPResponders(string, *x509.Certificate) ocsp.Responders {
	return ocsp.Responders{Known: []*x509.Certificate{a.ca}}
}

func (a *authority) TSACertificates() []*x509.Certificate { return []*x509.Certificate{a.tsa} }

// TestEvidence: what the log exports convinces the verifier, stamped alone and
// in a batch, plain and with a hash chain, with bodies in memory and in files.
func TestEvidence(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	server := httptest.NewServer(tsa.NewServer(tsa.ServerConfig{Cert: a.tsa, Signer: a.tsaKey, Policy: asn1.ObjectIdentifier{1, 2, 3}}))
	defer server.Close()
	stamps := tsa.NewClient(tsa.ClientConfig{HTTP: server.Client()})
	cfg := msglog.Config{Dir: "log"}
	cfg.Stamp = func(ctx context.Context, data []byte) (*tsa.Token, error) {
		return stamps.Stamp(ctx, server.URL, data, a.TSACertificates())
	}
	fs := vfs.NewMem()
	l := openMem(t, cfg, fs)
	defer closeLog(t, l)
	add := func(id string, bodies ...[]byte) {
		t.Helper()
		r := record(id, bodies...)
		r.Time = time.Time{}
		r.Evidence = a.signer.evidence(r.Head, bodies...)
		appendRecord(t, l, r, must(sources(fs, l, id, bodies))...)
	}
	stamp := func() {
		t.Helper()
		if err := l.StampNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	small, large := []byte("small"), bytes.Repeat([]byte("large"), 30_000)
	add("alone")
	stamp()
	add("alone with body", small)
	stamp()
	add("batch")
	add("batch with small body", small)
	add("batch with large body", large)
	add("batch with attachments", large, []byte{}, small, large[1:])
	stamp()
	add("alone with attachments", small, large)
	stamp()
	checkLog(t, l)
	var intact []byte
	attachments := []int{0, 1, 0, 1, 1, 4, 2}
	for i, n := range attachments {
		seq := uint64(i + 1)
		c, err := l.Container(t.Context(), seq, false)
		if err != nil {
			t.Fatal(err)
		}
		if batch := seq > 2 && seq < 7; batch != (c.Timestamp != nil) {
			t.Errorf("record %d: batch time-stamp %v", seq, !batch)
		}
		var buf bytes.Buffer
		if _, err := c.WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		rep := asic.VerifyReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()), a, asic.Options{})
		for _, f := range rep.Failed() {
			t.Errorf("record %d: %s: %s", seq, f.Name, f.Err)
		}
		if len(c.Attachments) != n || len(rep.Unverified) > 0 || rep.Stamped.IsZero() {
			t.Errorf("record %d: %+v", seq, rep)
		}
		intact = buf.Bytes()
	}
	if rep := asic.VerifyReader(bytes.NewReader(intact[:len(intact)-1]), int64(len(intact)-1), a, asic.Options{}); rep.Valid {
		t.Error("the verifier accepts anything")
	}
}
