// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry"
)

// clients are the subsystems, by the server that has them.
var clients = map[string][]string{
	Server1: {Portal, Stranger, Pinned, NoAuth, Pending},
	Server2: {Population, Census},
	Server3: {Evil, Guest, Nosey},
}

// ecosystem declares the members, servers and trust services of a network.
func (n *Network) ecosystem(addr string, settings registry.Settings) *registry.Ecosystem {
	settings.Address = &addr
	hour, second, provider := 3600, 1, n.ClientID(Population)
	if settings.TimestampingInterval == nil {
		settings.TimestampingInterval = &second
	}
	if settings.ManagementProvider == nil {
		settings.ManagementProvider = &provider
	}
	if settings.ConfigurationValidity == nil {
		settings.ConfigurationValidity = &hour // nothing is published but on change
	}
	e := &registry.Ecosystem{
		Instance:      n.fix.instance,
		Settings:      &settings,
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}, {Code: "COM", Description: "Companies"}},
		CertificationServices: []registry.CADecl{{
			Name: "Test CA", Profile: profileName, Certificate: registry.CertificateOf(n.fix.ca.Certificate()),
			OCSP: []registry.ResponderDecl{{URL: "http://" + n.ip(13) + ":8888/ocsp", Certificate: registry.CertificateOf(n.fix.ca.OCSPCertificate())}},
		}},
		TimestampingAuthorities: []registry.TSADecl{{
			Name: "Test TSA", URL: "http://" + n.ip(13) + ":8888/tsa", Certificate: registry.CertificateOf(n.fix.ca.TSACertificate())}},
	}
	all := slices.Concat(clients[Server1], clients[Server2], clients[Server3], []string{Homeless})
	members := map[string]*registry.MemberDecl{}
	for _, s := range all {
		c := n.ClientID(s)
		key := c.Member().String()
		if members[key] == nil {
			members[key] = &registry.MemberDecl{Class: c.Member().Class(), Code: c.Member().Code(), Name: "Member " + c.Member().Code()}
		}
		members[key].Subsystems = append(members[key].Subsystems, registry.SubsystemDecl{Code: c.Subsystem()})
	}
	for _, m := range members {
		e.Members = append(e.Members, *m)
	}
	for i, server := range []string{Server1, Server2, Server3, Server4} {
		d := registry.ServerDecl{ID: n.ServerID(server), Address: n.ip(11 + i)}
		if server == Server3 || server == Server4 {
			d.Address = n.ip(15)
		}
		for _, c := range clients[server] {
			if c != Pending {
				d.Clients = append(d.Clients, n.ClientID(c))
			}
		}
		switch server {
		case Server1:
			d.Certificates = append(d.Certificates, registry.CertificateOf(n.fix.issued["A"][0].Cert))
		case Server2:
			d.Certificates = append(d.Certificates, registry.CertificateOf(n.fix.issued["B"][0].Cert))
		case Server3:
			for _, name := range []string{"auth", "auth-expired", "auth-revoked"} {
				d.Certificates = append(d.Certificates, registry.CertificateOf(n.Identity(name).Cert))
			}
		case Server4:
			d.Certificates = append(d.Certificates, registry.CertificateOf(n.Identity("auth-other").Cert))
		}
		e.SecurityServers = append(e.SecurityServers, d)
	}
	return e
}

