// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kontor/pki/xades"
)

// TestHostile changes a good document in ways an attacker might; each must be
// refused, and for the reason given.
func TestHostile(t *testing.T) {
	t.Parallel()
	c := credentials(t, ecKey(t, elliptic.P256()), 1)
	doc := string(sign(t, c, message()))
	find := func(pattern string) string {
		found := regexp.MustCompile(`(?s)` + pattern).FindString(doc)
		if found == "" {
			t.Fatalf("no %s", pattern)
		}
		return found
	}
	props := find(`<xades:SignedProperties .*</xades:SignedProperties>`)
	forged := strings.Replace(props, "2024-12-05", "2034-12-05", 1)
	signature := find(`<ds:Signature .*</ds:Signature>`)
	object := find(`<ds:Object>.*</ds:Object>`)
	otherCert := base64.StdEncoding.EncodeToString(credentials(t, c.Key, 0).Cert.Raw)
	digestMethod := find(`<ds:DigestMethod [^>]*></ds:DigestMethod>`)
	dataRef := find(`<ds:Reference Id="signature-reference-0".*?</ds:Reference>`)

	type edit struct{ old, new string }
	with := func(edits ...edit) string {
		changed := doc
		for _, e := range edits {
			if !strings.Contains(changed, e.old) {
				t.Fatalf("no %s in\n%s", e.old, changed)
			}
			changed = strings.Replace(changed, e.old, e.new, 1)
		}
		return changed
	}
	malformed, unsupported, reference, wrong := xades.ErrMalformed, xades.ErrUnsupported, xades.ErrReference, xades.ErrSignature
	for _, test := range []struct {
		name string
		doc  string
		want error
	}{
		// Signature wrapping: the signed element is not the one read.
		{"forged properties", with(edit{props, forged}), reference},
		{"forged properties, signed ones below, other Id", with(edit{props, strings.Replace(forged, `Id="signed-properties"`, `Id="forged"`, 1)},
			edit{"<xades:UnsignedSignatureProperties>", "<xades:UnsignedSignatureProperties>" + props}), malformed},
		{"forged properties, signed ones below, same Id", with(edit{props, forged},
			edit{"<xades:UnsignedSignatureProperties>", "<xades:UnsignedSignatureProperties>" + props}), malformed},
		{"forged properties, signed ones before", with(edit{props, props + forged}), malformed},
		{"forged object, signed one before", with(edit{object, object + strings.Replace(object, props, forged, 1)}), malformed},
		{"two signatures", with(edit{signature, signature + signature}), malformed},
		{"signature in signature", with(edit{"<xades:UnsignedSignatureProperties>", "<xades:UnsignedSignatureProperties><xades:CounterSignature>" +
			signature + "</xades:CounterSignature>"}), malformed},
		{"signed element elsewhere with the Id", with(edit{"<xades:UnsignedSignatureProperties>", `<xades:UnsignedSignatureProperties><x Id="signed-properties"/>`}), malformed},
		{"same by id", with(edit{"<xades:UnsignedSignatureProperties>", `<xades:UnsignedSignatureProperties><x id="signed-properties"/>`}), malformed},
		{"same by xml:id", with(edit{"<xades:UnsignedSignatureProperties>", `<xades:UnsignedSignatureProperties><x xml:id="signed-properties"/>`}), unsupported},
		{"other target", with(edit{`Target="#signature"`, `Target="#other"`}), malformed},
		{"no Id on the signature", with(edit{`<ds:Signature Id="signature">`, `<ds:Signature>`}), malformed},
		{"no Id on the properties", with(edit{` Id="signed-properties"`, ``}), unsupported},
		{"wrapped in an element", strings.Replace(with(edit{"<asic:", "<x><asic:"}), "</asic:XAdESSignatures>", "</asic:XAdESSignatures></x>", 1), malformed},
		{"rebound prefix", with(edit{`<xades:QualifyingProperties `, `<xades:QualifyingProperties xmlns:xades="http://uri.etsi.org/01903/v1.3.1#" `}), malformed},
		{"namespace added above the properties", with(edit{`<xades:QualifyingProperties `, `<xades:QualifyingProperties xmlns:x="urn:x" `}), reference},
		{"namespace added above all", with(edit{` xmlns:asic=`, ` xmlns:a="urn:x" xmlns:asic=`}), reference},

		// References.
		{"data reference changed", with(edit{`URI="/message.xml"`, `URI="/messagf.xml"`}), wrong},
		{"second reference to the same data", with(edit{dataRef, dataRef + strings.Replace(dataRef, "reference-0", "reference-9", 1)}), malformed},
		{"second reference to other data", with(edit{dataRef, dataRef + strings.NewReplacer("reference-0", "reference-9", "message.xml", "attachment1").Replace(dataRef)}), wrong},
		{"reference to the whole document", with(edit{`URI="/message.xml"`, `URI=""`}), malformed},
		{"reference into the document", with(edit{`URI="/message.xml"`, `URI="#signature-value"`}), unsupported},
		{"data reference missing", with(edit{dataRef, ""}), malformed},
		{"properties reference missing", with(edit{find(`<ds:Reference Id="signature-reference-1".*?</ds:Reference>`), ""}), malformed},
		{"properties reference of no type", with(edit{` Type="http://uri.etsi.org/01903#SignedProperties"`, ""}), unsupported},
		{"data as properties", with(edit{`Id="signature-reference-0"`, `Id="signature-reference-0" Type="http://uri.etsi.org/01903#SignedProperties"`}), unsupported},
		{"transform of data", with(edit{digestMethod, `<ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>` + digestMethod}), unsupported},
		{"transform of properties", with(edit{`URI="#signed-properties">`, `URI="#signed-properties"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/></ds:Transforms>`}), unsupported},
		{"enveloped transform", with(edit{`URI="#signed-properties">`, `URI="#signed-properties"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/></ds:Transforms>`}), unsupported},
		{"two transforms", with(edit{`URI="#signed-properties">`, `URI="#signed-properties"><ds:Transforms>` + strings.Repeat(`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`, 2) + `</ds:Transforms>`}), malformed},
		{"transform with parameters", with(edit{`URI="#signed-properties">`, `URI="#signed-properties"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"><x/></ds:Transform></ds:Transforms>`}), unsupported},
		{"another canonicalisation", with(edit{`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315`, `<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#`}), wrong},
		{"no canonicalisation", with(edit{`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315`, `<ds:CanonicalizationMethod Algorithm="urn:none`}), unsupported},

		// Algorithms.
		{"SHA-1 digest", with(edit{`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"`, `<ds:DigestMethod Algorithm="http://www.w3.org/2000/09/xmldsig#sha1"`}), unsupported},
		{"digest of another length", with(edit{`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"`, `<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"`}), malformed},
		{"HMAC", with(edit{`more#ecdsa-sha512`, `more#hmac-sha512`}), unsupported},
		{"HMAC output length", with(edit{`</ds:SignatureMethod>`, `<ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>`}), unsupported},

		// Who signed.
		{"another certificate for the key", with(edit{find(`<ds:X509Certificate>[^<]*`), "<ds:X509Certificate>" + otherCert}), reference},
		{"second certificate in KeyInfo", with(edit{`</ds:X509Certificate>`, `</ds:X509Certificate><ds:X509Certificate>` + otherCert + `</ds:X509Certificate>`}), malformed},
		{"key value", with(edit{`<ds:KeyInfo>`, `<ds:KeyInfo><ds:KeyName>x</ds:KeyName>`}), malformed},
		{"no signing certificate", with(edit{find(`<xades:SigningCertificate>.*</xades:SigningCertificate>`), ""}), malformed},
		{"two signing certificates", with(edit{find(`<xades:Cert><xades:CertDigest>.*?</xades:Cert>`), strings.Repeat(find(`<xades:Cert><xades:CertDigest>.*?</xades:Cert>`), 2)}), malformed},
		{"no KeyInfo", with(edit{find(`<ds:KeyInfo>.*</ds:KeyInfo>`), ""}), malformed},
		{"certificate that is not DER", with(edit{find(`<ds:X509Certificate>[^<]*`), "<ds:X509Certificate>AAAA"}), malformed},

		// Values.
		{"comment in a value", with(edit{`<ds:DigestValue>`, `<ds:DigestValue><!-- -->`}), malformed},
		{"comment in the signing time", with(edit{`2024-12-05T`, `2024-<!---->12-05T`}), malformed},
		{"processing instruction", with(edit{`<ds:DigestValue>`, `<ds:DigestValue><?x y?>`}), malformed},
		{"CDATA section", with(edit{`2024-12-05T`, `2024-<![CDATA[12-05T]]>`}), malformed},
		{"element in a value", with(edit{`<ds:DigestValue>`, `<ds:DigestValue><x/>`}), malformed},
		{"empty value", with(edit{find(`<ds:SignatureValue[^<]*`), `<ds:SignatureValue>`}), malformed},
		{"another signature value", with(edit{find(`<ds:SignatureValue[^<]*`), `<ds:SignatureValue>` + strings.Repeat("A", 86) + "=="}), wrong},
		{"odd signature value", with(edit{find(`<ds:SignatureValue[^<]*`), `<ds:SignatureValue>AAAA`}), wrong},
		{"long signature value", with(edit{find(`<ds:SignatureValue[^<]*`), `<ds:SignatureValue>` + strings.Repeat("A", 88)}), wrong},
		{"base64 with stray bits", with(edit{"==</ds:DigestValue>", "B=</ds:DigestValue>"}), malformed},
		{"text between elements", with(edit{`<ds:KeyInfo>`, `<ds:KeyInfo>x`}), malformed},
		{"time without zone", with(edit{`117Z`, `117`}), malformed},
		{"time with a comma", with(edit{`.117Z`, `,117Z`}), malformed},

		// XML.
		{"nothing", "", malformed},
		{"declaration only", `<?xml version="1.0"?>`, malformed},
		{"document type", with(edit{`<asic:`, `<!DOCTYPE x [<!ENTITY a "b">]><asic:`}), malformed},
		{"entity", with(edit{`2024-12-05T`, `&a;2024-12-05T`}), malformed},
		{"reference to NUL", with(edit{`2024-12-05T`, `&#0;2024-12-05T`}), malformed},
		{"bare ampersand", with(edit{`&amp;`, `&`}), malformed},
		{"text after the root", doc + "x", malformed},
		{"comment after the root", doc + "<!-- -->", malformed},
		{"element after the root", doc + "<x/>", malformed},
		{"end tag after the root", doc + "</x>", malformed},
		{"end tag before the root", "</x>" + doc, malformed},
		{"byte order mark", "\ufeff" + doc, malformed},
		{"another encoding", with(edit{`encoding="UTF-8"`, `encoding="UTF-7"`}), malformed},
		{"another version", with(edit{`version="1.0"`, `version="1.1"`}), malformed},
		{"not UTF-8", with(edit{"Õ", "\xd5"}), malformed},
		{"attribute twice", with(edit{` URI="/message.xml"`, ` URI="/message.xml" URI="/x.xml"`}), malformed},
		{"attribute twice by namespace", with(edit{` URI="/message.xml"`, ` xmlns:p="urn:x" xmlns:q="urn:x" p:a="" q:a=""`}), malformed},
		{"line end in an attribute", with(edit{`URI="/message.xml"`, "URI=\"/message.xml\n\""}), malformed},
		{"undeclared prefix", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties><y:x/>`}), malformed},
		{"undeclared attribute prefix", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties y:x="">`}), malformed},
		{"undeclaring a prefix", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties xmlns:ds="">`}), malformed},
		{"name with two colons", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties><xades:a:b/>`}), malformed},
		{"cut", doc[:len(doc)-1], malformed},
		{"mismatched tags", with(edit{`</ds:KeyInfo>`, `</ds:Object>`}), malformed},
		{"too deep", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties>` +
			strings.Repeat("<x>", xades.MaxDepth) + strings.Repeat("</x>", xades.MaxDepth)}), malformed},
		{"too many elements", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties>` + strings.Repeat("<x/>", xades.MaxElements)}), malformed},
		{"too many attributes", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties` + strings.Repeat(` x=""`, 20) + `>`}), malformed},
		{"too many namespaces", with(edit{`<xades:UnsignedSignatureProperties>`, `<xades:UnsignedSignatureProperties>` + strings.Repeat(`<x xmlns="urn:x"/>`, 200)}), malformed},
		{"too many OCSP responses", with(edit{`<xades:OCSPValues>`, `<xades:OCSPValues>` + strings.Repeat(`<xades:EncapsulatedOCSPValue>AAAA</xades:EncapsulatedOCSPValue>`, 40)}), malformed},
		{"too large", doc + strings.Repeat(" ", xades.MaxSize), malformed},
	} {
		s, err := xades.Parse([]byte(test.doc))
		if err == nil {
			err = s.Verify()
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// TestForeign accepts what differs from our own form in ways that do not matter.
func TestForeign(t *testing.T) {
	t.Parallel()
	key := ecKey(t, elliptic.P256())
	doc := string(sign(t, credentials(t, key, 1), message()))
	lines := regexp.MustCompile(`(Value[^<>]*>|Certificate[^<>]*>|Stamp[^<>]*>)([A-Za-z0-9+/=]{10,})<`)
	broken := func(s string) string {
		return lines.ReplaceAllStringFunc(s, func(m string) string {
			i := strings.IndexByte(m, '>') + 1
			return m[:i] + "\n" + m[i:i+5] + "&#xD;\n \t" + m[i+5:]
		})
	}
	for name, test := range map[string]string{
		"white space around":      " \n" + strings.TrimPrefix(doc, `<?xml version="1.0" encoding="UTF-8" standalone="no"?>`) + "\n",
		"other declaration":       strings.Replace(doc, `version="1.0" encoding="UTF-8" standalone="no"`, `version='1.0' encoding='utf-8'`, 1),
		"broken lines":            string(resign(t, []byte(doc), key, crypto.SHA512, broken)),
		"other quotes":            strings.Replace(doc, `Id="signature"`, `Id='signature'`, 1),
		"empty-element tags":      regexp.MustCompile(`></ds:(Digest|Signature|Canonicalization)Method>`).ReplaceAllString(doc, "/>"),
		"white space in a tag":    strings.NewReplacer(`<ds:Object>`, "<ds:Object\n>", `</ds:Object>`, "</ds:Object\n>").Replace(doc),
		"character references":    strings.Replace(doc, `Algorithm="http:`, `Algorithm="&#x68;ttp&#58;`, 1),
		"attributes in any order": strings.Replace(doc, `Id="signature-reference-0" URI="/message.xml"`, `URI="/message.xml" Id="signature-reference-0"`, 1),
		"unknown unsigned":        strings.Replace(doc, `<xades:RevocationValues>`, `<x:y xmlns:x="urn:x"><x:z>text</x:z></x:y><xades:RevocationValues>`, 1),
		"nothing unsigned":        regexp.MustCompile(`(?s)<xades:UnsignedProperties>.*</xades:UnsignedProperties>`).ReplaceAllString(doc, ""),
	} {
		if test == doc || xades.Scan(nil, []byte(test)) != nil {
			t.Errorf("%s: still in our own form", name)
		}
		if err := parse(t, []byte(test)).Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryByte flips a bit in every byte of our documents. Whatever is signed,
// or decides how the document is read, must be noticed. What need not be:
//   - the unsigned properties: certificates, OCSP responses and time-stamps
//     prove themselves;
//   - the Id of SignatureValue, to which nothing refers.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	p := xades.NewParser()
	for _, doc := range [][]byte{
		sign(t, credentials(t, ecKey(t, elliptic.P256()), 1), message()),
		sign(t, credentials(t, rsaKey(), 0), message()),
	} {
		unsigned := func(i int) bool {
			for _, part := range [][2]string{
				{"<xades:UnsignedSignatureProperties>", "</xades:UnsignedSignatureProperties>"},
				{"<ds:SignatureValue", ">"},
			} {
				from := bytes.Index(doc, []byte(part[0])) + len(part[0])
				if from <= i && i < from+bytes.Index(doc[from:], []byte(part[1])) {
					return true
				}
			}
			return false
		}
		changed := slices.Clone(doc)
		tolerated := 0
		for i := range doc {
			changed[i] = doc[i] ^ 1<<(i%8)
			s, err := p.Parse(changed)
			if err == nil {
				err = s.Verify()
			}
			switch {
			case err != nil:
			case unsigned(i):
				tolerated++
			default:
				t.Errorf("byte %d, %q instead of %q: accepted\n…%s…", i, changed[i], doc[i], changed[max(0, i-30):min(len(doc), i+30)])
			}
			changed[i] = doc[i]
		}
		t.Logf("%d of %d changes tolerated, all in unsigned parts", tolerated, len(doc))
	}
}
