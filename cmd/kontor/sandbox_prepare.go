// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/description"
	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/registry"
	"kontor/registry/id"
	"kontor/registry/management"
	"kontor/registry/management/request"
)

// The ecosystem of the sandbox. Each role has its own loopback address and the
// default ports, but for the registry's port 80, which needs root.
const (
	sandboxInstance = "SANDBOX"
	sandboxProfile  = "FiVRK"

	registryAddr       = "127.0.0.10:8080"
	registryAdmin      = "127.0.0.10:4000"
	registryManagement = "127.0.0.10:4001"
	registryInternal   = "127.0.0.10:4002" // management requests through the security server that provides the services
	registryMetrics    = "127.0.0.10:9101"
	trustAddr          = "127.0.0.13:8888"
	trustACME          = "127.0.0.13:8889"
	trustMetrics       = "127.0.0.13:9102"
	sampleAddr         = "127.0.0.14:8000"
)

// sandboxGateways are the organisations, their security servers and who asks
// for those that come by GovStack's view and name no client.
var sandboxGateways = []struct{ ip, server, member, asker string }{
	{"127.0.0.11", "SANDBOX/GOV/1001/ss1", "Portal Agency", "SANDBOX/GOV/1001/portal"},
	{"127.0.0.12", "SANDBOX/GOV/2002/ss2", "Population Agency", "SANDBOX/GOV/2002/population"},
}

// sandboxClients are the subsystems. Those that are allowed may call every
// service, or the endpoints that it names, the others none.
var sandboxClients = []sandboxClient{
	{ID: "SANDBOX/GOV/1001/portal", Gateway: 0, Allowed: true},
	{ID: "SANDBOX/GOV/1001/stranger", Gateway: 0, Allowed: false},
	{ID: "SANDBOX/GOV/2002/population", Gateway: 1, Allowed: true},
}

// sandboxServices are the services.
var sandboxServices = []sandboxService{
	{id: "SANDBOX/GOV/2002/population/persons", path: "/persons", gateway: 1, kind: serverconf.REST},
	{id: "SANDBOX/GOV/1001/portal/messages", path: "/messages", gateway: 0, kind: serverconf.REST},
	{id: "SANDBOX/GOV/2002/population/personQuery", path: "/personQuery", gateway: 1, kind: serverconf.WSDL,
		description: personQueryPath, document: personQueryWSDL},
	{id: "SANDBOX/GOV/2002/population/residents", path: "/residents", gateway: 1, kind: serverconf.OpenAPI3,
		description: residentsPath, document: residentsOpenAPI, rights: []serverconf.Endpoint{{Method: http.MethodGet, Path: "/addresses/*"}}},
}

// sandboxService is a service of the sample system.
type sandboxService struct {
	id, path              string
	gateway               int
	kind                  string
	description, document string                // path and content of its description, if it has one
	rights                []serverconf.Endpoint // none: to the whole service
}

// entry describes the service to its gateway.
func (v *sandboxService) entry(code string) (serverconf.DescriptionEntry, error) {
	s := serverconf.ServiceEntry{Code: code, URL: "http://" + sampleAddr + v.path}
	d := serverconf.DescriptionEntry{Type: v.kind}
	if v.description != "" {
		d.URL, d.Refreshed = "http://"+sampleAddr+v.description, time.Now().UTC().Truncate(time.Second)
	}
	if v.kind == serverconf.OpenAPI3 {
		document, err := description.ReadOpenAPI([]byte(v.document), nil)
		if err != nil {
			return d, err
		}
		s.Title = document.Title
		for _, e := range document.Services[0].Endpoints {
			s.Endpoints = append(s.Endpoints, serverconf.EndpointEntry{Endpoint: serverconf.Endpoint(e), Generated: true})
		}
	}
	d.Services = []serverconf.ServiceEntry{s}
	return d, nil
}

// sandboxManagement provides the management services, at gateway 1.
const sandboxManagement = "SANDBOX/GOV/1001/MANAGEMENT"

