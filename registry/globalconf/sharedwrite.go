// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"cmp"
	"crypto/sha1"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kontor/pki"
	"kontor/registry/id"
)

// Marshal writes the document for a configuration version. Members, subsystems,
// servers, clients, groups and group members are written in the order of their
// names, whatever the order of p, so that equal contents give equal bytes;
// everything else keeps its order, which means something.
//
// What the version does not know is left out. Servers in maintenance lose their
// subsystem clients in versions 2 to 4, which cannot say it otherwise.
func (p *SharedParams) Marshal(version int) ([]byte, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	if err := p.check(version); err != nil {
		return nil, fmt.Errorf("shared parameters: %w", err)
	}
	n := len(p.Members)
	for i := range p.Members {
		n += len(p.Members[i].Subsystems)
	}
	w := &sharedWriter{version: version, refs: make(map[id.Client]string, n)}
	w.b = make([]byte, 0, 4096+224*n+512*len(p.Servers))
	w.document("conf")
	w.leaf("instanceIdentifier", p.Instance)
	if version >= 3 {
		for _, s := range p.Sources {
			w.source(&s)
		}
	}
	for i := range p.CAs {
		w.approvedCA(&p.CAs[i])
	}
	for _, t := range p.TSAs {
		w.begin("approvedTSA", "")
		w.leaf("name", t.Name)
		w.leaf("url", t.URL)
		w.base64("cert", t.Cert)
		w.costType(t.CostType)
		w.end("approvedTSA")
	}
	w.members(p.Members)
	for _, s := range sorted(p.Servers, func(a, b SecurityServer) int { return compareServers(a.ID, b.ID) }) {
		if err := w.server(&s); err != nil {
			return nil, err
		}
	}
	for _, g := range sorted(p.Groups, func(a, b GlobalGroup) int { return cmp.Compare(a.Code, b.Code) }) {
		w.begin("globalGroup", "")
		w.leaf("groupCode", g.Code)
		w.leaf("description", g.Description)
		for _, c := range distinct(g.Members) {
			w.clientID("groupMember", c)
		}
		w.end("globalGroup")
	}
	w.begin("globalSettings", "")
	for _, c := range p.MemberClasses {
		w.class(c)
	}
	w.seconds("ocspFreshnessSeconds", p.OCSPFreshness)
	w.end("globalSettings")
	return w.close("conf")
}

type sharedWriter struct {
	xmlWriter
	version int
	refs    map[id.Client]string // xs:ID by member or subsystem
}

func (w *sharedWriter) source(s *Source) {
	w.begin("source", "")
	w.leaf("address", s.Address)
	for _, c := range s.InternalCerts {
		w.base64("internalVerificationCert", c)
	}
	for _, c := range s.ExternalCerts {
		w.base64("externalVerificationCert", c)
	}
	w.end("source")
}

func (w *sharedWriter) approvedCA(ca *ApprovedCA) {
	w.begin("approvedCA", "")
	w.leaf("name", ca.Name)
	w.leaf("authenticationOnly", strconv.FormatBool(ca.AuthenticationOnly))
	w.ca("topCA", &ca.Top)
	for i := range ca.Intermediates {
		w.ca("intermediateCA", &ca.Intermediates[i])
	}
	w.leaf("certificateProfileInfo", ca.Profile)
	if w.version >= 6 && ca.CSRFormat != "" {
		w.leaf("defaultCsrFormat", ca.CSRFormat)
	}
	if a := ca.ACME; w.version >= 3 && a != nil {
		w.begin("acmeServer", "")
		w.leaf("directoryURL", a.DirectoryURL)
		w.present("ipAddress", a.IPAddress)
		if w.version >= 4 {
			w.present("authenticationCertificateProfileId", a.AuthProfile)
			w.present("signingCertificateProfileId", a.SignProfile)
		}
		w.end("acmeServer")
	}
	w.end("approvedCA")
}

