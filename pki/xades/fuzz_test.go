// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"os"
	"slices"
	"testing"

	"kontor/pki/xades"
)

// signed returns a document with everything our own form may hold. It is a
// file because the fuzzer needs the same seeds in all its processes; a test
// checks that it still verifies.
func signed(t testing.TB) []byte {
	t.Helper()
	doc, err := os.ReadFile("testdata/signed.xml")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSignedLongAgo(t *testing.T) {
	t.Parallel()
	if *update {
		doc := sign(t, credentials(t, ecKey(t, elliptic.P256()), 1), message())
		doc, err := xades.InsertTimestamp(doc, []byte("token"))
		if err == nil {
			err = os.WriteFile("testdata/signed.xml", doc, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	doc := signed(t)
	if xades.Scan(nil, doc) == nil {
		t.Error("our own form has changed")
	}
	if err := parse(t, doc).Verify(); err != nil {
		t.Error(err)
	}
}

// edited replaces cut bytes of doc at an offset by others.
func edited(doc []byte, at, cut uint16, insert []byte) []byte {
	from := int(at) % (len(doc) + 1)
	return slices.Concat(doc[:from], insert, doc[min(len(doc), from+int(cut)):])
}

// fragments are edits' insertions worth trying.
var fragments = []string{"", " ", "\n", "x", "<x/>", "&amp;", "&#13;", "é", "A", "=", "0", "-", ",", "http://", "<!-- -->",
	"<xades:SignatureTimeStamp><xades:EncapsulatedTimeStamp>AAAA</xades:EncapsulatedTimeStamp></xades:SignatureTimeStamp>"}

// FuzzParse: no document makes Parse or Verify panic, hang, return an error of
// no class or an incomplete signature; a time-stamp goes in where Parse says.
func FuzzParse(f *testing.F) {
	doc := signed(f)
	f.Add(doc)
	f.Add(append(bytes.Clone(doc), '\n'))
	f.Add([]byte(`<?xml version="1.0"?><Signature xmlns="http://www.w3.org/2000/09/xmldsig#" Id="a"><SignedInfo/><SignatureValue/><KeyInfo/><Object/></Signature>`))
	f.Fuzz(check)
}

// FuzzParseEdited is FuzzParse for documents close to a good one: two edits
// away. Small inputs let the fuzzer go far.
func FuzzParseEdited(f *testing.F) {
	doc := signed(f)
	for i, fragment := range fragments {
		f.Add(uint16(300*i), uint16(i%3), []byte(fragment), uint16(len(doc)-200*i), uint16(1))
	}
	f.Fuzz(func(t *testing.T, at, cut uint16, insert []byte, at2, cut2 uint16) {
		check(t, edited(edited(doc, at, cut, insert), at2, cut2, insert))
	})
}

func check(t *testing.T, doc []byte) {
	s, err := xades.Parse(doc)
	if err != nil {
		if !errors.Is(err, xades.ErrMalformed) && !errors.Is(err, xades.ErrUnsupported) {
			t.Fatal(err)
		}
		return
	}
	if s.Certificate() == nil || len(s.References()) == 0 || len(s.Value()) == 0 {
		t.Fatal("incomplete")
	}
	verdict := s.Verify()
	stamped, err := xades.InsertTimestamp(doc, []byte("token"))
	if err != nil {
		return
	}
	again, err := xades.Parse(stamped)
	if err != nil {
		t.Fatal(err)
	}
	if string(again.Timestamps()[0]) != "token" || (again.Verify() == nil) != (verdict == nil) {
		t.Fatalf("time-stamp %q, verdict %v instead of %v", again.Timestamps()[0], again.Verify(), verdict)
	}
}

// FuzzFastVersusSlow: what the fast path accepts, the slow path reads the same.
// Above all they agree on the canonical forms, which the fast path never makes.
func FuzzFastVersusSlow(f *testing.F) {
	doc := signed(f)
	for i, fragment := range fragments {
		f.Add(uint16(300*i), uint16(len(fragment)), []byte(fragment))
	}
	f.Fuzz(func(t *testing.T, at, cut uint16, insert []byte) {
		doc := edited(doc, at, cut, insert)
		fast := xades.Scan(nil, doc)
		if fast == nil {
			return
		}
		slow, err := xades.ReadTree(nil, doc)
		if err != nil {
			t.Fatalf("the fast path accepts what the slow refuses: %v", err)
		}
		same(t, fast, slow)
	})
}

// FuzzIssuer: no name makes the printer panic, and what it prints is text that
// the fast path takes for an issuer.
func FuzzIssuer(f *testing.F) {
	f.Add(parse(f, signed(f)).Certificate().RawIssuer)
	f.Fuzz(func(t *testing.T, der []byte) {
		if name, err := xades.DistinguishedName(der); err == nil && len(der) > 2 && len(name) < 1000 && !xades.IssuerText(name) {
			t.Fatalf("%q", name)
		}
	})
}
