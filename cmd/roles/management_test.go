// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

const ecosystem = `instance: DEV
settings: {managementProvider: DEV/GOV/1234/MANAGEMENT}
memberClasses: [{code: GOV, description: Government}]
members: [{class: GOV, code: "1234", name: Board, subsystems: [{code: MANAGEMENT}]}]
`

// TestManagementServices starts a registry and finds its management services
// as a security server does: by the global configuration.
func TestManagementServices(t *testing.T) {
	t.Parallel()
	ip := fmt.Sprintf("127.41.%d.10", 1+os.Getpid()%250) // test binaries may run beside each other
	dir := t.TempDir()
	file := filepath.Join(dir, "ecosystem.yaml")
	if err := os.WriteFile(file, []byte(ecosystem), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Registry{Instance: "DEV", DataDir: filepath.Join(dir, "registry"), PINFile: filepath.Join(dir, "pin"), Ecosystem: file, Address: ip + ":8001", PublishInterval: 60e9}
	cfg.Listen.HTTP, cfg.Listen.Management, cfg.Listen.ManagementInternal = ip+":8001", ip+":4001", ip+":4002"
	if err := roles.InitRegistry(cfg, pki.P256); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- roles.RunRegistry(ctx, cfg, roles.Options{Ready: func() { close(ready) }}) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	anchor := get(t, "http://"+ip+":8001/anchor/internal")
	client, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: anchor})
	if err != nil {
		t.Fatal(err)
	}
	for client.View() == nil { // until the first publication
		if err := client.Update(ctx); err != nil && !errors.Is(err, globalconf.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	url, cert, provider := client.View().Management()
	if url != "https://"+ip+":4001/managementservice/" || cert == nil || provider.String() != "DEV/GOV/1234/MANAGEMENT" {
		t.Fatalf("%s, %v, %s", url, cert, provider)
	}
	certFile, _ := roles.ManagementTLSFiles(cfg)
	if der, err := roles.ReadDER(certFile, "CERTIFICATE"); err != nil || !bytes.Equal(der, cert.Raw) {
		t.Errorf("another certificate is published: %v", err)
	}
	server, err := id.ParseSecurityServer("DEV/GOV/1234/SS1")
	if err != nil {
		t.Fatal(err)
	}
	probe := &request.Request{Service: request.AuthCertReg, Sender: server.Owner().Client(), Provider: provider, ID: "probe", Server: server, DryRun: true}
	soap, err := probe.SOAP()
	if err != nil {
		t.Fatal(err)
	}
	err = &request.Fault{Code: request.CodeOutdated}
	for i := 0; i < 8 && errors.Is(err, &request.Fault{Code: request.CodeOutdated}); i++ { // the registry itself may notice last that it has published
		time.Sleep(time.Duration(i) * 250 * time.Millisecond) // ten requests a minute are allowed
		_, err = request.Registration(url, cert).Send(ctx, &request.Message{SOAP: soap, Request: probe})
	}
	if !errors.Is(err, &request.Fault{Code: request.CodeInvalidRequest}) {
		t.Error(err)
	}
	deletion := &request.Request{Service: request.ClientDeletion, Sender: probe.Sender, Provider: provider, ID: "deletion", Server: server, Client: provider}
	if soap, err = deletion.SOAP(); err != nil {
		t.Fatal(err)
	}
	internal := request.Registration("https://"+ip+":4002/managementservice/manage/", cert)
	if _, err := internal.Send(ctx, &request.Message{SOAP: soap, Request: deletion}); !errors.Is(err, &request.Fault{Code: request.CodeInternal}) {
		t.Error(err)
	}
	if wsdl := get(t, "http://"+ip+":8001/managementservices.wsdl"); !bytes.Contains(wsdl, []byte(registry.MaintenanceEnable)) {
		t.Errorf("%s", wsdl)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return b
}
