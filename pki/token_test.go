// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kontor/pki"
)

var pin = []byte("secret 1234")

func newToken(t testing.TB) (*pki.Token, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "token")
	tok, err := pki.CreateQuickToken(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	return tok, dir
}

func generate(t testing.TB, tok *pki.Token, label string, use pki.Usage, alg pki.Algorithm) *pki.Key {
	t.Helper()
	k, err := tok.Generate(label, use, alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func reopen(t testing.TB, dir string) *pki.Token {
	t.Helper()
	tok, err := pki.OpenToken(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// files lists a token's directory without its lock.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "token.lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestTokenKeeps(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	auth := generate(t, tok, "the TLS key", pki.Authentication, pki.P256)
	sign := generate(t, tok, "", pki.Signing, pki.P384)
	ca := newCA(t, "CA", nil, nil)
	cert := certifyKey(t, ca, sign, forSigning)
	if k, err := tok.AddCertificate(cert, pki.CertStatus{State: pki.StateSaved}); err != nil || k != sign {
		t.Fatalf("key %v, %v", k, err)
	}
	if err := tok.SetCertificate(pki.HashOf(cert), pki.CertStatus{State: pki.StateRegistered, Active: true}); err != nil {
		t.Fatal(err)
	}

	again := reopen(t, dir)
	keys := again.Keys()
	if len(keys) != 2 || keys[0].ID() != auth.ID() || keys[1].ID() != sign.ID() {
		t.Fatalf("keys %v", keys)
	}
	if k := keys[0]; k.Label() != "the TLS key" || k.Usage() != pki.Authentication || k.Algorithm() != pki.P256 || len(k.Certificates()) != 0 {
		t.Errorf("got %q, %s, %s", k.Label(), k.Usage(), k.Algorithm())
	}
	certs := keys[1].Certificates()
	if len(certs) != 1 || !certs[0].Cert.Equal(cert) || certs[0].Status != (pki.CertStatus{State: pki.StateRegistered, Active: true}) {
		t.Errorf("certificates %v", certs)
	}
	digest := sha256.Sum256([]byte("x"))
	signature, err := keys[1].Signer().Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(sign.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Errorf("signature of the reopened key: %v", err)
	}
	if _, ok := again.Key(sign.ID()); !ok {
		t.Error("key not found by ID")
	}
	if _, ok := again.Key("x"); ok {
		t.Error("found a key that is not there")
	}

	if err := again.RemoveCertificate(pki.HashOf(cert)); err != nil {
		t.Fatal(err)
	}
	if err := again.RemoveCertificate(pki.HashOf(cert)); !errors.Is(err, pki.ErrNoCertificate) {
		t.Errorf("second removal: %v", err)
	}
	if err := again.RemoveKey(auth.ID()); err != nil {
		t.Fatal(err)
	}
	if err := again.RemoveKey(auth.ID()); !errors.Is(err, pki.ErrNoKey) {
		t.Errorf("second removal: %v", err)
	}
	last := reopen(t, dir)
	if keys := last.Keys(); len(keys) != 1 || len(keys[0].Certificates()) != 0 {
		t.Errorf("keys after removal: %v", keys)
	}
	if got := files(t, dir); len(got) != 3 { // PIN, one key, index
		t.Errorf("files %v", got)
	}
}

// certifyKey makes a certificate for a token's key.
func certifyKey(t testing.TB, ca *authority, k *pki.Key, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	return certify(t, ca, k.Signer(), edit)
}

func TestTokenAlgorithms(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	algs := []pki.Algorithm{pki.P256, pki.P384, pki.RSA2048}
	if !testing.Short() { // some seconds, now and then
		algs = append(algs, pki.RSA3072, pki.RSA4096)
	}
	for _, a := range algs {
		generate(t, tok, string(a), pki.Signing, a)
	}
	digest := sha256.Sum256([]byte("x"))
	for i, k := range reopen(t, dir).Keys() {
		signature, err := k.Signer().Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		switch pub := k.Public().(type) {
		case *ecdsa.PublicKey:
			if !ecdsa.VerifyASN1(pub, digest[:], signature) {
				t.Errorf("%s: wrong signature", algs[i])
			}
		case *rsa.PublicKey:
			if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], signature); err != nil {
				t.Errorf("%s: %v", algs[i], err)
			}
		}
		if k.Algorithm() != algs[i] {
			t.Errorf("got %s, want %s", k.Algorithm(), algs[i])
		}
	}
	if _, err := tok.Generate("x", pki.Signing, "DSA"); err == nil {
		t.Error("made a key of unknown algorithm")
	}
	if _, err := tok.Generate("x", "sleeping", pki.P256); err == nil {
		t.Error("made a key of unknown usage")
	}
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	generate(t, tok, "k", pki.Signing, pki.P256)
	if _, err := pki.CreateToken(dir, pin); !errors.Is(err, pki.ErrTokenExists) {
		t.Errorf("second creation: %v", err)
	}
	if _, err := pki.CreateToken(t.TempDir(), nil); err == nil {
		t.Error("created a token without PIN")
	}
	for _, wrong := range []string{"secret 1235", "secret 123", "x", ""} {
		if _, err := pki.OpenToken(dir, []byte(wrong)); !errors.Is(err, pki.ErrWrongPIN) {
			t.Errorf("PIN %q: %v", wrong, err)
		}
	}
	if _, err := pki.OpenToken(t.TempDir(), pin); !errors.Is(err, pki.ErrNoToken) {
		t.Errorf("no token: %v", err)
	}
	if _, err := pki.OpenToken(filepath.Join(dir, "nowhere"), pin); !errors.Is(err, pki.ErrNoToken) {
		t.Errorf("no directory: %v", err)
	}
	if err := tok.ChangePIN([]byte("wrong"), []byte("new")); !errors.Is(err, pki.ErrWrongPIN) {
		t.Errorf("change of PIN: %v", err)
	}
}

func TestTokenPermissions(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	generate(t, tok, "k", pki.Signing, pki.P256)
	for _, name := range append(files(t, dir), ".") {
		full := filepath.Join(dir, name)
		info, err := os.Stat(full)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
		if err := os.Chmod(full, info.Mode().Perm()|0o040); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.OpenToken(dir, pin); !errors.Is(err, pki.ErrPermissions) || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s readable by the group: %v", name, err)
		}
		if err := os.Chmod(full, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, dir)
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.CreateToken(open, pin); !errors.Is(err, pki.ErrPermissions) {
		t.Errorf("creation in an open directory: %v", err)
	}
}

// TestTokenAfterCrash builds the states that a crash can leave behind.
func TestTokenAfterCrash(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	k := generate(t, tok, "k", pki.Signing, pki.P256)
	before := files(t, dir)
	index := readFile(t, dir, "token.json")
	keep := map[string][]byte{}
	for _, name := range before {
		keep[name] = readFile(t, dir, name)
	}
	generate(t, tok, "lost", pki.Signing, pki.P256)
	// The key was written, the index was not, and a write was cut short.
	writeFile(t, dir, "token.json", index)
	writeFile(t, dir, ".new-123", []byte("-----BEGIN"))
	again := reopen(t, dir)
	if keys := again.Keys(); len(keys) != 1 || keys[0].ID() != k.ID() {
		t.Errorf("keys %v", keys)
	}
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("files %v, want %v", got, before)
	}
	// All keys were encrypted anew, the index was not replaced.
	if err := again.ChangePIN(pin, []byte("other")); err != nil {
		t.Fatal(err)
	}
	for name, b := range keep {
		writeFile(t, dir, name, b)
	}
	if keys := reopen(t, dir).Keys(); len(keys) != 1 {
		t.Errorf("keys %v", keys)
	}
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("files %v, want %v", got, before)
	}
}

