// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"kontor/integration/testnet"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// TestManagementRequests has X-Road's management services read and verify
// requests that Kontor's gateways send.
func TestManagementRequests(t *testing.T) {
	j := newJudge(t)
	n := testnet.Start(t, testnet.Options{})
	conf := filepath.Join(t.TempDir(), "globalconf")
	j.must("download", write(t, filepath.Join(t.TempDir(), "anchor.xml"), n.Anchor), "6", conf)
	credential := func(name string) *request.Credential {
		i := n.Identity(name)
		return &request.Credential{Key: i.Key, Cert: i.Cert, OCSP: n.OCSPOf(i.Cert)}
	}
	auth := credential("auth")
	server := n.ServerID(testnet.Server3)
	owner := server.Owner().String()
	for _, s := range request.Services() {
		t.Run(string(s), func(t *testing.T) {
			j := &judge{t, j.in, j.out}
			r := &request.Request{Service: s, Provider: n.ClientID(testnet.Population), ID: "test-" + string(s), Server: server, Address: "ss3.example.org",
				Certificate: auth.Cert.Raw, Name: "Grüße & <more>", Text: "closed & back soon"}
			var err error
			if r.Sender, err = id.ParseClient(owner); err != nil {
				t.Fatal(err)
			}
			signer := "sign"
			if s.HasClient() {
				r.Client = n.ClientID(testnet.Nosey)
			}
			if s == request.OwnerChange {
				signer = "sign-guest"
				if r.Client, err = id.ParseClient(n.ClientID(testnet.Guest).Member().String()); err != nil {
					t.Fatal(err)
				}
			}
			soap, err := r.SOAP()
			if err != nil {
				t.Fatal(err)
			}
			m, err := request.Seal(soap, auth, credential(signer))
			if err != nil {
				t.Fatal(err)
			}
			kind, body := m.Encode()
			file := write(t, filepath.Join(t.TempDir(), "request"), body)
			yes, words := j.ask("request", conf, kind, file)
			if strings.Contains(strings.Join(words, " "), "ClassNotFoundException") {
				t.Skip("the class path has no management services: ", words)
			}
			if !yes || words[0] != string(s) || !strings.EqualFold(words[1], "SERVER:"+server.String()) {
				t.Fatalf("X-Road says %q", words)
			}
			if s.Signed() {
				write(t, file, bytes.Replace(body, []byte("test-"), []byte("tast-"), 1))
				j.refuses("signature", "request", conf, kind, file)
			}
		})
	}
}
