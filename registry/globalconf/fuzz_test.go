// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"mime/multipart"
	"reflect"
	"strings"
	"testing"

	"kontor/registry/globalconf"
)

// FuzzXML compares the scanner with encoding/xml: what it accepts, encoding/xml
// accepts too, with the same elements, attributes and texts.
func FuzzXML(f *testing.F) {
	for _, s := range []string{full, `<?xml version="1.0" encoding="UTF-8"?><a b='c' xmlns="u" xmlns:p="v"><p:d p:e="&lt;&#x41;"/>t&amp;<!-- c --><![CDATA[<x>]]></a>`,
		"<a>\r\n\r</a>", "<a>]]></a>", "<a/>x", "<a b=\"\t\"/>", "<a xmlns:b=''/>", "\uFEFF<a/>", "<a>&#0;</a>", "<a><b></a></b>", "<?xml version='1.0' standalone='yes' ?>\n<a/>\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var got []string
		err := globalconf.ScanXML(doc, func(kind, value string) { got = append(got, kind+" "+value) })
		if err != nil {
			if !errors.Is(err, globalconf.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var want []string
		// encoding/xml refuses a byte order mark and passes comments on.
		d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(doc, "\uFEFF")))
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("encoding/xml refuses %q: %v", doc, err)
			}
			switch x := tok.(type) {
			case xml.StartElement:
				want = append(want, "start "+x.Name.Space+" "+x.Name.Local)
				for _, a := range x.Attr {
					if a.Name.Space != "xmlns" && (a.Name.Space != "" || a.Name.Local != "xmlns") {
						want = append(want, "attr "+a.Name.Space+" "+a.Name.Local+"="+normal(a.Value))
					}
				}
			case xml.EndElement:
				want = append(want, "end ")
			}
		}
		for i := range got {
			if rest, ok := strings.CutPrefix(got[i], "attr "); ok {
				got[i] = "attr " + normal(rest)
			}
		}
		for i := range want {
			want[i] = normal(want[i])
		}
		for i := range got {
			got[i] = normal(got[i])
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %q, want %q", doc, got, want)
		}
		text, err := globalconf.TextOf(doc)
		if err != nil {
			return
		}
		var el struct {
			Text string `xml:",chardata"`
		}
		if err := xml.Unmarshal([]byte(strings.TrimPrefix(doc, "\uFEFF")), &el); err != nil {
			t.Fatal(err)
		}
		if el.Text != text {
			t.Fatalf("%q: text %q, want %q", doc, text, el.Text)
		}
	})
}

// normal undoes the normalisation of white space in attribute values, which
// encoding/xml omits.
func normal(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ", "\r", " ").Replace(s)
}

