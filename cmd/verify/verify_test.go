// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/pki/asic"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

const vectors = "../../../shared/vectors/asic"

func needVectors(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(vectors); err != nil {
		t.Skipf("the vectors are not here: %v", err)
	}
}

// command runs the command and returns its status and outputs.
func command(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(t.Context(), "kontor-verify", args, &o, &e)
	return status, o.String(), e.String()
}

func vector(name string) string { return filepath.Join(vectors, name+".asice") }

func TestVerdicts(t *testing.T) {
	t.Parallel()
	needVectors(t)
	conf := filepath.Join(vectors, "globalconf")
	for _, tt := range []struct {
		files  []string
		status int
		last   string
	}{
		{[]string{"valid-signed-message"}, 0, "VALID"},
		{[]string{"valid-non-batch-rest"}, 0, "VALID"},
		{[]string{"valid-batch-ts"}, 0, "VALID"},
		{[]string{"valid-batch-ts", "valid-signed-message"}, 0, "VALID: 2 of 2 containers are valid"},
		{[]string{"wrong-message"}, 1, "INVALID: digest of message.xml"},
		{[]string{"invalid-digest"}, 1, "INVALID: digest of signed properties"},
		{[]string{"invalid-incorrect-references"}, 1, "INVALID: signature references, "},
		{[]string{"valid-batch-ts", "wrong-message"}, 1, "INVALID: 1 of 2 containers are valid"},
	} {
		var args []string
		for _, f := range tt.files {
			args = append(args, vector(f))
		}
		status, out, errs := command(t, append(args, "--conf", conf)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if status != tt.status || !strings.HasPrefix(lines[len(lines)-1], tt.last) || errs != "" {
			t.Errorf("%q: status %d\n%s\n%s", tt.files, status, out, errs)
		}
		if !strings.Contains(out, "trusted as it stands") {
			t.Errorf("%q: not said that the folder is merely trusted", tt.files)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	needVectors(t)
	_, out, _ := command(t, vector("valid-batch-ts"), "--conf", filepath.Join(vectors, "globalconf"))
	if !strings.Contains(out, "DEV/COM/4321/TestClient (Test client)") {
		t.Errorf("no member names in\n%s", out)
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	needVectors(t)
	file := filepath.Join(t.TempDir(), "documents.zip")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"valid-batch-ts", "wrong-message"} {
		data, err := os.ReadFile(vector(name))
		if err != nil {
			t.Fatal(err)
		}
		w, err := z.Create(name + ".asice")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := command(t, "--output", "json", "--conf", filepath.Join(vectors, "globalconf"), file)
	var r asic.Results
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 1 || errs != "" {
		t.Fatalf("status %d, %v\n%s\n%s", status, err, out, errs)
	}
	if r.Valid || len(r.Reports) != 2 || !r.Reports[0].Valid || r.Reports[1].Valid || !strings.HasSuffix(r.Reports[0].File, ": valid-batch-ts.asice") {
		t.Errorf("%+v", r)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.asice")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{nil, 2, "which documents?"},
		{[]string{file}, 2, "whom to trust?"},
		{[]string{file, "--conf", dir, "--output", "xml"}, 2, "unknown output"},
		{[]string{file, "--nonsense"}, 2, "unknown flag"},
		{[]string{file, "--conf", filepath.Join(dir, "none")}, 1, "none"},
		{[]string{file, "--anchor", filepath.Join(dir, "none.xml")}, 1, "none.xml"},
		{[]string{file, "--anchor", file}, 1, "anchor"},
	} {
		status, out, errs := command(t, tt.args...)
		if status != tt.status || !strings.Contains(errs, tt.says) || out != "" {
			t.Errorf("%q: status %d, %q, %q", tt.args, status, out, errs)
		}
	}
	if status, out, _ := command(t, "--help"); status != 0 || !strings.Contains(out, "Exit status") {
		t.Errorf("help: status %d\n%s", status, out)
	}
}

// TestAnchor publishes a configuration of its own and has a document judged by
// it: downloaded, and offline from the folder a gateway keeps.
func TestAnchor(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "internalSigningKey"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	shared, err := (&globalconf.SharedParams{Instance: "DEV", OCSPFreshness: time.Hour,
		Sources: []globalconf.Source{{Address: "cs.example", InternalCerts: [][]byte{der}, ExternalCerts: [][]byte{der}}},
	}).Marshal(6)
	if err != nil {
		t.Fatal(err)
	}
	manager, err := id.ParseClient("DEV/GOV/1/management")
	if err != nil {
		t.Fatal(err)
	}
	private, err := (&globalconf.PrivateParams{Instance: "DEV", ManagementProvider: manager, RegistrationURL: "https://cs.example:4001/", TimestampInterval: time.Minute}).Marshal(6)
	if err != nil {
		t.Fatal(err)
	}
	const location = "/V6/20260301120000000000000/"
	directory := &globalconf.Directory{Version: 6, Expires: time.Now().Add(time.Hour), Parts: []globalconf.Part{
		globalconf.NewPart(globalconf.ContentPrivateParams, "DEV", location+"private-params.xml", private),
		globalconf.NewPart(globalconf.ContentSharedParams, "DEV", location+"shared-params.xml", shared),
	}}
	signed, err := directory.Sign(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(path string, content []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if v := r.URL.Query().Get("version"); v != "" && v != "6" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write(content)
		})
	}
	serve("/internalconf", signed)
	serve(location+"shared-params.xml", shared)
	serve(location+"private-params.xml", private)
	anchor, err := (&globalconf.Anchor{Instance: "DEV", Generated: time.Now(),
		Sources: []globalconf.AnchorSource{{URL: server.URL + "/internalconf", Certs: [][]byte{der}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	anchorFile, document := write("anchor.xml", anchor), write("x.asice", []byte("hello"))

	status, out, errs := command(t, document, "--anchor", anchorFile)
	if status != 1 || !strings.Contains(out, fmt.Sprintf("DEV downloaded from %s", server.URL)) || !strings.Contains(out, "INVALID: container structure") {
		t.Errorf("downloaded: status %d\n%s\n%s", status, out, errs)
	}

	conf := filepath.Join(dir, "conf")
	client, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: anchor, Dir: conf})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Close()
	status, out, errs = command(t, document, "--anchor", anchorFile, "--conf", conf)
	if status != 1 || !strings.Contains(out, "verified with the anchor") {
		t.Errorf("offline: status %d\n%s\n%s", status, out, errs)
	}
	part := filepath.Join(conf, "DEV", "shared-params.xml")
	if err := os.WriteFile(part, append(shared, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs = command(t, document, "--anchor", anchorFile, "--conf", conf)
	if status != 1 || out != "" || !strings.Contains(errs, "does not verify with the anchor") {
		t.Errorf("forged: status %d\n%s\n%s", status, out, errs)
	}
	if status, out, errs = command(t, document, "--anchor", anchorFile); status != 1 || !strings.Contains(errs, "download") || out != "" {
		t.Errorf("no network: status %d\n%s\n%s", status, out, errs)
	}
}