func (w *sharedWriter) present(name, text string) {
	if text != "" {
		w.leaf(name, text)
	}
}

func (w *sharedWriter) ca(name string, ca *CA) {
	w.begin(name, "")
	w.base64("cert", ca.Cert)
	for _, r := range ca.OCSP {
		w.begin("ocsp", "")
		w.leaf("url", r.URL)
		if r.Cert != nil {
			w.base64("cert", r.Cert)
		}
		w.costType(r.CostType)
		w.end("ocsp")
	}
	w.end(name)
}

func (w *sharedWriter) costType(t string) {
	if w.version >= 6 {
		w.present("costType", t)
	}
}

func (w *sharedWriter) class(c MemberClass) {
	w.begin("memberClass", "")
	w.leaf("code", c.Code)
	w.leaf("description", c.Description)
	w.end("memberClass")
}

// declare gives c the next xs:ID.
func (w *sharedWriter) declare(c id.Client) string {
	ref := "id" + strconv.Itoa(len(w.refs))
	w.refs[c] = ref
	return ` id="` + ref + `"`
}

func (w *sharedWriter) members(list []Member) {
	for _, m := range sorted(list, func(a, b Member) int { return compareMembers(a.ID, b.ID) }) {
		w.begin("member", w.declare(m.ID.Client()))
		w.class(MemberClass{m.ID.Class(), m.ClassDescription})
		w.leaf("memberCode", m.ID.Code())
		w.leaf("name", m.Name)
		for _, s := range sorted(m.Subsystems, func(a, b Subsystem) int { return compareClients(a.ID, b.ID) }) {
			w.begin("subsystem", w.declare(s.ID))
			w.leaf("subsystemCode", s.ID.Subsystem())
			if w.version >= 5 {
				w.present("subsystemName", s.Name)
			}
			w.end("subsystem")
		}
		w.end("member")
	}
}

func (w *sharedWriter) server(s *SecurityServer) error {
	owner, ok := w.refs[s.ID.Owner().Client()]
	if !ok {
		return fmt.Errorf("%w: the owner of %s is not a member", ErrMalformed, s.ID.LogString())
	}
	w.begin("securityServer", "")
	w.leaf("owner", owner)
	w.leaf("serverCode", s.ID.Code())
	w.present("address", s.Address)
	for _, c := range s.AuthCerts {
		hash := c.SHA256[:]
		if w.version == 2 {
			hash = c.SHA1[:]
		}
		w.base64("authCertHash", hash)
	}
	for _, c := range distinct(s.Clients) {
		ref, ok := w.refs[c]
		if !ok {
			return fmt.Errorf("%w: %s at %s is not a member or subsystem", ErrMalformed, c.LogString(), s.ID.LogString())
		}
		if s.Maintenance == nil || w.version >= 5 || c.IsMember() {
			w.leaf("client", ref)
		}
	}
	if w.version >= 5 && s.Maintenance != nil {
		w.begin("inMaintenanceMode", "")
		w.present("message", s.Maintenance.Message)
		w.end("inMaintenanceMode")
	}
	w.end("securityServer")
	return nil
}

