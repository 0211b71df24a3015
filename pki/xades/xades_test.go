// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki/xades"
)

const vectorDir = "../../../shared/vectors/asic"

var at = time.Date(2024, 12, 5, 12, 37, 37, 117_900_000, time.FixedZone("", 7200))

// ca issues test certificates.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB, name pkix.Name) *ca {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, IsCA: true, BasicConstraintsValid: true,
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour)}
	return &ca{issue(t, template, template, key.Public(), key), key}
}

func (c *ca) issue(t testing.TB, serial int64, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	return issue(t, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "signer"},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), KeyUsage: x509.KeyUsageContentCommitment}, c.cert, pub, c.key)
}

func issue(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is made once: it is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// testName returns a name that needs escapes of RFC 2253 and of XML.
func testName() pkix.Name {
	return pkix.Name{Country: []string{"FI"}, Organization: []string{"Smith & <Sons>, Inc"}, CommonName: " Õpetaja #1",
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "NTREE-1"}}}
}

// credentials returns credentials with intermediates and one OCSP response
// (which nobody here reads) per certificate.
func credentials(t testing.TB, key crypto.Signer, intermediates int) *xades.Credentials {
	t.Helper()
	authority := newCA(t, testName())
	c := &xades.Credentials{Key: key, Cert: authority.issue(t, 18, key.Public()), OCSP: [][]byte{[]byte("response for the signer")}}
	for range intermediates {
		c.Intermediates = append(c.Intermediates, authority.cert)
		c.OCSP = append(c.OCSP, []byte("response for an intermediate"))
	}
	return c
}

func message() xades.Reference {
	digest := sha512.Sum512([]byte("the message"))
	return xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: digest[:]}
}