func gatewayName(i int) string { return fmt.Sprintf("gateway-%d", i+1) }

// parts are what a sandbox folder holds; complete is written last.
var (
	sandboxParts = []string{"trust", "registry", "gateway-1", "gateway-2", "logs", "evidence", "anchor.xml", "ecosystem.yaml", "sandbox.json",
		"trust.yaml", "registry.yaml", "gateway-1.yaml", "gateway-2.yaml", "secrets", "certificates", "examples", ".lock"}
	complete = ".complete"
)

// prepare makes the ecosystem unless the folder holds it already.
func (s *sandbox) prepare() error {
	if _, err := os.Stat(s.path(complete)); err == nil {
		return nil
	}
	// An interrupted preparation is started over; nothing else is ever removed.
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range sandboxParts {
		known[p] = true
	}
	for _, e := range entries {
		if !known[e.Name()] {
			return fmt.Errorf("%s holds %s, which is not of a sandbox; choose an empty folder with --dir", s.dir, e.Name())
		}
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			if err := os.RemoveAll(s.path(e.Name())); err != nil {
				return err
			}
		}
	}

	for name, text := range map[string]string{"trust.yaml": trustYAML, "registry.yaml": registryYAML} {
		if err := s.write(name, text, nil); err != nil {
			return err
		}
	}
	for i, g := range sandboxGateways {
		if err := s.write(gatewayName(i)+".yaml", gatewayYAML, map[string]string{"IP": g.ip, "Server": g.server, "Name": gatewayName(i), "Client": g.asker}); err != nil {
			return err
		}
	}
	// Registry and certificates have nothing to do with each other yet, and what
	// takes long is encrypting keys.
	var work errgroup.Group
	work.Go(func() error {
		if err := s.prepareCertificates(); err != nil {
			return fmt.Errorf("sandbox keys and certificates: %w", err)
		}
		return nil
	})
	work.Go(func() error {
		if err := s.prepareRegistry(); err != nil {
			return fmt.Errorf("sandbox registry: %w", err)
		}
		return nil
	})
	if err := work.Wait(); err != nil {
		return err
	}
	return os.WriteFile(s.path(complete), nil, 0o600)
}

