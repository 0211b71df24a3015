// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/config"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDefaultsAndValues(t *testing.T) {
	c, err := config.LoadGateway(write(t, `
server: DEV/GOV/1234/ss1
listen:
  peer: "127.0.0.11:5500"
message_log:
  max_body: 10MiB
  stamp_interval: 2s
limits: {exchanges: 10}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.String() != "DEV/GOV/1234/ss1" || c.Listen.Peer != "127.0.0.11:5500" || c.Listen.OCSP != ":5577" ||
		c.MessageLog.MaxBody != 10<<20 || c.MessageLog.StampInterval != 2*time.Second || c.Limits.Exchanges != 10 {
		t.Errorf("%+v", c)
	}
	if c.MessageLog.StampGrace != 4*time.Hour || !c.MessageLog.Bodies || c.Logging.Level != "info" {
		t.Errorf("defaults lost: %+v", c)
	}
}

func TestACME(t *testing.T) {
	c, err := config.LoadGateway(write(t, `
server: DEV/GOV/1234/ss1
acme:
  dns_name: ss1.example.org
  renew_before: 336h
  certificates:
    - {usage: authentication, credentials: auth.json}
    - {usage: signing, credentials: sign.json, member: DEV/COM/7, profile: Ejbca}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := c.ACME
	if a.Listen != ":80" || a.DNSName != "ss1.example.org" || a.RenewBefore != 14*24*time.Hour || len(a.Certificates) != 2 ||
		!a.Certificates[0].Member.IsZero() || a.Certificates[1].Member.String() != "DEV/COM/7" || a.Certificates[1].Profile != "Ejbca" {
		t.Errorf("%+v", a)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("KONTOR_LISTEN_PEER", "127.0.0.9:5500")
	t.Setenv("KONTOR_SERVER", "DEV/COM/7/env")
	c, err := config.LoadGateway(write(t, "server: DEV/GOV/1234/ss1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.Peer != "127.0.0.9:5500" || c.Server.Code() != "env" {
		t.Errorf("%+v", c)
	}
}

func TestRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"typo":       {"server: DEV/GOV/1/s\nlisten:\n  per: ':1'\n", "gateway.yaml:3: listen.per: unknown key; did you mean listen.peer?"},
		"unknown":    {"server: DEV/GOV/1/s\nfancy_feature: 1\n", "gateway.yaml:2: fancy_feature: unknown key; remove it"},
		"twice":      {"server: DEV/GOV/1/s\nserver: DEV/GOV/1/s\n", "given twice, first in line 1"},
		"no server":  {"data_dir: /x\n", "server: missing; give the identifier"},
		"bad id":     {"server: DEV/GOV\n", "gateway.yaml:1: server:"},
		"duration":   {"server: DEV/GOV/1/s\nlimits:\n  idle: 10 parsecs\n", "gateway.yaml:3: limits.idle"},
		"too short":  {"server: DEV/GOV/1/s\nlimits:\n  idle: 1ms\n", "gateway.yaml:3: limits.idle: 1ms is too short"},
		"size":       {"server: DEV/GOV/1/s\nmessage_log:\n  max_body: lots\n", "is not a size"},
		"listen":     {"server: DEV/GOV/1/s\nlisten:\n  peer: nonsense\n", "gateway.yaml:3: listen.peer: \"nonsense\" is not an address"},
		"section":    {"server: DEV/GOV/1/s\nlisten: 5\n", "a mapping of keys to values is expected"},
		"transport":  {"server: DEV/GOV/1/s\ntunnel: {transport: udp}\n", "tunnel.transport: \"udp\" is not a transport"},
		"window":     {"server: DEV/GOV/1/s\ntunnel: {stream_window: 1KiB}\n", "tunnel.stream_window: 1KiB is too little"},
		"tunnels":    {"server: DEV/GOV/1/s\ntunnel: {connections: 0}\n", "tunnel.connections: 0 is not between 1 and 64"},
		"windows":    {"server: DEV/GOV/1/s\ntunnel: {stream_window: 64MiB}\n", "tunnel.connection_window: 48MiB is less than"},
		"acme typo":  {"server: DEV/GOV/1/s\nacme: {dns_name: a, certificates: [{use: signing}]}\n", "use"},
		"acme name":  {"server: DEV/GOV/1/s\nacme:\n  certificates: [{usage: signing, credentials: x}]\n", "acme.dns_name: missing"},
		"acme usage": {"server: DEV/GOV/1/s\nacme:\n  dns_name: a\n  certificates: [{usage: both, credentials: x}]\n", "gateway.yaml:4: acme.certificates: entry 1: usage \"both\""},
		"acme twice": {"server: DEV/GOV/1/s\nacme: {dns_name: a, certificates: [{usage: signing, credentials: x}, {usage: signing, credentials: y, member: DEV/GOV/1}]}\n", "entry 2: there is another"},
		"acme owner": {"server: DEV/GOV/1/s\nacme: {dns_name: a, certificates: [{usage: authentication, credentials: x, member: DEV/GOV/2}]}\n", "is for the owner"},
		"acme file":  {"server: DEV/GOV/1/s\nacme: {dns_name: a, certificates: [{usage: signing}]}\n", "credentials is missing"},
		"acme soon":  {"server: DEV/GOV/1/s\nacme: {dns_name: a, renew_before: 1s, certificates: [{usage: signing, credentials: x}]}\n", "acme.renew_before: 1s is too short"},
		"op keep":    {"server: DEV/GOV/1/s\noperational_monitoring: {keep: 1s}\n", "operational_monitoring.keep: 1s is too short"},
		"op soon":    {"server: DEV/GOV/1/s\noperational_monitoring: {available_after: 1s}\n", "operational_monitoring.available_after: 1s is too short"},
		"op size":    {"server: DEV/GOV/1/s\noperational_monitoring: {max_size: 1KiB}\n", "operational_monitoring.max_size: 1KiB is too little"},
		"op records": {"server: DEV/GOV/1/s\noperational_monitoring: {max_records: 0}\n", "operational_monitoring.max_records: 0"},
		"trace":      {"server: DEV/GOV/1/s\ntracing: {endpoint: 'localhost:4318'}\n", "tracing.endpoint: \"localhost:4318\" is not an http or https URL"},
		"sample":     {"server: DEV/GOV/1/s\ntracing: {sample: 1.5}\n", "tracing.sample: 1.5 is not between 0 and 1"},
		"no number":  {"server: DEV/GOV/1/s\ntracing: {sample: .nan}\n", "tracing.sample"},
		"not yaml":   {"server: [\n", "line"},
		"level":      {"server: DEV/GOV/1/s\nlogging: {level: loud}\n", "logging.level"},
		"no mapping": {"- a\n", "a mapping of keys to values is expected"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.LoadGateway(write(t, tc.text))
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got\n%v\nwant %q in it", err, tc.want)
			}
		})
	}
}

