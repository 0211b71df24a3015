// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
)

// Server is a security server.
type Server struct {
	ID           id.SecurityServer `json:"id" example:"DEV/GOV/1234/ss1"`
	Address      string            `json:"address" example:"ss1.example.org"`
	Maintenance  *Maintenance      `json:"maintenance,omitempty" doc:"Absent: not in maintenance"`
	Certificates []Certificate     `json:"certificates" doc:"Authentication certificates"`
	Clients      []ServerClient    `json:"clients" doc:"Registered clients; the owner is one without registration"`
}

// ServerClient is a client registered at a security server.
type ServerClient struct {
	ID      id.Client `json:"id" example:"DEV/GOV/1234/portal"`
	Enabled bool      `json:"enabled"`
}

// Maintenance says that a server takes no messages for a while.
type Maintenance struct {
	Message string `json:"message,omitempty" maxLength:"255"`
}

// Certificate is a certificate.
type Certificate struct {
	SHA256    string    `json:"sha256" doc:"Hash of the certificate, in hex"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial" doc:"In hex"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	PEM       string    `json:"pem"`
}

func certificateOf(c *x509.Certificate) Certificate {
	return Certificate{
		SHA256: pki.HashOf(c).Hex(), Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
	}
}

// certificateOfDER describes a certificate that the registry has accepted.
func certificateOfDER(der []byte) Certificate {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}
	}
	return certificateOf(c)
}

// derOf reads a certificate in PEM or in base64 of DER; empty is nil.
func derOf(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if block, rest := pem.Decode([]byte(text)); block != nil {
		if block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
			return nil, invalid(errors.New("the PEM text is not exactly one certificate"))
		}
		return block.Bytes, nil
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, invalid(errors.New("the certificate is neither PEM nor base64 of DER"))
	}
	return der, nil
}

func hashOf(text string) (h registry.Hash, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, invalid(fmt.Errorf("%q is not a SHA-256 hash in hex", text))
	}
	return registry.Hash(b), nil
}

// ServerPath names a security server of the registry's instance.
type ServerPath struct {
	Class  string `path:"class" doc:"Member class of the owner"`
	Code   string `path:"code" doc:"Member code of the owner"`
	Server string `path:"server" doc:"Server code"`
}

func (p ServerPath) id(st *registry.State) (id.SecurityServer, error) {
	m, err := MemberPath{p.Class, p.Code}.id(st)
	if err != nil {
		return id.SecurityServer{}, err
	}
	s, err := id.NewSecurityServer(m, p.Server)
	if err != nil {
		return s, invalid(err)
	}
	return s, nil
}

// ServerClientPath names a client of a security server.
type ServerClientPath struct {
	ServerPath
	Client id.Client `path:"client" doc:"Identifier, its slashes percent-encoded"`
}

// NewServer is the body that adds a security server.
type NewServer struct {
	Class   string `json:"class" example:"GOV" doc:"Member class of the owner"`
	Code    string `json:"code" example:"1234" doc:"Member code of the owner"`
	Server  string `json:"server" example:"ss1" doc:"Server code"`
	Address string `json:"address" example:"ss1.example.org"`
}

// Address is the body of what changes an address.
type Address struct {
	Address string `json:"address" example:"ss1.example.org" doc:"Host name or IP address"`
}

// CertificateBody carries a certificate.
type CertificateBody struct {
	Certificate string `json:"certificate" doc:"PEM, or base64 of DER"`
}

// ClientBody carries a client.
type ClientBody struct {
	Client id.Client `json:"client" example:"DEV/GOV/1234/portal"`
}

// Enabled is the body that enables or disables a client.
type Enabled struct {
	Enabled bool `json:"enabled"`
}

func serverOf(s registry.Server) Server {
	out := Server{ID: s.ID, Address: s.Address, Certificates: []Certificate{}, Clients: []ServerClient{}}
	for _, c := range s.Certificates {
		out.Certificates = append(out.Certificates, certificateOf(c))
	}
	for _, c := range s.Clients {
		out.Clients = append(out.Clients, ServerClient(c))
	}
	if s.Maintenance != nil {
		m := Maintenance(*s.Maintenance)
		out.Maintenance = &m
	}
	return out
}

// Servers is a list of security servers.
type Servers struct {
	Servers []Server `json:"security_servers"`
	Total   int      `json:"total" doc:"How many there are on all pages"`
}

func (a *API) registerServers() {
	officer := []string{RegistrationOfficer}
	const path = "/security-servers/{class}/{code}/{server}"

	read(a, operation{id: "list-security-servers", path: "/security-servers", summary: "List security servers"}, func(in *struct{ Page }, st *registry.State) (Servers, error) {
		var found []registry.Server
		for _, s := range st.Servers() {
			if in.matches(s.ID.String(), s.Address) {
				found = append(found, s)
			}
		}
		out := Servers{[]Server{}, len(found)}
		for _, s := range cut(in.Page, found) {
			out.Servers = append(out.Servers, serverOf(s))
		}
		return out, nil
	})
	read(a, operation{id: "show-security-server", path: path, summary: "Show a security server"}, func(in *ServerPath, st *registry.State) (Server, error) {
		key, err := in.id(st)
		if err != nil {
			return Server{}, err
		}
		s, ok := st.Server(key)
		if !ok {
			return Server{}, unknown("security server %s", key)
		}
		return serverOf(s), nil
	})
	type add struct {
		ChangeTerms
		Body NewServer
	}
	change(a, operation{id: "add-security-server", method: http.MethodPost, path: "/security-servers", summary: "Add a security server of a member", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			key, err := ServerPath{in.Body.Class, in.Body.Code, in.Body.Server}.id(st)
			return []registry.Change{&registry.AddServer{Server: key, Address: in.Body.Address}}, err
		})
	type move struct {
		ServerPath
		ChangeTerms
		Body Address
	}
	change(a, operation{id: "change-security-server", method: http.MethodPatch, path: path, summary: "Change the address of a security server", roles: officer},
		func(in *move, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if s, ok := st.Server(key); err != nil || ok && s.Address == in.Body.Address {
				return nil, err
			}
			return []registry.Change{&registry.SetServerAddress{Server: key, Address: in.Body.Address}}, nil
		})
	type remove struct {
		ServerPath
		ChangeTerms
	}
	change(a, operation{id: "delete-security-server", method: http.MethodDelete, path: path, summary: "Delete a security server with its certificates and registrations", roles: officer},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			return []registry.Change{&registry.DeleteServer{Server: key}}, err
		})
	type maintain struct {
		ServerPath
		ChangeTerms
		Body Maintenance
	}
	change(a, operation{id: "begin-maintenance", method: http.MethodPut, path: path + "/maintenance", summary: "Put a security server into maintenance", roles: officer},
		func(in *maintain, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if s, ok := st.Server(key); err != nil || ok && s.Maintenance != nil && s.Maintenance.Message == in.Body.Message {
				return nil, err
			}
			return []registry.Change{&registry.SetMaintenance{Server: key, On: true, Message: in.Body.Message}}, nil
		})
	change(a, operation{id: "end-maintenance", method: http.MethodDelete, path: path + "/maintenance", summary: "Take a security server out of maintenance", roles: officer},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if s, ok := st.Server(key); err != nil || ok && s.Maintenance == nil {
				return nil, err
			}
			return []registry.Change{&registry.SetMaintenance{Server: key}}, nil
		})
	a.registerServerParts(path, officer)
}

func (a *API) registerServerParts(path string, officer []string) {
	type addCertificate struct {
		ServerPath
		ChangeTerms
		Body CertificateBody
	}
	change(a, operation{id: "add-certificate", method: http.MethodPost, path: path + "/certificates", summary: "Register an authentication certificate", status: http.StatusCreated, roles: officer},
		func(in *addCertificate, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if err != nil {
				return nil, err
			}
			der, err := derOf(in.Body.Certificate)
			return []registry.Change{&registry.RegisterCertificate{Server: key, Certificate: der}}, err
		})
	type removeCertificate struct {
		ServerPath
		SHA256 string `path:"sha256" doc:"Hash of the certificate, in hex"`
		ChangeTerms
	}
	change(a, operation{id: "delete-certificate", method: http.MethodDelete, path: path + "/certificates/{sha256}", summary: "Remove an authentication certificate", roles: officer},
		func(in *removeCertificate, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if err != nil {
				return nil, err
			}
			hash, err := hashOf(in.SHA256)
			return []registry.Change{&registry.UnregisterCertificate{Server: key, Certificate: hash}}, err
		})
	type addClient struct {
		ServerPath
		ChangeTerms
		Body ClientBody
	}
	change(a, operation{id: "add-client", method: http.MethodPost, path: path + "/clients", summary: "Register a client at a security server", status: http.StatusCreated, roles: officer},
		func(in *addClient, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			return []registry.Change{&registry.RegisterClient{Server: key, Client: in.Body.Client}}, err
		})
	type enable struct {
		ServerClientPath
		ChangeTerms
		Body Enabled
	}
	type remove struct {
		ServerClientPath
		ChangeTerms
	}
	change(a, operation{id: "enable-client", method: http.MethodPatch, path: path + "/clients/{client}", summary: "Disable or enable a client at a security server", roles: officer},
		func(in *enable, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if err != nil {
				return nil, err
			}
			s, _ := st.Server(key)
			for _, c := range s.Clients {
				if c.ID == in.Client && c.Enabled == in.Body.Enabled {
					return nil, nil
				}
			}
			return []registry.Change{&registry.EnableClient{Server: key, Client: in.Client, On: in.Body.Enabled}}, nil
		})
	change(a, operation{id: "delete-client", method: http.MethodDelete, path: path + "/clients/{client}", summary: "Remove a client from a security server", roles: officer},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			return []registry.Change{&registry.UnregisterClient{Server: key, Client: in.Client}}, err
		})
}