// prepareCertificates makes the authority, the gateways' keys and their
// certificates: trust init, gateway init, trust issue, gateway import.
func (s *sandbox) prepareCertificates() error {
	trust, err := config.LoadTrust(s.path("trust.yaml"))
	if err != nil {
		return err
	}
	if _, err := roles.InitTrust(trust, "Sandbox CA", sandboxInstance, pki.P256); err != nil {
		return err
	}
	authority, err := roles.OpenTrust(trust)
	if err != nil {
		return err
	}
	defer authority.Close()
	profile, ok := pki.ProfileByClass(sandboxProfile)
	if !ok {
		return errors.New("unknown certificate profile " + sandboxProfile)
	}
	if err := os.MkdirAll(s.path("certificates"), 0o700); err != nil {
		return err
	}
	configs := make([]*config.Gateway, len(sandboxGateways))
	csrs := make([]*roles.Requests, len(sandboxGateways))
	var work errgroup.Group
	for i, g := range sandboxGateways {
		work.Go(func() (err error) {
			if configs[i], err = config.LoadGateway(s.path(gatewayName(i) + ".yaml")); err != nil {
				return err
			}
			server := configs[i].Server
			csrs[i], err = roles.InitGateway(configs[i], profile, pki.P256, pki.SubjectParams{
				Server: server, Member: server.Owner(), MemberName: g.member, DNSName: gatewayName(i) + ".sandbox", Country: "FI"})
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for i, cfg := range configs {
		var certs []*x509.Certificate
		for usage, file := range map[pki.Usage]string{pki.Authentication: csrs[i].Auth, pki.Signing: csrs[i].Sign} {
			csr, err := roles.ReadDER(file, "CERTIFICATE REQUEST")
			if err != nil {
				return err
			}
			cert, err := authority.Issue(context.Background(), csr, ca.Request{Usage: usage})
			if err != nil {
				return err
			}
			certs = append(certs, cert)
			if err := roles.WritePEM(s.path("certificates", gatewayName(i)+"."+string(usage)+".pem"), "CERTIFICATE", cert.Raw); err != nil {
				return err
			}
		}
		if _, err := roles.ImportCertificates(cfg, certs...); err != nil {
			return err
		}
		if err := s.prepareServices(cfg, i); err != nil {
			return err
		}
	}
	return nil
}

// prepareServices gives a gateway its clients, services and access rights.
func (s *sandbox) prepareServices(cfg *config.Gateway, gateway int) error {
	store, err := serverconf.Open(serverconf.Config{Path: cfg.ServerConf()})
	if err != nil {
		return err
	}
	return store.Update(func(m *serverconf.Model) error {
		for _, c := range sandboxClients {
			if c.Gateway != gateway {
				continue
			}
			client, err := id.ParseClient(c.ID)
			if err != nil {
				return err
			}
			entry := serverconf.ClientEntry{ID: client, Status: serverconf.Registered, Connection: serverconf.HTTP}
			for _, v := range sandboxServices {
				service, err := id.ParseService(v.id)
				if err != nil {
					return err
				}
				if service.Owner() != client {
					continue
				}
				described, err := v.entry(service.Code())
				if err != nil {
					return err
				}
				entry.Descriptions = append(entry.Descriptions, described)
				for _, a := range sandboxClients {
					if !a.Allowed {
						continue
					}
					allowed, err := id.ParseClient(a.ID)
					if err != nil {
						return err
					}
					if len(v.rights) == 0 {
						entry.Access = append(entry.Access, serverconf.AccessEntry{Service: service.Code(), Client: allowed})
					}
					for _, e := range v.rights {
						entry.Access = append(entry.Access, serverconf.AccessEntry{Service: service.Code(), Client: allowed, Method: e.Method, Path: e.Path})
					}
				}
			}
			m.Clients = append(m.Clients, entry)
		}
		if gateway != 0 {
			return nil
		}
		entry, err := managementEntry()
		m.Clients = append(m.Clients, entry)
		return err
	})
}

// managementEntry is the subsystem through which security servers reach the
// registry's management services.
func managementEntry() (serverconf.ClientEntry, error) {
	provider, err := id.ParseClient(sandboxManagement)
	if err != nil {
		return serverconf.ClientEntry{}, err
	}
	owners, err := id.NewGlobalGroup(sandboxInstance, registry.OwnersGroup)
	if err != nil {
		return serverconf.ClientEntry{}, err
	}
	entry := serverconf.ClientEntry{ID: provider, Status: serverconf.Registered, Connection: serverconf.HTTP}
	services := serverconf.DescriptionEntry{Type: serverconf.WSDL, URL: "http://" + registryAddr + management.WSDLPath}
	for _, v := range request.Services() {
		if v == request.AuthCertReg { // which is called directly
			continue
		}
		services.Services = append(services.Services, serverconf.ServiceEntry{Code: string(v),
			URL: "https://" + registryInternal + management.ManagePath + "/", VerifyTLS: new(bool)})
		entry.Access = append(entry.Access, serverconf.AccessEntry{Service: string(v), GlobalGroup: owners})
	}
	entry.Descriptions = append(entry.Descriptions, services)
	return entry, nil
}

// prepareRegistry declares the ecosystem and makes the registry and its anchor.
func (s *sandbox) prepareRegistry() error {
	type server struct {
		ID, IP, Name string
		Clients      []string
	}
	type member struct {
		Code, Name string
		Subsystems []string
	}
	var data struct {
		Servers []server
		Members []member
		Trust   string
	}
	data.Trust = "http://" + trustAddr
	for i, g := range sandboxGateways {
		v := server{ID: g.server, IP: g.ip, Name: gatewayName(i)}
		m := member{Code: strings.Split(g.server, "/")[2], Name: g.member}
		for _, c := range sandboxClients {
			if c.Gateway == i {
				v.Clients = append(v.Clients, c.ID)
				m.Subsystems = append(m.Subsystems, c.ID[strings.LastIndexByte(c.ID, '/')+1:])
			}
		}
		if i == 0 {
			v.Clients = append(v.Clients, sandboxManagement)
			m.Subsystems = append(m.Subsystems, sandboxManagement[strings.LastIndexByte(sandboxManagement, '/')+1:])
		}
		data.Servers, data.Members = append(data.Servers, v), append(data.Members, m)
	}
	if err := s.write("ecosystem.yaml", ecosystemYAML, data); err != nil {
		return err
	}
	cfg, err := config.LoadRegistry(s.path("registry.yaml"))
	if err != nil {
		return err
	}
	if err := roles.InitRegistry(cfg, pki.P256); err != nil {
		return err
	}
	r, err := roles.OpenRegistry(cfg)
	if err != nil {
		return err
	}
	anchor, err := r.InternalAnchor()
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return os.WriteFile(s.path("anchor.xml"), anchor, 0o644)
}

// write fills a template and writes it to a file of the folder.
func (s *sandbox) write(name, text string, data any) error {
	t, err := template.New(name).Funcs(template.FuncMap{"path": s.path}).Parse(text)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, data), f.Close())
}

const trustYAML = `data_dir: {{path "trust"}}
passphrase_file: {{path "secrets" "trust.pass"}}
url: http://` + trustAddr + `
listen:
  http: "` + trustAddr + `"
  https: "` + trustACME + `"
  metrics: "` + trustMetrics + `"
acme:
  enabled: true
  url: https://` + trustACME + `
  profile: ` + sandboxProfile + `
  validation_port: 8880
`

const registryYAML = `instance: ` + sandboxInstance + `
data_dir: {{path "registry"}}
pin_file: {{path "secrets" "registry.pin"}}
ecosystem: {{path "ecosystem.yaml"}}
address: "` + registryAddr + `"
listen:
  http: "` + registryAddr + `"
  management: "` + registryManagement + `"
  management_internal: "` + registryInternal + `"
  admin: "` + registryAdmin + `"
  metrics: "` + registryMetrics + `"
`

const gatewayYAML = `server: {{.Server}}
data_dir: {{path .Name}}
pin_file: {{path "secrets" (print .Name ".pin")}}
anchor: {{path "anchor.xml"}}
address: {{.IP}}
listen:
  consumer: "{{.IP}}:8080"
  consumer_tls: "{{.IP}}:8443"
  peer: "{{.IP}}:5500"
  ocsp: "{{.IP}}:5577"
  admin: "{{.IP}}:4000"
  metrics: "{{.IP}}:9100"
govstack:
  listen: "{{.IP}}:8088"
  client: {{.Client}}
globalconf:
  interval: 5s
message_log:
  stamp_interval: 250ms   # operators leave this to the global configuration
  disk_reserve: 64MiB
`

const ecosystemYAML = `# Who belongs to the ecosystem. After an edit: kill -HUP the registry.
instance: ` + sandboxInstance + `
memberClasses:
  - {code: GOV, description: Government}
members:
{{- range .Members}}
  - class: GOV
    code: "{{.Code}}"
    name: {{.Name}}
    subsystems:
{{- range .Subsystems}}
      - {code: {{.}}}
{{- end}}
{{- end}}
securityServers:
{{- range .Servers}}
  - id: {{.ID}}
    address: {{.IP}}
    certificates: [certificates/{{.Name}}.authentication.pem]
    clients:
{{- range .Clients}}
      - {{.}}
{{- end}}
{{- end}}
certificationServices:
  - name: Sandbox CA
    profile: ` + sandboxProfile + `
    certificate: trust/ca.pem
    ocsp:
      - {url: {{.Trust}}/ocsp, certificate: trust/ocsp.pem}
    acme: {directoryURL: "https://` + trustACME + `/acme/directory"}
timestampingAuthorities:
  - {name: Sandbox TSA, url: {{.Trust}}/tsa, certificate: trust/tsa.pem}
settings:
  managementProvider: ` + sandboxManagement + `
`