func TestTokenChangePIN(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	k := generate(t, tok, "k", pki.Signing, pki.P256)
	fresh := []byte("new PIN")
	if err := tok.ChangePIN(pin, fresh); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.OpenToken(dir, pin); !errors.Is(err, pki.ErrWrongPIN) {
		t.Errorf("old PIN: %v", err)
	}
	generate(t, tok, "later", pki.Signing, pki.P256)
	again, err := pki.OpenToken(dir, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if keys := again.Keys(); len(keys) != 2 || keys[0].ID() != k.ID() {
		t.Errorf("keys %v", keys)
	}
	if got := files(t, dir); len(got) != 4 {
		t.Errorf("files %v", got)
	}
}

func TestTokenDamaged(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	generate(t, tok, "k", pki.Signing, pki.P256)
	generate(t, tok, "l", pki.Signing, pki.P256)
	whole := map[string][]byte{}
	var keyFiles []string
	for _, name := range files(t, dir) {
		whole[name] = readFile(t, dir, name)
		if strings.HasSuffix(name, ".pem") && !strings.HasPrefix(name, "pin") {
			keyFiles = append(keyFiles, name)
		}
	}
	index := func(edit func(map[string]any)) []byte {
		var x map[string]any
		if err := json.Unmarshal(whole["token.json"], &x); err != nil {
			t.Fatal(err)
		}
		edit(x)
		b, _ := json.Marshal(x)
		return b
	}
	first := func(x map[string]any) map[string]any { return x["keys"].([]any)[0].(map[string]any) }
	for _, tt := range []struct {
		name, file string
		content    []byte // nil: removed
	}{
		{"key missing", keyFiles[0], nil},
		{"key empty", keyFiles[0], []byte{}},
		{"key cut short", keyFiles[0], whole[keyFiles[0]][:200]},
		{"keys swapped", keyFiles[0], whole[keyFiles[1]]},
		{"key of odd length", keyFiles[0], []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n")},
		{"index empty", "token.json", []byte{}},
		{"index cut short", "token.json", whole["token.json"][:100]},
		{"index with more", "token.json", append(bytes.Clone(whole["token.json"]), '{')},
		{"index of another version", "token.json", index(func(x map[string]any) { x["format"] = 2 })},
		{"index with unknown field", "token.json", index(func(x map[string]any) { x["extra"] = 2 })},
		{"key file elsewhere", "token.json", index(func(x map[string]any) { first(x)["file"] = "../x.key.pem" })},
		{"unknown usage", "token.json", index(func(x map[string]any) { first(x)["usage"] = "x" })},
		{"wrong algorithm", "token.json", index(func(x map[string]any) { first(x)["algorithm"] = "RSA-2048" })},
	} {
		if tt.content == nil {
			if err := os.Remove(filepath.Join(dir, tt.file)); err != nil {
				t.Fatal(err)
			}
		} else {
			writeFile(t, dir, tt.file, tt.content)
		}
		if _, err := pki.OpenToken(dir, pin); !errors.Is(err, pki.ErrDamaged) {
			t.Errorf("%s: %v", tt.name, err)
		}
		writeFile(t, dir, tt.file, whole[tt.file])
	}
	reopen(t, dir)
}

// TestTokenTwoProcesses: whoever missed a change must not undo it.
func TestTokenTwoProcesses(t *testing.T) {
	t.Parallel()
	one, dir := newToken(t)
	two := reopen(t, dir)
	generate(t, one, "k", pki.Signing, pki.P256)
	if _, err := two.Generate("l", pki.Signing, pki.P256); !errors.Is(err, pki.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if keys := reopen(t, dir).Keys(); len(keys) != 1 || keys[0].Label() != "k" {
		t.Errorf("keys %v", keys)
	}
}

func TestTokenCertificates(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	auth := generate(t, tok, "auth", pki.Authentication, pki.P256)
	sign := generate(t, tok, "sign", pki.Signing, pki.P256)
	ca := newCA(t, "CA", nil, nil)
	saved := pki.CertStatus{State: pki.StateSaved}
	neither := func(*x509.Certificate) {}
	both := func(c *x509.Certificate) {
		forAuthentication(c)
		c.KeyUsage |= x509.KeyUsageContentCommitment
	}
	good := certifyKey(t, ca, sign, forSigning)
	for _, tt := range []struct {
		name string
		cert *x509.Certificate
		st   pki.CertStatus
		want error
	}{
		{"signing", good, saved, nil},
		{"again", good, saved, pki.ErrCertificateExists},
		{"renewed", certifyKey(t, ca, sign, forSigning), saved, nil},
		{"authentication", certifyKey(t, ca, auth, forAuthentication), saved, nil},
		{"signing for the other key", certifyKey(t, ca, auth, forSigning), saved, pki.ErrCertificateUsage},
		{"authentication for the other key", certifyKey(t, ca, sign, forAuthentication), saved, pki.ErrCertificateUsage},
		{"both", certifyKey(t, ca, sign, both), saved, pki.ErrCertificateUsage},
		{"neither", certifyKey(t, ca, sign, neither), saved, pki.ErrCertificateUsage},
		{"foreign key", certify(t, ca, newKey(t), forSigning), saved, pki.ErrNoKey},
	} {
		if _, err := tok.AddCertificate(tt.cert, tt.st); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := tok.AddCertificate(certifyKey(t, ca, sign, forSigning), pki.CertStatus{State: "asleep"}); err == nil {
		t.Error("accepted an unknown state")
	}
	if err := tok.SetCertificate(pki.HashOf(good), pki.CertStatus{}); err == nil {
		t.Error("accepted no state")
	}
	if err := tok.SetCertificate(pki.CertHash{}, saved); !errors.Is(err, pki.ErrNoCertificate) {
		t.Errorf("unknown certificate: %v", err)
	}
	if k, c, ok := tok.Certificate(pki.HashOf(good)); !ok || k != sign || !c.Cert.Equal(good) {
		t.Errorf("found %v, %v", k, ok)
	}
	if got := len(sign.Certificates()); got != 2 {
		t.Errorf("%d certificates", got)
	}
}

// TestTokenConcurrent is for the race detector.
func TestTokenConcurrent(t *testing.T) {
	t.Parallel()
	tok, dir := newToken(t)
	k := generate(t, tok, "sign", pki.Signing, pki.P256)
	c := certifyKey(t, newCA(t, "CA", nil, nil), k, forSigning)
	if _, err := tok.AddCertificate(c, pki.CertStatus{State: pki.StateSaved}); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5 {
				if _, err := k.Signer().Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					t.Error(err)
				}
				if err := tok.SetCertificate(pki.HashOf(c), pki.CertStatus{State: pki.StateRegistered, Active: i%2 == 0}); err != nil {
					t.Error(err)
				}
				if len(k.Certificates()) != 1 || len(tok.Keys()) != 1 {
					t.Error("lost a certificate")
				}
			}
		})
	}
	wg.Wait()
	reopen(t, dir)
}