func FuzzSharedParams(f *testing.F) {
	for v := 2; v <= 6; v++ {
		f.Add([]byte(full), v)
	}
	f.Add([]byte(strings.Replace(full, `id="id1"`, `id="id0"`, 1)), 6)
	for _, cs := range []string{"V3", "V6"} {
		if s, err := vectorShared(cs); err == nil {
			f.Add(s, int(cs[1]-'0'))
		}
	}
	f.Fuzz(func(t *testing.T, doc []byte, version int) {
		p, err := globalconf.ParseSharedParams(doc, version)
		if err != nil {
			if !errors.Is(err, globalconf.ErrMalformed) && !errors.Is(err, globalconf.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if _, err := tree(doc); err != nil && !bytes.HasPrefix(doc, []byte("\uFEFF")) {
			t.Fatalf("encoding/xml refuses it: %v", err)
		}
		globalconf.IndexOf(p)
		again, err := p.Marshal(version)
		if err != nil {
			// Read, but not written: shared or repeated certificates, odd URLs.
			if !errors.Is(err, globalconf.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		checkStructure(t, again, version)
		q, err := globalconf.ParseSharedParams(again, version)
		if err != nil {
			t.Fatalf("%v in\n%s", err, again)
		}
		if b, err := q.Marshal(version); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("not stable: %v", err)
		}
	})
}

func FuzzPrivateParams(f *testing.F) {
	seed := head + `<instanceIdentifier>DEV</instanceIdentifier><configurationAnchor><generatedAt>2026-01-01T00:00:00Z</generatedAt><instanceIdentifier>B</instanceIdentifier>` +
		`<source><downloadURL>http://cs/externalconf</downloadURL><verificationCert>AA==</verificationCert></source></configurationAnchor>` +
		`<managementService><authCertRegServiceAddress>https://cs:4001/</authCertRegServiceAddress><authCertRegServiceCert>AA==</authCertRegServiceCert>` +
		`<managementRequestServiceProviderId id:objectType="MEMBER"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>1</id:memberCode></managementRequestServiceProviderId>` +
		`</managementService><timeStampingIntervalSeconds>60</timeStampingIntervalSeconds></x:conf>`
	f.Add([]byte(seed), 2)
	f.Add([]byte(strings.Replace(seed, "</x:conf>", "<ext/></x:conf>", 1)), 3)
	f.Fuzz(func(t *testing.T, doc []byte, version int) {
		if p, err := globalconf.ParsePrivateParams(doc, version); err == nil {
			if again, err := p.Marshal(version); err == nil {
				if q, err := globalconf.ParsePrivateParams(again, version); err != nil || q.ManagementProvider != p.ManagementProvider || len(q.Anchors) != len(p.Anchors) {
					t.Fatalf("%+v, %v", q, err)
				}
			}
		}
		// The optional parts share the scanner and little else.
		if p, err := globalconf.ParseMonitoringParams(doc); err == nil {
			if _, err := p.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := globalconf.ParseFetchIntervalParams(doc); err == nil {
			if _, err := p.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = globalconf.ParseNextUpdateParams(doc)
	})
}

func FuzzAnchor(f *testing.F) {
	f.Add([]byte(`<x:configurationAnchor xmlns:x="http://x-road.eu/xsd/xroad.xsd"><generatedAt>2026-01-01T00:00:00Z</generatedAt><instanceIdentifier>DEV</instanceIdentifier>` +
		`<source><downloadURL>http://cs.example/internalconf</downloadURL><verificationCert>AA==</verificationCert></source></x:configurationAnchor>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		a, err := globalconf.ParseAnchor(doc)
		if err != nil {
			return
		}
		a.Certificates()
		if again, err := a.Marshal(); err == nil {
			b, err := globalconf.ParseAnchor(again)
			if err != nil || !b.Generated.Equal(a.Generated) || len(b.Sources) != len(a.Sources) {
				t.Fatalf("%+v, %v", b, err)
			}
		}
	})
}

// FuzzParseDirectory signs whatever inner document the fuzzer thinks of and
// wraps it in whatever envelope; what is accepted must be what mime/multipart
// and the key say.
func FuzzParseDirectory(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	k := newIdentity(f, key, "k")
	outer := "Content-Type: multipart/related; charset=UTF-8; boundary=OUT\r\n\r\n--OUT\r\nContent-Type: multipart/mixed; charset=UTF-8; boundary=IN\r\n\r\n"
	inner := strings.Replace(innerForm, "HASH", "AAAA", 1)
	sum := sha512.Sum512(k.cert.Raw)
	rest := "\r\n--OUT\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nSignature-Algorithm-Id: http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512\r\n" +
		"Verification-certificate-hash: CERT; hash-algorithm-id=\"http://www.w3.org/2001/04/xmlenc#sha512\"\r\n\r\nSIG\r\n--OUT--\r\n"
	f.Add(outer, inner, rest)
	f.Add(strings.ReplaceAll(outer, "\r\n", "\n"), strings.ReplaceAll(inner, "\r\n", "\n"), strings.ReplaceAll(rest, "\r\n", "\n"))
	f.Add(outer+"x", inner+"--OUT\r\n", "\r\n"+rest)
	f.Add(outer, strings.Replace(inner, "Version: 5\r\n\r\n", "Version: 5\r\n", 1), rest)
	f.Add(outer, strings.Replace(inner, "; instance=\"DEV\"", "; instance=DEV; x=y", 1), rest)
	certs := []*x509.Certificate{k.cert}
	f.Fuzz(func(t *testing.T, outer, inner, rest string) {
		sum512 := sha512.Sum512([]byte(inner))
		sig, err := key.Sign(nil, sum512[:], nil)
		if err != nil {
			sig, _ = ecdsa.SignASN1(rand.Reader, key, sum512[:])
		}
		rest = strings.NewReplacer("CERT", base64.StdEncoding.EncodeToString(sum[:]), "SIG", base64.StdEncoding.EncodeToString(sig)).Replace(rest)
		doc := outer + inner + rest
		d, err := globalconf.ParseDirectory([]byte(doc), certs)
		if err != nil {
			return
		}
		if d.Version < 2 || d.Version > 6 || d.Expires.IsZero() && !strings.Contains(doc, "0001") {
			t.Fatalf("%+v", d)
		}
		// The signature was made over inner: any other split would not verify.
		first := multipart.NewReader(strings.NewReader(doc[strings.Index(doc, "\n--")+1:]), between(doc, "boundary=", "\r\n;"))
		p, err := first.NextRawPart()
		if err != nil {
			t.Fatalf("mime/multipart refuses %q: %v", doc, err)
		}
		if body, err := io.ReadAll(p); err != nil || string(body) != inner {
			t.Fatalf("mime/multipart reads %q, %v", body, err)
		}
	})
}

func between(s, from, until string) string {
	_, s, _ = strings.Cut(s, from)
	if i := strings.IndexAny(s, until); i >= 0 {
		s = s[:i]
	}
	return strings.Trim(s, `"'`)
}