// check refuses what a reader of this version would refuse, apart from
// references, which the writer finds.
func (p *SharedParams) check(version int) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	switch {
	case strings.TrimSpace(p.Instance) == "":
		return bad("no instance")
	case version >= 3 && len(p.Sources) == 0:
		return bad("no source")
	case p.OCSPFreshness < time.Second || p.OCSPFreshness%time.Second != 0 || p.OCSPFreshness > maxSeconds*time.Second:
		return bad("OCSP freshness %v", p.OCSPFreshness)
	}
	for i := range p.CAs {
		ca := &p.CAs[i]
		if ca.CSRFormat != "" && ca.CSRFormat != "PEM" && ca.CSRFormat != "DER" {
			return bad("CSR format %q", ca.CSRFormat)
		}
		for _, c := range append([]CA{ca.Top}, ca.Intermediates...) {
			for _, r := range c.OCSP {
				if !isCostType(r.CostType) {
					return bad("cost type %q", r.CostType)
				}
			}
		}
	}
	for _, t := range p.TSAs {
		if !isCostType(t.CostType) {
			return bad("cost type %q", t.CostType)
		}
	}
	classes := map[string]bool{}
	for _, c := range p.MemberClasses {
		if classes[c.Code] {
			return bad("member class %q occurs twice", c.Code)
		}
		classes[c.Code] = true
	}
	clients := make(map[id.Client]bool, 16*len(p.Members))
	for i := range p.Members {
		m := &p.Members[i]
		if m.ID.IsZero() || m.ID.Instance() != p.Instance || clients[m.ID.Client()] {
			return bad("%s is of another instance or occurs twice", m.ID.LogString())
		}
		clients[m.ID.Client()] = true
		for _, s := range m.Subsystems {
			if s.ID.IsMember() || s.ID.Member() != m.ID || clients[s.ID] {
				return bad("%s does not belong to %s or occurs twice", s.ID.LogString(), m.ID.LogString())
			}
			clients[s.ID] = true
		}
	}
	groups := map[string]bool{}
	for _, g := range p.Groups {
		if strings.TrimSpace(g.Code) == "" || groups[g.Code] {
			return bad("global group %q is blank or occurs twice", g.Code)
		}
		groups[g.Code] = true
		if slices.ContainsFunc(g.Members, id.Client.IsZero) {
			return bad("global group %q has a member without a name", g.Code)
		}
	}
	return p.checkServers(version, bad)
}

func (p *SharedParams) checkServers(version int, bad func(string, ...any) error) error {
	servers, certs := map[id.SecurityServer]bool{}, map[AuthCert]bool{}
	for i := range p.Servers {
		s := &p.Servers[i]
		if s.ID.IsZero() || servers[s.ID] {
			return bad("%s occurs twice", s.ID.LogString())
		}
		servers[s.ID] = true
		for _, c := range s.AuthCerts {
			key := AuthCert{SHA256: c.SHA256}
			if version == 2 {
				key = AuthCert{SHA1: c.SHA1}
			}
			if version == 2 && c.SHA1 == [sha1.Size]byte{} || version > 2 && c.SHA256 == (pki.CertHash{}) {
				return bad("an authentication certificate of %s has no digest for version %d", s.ID.LogString(), version)
			}
			if certs[key] {
				return bad("an authentication certificate of %s occurs twice", s.ID.LogString())
			}
			certs[key] = true
		}
	}
	return nil
}

func isCostType(t string) bool {
	return t == "" || t == "FREE" || t == "PAID" || t == "UNDEFINED"
}

func compareMembers(a, b id.Member) int {
	return cmp.Or(cmp.Compare(a.Instance(), b.Instance()), cmp.Compare(a.Class(), b.Class()), cmp.Compare(a.Code(), b.Code()))
}

func compareClients(a, b id.Client) int {
	return cmp.Or(compareMembers(a.Member(), b.Member()), cmp.Compare(a.Subsystem(), b.Subsystem()))
}

func compareServers(a, b id.SecurityServer) int {
	return cmp.Or(compareMembers(a.Owner(), b.Owner()), cmp.Compare(a.Code(), b.Code()))
}

// sorted returns list in order, and list itself if it is already.
func sorted[T any](list []T, compare func(a, b T) int) []T {
	if slices.IsSortedFunc(list, compare) {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, compare)
	return list
}

// distinct returns the set of list in order.
func distinct(list []id.Client) []id.Client {
	list = sorted(list, compareClients)
	for i := 1; i < len(list); i++ {
		if list[i] == list[i-1] {
			return slices.Compact(slices.Clone(list))
		}
	}
	return list
}