func sign(t testing.TB, c *xades.Credentials, ref xades.Reference) []byte {
	t.Helper()
	doc, err := xades.Sign(c, ref, at)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// vector returns the signature document of a container, skipping the test
// where the vectors are not present.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join(vectorDir, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Skip("the X-Road test vectors are not here")
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("META-INF/signatures.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		err        error
		refs       []string
		timestamps int
		subject    string
	}{
		{"valid-signed-message.asice", nil, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		{"valid-batch-ts.asice", nil, []string{"/message.xml"}, 0, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		{"valid-non-batch-rest.asice", nil, []string{"/message.xml", "/attachment1"}, 0, "SERIALNUMBER=DEV/SS0/COM,CN=1234,O=Test member,C=FI"},
		// The signing time was changed.
		{"invalid-digest.asice", xades.ErrReference, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
		// The fault is in the container, the signature document is good.
		{"wrong-message.asice", nil, []string{"/message.xml"}, 1, "SERIALNUMBER=DEV/ss2/COM,CN=4321,O=Test client,C=FI"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := parse(t, vector(t, test.name))
			if err := s.Verify(); !errors.Is(err, test.err) {
				t.Errorf("Verify: %v, want %v", err, test.err)
			}
			var refs []string
			for _, r := range s.References() {
				refs = append(refs, r.URI)
			}
			if !slices.Equal(refs, test.refs) {
				t.Errorf("references %v, want %v", refs, test.refs)
			}
			if got := s.Certificate().Subject.String(); got != test.subject {
				t.Errorf("subject %s, want %s", got, test.subject)
			}
			if len(s.Timestamps()) != test.timestamps || len(s.OCSPResponses()) != 1 {
				t.Errorf("%d time-stamps, %d OCSP responses", len(s.Timestamps()), len(s.OCSPResponses()))
			}
		})
	}
}

// The document of this container refers to a file that does not exist, since
// its reference was edited after signing; edited back, it verifies.
func TestVectorIncorrectReferences(t *testing.T) {
	t.Parallel()
	doc := vector(t, "invalid-incorrect-references.asice")
	s := parse(t, doc)
	if err := s.Verify(); !errors.Is(err, xades.ErrSignature) || s.References()[0].URI != "/foobar.xml" {
		t.Errorf("%s: %v", s.References()[0].URI, err)
	}
	s = parse(t, bytes.Replace(doc, []byte("/foobar.xml"), []byte(xades.URIChainResult), 1))
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

func parse(t testing.TB, doc []byte) *xades.Signature {
	t.Helper()
	s, err := xades.Parse(doc)
	if err != nil {
		t.Fatalf("%v\n%.6000s", err, doc)
	}
	return s
}

func TestSignVerify(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		key           crypto.Signer
		intermediates int
	}{
		{"RSA", rsaKey(), 0},
		{"P-256", ecKey(t, elliptic.P256()), 2},
		{"P-384", ecKey(t, elliptic.P384()), 0},
		{"P-521", ecKey(t, elliptic.P521()), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := credentials(t, test.key, test.intermediates)
			doc := sign(t, c, message())
			if xades.Scan(nil, doc) == nil {
				t.Error("the fast path does not know our own form")
			}
			s := parse(t, doc)
			if err := s.Verify(); err != nil {
				t.Fatal(err)
			}
			if want := at.Truncate(time.Millisecond).UTC(); !s.SigningTime().Equal(want) {
				t.Errorf("signing time %v, want %v", s.SigningTime(), want)
			}
			if !s.Certificate().Equal(c.Cert) || len(s.Extras()) != test.intermediates || len(s.OCSPResponses()) != 1+test.intermediates ||
				!bytes.Equal(s.OCSPResponses()[0], c.OCSP[0]) || s.Timestamps() != nil {
				t.Errorf("certificate %v, %d extras, OCSP responses %q", s.Certificate().Subject, len(s.Extras()), s.OCSPResponses())
			}
			if refs := s.References(); len(refs) != 1 || !reflect.DeepEqual(refs[0], message()) {
				t.Errorf("references %v", refs)
			}
			slow, err := xades.ReadTree(nil, doc)
			if err != nil {
				t.Fatal(err)
			}
			if err := slow.Verify(); err != nil {
				t.Error(err)
			}
			same(t, s, slow)
		})
	}
}

// same demands that two readings of a document agree in everything.
func same(t *testing.T, a, b *xades.Signature) {
	t.Helper()
	atA, prefixA := a.InsertAt()
	atB, prefixB := b.InsertAt()
	switch {
	case !a.Certificate().Equal(b.Certificate()):
		t.Error("certificates differ")
	case !slices.EqualFunc(a.Extras(), b.Extras(), (*x509.Certificate).Equal):
		t.Error("extras differ")
	case !reflect.DeepEqual(a.OCSPResponses(), b.OCSPResponses()):
		t.Error("OCSP responses differ")
	case !reflect.DeepEqual(a.Timestamps(), b.Timestamps()):
		t.Error("time-stamps differ")
	case !reflect.DeepEqual(a.References(), b.References()):
		t.Error("references differ")
	case !bytes.Equal(a.Value(), b.Value()):
		t.Error("values differ")
	case !a.SigningTime().Equal(b.SigningTime()):
		t.Error("signing times differ")
	case !reflect.DeepEqual(a.Digests(), b.Digests()):
		t.Error("digests differ: the two canonical forms are not the same")
	case atA != atB || prefixA != prefixB:
		t.Errorf("places for time-stamps differ: %d %s, %d %s", atA, prefixA, atB, prefixB)
	case (a.Verify() == nil) != (b.Verify() == nil):
		t.Error("verdicts differ")
	}
}

var update = flag.Bool("update", false, "write the golden files")

// The golden files show the two forms in full, but for keys and what follows
// from them.
func TestGolden(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`(<ds:X509Certificate>|encapsulated-cert-\d+">|<ds:SignatureValue[^>]*>)[^<]+` +
		`|(#signed-properties"><ds:DigestMethod[^>]*></ds:DigestMethod><ds:DigestValue>)[^<]+` +
		`|(<xades:CertDigest><ds:DigestMethod[^>]*></ds:DigestMethod><ds:DigestValue>)[^<]+`)
	chain := message()
	chain.URI = xades.URIChainResult
	for name, doc := range map[string][]byte{
		"plain.xml": sign(t, credentials(t, rsaKey(), 0), message()),
		"chain.xml": sign(t, credentials(t, ecKey(t, elliptic.P256()), 1), chain),
	} {
		got := variable.ReplaceAll(doc, []byte("$1$2$3…"))
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	key := ecKey(t, elliptic.P256())
	change := func(f func(c *xades.Credentials)) *xades.Credentials {
		c := credentials(t, key, 0)
		f(c)
		return c
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := credentials(t, key, 0)
	bad := func(f func(r *xades.Reference)) xades.Reference {
		r := message()
		f(&r)
		return r
	}
	for name, test := range map[string]struct {
		c   *xades.Credentials
		ref xades.Reference
		at  time.Time
	}{
		"no key":           {change(func(c *xades.Credentials) { c.Key = nil }), message(), at},
		"no certificate":   {change(func(c *xades.Credentials) { c.Cert = nil }), message(), at},
		"other key":        {change(func(c *xades.Credentials) { c.Key = ecKey(t, elliptic.P256()) }), message(), at},
		"other kind":       {change(func(c *xades.Credentials) { c.Key = rsaKey() }), message(), at},
		"weak key":         {credentials(t, weak, 0), message(), at},
		"other curve":      {credentials(t, ecKey(t, elliptic.P224()), 0), message(), at},
		"no OCSP":          {change(func(c *xades.Credentials) { c.OCSP = nil }), message(), at},
		"empty OCSP":       {change(func(c *xades.Credentials) { c.OCSP = [][]byte{{}} }), message(), at},
		"large OCSP":       {change(func(c *xades.Credentials) { c.OCSP = [][]byte{make([]byte, xades.MaxSize)} }), message(), at},
		"short digest":     {good, bad(func(r *xades.Reference) { r.Digest = r.Digest[1:] }), at},
		"unknown method":   {good, bad(func(r *xades.Reference) { r.DigestMethod = "http://www.w3.org/2000/09/xmldsig#sha1" }), at},
		"URI that escapes": {good, bad(func(r *xades.Reference) { r.URI = `/a"b` }), at},
		"URI inside":       {good, bad(func(r *xades.Reference) { r.URI = "#signature" }), at},
		"year 10000":       {good, message(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if doc, err := xades.Sign(test.c, test.ref, test.at); err == nil {
			t.Errorf("%s: signed\n%s", name, doc)
		}
	}
}

// One value of Credentials serves all goroutines.
func TestSignConcurrently(t *testing.T) {
	t.Parallel()
	c := credentials(t, ecKey(t, elliptic.P256()), 1)
	p := xades.NewParser()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 8 {
				doc, err := xades.Sign(c, message(), at)
				if err != nil {
					t.Error(err)
					return
				}
				if s, err := p.Parse(doc); err != nil || s.Verify() != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// The parser's memory of certificates is bounded, and forgetting does no harm.
func TestParserForgets(t *testing.T) {
	t.Parallel()
	authority := newCA(t, testName())
	key := ecKey(t, elliptic.P256())
	p := xades.NewParser()
	for serial := range int64(600) {
		c := &xades.Credentials{Key: key, Cert: authority.issue(t, serial+2, key.Public()), OCSP: [][]byte{{1}}}
		s, err := p.Parse(sign(t, c, message()))
		if err != nil || s.Verify() != nil || s.Certificate().SerialNumber.Int64() != serial+2 {
			t.Fatalf("certificate %d: %v", serial, err)
		}
	}
}

// Other algorithms than our own, as foreign documents may use them.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	const more, pss = "http://www.w3.org/2001/04/xmldsig-more#", "http://www.w3.org/2007/05/xmldsig-more#"
	ec, ec521 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P521())
	for _, test := range []struct {
		method string
		key    crypto.Signer
		opts   crypto.SignerOpts
		err    error
	}{
		{more + "rsa-sha256", rsaKey(), crypto.SHA256, nil},
		{more + "rsa-sha384", rsaKey(), crypto.SHA384, nil},
		{more + "rsa-sha512", rsaKey(), crypto.SHA512, nil},
		{more + "ecdsa-sha256", ec, crypto.SHA256, nil},
		{more + "ecdsa-sha384", ec, crypto.SHA384, nil},
		{more + "ecdsa-sha512", ec521, crypto.SHA512, nil},
		{pss + "sha256-rsa-MGF1", rsaKey(), &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}, nil},
		{pss + "sha384-rsa-MGF1", rsaKey(), &rsa.PSSOptions{SaltLength: 48, Hash: crypto.SHA384}, nil},
		{pss + "sha512-rsa-MGF1", rsaKey(), &rsa.PSSOptions{SaltLength: 64, Hash: crypto.SHA512}, nil},
		{pss + "sha512-rsa-MGF1", rsaKey(), &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA512}, xades.ErrSignature},
		{more + "rsa-sha512", rsaKey(), &rsa.PSSOptions{SaltLength: 64, Hash: crypto.SHA512}, xades.ErrSignature},
		{more + "ecdsa-sha512", rsaKey(), crypto.SHA512, xades.ErrSignature},
		{more + "rsa-sha512", ec, crypto.SHA512, xades.ErrSignature},
		{more + "rsa-sha512", ec, crypto.SHA256, xades.ErrSignature},
		{"http://www.w3.org/2000/09/xmldsig#rsa-sha1", rsaKey(), crypto.SHA512, xades.ErrUnsupported},
		{"http://www.w3.org/2000/09/xmldsig#hmac-sha1", rsaKey(), crypto.SHA512, xades.ErrUnsupported},
		{more + "hmac-sha512", ec, crypto.SHA512, xades.ErrUnsupported},
	} {
		doc := sign(t, credentials(t, test.key, 0), message())
		doc = resign(t, doc, test.key, test.opts, func(doc string) string {
			return regexp.MustCompile(`SignatureMethod Algorithm="[^"]*"`).ReplaceAllString(doc, `SignatureMethod Algorithm="`+test.method+`"`)
		})
		s, err := xades.Parse(doc)
		if err == nil {
			err = s.Verify()
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%s with %v: %v, want %v", test.method, test.opts, err, test.err)
		}
	}
	for _, method := range []struct {
		uri  string
		hash crypto.Hash
	}{{xades.DigestSHA256, crypto.SHA256}, {xades.DigestSHA384, crypto.SHA384}} {
		doc := sign(t, credentials(t, ec, 0), xades.Reference{URI: "/attachment1", DigestMethod: method.uri, Digest: make([]byte, method.hash.Size())})
		if err := parse(t, doc).Verify(); err != nil {
			t.Errorf("%s: %v", method.uri, err)
		}
	}
}

// resign changes a document in our own form and makes its digest of the signed
// properties and its signature value right again, as a signer with another mind
// than ours would.
func resign(t testing.TB, doc []byte, key crypto.Signer, opts crypto.SignerOpts, change func(string) string) []byte {
	t.Helper()
	text := change(string(doc))
	part := func(start, end string) string {
		from := strings.Index(text, start)
		to := strings.Index(text, end)
		if from < 0 || to < from {
			t.Fatalf("no %s in\n%s", start, text)
		}
		return text[from+len(start) : to+len(end)]
	}
	props := sha512.Sum512([]byte(xades.CanonProps + part(`<xades:SignedProperties Id="signed-properties">`, `</xades:SignedProperties>`)))
	text = regexp.MustCompile(`(URI="#signed-properties">.*?<ds:DigestValue>)[^<]*`).
		ReplaceAllString(text, "${1}"+base64.StdEncoding.EncodeToString(props[:]))
	h := opts.HashFunc().New()
	h.Write([]byte(xades.CanonInfo + part("<ds:SignedInfo>", "</ds:SignedInfo>")))
	value, err := key.Sign(rand.Reader, h.Sum(nil), opts)
	if err != nil {
		t.Fatal(err)
	}
	if pub, ok := key.Public().(*ecdsa.PublicKey); ok {
		rs := make([]byte, 2*((pub.Params().BitSize+7)/8))
		if err := xades.DecodeECDSA(rs, value); err != nil {
			t.Fatal(err)
		}
		value = rs
	}
	return regexp.MustCompile(`(<ds:SignatureValue[^>]*>)[^<]*`).ReplaceAll([]byte(text), []byte("${1}"+base64.StdEncoding.EncodeToString(value)))
}

func TestECDSAEncoding(t *testing.T) {
	t.Parallel()
	for _, halves := range [][2]string{
		{"\x01", "\x7f"}, {"\x80", "\x00"}, {"\x00\x00\x01", "\xff\xff\xff"},
		{strings.Repeat("\xff", 32), "\x00" + strings.Repeat("\x80", 31)},
		{strings.Repeat("\x01", 48), strings.Repeat("\x80", 48)}, {strings.Repeat("\xff", 66), strings.Repeat("\x7f", 66)},
	} {
		rs := []byte(halves[0] + halves[1])
		want, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes([]byte(halves[0])), new(big.Int).SetBytes([]byte(halves[1]))})
		if err != nil {
			t.Fatal(err)
		}
		got := xades.EncodeECDSA(nil, rs)
		if !bytes.Equal(got, want) {
			t.Errorf("%x: %x, want %x", rs, got, want)
		}
		back := make([]byte, len(rs))
		if err := xades.DecodeECDSA(back, want); err != nil || !bytes.Equal(back, rs) {
			t.Errorf("%x back: %x, %v", rs, back, err)
		}
		for i := range want {
			if xades.DecodeECDSA(make([]byte, len(rs)), want[:i]) == nil {
				t.Errorf("%x cut at %d: no error", want, i)
			}
		}
		if xades.DecodeECDSA(make([]byte, len(rs)), append(want, 0)) == nil {
			t.Errorf("%x with a trailing byte: no error", want)
		}
	}
}

