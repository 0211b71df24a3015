// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfigs writes the configuration files of all roles and the declaration
// of the ecosystem.
func (w *World) writeConfigs() error {
	for _, dir := range []string{"logs", "certificates", "secrets"} {
		if err := os.MkdirAll(w.path(dir), 0o700); err != nil {
			return err
		}
	}
	files := map[string]string{
		w.path("trust.yaml"): fmt.Sprintf(`data_dir: %s
passphrase_file: %s
url: http://%s:8888
listen: {http: "%[3]s:8888", metrics: "%[3]s:9102"}
logging: {level: warn}
`, w.path("trust"), w.path("secrets", "trust"), w.Trust),
		w.path("registry.yaml"): fmt.Sprintf(`instance: %s
data_dir: %s
pin_file: %s
ecosystem: %s
address: "%s:8080"
listen: {http: "%[5]s:8080", management: "", management_internal: "", admin: "%[5]s:4000", metrics: "%[5]s:9101"}
logging: {level: warn}
`, instance, w.path("registry"), w.path("secrets", "registry"), w.path("ecosystem.yaml"), w.Registry),
	}
	var members, servers strings.Builder
	for _, p := range w.Pairs {
		for side, g := range p.Gateways {
			code := strings.Split(g.Server, "/")[2]
			subsystem := []string{"consumer", "provider"}[side]
			fmt.Fprintf(&members, "  - {class: GOV, code: %q, name: %s, subsystems: [{code: %s}]}\n", code, p.gatewayName(side), subsystem)
			fmt.Fprintf(&servers, "  - {id: %s, address: %s, certificates: [certificates/%s.auth.pem], clients: [%s/GOV/%s/%s]}\n",
				g.Server, p.IP[side], p.gatewayName(side), instance, code, subsystem)
			files[g.Config] = w.gatewayConfig(p, side)
		}
	}
	files[w.path("ecosystem.yaml")] = fmt.Sprintf(`instance: %s
memberClasses: [{code: GOV, description: Government}]
members:
%ssecurityServers:
%scertificationServices:
  - name: Bench CA
    profile: FiVRK
    certificate: trust/ca.pem
    ocsp: [{url: "http://%s:8888/ocsp", certificate: trust/ocsp.pem}]
timestampingAuthorities: [{name: Bench TSA, url: "http://%[4]s:8888/tsa", certificate: trust/tsa.pem}]
settings: {managementProvider: %s}
`, instance, members.String(), servers.String(), w.Trust, w.Pairs[0].Client)
	for file, text := range files {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// gatewayConfig leaves everything at its default that the comparison is not
// about.
func (w *World) gatewayConfig(p *Pair, side int) string {
	g := p.Gateways[side]
	text := fmt.Sprintf(`server: %s
data_dir: %s
pin_file: %s
anchor: %s
listen:
  consumer: "%s:8080"
  consumer_tls: ""
  peer: "%s:5500"
  ocsp: "%[6]s:5577"
  admin: "%[5]s:4000"
  metrics: "%[5]s:9100"
message_log:
  stamp_interval: %[7]s
  disk_reserve: 64MiB
  bodies: %[8]t
`, g.Server, g.Data, w.path("secrets", filepath.Base(g.Data)), w.Anchor(), g.control, p.IP[side], StampInterval, !p.NoBodies)
	if p.Batch != "" {
		text += "signing: {batch: " + p.Batch + "}\n"
	}
	if p.NetNS[side] == "" {
		text += "address: " + p.IP[side] + "\n"
	}
	if p.Transport != "" {
		text += "tunnel: {transport: " + p.Transport + "}\n"
	}
	return text
}

// serverConf is what a gateway knows of its clients.
func (w *World) serverConf(p *Pair, side int) []byte {
	if side == 0 {
		return fmt.Appendf(nil, "clients:\n  - {id: %s, status: registered, connection: http}\n", p.Client)
	}
	owner := p.REST[:strings.LastIndexByte(p.REST, '/')]
	return fmt.Appendf(nil, `clients:
  - id: %s
    status: registered
    connection: http
    descriptions:
      - {type: REST, services: [{code: rest, url: "http://%s/rest"}]}
      - {type: WSDL, services: [{code: answer, url: "http://%[2]s/soap"}]}
    access: [{service: rest, client: %[3]s}, {service: answer, client: %[3]s}]
`, owner, w.Backend, p.Client)
}