func TestEveryProblemIsListed(t *testing.T) {
	_, err := config.LoadRegistry(write(t, "instance: 'a/b'\npublish_interval: 1h\nlisten: {http: x}\n"))
	for _, want := range []string{"instance", "publish_interval", "listen.http", "address: missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// A file of another role is one problem, not one for each of its keys.
func TestAnotherRole(t *testing.T) {
	t.Parallel()
	load := map[string]func(string) error{
		"gateway":  func(f string) error { _, err := config.LoadGateway(f); return err },
		"registry": func(f string) error { _, err := config.LoadRegistry(f); return err },
		"mirror":   func(f string) error { _, err := config.LoadMirror(f); return err },
		"trust":    func(f string) error { _, err := config.LoadTrust(f); return err },
	}
	names := map[string]string{"gateway": "a gateway", "registry": "a registry", "mirror": "a mirror", "trust": "trust services"}
	for wanted := range load {
		for given := range load {
			if given == wanted {
				continue
			}
			err := load[wanted]("../deploy/" + given + ".yaml")
			var e *config.Error
			if want := "this is a configuration of " + names[given] + ", not of " + names[wanted]; !errors.As(err, &e) || len(e.Problems) != 1 || !strings.Contains(err.Error(), want) {
				t.Errorf("%s for %s: %v", given, wanted, err)
			}
		}
	}
	// What fits no role is told key by key.
	if _, err := config.LoadGateway(write(t, "instance: DEV\nservre: x\n")); err == nil || !strings.Contains(err.Error(), "servre: unknown key; did you mean server?") {
		t.Error(err)
	}
}

func TestRegistryStore(t *testing.T) {
	t.Parallel()
	const head = "instance: DEV\naddress: registry.example\n"
	for text, want := range map[string]string{
		"": "",
		"store: {postgres: {dsn: host=db dbname=kontor, password_file: /etc/pw}}":                     "",
		"node: two\nstore: {postgres: {dsn: 'postgres://kontor@db:5432/kontor?sslmode=verify-full'}}": "",
		"node: two":                                                      "3: node: only nodes that share",
		"store: {postgres: {password_file: pw}}":                         "store.postgres.dsn: missing",
		"store: {postgres: {dsn: host=db password=secret}}":              "store.postgres.dsn: holds a password",
		"store: {postgres: {dsn: 'postgres://kontor:secret@db/kontor'}}": "store.postgres.dsn: holds a password",
		"store: {postgres: {dsn: 'postgres://db/kontor?password=x'}}":    "store.postgres.dsn: holds a password",
		"node: a/b\nstore: {postgres: {dsn: host=db}}":                   "node:",
		"store: {mysql: {}}":                                             "unknown key",
	} {
		c, err := config.LoadRegistry(write(t, head+text+"\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v; want %q", text, c, err, want)
		}
	}
}

// The commented examples that operators start from must be valid.
func TestExamples(t *testing.T) {
	t.Parallel()
	if _, err := config.LoadGateway("../deploy/gateway.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := config.LoadRegistry("../deploy/registry.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := config.LoadMirror("../deploy/mirror.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := config.LoadTrust("../deploy/trust.yaml"); err != nil {
		t.Error(err)
	}
}