func TestInsertTimestamp(t *testing.T) {
	t.Parallel()
	token := []byte("a token, which nobody here reads")
	own := sign(t, credentials(t, ecKey(t, elliptic.P256()), 1), message())
	docs := map[string][]byte{
		"own":    own,
		"prefix": regexp.MustCompile(`xades:`).ReplaceAll(bytes.Replace(own, []byte("xmlns:xades="), []byte("xmlns:x="), 1), []byte("x:")),
		"spaces": bytes.Replace(own, []byte("<xades:UnsignedSignatureProperties>"), []byte("<xades:UnsignedSignatureProperties >\n"), 1),
	}
	if _, err := os.Stat(vectorDir); err == nil {
		docs["Java"] = vector(t, "valid-batch-ts.asice")
		docs["bare"] = vector(t, "valid-non-batch-rest.asice")
	}
	for name, doc := range docs {
		before := parse(t, doc)
		stamped, err := xades.InsertTimestamp(doc, token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		after := parse(t, stamped)
		if len(after.Timestamps()) != 1 || !bytes.Equal(after.Timestamps()[0], token) {
			t.Errorf("%s: time-stamps %q", name, after.Timestamps())
		}
		if (before.Verify() == nil) != (after.Verify() == nil) || !reflect.DeepEqual(before.Digests(), after.Digests()) {
			t.Errorf("%s: %v before, %v after", name, before.Verify(), after.Verify())
		}
		at, _ := before.InsertAt()
		if !bytes.HasPrefix(stamped, doc[:at]) || !bytes.HasSuffix(stamped, doc[at:]) {
			t.Errorf("%s: other bytes changed", name)
		}
		twice, err := xades.InsertTimestamp(stamped, []byte("second"))
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, twice).Timestamps(); len(got) != 2 || string(got[0]) != "second" {
			t.Errorf("%s: second time-stamp is not the first child: %q", name, got)
		}
	}
	if stamped, err := xades.InsertTimestamp(own, token); err != nil || xades.Scan(nil, stamped) == nil {
		t.Errorf("our own form with a time-stamp is not read by the fast path: %v", err)
	}
	for name, doc := range map[string]string{
		"no place":  regexp.MustCompile(`(?s)<xades:UnsignedProperties>.*</xades:UnsignedProperties>`).ReplaceAllString(string(own), ""),
		"empty":     regexp.MustCompile(`(?s)<xades:UnsignedSignatureProperties>.*</xades:UnsignedSignatureProperties>`).ReplaceAllString(string(own), "<xades:UnsignedSignatureProperties/>"),
		"malformed": "<a/>",
	} {
		if _, err := xades.InsertTimestamp([]byte(doc), token); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := xades.InsertTimestamp(own, nil); err == nil {
		t.Error("empty token: no error")
	}
	if _, err := xades.InsertTimestamp(own, make([]byte, xades.MaxSize)); err == nil {
		t.Error("large token: no error")
	}
}