// Identity returns one of the certificates of the third security server:
// "auth" and "sign" are good; "-expired" and "-revoked" say what they are;
// "auth-other" is registered for ss4, "auth-unknown" for none; "sign-guest"
// names Guest's member.
func (n *Network) Identity(name string) *Identity {
	n.tb.Helper()
	i, err := n.fix.peer(name, func() (*Identity, error) {
		usage, kind, _ := strings.Cut(name, "-")
		server, member := n.ServerID(Server3), n.ClientID(Evil).Member()
		ago, validity := time.Duration(0), time.Duration(0)
		use := pki.Authentication
		if usage == "sign" {
			use = pki.Signing
		}
		switch kind {
		case "expired":
			ago, validity = age-24*time.Hour, 365*24*time.Hour
		case "other":
			server = n.ServerID(Server4)
		case "guest":
			member = n.ClientID(Guest).Member()
		}
		i, err := n.fix.issue(server, member, use, ago, validity)
		if err == nil && kind == "revoked" {
			err = n.fix.ca.Revoke(n.Context(), i.Cert.SerialNumber, 1)
		}
		return i, err
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	return i
}

// Certificate returns the authentication certificate of a gateway.
func (n *Network) Certificate(g *Gateway) *Identity { return n.fix.issued[g.Name][0] }

// serverConf returns clients, services and rights of a gateway.
func (n *Network) serverConf(name string) []serverconf.ClientEntry {
	if name == "A" {
		cert := serverconf.Certificate{Certificate: n.fix.client.Cert}
		return []serverconf.ClientEntry{
			{ID: n.ClientID(Portal), Status: serverconf.Registered, Connection: serverconf.HTTP},
			{ID: n.ClientID(Stranger), Status: serverconf.Registered, Connection: serverconf.HTTP},
			{ID: n.ClientID(Pinned), Status: serverconf.Registered, Connection: serverconf.HTTPS, Certificates: []serverconf.Certificate{cert}},
			{ID: n.ClientID(NoAuth), Status: serverconf.Registered, Connection: serverconf.HTTPSNoAuth},
			{ID: n.ClientID(Pending), Status: serverconf.Saved, Connection: serverconf.HTTP},
		}
	}
	plain, secure := "http://"+n.ip(14)+":8000", "https://"+n.ip(14)+":8443"
	notice := "closed for the winter"
	no := false
	population := serverconf.ClientEntry{
		ID: n.ClientID(Population), Status: serverconf.Registered, Connection: serverconf.HTTP,
		Certificates: []serverconf.Certificate{{Certificate: n.fix.service.Cert}},
		Descriptions: []serverconf.DescriptionEntry{
			service(serverconf.REST, "persons", plain+"/persons"),
			service(serverconf.REST, "limited", plain+"/limited/"),
			{Type: serverconf.REST, Disabled: &notice, Services: []serverconf.ServiceEntry{{Code: "disabled", URL: plain}}},
			service(serverconf.WSDL, "soap", plain+"/soap"),
			{Type: serverconf.WSDL, Disabled: &notice, Services: []serverconf.ServiceEntry{{Code: "soapDisabled", URL: plain}}},
			service(serverconf.WSDL, "soapDead", "http://"+n.ip(14)+":1"),
			{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "slow", URL: plain + "/slow", Timeout: ServiceTimeout}}},
			service(serverconf.REST, "dead", "http://"+n.ip(14)+":1"),
			service(serverconf.REST, "nowhere", "http://no-such-host.invalid/"),
			service(serverconf.REST, "secure", secure),
		},
	}
	for _, d := range population.Descriptions {
		s := d.Services[0]
		if s.Code == "limited" {
			continue
		}
		for _, c := range []string{Portal, Pinned, NoAuth, Evil, Guest} {
			population.Access = append(population.Access, serverconf.AccessEntry{Service: s.Code, Client: n.ClientID(c)})
		}
	}
	population.Access = append(population.Access,
		serverconf.AccessEntry{Service: "limited", Client: n.ClientID(Portal), Method: "GET", Path: "/public/*"})
	census := serverconf.ClientEntry{
		ID: n.ClientID(Census), Status: serverconf.Registered, Connection: serverconf.HTTP,
		Descriptions: []serverconf.DescriptionEntry{
			service(serverconf.REST, "secure", secure),
			{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "lax", URL: secure, VerifyTLS: &no}}},
		},
		Access: []serverconf.AccessEntry{{Service: "secure", Client: n.ClientID(Portal)}, {Service: "lax", Client: n.ClientID(Portal)}},
	}
	return []serverconf.ClientEntry{population, census}
}

func service(kind, code, url string) serverconf.DescriptionEntry {
	return serverconf.DescriptionEntry{Type: kind, Services: []serverconf.ServiceEntry{{Code: code, URL: url}}}
}

// AuthorityOCSP is the certificate of the authority's OCSP responder.
func (n *Network) AuthorityOCSP() *x509.Certificate { return n.fix.ca.OCSPCertificate() }
