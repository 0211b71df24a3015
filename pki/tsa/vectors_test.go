// SPDX-License-Identifier: Apache-2.0

package tsa_test

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"kontor/pki/tsa"
)

const vectors = "../../../shared/vectors/asic/"

// elements reads the base64 of XML elements; some hold PEM once more.
func elements(t testing.TB, doc []byte, name string) (all [][]byte) {
	t.Helper()
	for _, m := range regexp.MustCompile(`<(?:\w+:)?`+name+`(?:\s[^>]*)?>([^<]+)<`).FindAllSubmatch(doc, -1) {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(strings.ReplaceAll(string(m[1]), "&#13;", "")), ""))
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(b); block != nil {
			b = block.Bytes
		}
		all = append(all, b)
	}
	return all
}

func entry(t testing.TB, container, name string) []byte {
	t.Helper()
	z, err := zip.OpenReader(vectors + container)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRealTokens verifies the time-stamps of containers of a real X-Road.
func TestRealTokens(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile(vectors + "globalconf/DEV/shared-params.xml")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the vectors are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	list := elements(t, conf, "cert") // authority, OCSP responder, time-stamp authority
	var approved []*x509.Certificate
	for _, der := range list {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		approved = append(approved, c)
	}
	doc := entry(t, "valid-signed-message.asice", "META-INF/signatures.xml")
	for name, tt := range map[string]struct{ token, stamped []byte }{
		"batch": {entry(t, "valid-batch-ts.asice", "META-INF/timestamp.tst"), entry(t, "valid-batch-ts.asice", "ts-hashchainresult.xml")},
		"alone": {elements(t, doc, "EncapsulatedTimeStamp")[0], elements(t, doc, "SignatureValue")[0]},
	} {
		tok, err := tsa.Verify(tt.token, tt.stamped, approved)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !tok.Signer.Equal(approved[2]) || tok.Hash != crypto.SHA512 || tok.Time.Year() != 2024 || !bytes.Equal(tok.Raw, tt.token) {
			t.Errorf("%s: %+v", name, tok)
		}
		if _, err := tsa.Verify(tt.token, tt.stamped, approved[:2]); !errors.Is(err, tsa.ErrUntrusted) {
			t.Errorf("%s, not approved: %v", name, err)
		}
		if _, err := tsa.Verify(tt.token, tt.stamped[1:], approved); !errors.Is(err, tsa.ErrImprint) {
			t.Errorf("%s, other data: %v", name, err)
		}
	}
}
