// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"context"
	"fmt"
	"path/filepath"
)

// StartNginx runs two nginx that speak HTTP/1.1 with each other: its proxy knows
// no newer version towards servers.
func StartNginx(ctx context.Context, program string, c Config) (*Chain, error) {
	if err := writeCertificates(c.Dir); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(c.Dir, name) }
	config := func(side, server, upstream, location string) string {
		return fmt.Sprintf(`daemon off;
master_process on;
worker_processes auto;
pid %[1]s.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 100000000;
	keepalive_timeout 10m;
	client_max_body_size 0;
	client_body_temp_path %[1]s-body;
	proxy_temp_path %[1]s-proxy;
	fastcgi_temp_path %[1]s-fastcgi;
	uwsgi_temp_path %[1]s-uwsgi;
	scgi_temp_path %[1]s-scgi;
	upstream next {
		server %[3]s;
		keepalive 1024;
		keepalive_requests 100000000;
	}
	server {
		%[2]s
		location / {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_request_buffering off;
			proxy_buffering off;
			%[4]s
		}
	}
}
`, file(side), server, upstream, location)
	}
	front := config("front", "listen "+c.IP[0]+":8080;", c.IP[1]+":8443", fmt.Sprintf(`proxy_pass https://next;
			proxy_ssl_verify on;
			proxy_ssl_name %s;
			proxy_ssl_server_name on;
			proxy_ssl_trusted_certificate %s;
			proxy_ssl_certificate %s;
			proxy_ssl_certificate_key %s;
			proxy_ssl_protocols TLSv1.3;`, serverName, file("ca.pem"), file("front.pem"), file("front.key")))
	behind := config("behind", fmt.Sprintf(`listen %s:8443 ssl;
		ssl_certificate %s;
		ssl_certificate_key %s;
		ssl_client_certificate %s;
		ssl_verify_client on;
		ssl_protocols TLSv1.3;`, c.IP[1], file("behind.pem"), file("behind.key"), file("ca.pem")), c.Backend, "proxy_pass http://next;")
	run := func(name string) []string {
		return []string{program, "-e", "stderr", "-p", c.Dir, "-c", file(name)}
	}
	return start(ctx, "nginx h1", c, map[string]string{"front.conf": front, "behind.conf": behind}, [2][]string{run("front.conf"), run("behind.conf")})
}
