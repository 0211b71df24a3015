// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// CaddyVersion is the version of the reference.
const CaddyVersion = "v2.11.9"

// Caddy returns the program, built once into a cache folder.
func Caddy(ctx context.Context, cache string, progress io.Writer) (string, error) {
	file := filepath.Join(cache, "caddy-"+CaddyVersion)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fmt.Fprintf(progress, "building Caddy %s into %s; this takes about a minute, once\n", CaddyVersion, cache)
	dir, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", "-ldflags", "-s -w", "github.com/caddyserver/caddy/v2/cmd/caddy@"+CaddyVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	cmd.Dir = dir // away from our module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Caddy: %w: %s", err, out)
	}
	return file, os.Rename(filepath.Join(dir, "caddy"), file)
}

// StartCaddy runs two Caddys that speak HTTP/version, "2" or "3", with each
// other.
func StartCaddy(ctx context.Context, program, version string, c Config) (*Chain, error) {
	if err := writeCertificates(c.Dir); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(c.Dir, name) }
	global := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	grace_period 1s
	storage file_system %s
	log {
		level ERROR
	}
	servers {
		protocols %%s
	}
}
`, file("storage"))
	front := fmt.Sprintf(global, "h1") + fmt.Sprintf(`http://%s:8080 {
	bind %[1]s
	reverse_proxy https://%[2]s:8443 {
		header_up Host %[4]s:8443
		transport http {
			versions %[3]s
			tls_server_name %[4]s
			tls_trust_pool file %[5]s
			tls_client_auth %[6]s %[7]s
			keepalive 2m
			keepalive_idle_conns 1024
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, c.IP[0], c.IP[1], version, serverName, file("ca.pem"), file("front.pem"), file("front.key"))
	protocols := "h1 h2"
	if version == "3" {
		protocols = "h1 h2 h3"
	}
	behind := fmt.Sprintf(global, protocols) + fmt.Sprintf(`https://%s:8443 {
	bind %s
	tls %s %s {
		client_auth {
			mode require_and_verify
			trust_pool file %s
		}
	}
	reverse_proxy http://%s {
		transport http {
			keepalive 2m
			keepalive_idle_conns 1024
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, serverName, c.IP[1], file("behind.pem"), file("behind.key"), file("ca.pem"), c.Backend)
	run := func(name string) []string {
		return []string{program, "run", "--adapter", "caddyfile", "--config", file(name)}
	}
	return start(ctx, "caddy h"+version, c, map[string]string{"front.caddyfile": front, "behind.caddyfile": behind},
		[2][]string{run("front.caddyfile"), run("behind.caddyfile")}, "HOME="+c.Dir, "XDG_DATA_HOME="+c.Dir, "XDG_CONFIG_HOME="+c.Dir)
}
