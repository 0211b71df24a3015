// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// good are complete configurations, for edits that make them bad. None of the
// roles is set up, so none of them could run.
var good = map[string]string{
	"gateway": `server: DEV/GOV/1/ss1
data_dir: DIR/gateway
pin_file: DIR/gateway.pin
anchor: DIR/anchor.xml
listen:
  consumer: "127.72.0.1:8080"
  metrics: ""
limits:
  idle: 10s
`,
	"registry": `instance: DEV
data_dir: DIR/registry
pin_file: DIR/registry.pin
address: registry.example
listen:
  http: "127.72.0.1:8081"
  metrics: ""
`,
	"trust": `data_dir: DIR/trust
passphrase_file: DIR/trust.pass
url: http://127.72.0.1:8888
listen:
  http: "127.72.0.1:8888"
  metrics: ""
`,
}

// required are keys without a default.
var required = map[string]string{"gateway": "server:", "registry": "instance:", "trust": "url:"}

func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	for role, text := range good {
		text = strings.ReplaceAll(text, "DIR", dir)
		t.Run(role, func(t *testing.T) {
			file := filepath.Join(dir, role+".yaml")
			write(t, file, []byte(text))
			if r := kontor(t, 0, role, "config", "check", "--config", file); !strings.Contains(r.out, "ok") {
				t.Error(r)
			}
			lines := strings.Count(text, "\n")
			for name, c := range map[string]struct {
				content string
				wants   []string // what the refusal must say
			}{
				"empty":       {"", []string{file + ": " + required[role]}},
				"garbage":     {"\x00\x01\x7fELF\xff\xfe", []string{file}},
				"no YAML":     {text + "listen: [\n", []string{file, "line"}},
				"a list":      {"- a\n- b\n", []string{file + ":1", "a mapping"}},
				"unknown key": {text + "data_dri: x\n", []string{fmt.Sprintf("%s:%d", file, lines+1), "data_dri", "did you mean data_dir?"}},
				"twice":       {text + "data_dir: /x\n", []string{fmt.Sprintf("%s:%d", file, lines+1), "given twice, first in line"}},
				"bad address": {strings.Replace(text, "127.72.0.1:80", "127.72.0.1;80", 1), []string{file + ":", "listen."}},
				"bad level":   {text + "logging: {level: shout}\n", []string{fmt.Sprintf("%s:%d", file, lines+1), "debug, info, warn or error"}},
			} {
				if c.content == text { // the edit does not fit this role
					continue
				}
				t.Run(name, func(t *testing.T) {
					write(t, file, []byte(c.content))
					for _, args := range [][]string{{role, "config", "check"}, {role, "run"}, {role, "init"}} {
						if role == "trust" && args[1] == "init" {
							args = append(args, "--instance", "DEV")
						}
						r := kontor(t, 1, append(args, "--config", file)...)
						for _, want := range c.wants {
							hint(t, r, want)
						}
						if r.out != "" || strings.Contains(r.err, "goroutine") {
							t.Errorf("%q: %s", args, r)
						}
					}
				})
			}
			t.Run("no file", func(t *testing.T) {
				hint(t, kontor(t, 1, role, "run", "--config", filepath.Join(dir, "none.yaml")), "none.yaml")
			})
			t.Run("a folder", func(t *testing.T) {
				hint(t, kontor(t, 1, role, "run", "--config", dir), dir)
			})
			t.Run("not set up", func(t *testing.T) {
				write(t, file, []byte(text))
				hint(t, kontor(t, 1, role, "run", "--config", file), "init")
			})
		})
	}
	if made, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(made) > 0 {
		t.Errorf("a refused command left %q behind", made)
	}
}

