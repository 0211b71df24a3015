// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/id"
)

// TestTrustACME takes the whole way: the operator admits a member, the member
// gets a certificate with the file that he got, and nothing else configured.
func TestTrustACME(t *testing.T) {
	t.Parallel()
	const host = "127.84.1.1"
	port := func() int {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	challenges, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := new(config.Trust)
	cfg.DataDir, cfg.PassphraseFile = filepath.Join(dir, "trust"), filepath.Join(dir, "trust.pass")
	cfg.Listen.HTTP, cfg.Listen.HTTPS = fmt.Sprintf("%s:%d", host, port()), fmt.Sprintf("%s:%d", host, port())
	cfg.URL = "http://" + cfg.Listen.HTTP
	cfg.ACME.Enabled, cfg.ACME.URL, cfg.ACME.Profile = true, "https://"+cfg.Listen.HTTPS, "FiVRK"
	cfg.ACME.ValidationPort = challenges.Addr().(*net.TCPAddr).Port
	root, err := roles.InitTrust(cfg, "Test CA", "DEV", pki.P256)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 2)
	responder := new(enrol.Responder)
	go func() { done <- roles.RunTrust(ctx, cfg, roles.Options{Ready: func() { close(ready) }}) }()
	go func() { done <- responder.Serve(ctx, challenges) }()
	defer func() {
		cancel()
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}

	socket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", roles.TrustSocket(cfg))
	}}}
	call := func(method, path, body string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, "http://socket"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := socket.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	if status, b := call("POST", "/eab", `{"usage":"signing","member":"DEV/GOV/1234"}`); status != http.StatusUnprocessableEntity || !bytes.Contains(b, []byte("missing")) {
		t.Errorf("incomplete: %d %s", status, b)
	}
	status, file := call("POST", "/eab", `{"usage":"signing","member":"DEV/GOV/1234","server":"DEV/GOV/1234/ss1","member_name":"Agency"}`)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, file)
	}
	credentials, err := enrol.ParseCredentials(file)
	if err != nil {
		t.Fatal(err)
	}

	token, err := pki.CreateToken(filepath.Join(dir, "token"), []byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := enrol.OpenAccounts(filepath.Join(dir, "accounts"), []byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	profile, _ := pki.ProfileByClass("FiVRK")
	member, _ := id.ParseMember("DEV/GOV/1234")
	server, _ := id.ParseSecurityServer("DEV/GOV/1234/ss1")
	subject, err := profile.SignSubject(pki.SubjectParams{Server: server, Member: member, MemberName: "Agency"})
	if err != nil {
		t.Fatal(err)
	}
	renewer, err := enrol.New(enrol.Config{Dir: dir, Token: token, Accounts: accounts, Credentials: *credentials, Usage: pki.Signing,
		Member: member, Subject: subject, DNSNames: []string{host}, Responder: responder})
	if err != nil {
		t.Fatal(err)
	}
	renewer.Step(t.Context())
	s := renewer.Status()
	if s.Certificate == nil || s.Error != "" {
		t.Fatalf("%+v", s)
	}
	if err := s.Certificate.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	if m, err := profile.Member(s.Certificate, "DEV"); err != nil || m != member {
		t.Errorf("certificate of %s, %v", m, err)
	}

	_, b := call("GET", "/eab", "")
	var list []map[string]any
	if err := json.Unmarshal(b, &list); err != nil || len(list) != 1 || list[0]["kid"] != credentials.KID || list[0]["bound"] == nil || list[0]["mac_key"] != nil {
		t.Errorf("list %s, %v", b, err)
	}
	if status, b := call("DELETE", "/eab?kid="+credentials.KID, ""); status != http.StatusOK {
		t.Errorf("delete: %d %s", status, b)
	}
	if status, _ := call("DELETE", "/eab?kid="+credentials.KID, ""); status != http.StatusUnprocessableEntity {
		t.Errorf("delete twice: %d", status)
	}
}
