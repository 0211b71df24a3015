// SPDX-License-Identifier: Apache-2.0

package xades_test

import (
	"crypto/elliptic"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kontor/pki/xades"
)

// TestStranger lets xmlsec1, which shares no code with us, verify our documents
// with the key in KeyInfo.
func TestStranger(t *testing.T) {
	t.Parallel()
	xmlsec, err := exec.LookPath("xmlsec1")
	if err != nil {
		t.Skip("xmlsec1 is not installed")
	}
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data, wrong := write("data", []byte("the message")), write("wrong", []byte("another message"))
	verify := func(doc, uri, data string) (string, bool) {
		// The URIs of the data are paths that exist nowhere: map them to the file.
		out, err := exec.Command(xmlsec, "--verify", "--insecure", "--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties",
			"--url-map:"+uri, data, doc).CombinedOutput()
		return string(out), err == nil && strings.Contains(string(out), "OK\nSignedInfo References (ok/all): 2/2")
	}
	plain, chain := message(), message()
	chain.URI = xades.URIChainResult
	for name, doc := range map[string][]byte{
		"RSA":          sign(t, credentials(t, rsaKey(), 0), plain),
		"RSA, chain":   sign(t, credentials(t, rsaKey(), 1), chain),
		"P-256":        sign(t, credentials(t, ecKey(t, elliptic.P256()), 0), plain),
		"P-256, chain": sign(t, credentials(t, ecKey(t, elliptic.P256()), 2), chain),
		"P-384":        sign(t, credentials(t, ecKey(t, elliptic.P384()), 0), plain),
		"P-521":        sign(t, credentials(t, ecKey(t, elliptic.P521()), 0), plain),
	} {
		uri := parse(t, doc).References()[0].URI
		stamped, err := xades.InsertTimestamp(doc, []byte("a token"))
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range [][]byte{doc, stamped} {
			file := write("signatures.xml", doc)
			if out, ok := verify(file, uri, data); !ok {
				t.Errorf("%s: %s", name, out)
			}
		}
		if out, ok := verify(write("signatures.xml", doc), uri, wrong); ok {
			t.Errorf("%s: accepted over other data: %s", name, out)
		}
	}
}