// TestDamagedFiles damages what a role keeps beside its configuration. Each
// must refuse to start, with words that name the file, and must start again
// when the file is whole.
func TestDamagedFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir, "--processes")
	s.succeed(t, request{0, "GET", portal, persons, "/38001010001", nil})
	n := s.network
	s.stop(t)

	g := n.Gateways[0]
	token, err := filepath.Glob(filepath.Join(g.Data, "token", "*.key.pem"))
	if err != nil || len(token) == 0 {
		t.Fatal(err)
	}
	gatewayArgs := []string{"gateway", "run", "--config", g.Config}
	registryArgs := []string{"registry", "run", "--config", n.Registry.Config}
	trustArgs := []string{"trust", "run", "--config", n.Trust.Config}
	garbage := []byte("this is not what it should be\n\x00\xff")
	for _, c := range []struct {
		file    string
		content []byte // nil: remove the file
		args    []string
		want    string
	}{
		{filepath.Join(dir, "secrets", "gateway-1.pin"), []byte("wrong\n"), gatewayArgs, "PIN"},
		{filepath.Join(dir, "secrets", "gateway-1.pin"), nil, gatewayArgs, "pin_file"},
		{n.Anchor, garbage, gatewayArgs, "anchor"},
		{n.Anchor, nil, gatewayArgs, "anchor"},
		{filepath.Join(g.Data, "serverconf.yaml"), []byte("clients:\n  - id: nonsense\n"), gatewayArgs, "serverconf.yaml"},
		{filepath.Join(g.Data, "serverconf.yaml"), []byte("klients: []\n"), gatewayArgs, "serverconf.yaml"},
		{filepath.Join(g.Data, "token", "token.json"), garbage, gatewayArgs, "token"},
		{filepath.Join(g.Data, "internal.pem"), garbage, gatewayArgs, "internal TLS certificate"},
		{token[0], garbage, gatewayArgs, filepath.Base(token[0])},
		{filepath.Join(dir, "secrets", "registry.pin"), []byte("wrong\n"), registryArgs, "PIN"},
		{filepath.Join(dir, "ecosystem.yaml"), []byte("instance: OTHER\n"), registryArgs, "OTHER"},
		{filepath.Join(dir, "ecosystem.yaml"), []byte("instance: SANDBOX\nmembers:\n  - klass: GOV\n"), registryArgs, "ecosystem.yaml"},
		{filepath.Join(dir, "certificates", "gateway-1.authentication.pem"), garbage, registryArgs, "gateway-1.authentication.pem"},
		{filepath.Join(dir, "secrets", "trust.pass"), []byte("wrong\n"), trustArgs, "passphrase"},
		{filepath.Join(dir, "trust", "ca.pem"), garbage, trustArgs, "ca.pem"},
		{filepath.Join(dir, "trust", "ca.key"), garbage, trustArgs, "ca.key"},
	} {
		t.Run(strings.TrimPrefix(c.file, dir+"/"), func(t *testing.T) {
			whole := read(t, c.file)
			info, err := os.Stat(c.file)
			if err != nil {
				t.Fatal(err)
			}
			restore := func() {
				os.Remove(c.file)
				if err := os.WriteFile(c.file, whole, info.Mode().Perm()); err != nil {
					t.Fatal(err)
				}
			}
			defer restore()
			if c.content == nil {
				err = os.Remove(c.file)
			} else {
				err = os.WriteFile(c.file, c.content, info.Mode().Perm())
			}
			if err != nil {
				t.Fatal(err)
			}
			r := kontor(t, 1, c.args...)
			hint(t, r, c.want)
			if strings.Contains(r.err, "goroutine") {
				t.Error(r)
			}
		})
	}
	t.Run("secret that others can read", func(t *testing.T) {
		pin := filepath.Join(dir, "secrets", "gateway-1.pin")
		if err := os.Chmod(pin, 0o644); err != nil {
			t.Fatal(err)
		}
		hint(t, kontor(t, 1, gatewayArgs...), "chmod 600")
		if err := os.Chmod(pin, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("downloaded configuration", func(t *testing.T) {
		// This one is only a copy: the gateway must not trust it, and go on.
		write(t, filepath.Join(g.globalconf(), n.Instance, "shared-params.xml"), garbage)
	})
	check(t, dir, "--processes")
}