func TestCSR(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	ejbca, _ := pki.ProfileByClass("Ejbca")
	subject, err := ejbca.SignSubject(pki.SubjectParams{Member: mustMember(t, "DEV", "GOV", "1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		use   pki.Usage
		usage []byte // of the extension
	}{
		{pki.Authentication, []byte{3, 2, 4, 0xb0}},
		{pki.Signing, []byte{3, 2, 2, 0x44}},
	} {
		der, err := generate(t, tok, "k", tt.use, pki.P256).CSR(subject, []string{"ss1.example"})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := csr.CheckSignature(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(csr.RawSubject, subject) || !slices.Equal(csr.DNSNames, []string{"ss1.example"}) {
			t.Errorf("subject %v, names %v", csr.Subject, csr.DNSNames)
		}
		found := false
		for _, e := range csr.Extensions {
			if e.Critical {
				t.Errorf("%v is critical", e.Id)
			}
			if e.Id.String() == "2.5.29.15" {
				found = bytes.Equal(e.Value, tt.usage)
			}
		}
		if !found {
			t.Errorf("%s: key usage is missing or wrong", tt.use)
		}
	}
	if _, err := generate(t, tok, "k", pki.Signing, pki.P256).CSR([]byte("no DER"), nil); err == nil {
		t.Error("made a request with a malformed subject")
	}
}

// TestOpenSSLReadsKeys has a stranger open every kind of key file.
func TestOpenSSLReadsKeys(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := filepath.Join(t.TempDir(), "token")
	tok, err := pki.CreateToken(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []pki.Algorithm{pki.P256, pki.P384, pki.RSA2048} {
		k := generate(t, tok, "k", pki.Signing, a)
		names, err := filepath.Glob(filepath.Join(dir, k.ID()+"-*.key.pem"))
		if err != nil || len(names) != 1 {
			t.Fatalf("files %v, %v", names, err)
		}
		out, err := exec.Command(openssl, "pkey", "-in", names[0], "-passin", "pass:"+string(pin), "-pubout", "-outform", "DER").Output()
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if want, _ := x509.MarshalPKIXPublicKey(k.Public()); !bytes.Equal(out, want) {
			t.Errorf("%s: openssl reads another key", a)
		}
		if err := exec.Command(openssl, "pkey", "-in", names[0], "-passin", "pass:wrong", "-noout").Run(); err == nil {
			t.Errorf("%s: openssl opens it with a wrong PIN", a)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]pki.Algorithm{"EC-P256": pki.P256, "p256": pki.P256, "ecp384": pki.P384, "rsa2048": pki.RSA2048,
		"RSA-3072": pki.RSA3072, "RSA4096": pki.RSA4096, "": "", "rsa": "", "EC": "", "RSA-1024": ""} {
		if got, err := pki.ParseAlgorithm(s); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	h := pki.CertHash{1, 2, 3}
	if got, err := pki.ParseCertHash(h.Hex()); got != h || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := pki.ParseCertHash("0102"); err == nil {
		t.Error("short hash accepted")
	}
	if h.Base64() != "AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" {
		t.Error(h.Base64())
	}
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}
