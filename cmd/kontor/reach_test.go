// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kontor/registry/guard"
)

// A newcomer is told what is missing, and where it comes from.
func TestNothingIsThere(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for _, role := range []string{"gateway", "registry", "trust", "registry mirror"} {
		args := append(strings.Fields(role), "run", "--config", none)
		kontor(t, args...).holds(t, 1, "no such file", "--config", "deploy/"+args[len(args)-4]+".yaml", "kontor "+role+" init --config "+none)
	}
	kontor(t, "client", "list", "--config", none).holds(t, 1, "kontor gateway init", "A gateway elsewhere is named by --url")
	kontor(t, "member", "list", "--config", none).holds(t, 1, "kontor registry init", "A registry elsewhere is named by --url")
	kontor(t, "member", "list", "--config", "../../deploy/gateway.yaml").holds(t, 1, "this is a configuration of a gateway, not of a registry")
	kontor(t, "client", "list", "--config", "../../deploy/registry.yaml").holds(t, 1, "this is a configuration of a registry, not of a gateway")
	kontor(t, "gateway", "status", "--output", "xml").holds(t, 2, "use table or json")

	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("server: DEV/GOV/1/ss\ndata_dir: "+none+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kontor(t, "client", "list", "--config", file).holds(t, 1, "API key", "has kontor gateway init been run with this configuration?")
}

// reach returns the flags for an administration API that is not the one on this
// machine.
func reach(t *testing.T, s *httptest.Server) []string {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--url", s.URL, "--key-file", key, "--cert", cert}
}

// Whoever reaches another server, an older one, or none, learns that.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	var problem *guard.Problem
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { guard.WriteProblem(w, problem) }))
	flags := reach(t, s)
	list := func(change ...string) ran {
		return kontor(t, append(append([]string{"client", "list"}, flags...), change...)...)
	}

	problem = guard.NewProblem(http.StatusUnauthorized, guard.CodeKeyNeeded, "the call has no valid API key", "send the header")
	list().holds(t, 1, "the gateway does not know the API key", "have a new one made")
	kontor(t, append([]string{"member", "list"}, flags...)...).holds(t, 1, "the registry does not know the API key")

	probe := httptest.NewRecorder()
	guard.Routed(http.NewServeMux()).ServeHTTP(probe, httptest.NewRequest("GET", "/", nil))
	problem = new(guard.Problem)
	if err := json.Unmarshal(probe.Body.Bytes(), problem); err != nil {
		t.Fatal(err)
	}
	r := list()
	r.holds(t, 1, "of another version than this program")
	if strings.Contains(r.errs, "openapi") {
		t.Error(r.errs)
	}
	list("--url", "10.0.0.1:4000").holds(t, 2, "is not an address such as https://10.0.0.1:4000")
	list("--key-file", "none").holds(t, 1, "--key-file: API key: stat none: no such file", "kontor gateway apikey create")
	if r := list("--key-file", "none"); strings.Contains(r.errs, "init") {
		t.Error("it blames init: ", r.errs)
	}
	list("--cert", "none").holds(t, 1, "--cert: open none", "internal.pem from the data_dir of the gateway")
	list("--cert", flags[3]).holds(t, 1, "holds no certificate", "internal.pem")

	other := httptest.NewUnstartedServer(http.NotFoundHandler())
	other.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	other.StartTLS()
	defer other.Close()
	list("--url", other.URL).holds(t, 1, "is not the gateway whose certificate was given")
	s.Close()
	list().holds(t, 1, "does not answer", "does the gateway run, and is this the address of its listen.admin?")
}

// selfSigned makes a certificate.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
