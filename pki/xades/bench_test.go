// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"kontor/pki/xades"
)

func BenchmarkSign(b *testing.B) {
	for _, bench := range []struct {
		name string
		key  crypto.Signer
	}{{"P-256", ecKey(b, elliptic.P256())}, {"RSA-2048", rsaKey()}} {
		c, ref := credentials(b, bench.key, 0), message()
		c.OCSP = [][]byte{make([]byte, 2048)}
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := xades.Sign(c, ref, at); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bench.name+"/key alone", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.key.Sign(rand.Reader, make([]byte, 64), crypto.SHA512); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseVerify(b *testing.B) {
	c := credentials(b, ecKey(b, elliptic.P256()), 0)
	c.OCSP = [][]byte{make([]byte, 2048)}
	doc := sign(b, c, message())
	foreign := append(bytes.Clone(doc), '\n')
	known := xades.NewParser()
	for _, bench := range []struct {
		name   string
		parser *xades.Parser
		doc    []byte
		verify bool
	}{
		{"fast", known, doc, true},
		{"fast/parse alone", known, doc, false},
		{"fast/unknown certificate", nil, doc, true},
		{"slow", known, foreign, true},
		{"slow/parse alone", known, foreign, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := bench.parser.Parse(bench.doc)
				if err == nil && bench.verify {
					err = s.Verify()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
