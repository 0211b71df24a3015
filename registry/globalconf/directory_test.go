// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"kontor/registry/globalconf"
)

func sample() *globalconf.Directory {
	return &globalconf.Directory{Expires: start.Add(10 * time.Minute), Version: 6, Parts: []globalconf.Part{
		globalconf.NewPart(globalconf.ContentSharedParams, "DEV", "/V6/20260301120000000000000/shared-params.xml", []byte("shared")),
		globalconf.NewPart(globalconf.ContentPrivateParams, "DEV", "/V6/20260301120000000000000/private-params.xml", []byte("private")),
	}}
}

// TestDirectoryForm compares a signed directory with a central server's, byte
// by byte.
func TestDirectoryForm(t *testing.T) {
	t.Parallel()
	k := newEC(t, elliptic.P256(), "internalSigningKey")
	doc := string(must(sample().Sign(k.key, k.cert))(t))
	boundaries := regexp.MustCompile(`boundary=([A-Za-z0-9]{20})\r\n`).FindAllStringSubmatch(doc, -1)
	if len(boundaries) != 2 {
		t.Fatalf("boundaries %q", boundaries)
	}
	hash := func(s string) string {
		sum := sha512.Sum512([]byte(s))
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	want := strings.Join([]string{
		"Content-Type: multipart/related; charset=UTF-8; boundary=OUTER", "",
		"--OUTER",
		"Content-Type: multipart/mixed; charset=UTF-8; boundary=INNER", "",
		"--INNER", "Expire-date: 2026-03-01T12:10:00Z", "Version: 6", "",
		"--INNER", "Content-type: application/octet-stream", "Content-transfer-encoding: base64",
		"Content-identifier: SHARED-PARAMETERS; instance='DEV'",
		"Content-location: /V6/20260301120000000000000/shared-params.xml",
		"Hash-algorithm-id: http://www.w3.org/2001/04/xmlenc#sha512", "", hash("shared"),
		"--INNER", "Content-type: application/octet-stream", "Content-transfer-encoding: base64",
		"Content-identifier: PRIVATE-PARAMETERS; instance='DEV'",
		"Content-location: /V6/20260301120000000000000/private-params.xml",
		"Hash-algorithm-id: http://www.w3.org/2001/04/xmlenc#sha512", "", hash("private"),
		"--INNER--", "",
		"--OUTER", "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64",
		"Signature-Algorithm-Id: http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
		"Verification-certificate-hash: " + hash(string(k.cert.Raw)) + `; hash-algorithm-id="http://www.w3.org/2001/04/xmlenc#sha512"`, "",
		"SIGNATURE", "--OUTER--", ""}, "\r\n")
	sig := doc[strings.LastIndex(doc, "\r\n\r\n")+4 : strings.LastIndex(doc, "\r\n--")]
	got := strings.NewReplacer(boundaries[0][1], "OUTER", boundaries[1][1], "INNER", sig, "SIGNATURE").Replace(doc)
	if got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	// What is signed, found a second way.
	from, to := strings.Index(doc, "--"+boundaries[1][1]), strings.LastIndex(doc, "--"+boundaries[1][1]+"--\r\n")+len(boundaries[1][1])+6
	sum := sha512.Sum512([]byte(doc[from:to]))
	raw := must(base64.StdEncoding.DecodeString(sig))(t)
	if !ecdsa.VerifyASN1(&k.key.(*ecdsa.PrivateKey).PublicKey, sum[:], raw) {
		t.Error("the signature is not over the expected bytes")
	}
}

func TestSigningAlgorithms(t *testing.T) {
	t.Parallel()
	for _, k := range []identity{newIdentity(t, rsaKey(), "RSA"), newEC(t, elliptic.P256(), "P-256"), newEC(t, elliptic.P384(), "P-384"), newEC(t, elliptic.P521(), "P-521")} {
		for _, h := range []crypto.Hash{0, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			d := sample()
			d.SignHash = h
			doc, err := d.Sign(k.key, k.cert)
			if err != nil {
				t.Errorf("%s %v: %v", k.cert.Subject, h, err)
				continue
			}
			got := must(globalconf.ParseDirectory(doc, []*x509.Certificate{newEC(t, elliptic.P256(), "x").cert, k.cert}))(t)
			if !got.Expires.Equal(d.Expires) || got.Version != 6 || len(got.Parts) != 2 || got.Parts[1].Instance != "DEV" || got.Parts[0].Matches([]byte("shared")) != nil {
				t.Errorf("%+v", got)
			}
			if err := got.Parts[0].Matches([]byte("Shared")); !errors.Is(err, globalconf.ErrHash) {
				t.Error(err)
			}
		}
		d := sample()
		d.SignHash = crypto.SHA1
		if _, err := d.Sign(k.key, k.cert); err == nil {
			t.Error("signed with SHA-1")
		}
		other := newEC(t, elliptic.P256(), "other")
		if _, err := sample().Sign(k.key, other.cert); err == nil {
			t.Error("signed with a key that does not belong to the certificate")
		}
	}
}

func TestUnsignable(t *testing.T) {
	t.Parallel()
	k := newEC(t, elliptic.P256(), "k")
	for name, change := range map[string]func(d *globalconf.Directory){
		"no expiry":           func(d *globalconf.Directory) { d.Expires = time.Time{} },
		"version":             func(d *globalconf.Directory) { d.Version = 7 },
		"line break":          func(d *globalconf.Directory) { d.Parts[0].Location = "/a\r\nVersion: 2" },
		"no location":         func(d *globalconf.Directory) { d.Parts[0].Location = "" },
		"no identifier":       func(d *globalconf.Directory) { d.Parts[0].Identifier = "" },
		"identifier splits":   func(d *globalconf.Directory) { d.Parts[0].Identifier = "A; instance=B" },
		"both quotes":         func(d *globalconf.Directory) { d.Parts[0].Instance = `a'b"c` },
		"twice":               func(d *globalconf.Directory) { d.Parts[1] = d.Parts[0] },
		"no instance":         func(d *globalconf.Directory) { d.Parts[0].Instance = "" },
		"SHA-1":               func(d *globalconf.Directory) { d.Parts[0].HashURI = "http://www.w3.org/2000/09/xmldsig#sha1" },
		"no hash":             func(d *globalconf.Directory) { d.Parts[0].Hash = nil },
		"space at the end":    func(d *globalconf.Directory) { d.Parts[0].Location += " " },
		"more than 64 parts":  func(d *globalconf.Directory) { d.Parts = make([]globalconf.Part, 65) },
		"control in instance": func(d *globalconf.Directory) { d.Parts[0].Instance = "a\x00" },
	} {
		d := sample()
		change(d)
		if _, err := d.Sign(k.key, k.cert); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	d := sample()
	d.Parts[0].Instance, d.Parts[1].Instance = "O'Brien", `"x"; y=z`
	got := must(globalconf.ParseDirectory(must(d.Sign(k.key, k.cert))(t), []*x509.Certificate{k.cert}))(t)
	if got.Parts[0].Instance != d.Parts[0].Instance || got.Parts[1].Instance != d.Parts[1].Instance {
		t.Errorf("%+v", got.Parts)
	}
}

// envelope signs inner by hand, as foreign software might write it.
type envelope struct {
	head, innerHead, uri, certParam, inner, tail string
	end                                          string // line end
	sign                                         func(signed []byte) []byte
}

func (e envelope) bytes(cert *x509.Certificate) []byte {
	sum := sha512.Sum512(cert.Raw)
	sig := base64.StdEncoding.EncodeToString(e.sign([]byte(e.inner)))
	return []byte(e.head + "--OUT" + e.end + e.innerHead + e.inner + e.end + "--OUT" + e.end +
		"Content-Type: application/octet-stream" + e.end + "Content-Transfer-Encoding: base64" + e.end +
		"Signature-Algorithm-Id: " + e.uri + e.end +
		"Verification-certificate-hash: " + base64.StdEncoding.EncodeToString(sum[:]) + e.certParam + e.end + e.end +
		sig + e.end + "--OUT--" + e.tail)
}

const innerForm = "--IN\r\nExpire-date: 2026-03-01T12:10:00.123Z\r\nVersion: 5\r\n\r\n\r\n" +
	"--IN\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n" +
	"Content-identifier: SHARED-PARAMETERS; instance=\"DEV\"\r\n" +
	"Content-location: /PROXY/1772366400123/DEV/V5/20260301115950000000000/shared-params.xml\r\n" +
	"Hash-algorithm-id: http://www.w3.org/2001/04/xmlenc#sha256\r\n\r\nHASH\r\n--IN--\r\n"

// TestForeignForms reads what configuration proxies and others write.
func TestForeignForms(t *testing.T) {
	t.Parallel()
	ec, rs := newEC(t, elliptic.P256(), "proxy"), newIdentity(t, rsaKey(), "proxy")
	key := ec.key.(*ecdsa.PrivateKey)
	sum := sha256.Sum256([]byte("shared"))
	inner := strings.Replace(innerForm, "HASH", base64.StdEncoding.EncodeToString(sum[:]), 1)
	der := func(signed []byte) []byte {
		sum := sha512.Sum512(signed)
		return must(key.Sign(rand.Reader, sum[:], crypto.SHA512))(t)
	}
	proxy := envelope{
		head:      "Content-Type: multipart/related; type=\"multipart/mixed\"; charset=UTF-8; boundary=OUT\n\n",
		innerHead: "Content-Type: multipart/mixed; charset=UTF-8; boundary=IN\r\n\r\n",
		uri:       "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512", certParam: "; Hash-algorithm-id=http://www.w3.org/2001/04/xmlenc#sha512",
		inner: inner, end: "\r\n", tail: "\r\n", sign: der,
	}
	change := func(f func(e *envelope)) envelope {
		e := proxy
		f(&e)
		return e
	}
	for name, tc := range map[string]struct {
		e    envelope
		cert *x509.Certificate
	}{
		"configuration proxy": {proxy, ec.cert},
		"raw elliptic signature": {change(func(e *envelope) {
			e.sign = func(signed []byte) []byte {
				sum := sha512.Sum512(signed)
				r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
				if err != nil {
					t.Fatal(err)
				}
				return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			}
		}), ec.cert},
		"RSA-PSS": {change(func(e *envelope) {
			e.uri = "http://www.w3.org/2007/05/xmldsig-more#sha512-rsa-MGF1"
			e.sign = func(signed []byte) []byte {
				sum := sha512.Sum512(signed)
				return must(rsa.SignPSS(rand.Reader, rsaKey(), crypto.SHA512, sum[:], nil))(t)
			}
		}), rs.cert},
		"LF throughout": {change(func(e *envelope) {
			for _, s := range []*string{&e.head, &e.innerHead, &e.inner, &e.end, &e.tail} {
				*s = strings.ReplaceAll(*s, "\r\n", "\n")
			}
		}), ec.cert},
		"no line end at the end": {change(func(e *envelope) { e.tail = "" }), ec.cert},
		"no line end inside":     {change(func(e *envelope) { e.inner = strings.TrimSuffix(e.inner, "\r\n") }), ec.cert},
		"folded header": {change(func(e *envelope) {
			e.certParam = ";\r\n hash-algorithm-id='http://www.w3.org/2001/04/xmlenc#sha512'"
		}), ec.cert},
		"unknown signed header": {change(func(e *envelope) {
			e.inner = strings.Replace(e.inner, "Version", "X-Y: z\r\nVersion", 1)
		}), ec.cert},
	} {
		d, err := globalconf.ParseDirectory(tc.e.bytes(tc.cert), []*x509.Certificate{tc.cert})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		at, ok := d.Generation()
		if d.Version != 5 || d.Expires.Nanosecond() != 123e6 || d.Parts[0].Instance != "DEV" || !ok || at.UnixMilli() != 1772366400123 {
			t.Errorf("%s: %+v", name, d)
		}
	}

	for name, f := range map[string]func(e *envelope){
		"preamble":             func(e *envelope) { e.head += "hello\r\n" },
		"epilogue":             func(e *envelope) { e.tail = "\r\nmore" },
		"no inner end":         func(e *envelope) { e.inner = strings.TrimSuffix(e.inner, "--IN--\r\n") },
		"second header":        func(e *envelope) { e.head = "X: y\r\n" + e.head },
		"second inner header":  func(e *envelope) { e.innerHead = "X: y\r\n" + e.innerHead },
		"charset":              func(e *envelope) { e.head = strings.Replace(e.head, "UTF-8", "UTF-16", 1) },
		"other inner boundary": func(e *envelope) { e.innerHead = strings.Replace(e.innerHead, "=IN", "=I", 1) },
		"RSA with an EC key":   func(e *envelope) { e.uri = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512" },
		"SHA-1":                func(e *envelope) { e.uri = "http://www.w3.org/2000/09/xmldsig#rsa-sha1" },
		"other hash":           func(e *envelope) { e.uri = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256" },
		"no hash parameter":    func(e *envelope) { e.certParam = "" },
		"wrong hash parameter": func(e *envelope) { e.certParam = "; hash-algorithm-id=http://www.w3.org/2001/04/xmlenc#sha256" },
		"extra parameter":      func(e *envelope) { e.certParam += "; x=y" },
		"no expiry":            func(e *envelope) { e.inner = strings.Replace(e.inner, "Expire-date", "Expired-date", 1) },
		"bad expiry":           func(e *envelope) { e.inner = strings.Replace(e.inner, "2026-03", "2026-13", 1) },
		"version 7":            func(e *envelope) { e.inner = strings.Replace(e.inner, "Version: 5", "Version: 7", 1) },
		"version twice":        func(e *envelope) { e.inner = strings.Replace(e.inner, "Version: 5", "Version: 5\r\nVersion: 5", 1) },
		"transfer encoding":    func(e *envelope) { e.inner = strings.Replace(e.inner, "Encoding: base64", "Encoding: binary", 1) },
		"content type":         func(e *envelope) { e.inner = strings.Replace(e.inner, "octet-stream", "Octet-Stream", 1) },
		"no instance":          func(e *envelope) { e.inner = strings.Replace(e.inner, "; instance=\"DEV\"", "", 1) },
		"unterminated quote":   func(e *envelope) { e.inner = strings.Replace(e.inner, "\"DEV\"", "\"DEV", 1) },
		"text after a quote":   func(e *envelope) { e.inner = strings.Replace(e.inner, "\"DEV\"", "\"DEV\"x", 1) },
		"two-line hash":        func(e *envelope) { e.inner = strings.Replace(e.inner, "\r\n--IN--", "\r\nAAAA\r\n--IN--", 1) },
		"long header": func(e *envelope) {
			e.inner = strings.Replace(e.inner, "Version", "X: "+strings.Repeat("y", 9000)+"\r\nVersion", 1)
		},
		"white space in a name": func(e *envelope) { e.inner = strings.Replace(e.inner, "Version:", "Version :", 1) },
	} {
		if d, err := globalconf.ParseDirectory(change(f).bytes(ec.cert), []*x509.Certificate{ec.cert}); err == nil {
			t.Errorf("%s: accepted: %+v", name, d)
		}
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 11, 10, 17, 0, 0, 548026000, time.FixedZone("", 3600))
	if f := globalconf.Folder(at); f != "20251110160000548026000" {
		t.Error(f)
	}
	d := sample()
	d.Parts[0].Location = "/V6/" + globalconf.Folder(at) + "/shared-params.xml"
	if got, ok := d.Generation(); !ok || !got.Equal(at) {
		t.Errorf("%v %v", got, ok)
	}
	for _, location := range []string{"/V6/x/shared-params.xml", "/V6/20251399000000000000000/s.xml", "/V6/2025/s.xml", ""} {
		d.Parts[0].Location = location
		if at, ok := d.Generation(); ok {
			t.Errorf("%q is of %v", location, at)
		}
	}
}

func ExampleDirectory_Sign() {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{NotAfter: start}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	cert, _ := x509.ParseCertificate(der)

	content := []byte("<conf/>") // usually by SharedParams.Marshal
	location := "/V6/" + globalconf.Folder(start) + "/" + globalconf.FileSharedParams
	d := globalconf.Directory{Expires: start.Add(10 * time.Minute), Version: 6,
		Parts: []globalconf.Part{globalconf.NewPart(globalconf.ContentSharedParams, "DEV", location, content)}}
	doc, err := d.Sign(key, cert)
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := globalconf.ParseDirectory(doc, []*x509.Certificate{cert})
	fmt.Println(bytes.HasPrefix(doc, []byte("Content-Type: multipart/related;")), got.Version, got.Parts[0].Matches(content), err)
	// Output: true 6 <nil> <nil>
}
