// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// text generates what XML can carry, with its difficulties.
var text = rapid.StringMatching(`[ \n\r\t<>&'"a-zA-Z0-9äß日😀\]-]{0,12}`)

var code = rapid.StringMatching(`[a-zA-Z0-9<&ä][a-zA-Z0-9 <&>'"ä\t\r\n-]{0,6}`)

func optional(t *rapid.T, g *rapid.Generator[string]) string {
	if rapid.Bool().Draw(t, "there") {
		return g.Draw(t, "text")
	}
	return ""
}

func drawBytes(t *rapid.T) []byte {
	return rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "bytes")
}

// drawShared generates parameters that every version can write.
func drawShared(t *rapid.T) *globalconf.SharedParams {
	fatal := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &globalconf.SharedParams{Instance: code.Draw(t, "instance"), OCSPFreshness: time.Duration(rapid.IntRange(1, 1e6).Draw(t, "freshness")) * time.Second}
	for range rapid.IntRange(1, 3).Draw(t, "sources") {
		s := globalconf.Source{Address: text.Draw(t, "address")}
		for range rapid.IntRange(0, 2).Draw(t, "certs") {
			s.InternalCerts = append(s.InternalCerts, drawBytes(t))
			s.ExternalCerts = append(s.ExternalCerts, drawBytes(t))
		}
		p.Sources = append(p.Sources, s)
	}
	cost := rapid.SampledFrom([]string{"", "FREE", "PAID", "UNDEFINED"})
	ca := func() globalconf.CA {
		c := globalconf.CA{Cert: drawBytes(t)}
		for range rapid.IntRange(0, 2).Draw(t, "ocsp") {
			r := globalconf.OCSPResponder{URL: text.Draw(t, "url"), CostType: cost.Draw(t, "cost")}
			if rapid.Bool().Draw(t, "cert") {
				r.Cert = drawBytes(t)
			}
			c.OCSP = append(c.OCSP, r)
		}
		return c
	}
	for range rapid.IntRange(0, 2).Draw(t, "CAs") {
		c := globalconf.ApprovedCA{Name: text.Draw(t, "name"), AuthenticationOnly: rapid.Bool().Draw(t, "authentication only"), Top: ca(),
			Profile: "x.Profile", CSRFormat: rapid.SampledFrom([]string{"", "PEM", "DER"}).Draw(t, "format")}
		for range rapid.IntRange(0, 2).Draw(t, "intermediates") {
			c.Intermediates = append(c.Intermediates, ca())
		}
		if rapid.Bool().Draw(t, "acme") {
			c.ACME = &globalconf.ACMEServer{DirectoryURL: text.Draw(t, "url"), IPAddress: optional(t, code), AuthProfile: optional(t, code), SignProfile: optional(t, code)}
		}
		p.CAs = append(p.CAs, c)
		p.TSAs = append(p.TSAs, globalconf.ApprovedTSA{Name: text.Draw(t, "name"), URL: text.Draw(t, "url"), Cert: drawBytes(t), CostType: cost.Draw(t, "cost")})
	}
	var clients []id.Client
	var members []id.Member
	for _, c := range rapid.SliceOfNDistinct(code, 0, 4, rapid.ID).Draw(t, "members") {
		mid, err := id.NewMember(p.Instance, code.Draw(t, "class"), c)
		fatal(err)
		m := globalconf.Member{ID: mid, ClassDescription: text.Draw(t, "description"), Name: text.Draw(t, "name")}
		members, clients = append(members, mid), append(clients, mid.Client())
		for _, s := range rapid.SliceOfNDistinct(code, 0, 3, rapid.ID).Draw(t, "subsystems") {
			sid, err := id.NewClient(mid, s)
			fatal(err)
			m.Subsystems = append(m.Subsystems, globalconf.Subsystem{ID: sid, Name: optional(t, code)})
			clients = append(clients, sid)
		}
		p.Members = append(p.Members, m)
	}
	if len(members) > 0 {
		for i, c := range rapid.SliceOfNDistinct(code, 0, 4, rapid.ID).Draw(t, "servers") {
			sid, err := id.NewSecurityServer(rapid.SampledFrom(members).Draw(t, "owner"), c)
			fatal(err)
			s := globalconf.SecurityServer{ID: sid, Address: optional(t, code), Clients: rapid.SliceOfNDistinct(rapid.SampledFrom(clients), 0, len(clients), rapid.ID[id.Client]).Draw(t, "clients")}
			for n := range rapid.IntRange(0, 2).Draw(t, "certificates") {
				s.AuthCerts = append(s.AuthCerts, globalconf.AuthCert{SHA256: pki.CertHash{1, byte(i), byte(n)}, SHA1: [20]byte{1, byte(i), byte(n)}})
			}
			if rapid.Bool().Draw(t, "maintenance") {
				s.Maintenance = &globalconf.Maintenance{Message: optional(t, code)}
			}
			p.Servers = append(p.Servers, s)
		}
	}
	for _, c := range rapid.SliceOfNDistinct(code, 0, 3, rapid.ID).Draw(t, "groups") {
		g := globalconf.GlobalGroup{Code: c, Description: text.Draw(t, "description")}
		if len(clients) > 0 {
			g.Members = rapid.SliceOfNDistinct(rapid.SampledFrom(clients), 0, len(clients), rapid.ID[id.Client]).Draw(t, "group members")
		}
		p.Groups = append(p.Groups, g)
	}
	for _, c := range rapid.SliceOfNDistinct(code, 0, 3, rapid.ID).Draw(t, "classes") {
		p.MemberClasses = append(p.MemberClasses, globalconf.MemberClass{Code: c, Description: text.Draw(t, "description")})
	}
	return p
}

// as removes from p what a version cannot say, and orders it as it is written.
func as(p *globalconf.SharedParams, version int) *globalconf.SharedParams {
	q := *p
	if version < 3 {
		q.Sources = nil
	}
	q.CAs, q.TSAs = slices.Clone(q.CAs), slices.Clone(q.TSAs)
	free := func(c globalconf.CA) globalconf.CA {
		c.OCSP = slices.Clone(c.OCSP)
		for i := range c.OCSP {
			c.OCSP[i].CostType = ""
		}
		return c
	}
	for i := range q.CAs {
		c := &q.CAs[i]
		c.Intermediates = slices.Clone(c.Intermediates)
		if version < 6 {
			c.CSRFormat, c.Top, q.TSAs[i].CostType = "", free(c.Top), ""
			for j := range c.Intermediates {
				c.Intermediates[j] = free(c.Intermediates[j])
			}
		}
		if c.ACME != nil {
			a := *c.ACME
			if c.ACME = &a; version < 4 {
				a.AuthProfile, a.SignProfile = "", ""
			}
		}
		if version < 3 {
			c.ACME = nil
		}
	}
	by := func(a, b fmt.Stringer) int { return slices.Compare(split(a), split(b)) }
	q.Members = slices.Clone(q.Members)
	for i := range q.Members {
		m := &q.Members[i]
		m.Subsystems = slices.Clone(m.Subsystems)
		for j := range m.Subsystems {
			if version < 5 {
				m.Subsystems[j].Name = ""
			}
		}
		slices.SortFunc(m.Subsystems, func(a, b globalconf.Subsystem) int { return by(a.ID, b.ID) })
	}
	slices.SortFunc(q.Members, func(a, b globalconf.Member) int { return by(a.ID, b.ID) })
	q.Servers = slices.Clone(q.Servers)
	for i := range q.Servers {
		s := &q.Servers[i]
		s.Clients = slices.Clone(s.Clients)
		slices.SortFunc(s.Clients, func(a, b id.Client) int { return by(a, b) })
		if version < 5 {
			if s.Maintenance != nil {
				s.Clients = slices.DeleteFunc(s.Clients, func(c id.Client) bool { return !c.IsMember() })
			}
			s.Maintenance = nil
		}
		s.AuthCerts = slices.Clone(s.AuthCerts)
		for j := range s.AuthCerts {
			if version == 2 {
				s.AuthCerts[j].SHA256 = pki.CertHash{}
			} else {
				s.AuthCerts[j].SHA1 = [20]byte{}
			}
		}
	}
	slices.SortFunc(q.Servers, func(a, b globalconf.SecurityServer) int { return by(a.ID, b.ID) })
	q.Groups = slices.Clone(q.Groups)
	for i := range q.Groups {
		g := &q.Groups[i]
		g.Members = slices.Clone(g.Members)
		slices.SortFunc(g.Members, func(a, b id.Client) int { return by(a, b) })
	}
	slices.SortFunc(q.Groups, func(a, b globalconf.GlobalGroup) int { return strings.Compare(a.Code, b.Code) })
	return &q
}

// split takes an identifier apart for comparison part by part.
func split(s fmt.Stringer) []string {
	switch x := s.(type) {
	case id.Member:
		return []string{x.Instance(), x.Class(), x.Code()}
	case id.Client:
		return []string{x.Instance(), x.Member().Class(), x.Member().Code(), x.Subsystem()}
	case id.SecurityServer:
		return []string{x.Owner().Instance(), x.Owner().Class(), x.Owner().Code(), x.Code()}
	}
	panic("no such identifier")
}

// dump writes p out; nil and empty slices are equal.
func dump(p *globalconf.SharedParams) string {
	return strings.NewReplacer("[]", "nil", "(nil)", "nil").Replace(fmt.Sprintf("%+v", deref(reflect.ValueOf(p))))
}

func deref(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return deref(v.Elem())
	case reflect.Struct:
		if s, ok := v.Interface().(fmt.Stringer); ok {
			return s.String()
		}
		var fields []any
		for i := range v.NumField() {
			fields = append(fields, v.Type().Field(i).Name, deref(v.Field(i)))
		}
		return fields
	case reflect.Slice:
		var items []any
		for i := range v.Len() {
			items = append(items, deref(v.Index(i)))
		}
		return items
	}
	return fmt.Sprintf("%q", fmt.Sprint(v.Interface()))
}

func TestSharedParamsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := drawShared(rt)
		for v := globalconf.MinVersion; v <= globalconf.CurrentVersion; v++ {
			doc, err := p.Marshal(v)
			if err != nil {
				rt.Fatal(err)
			}
			checkStructure(t, doc, v)
			got, err := globalconf.ParseSharedParams(doc, v)
			if err != nil {
				rt.Fatalf("version %d: %v\n%s", v, err, doc)
			}
			if want := as(p, v); dump(got) != dump(want) {
				rt.Fatalf("version %d: got\n%s\nwant\n%s", v, dump(got), dump(want))
			}
			again, err := got.Marshal(v)
			if err != nil || !bytes.Equal(again, doc) {
				rt.Fatalf("version %d: not stable: %v", v, err)
			}
		}
	})
}

func TestPrivateParamsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m, err := id.NewMember(code.Draw(rt, "instance"), code.Draw(rt, "class"), code.Draw(rt, "code"))
		if err != nil {
			rt.Fatal(err)
		}
		p := &globalconf.PrivateParams{Instance: m.Instance(), RegistrationURL: code.Draw(rt, "url"), ManagementProvider: m.Client(),
			TimestampInterval: time.Duration(rapid.IntRange(1, 1e6).Draw(rt, "interval")) * time.Second}
		if rapid.Bool().Draw(rt, "cert") {
			p.RegistrationCert = drawBytes(rt)
		}
		for i := range rapid.IntRange(0, 3).Draw(rt, "anchors") {
			a := globalconf.Anchor{Generated: start.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(rt, "generated"))), Instance: fmt.Sprint("I", i)}
			for range rapid.IntRange(1, 3).Draw(rt, "sources") {
				a.Sources = append(a.Sources, globalconf.AnchorSource{URL: "http://cs/x?a=b&c=d", Certs: [][]byte{drawBytes(rt), drawBytes(rt)}})
			}
			p.Anchors = append(p.Anchors, a)
			doc, err := a.Marshal()
			if err != nil {
				rt.Fatal(err)
			}
			if got, err := globalconf.ParseAnchor(doc); err != nil || !reflect.DeepEqual(*got, a) {
				rt.Fatalf("%+v, %v", got, err)
			}
		}
		for v := globalconf.MinVersion; v <= globalconf.CurrentVersion; v++ {
			doc, err := p.Marshal(v)
			if err != nil {
				rt.Fatal(err)
			}
			if got, err := globalconf.ParsePrivateParams(doc, v); err != nil || !reflect.DeepEqual(got, p) {
				rt.Fatalf("%+v, %v", got, err)
			}
		}
	})
}

func TestOptionalParts(t *testing.T) {
	t.Parallel()
	for _, c := range []id.Client{{}, client(t, "DEV/GOV/1"), client(t, "DEV/GOV/1/a&b")} {
		doc := must((&globalconf.MonitoringParams{Client: c}).Marshal())(t)
		if got := must(globalconf.ParseMonitoringParams(doc))(t); got.Client != c {
			t.Errorf("%v", got)
		}
	}
	doc := must((&globalconf.FetchIntervalParams{Interval: time.Hour}).Marshal())(t)
	if got := must(globalconf.ParseFetchIntervalParams(doc))(t); got.Interval != time.Hour {
		t.Errorf("%v", got)
	}
	if _, err := (&globalconf.FetchIntervalParams{Interval: 59 * time.Second}).Marshal(); err == nil {
		t.Error("an interval below a minute")
	}
	if _, err := globalconf.ParseFetchIntervalParams(bytes.Replace(doc, []byte("3600"), []byte("59"), 1)); err == nil {
		t.Error("an interval below a minute")
	}
	for _, verify := range []bool{false, true} {
		doc := must((&globalconf.NextUpdateParams{Verify: verify}).Marshal())(t)
		if got := must(globalconf.ParseNextUpdateParams(doc))(t); got.Verify != verify {
			t.Errorf("%v", got)
		}
	}
}

const head = `<x:conf xmlns:x="http://x-road.eu/xsd/xroad.xsd" xmlns:id="http://x-road.eu/xsd/identifiers">`

// full is a version 6 document with everything in it.
const full = head + `<instanceIdentifier>DEV</instanceIdentifier>` +
	`<source><address>cs.example</address><internalVerificationCert>AA==</internalVerificationCert><externalVerificationCert>AA==</externalVerificationCert></source>` +
	`<approvedCA><name>CA</name><authenticationOnly>false</authenticationOnly><topCA><cert>AA==</cert><ocsp><url>http://o</url><cert>AA==</cert><costType>FREE</costType></ocsp></topCA>` +
	`<intermediateCA><cert>AA==</cert></intermediateCA><certificateProfileInfo>P</certificateProfileInfo><defaultCsrFormat>DER</defaultCsrFormat>` +
	`<acmeServer><directoryURL>u</directoryURL><ipAddress>i</ipAddress><authenticationCertificateProfileId>5</authenticationCertificateProfileId><signingCertificateProfileId>6</signingCertificateProfileId></acmeServer></approvedCA>` +
	`<approvedTSA><name>T</name><url>u</url><cert>AA==</cert><costType>PAID</costType></approvedTSA>` +
	`<member id="id0"><memberClass><code>GOV</code><description>Government</description></memberClass><memberCode>1</memberCode><name>Board</name>` +
	`<subsystem id="id1"><subsystemCode>s</subsystemCode><subsystemName>n</subsystemName></subsystem></member>` +
	`<securityServer><owner>id0</owner><serverCode>SS0</serverCode><address>ss0</address><authCertHash>47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=</authCertHash>` +
	`<client>id1</client><inMaintenanceMode><message>soon</message></inMaintenanceMode></securityServer>` +
	`<globalGroup><groupCode>g</groupCode><description>d</description><groupMember id:objectType="SUBSYSTEM"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>GOV</id:memberClass>` +
	`<id:memberCode>1</id:memberCode><id:subsystemCode>s</id:subsystemCode></groupMember></globalGroup>` +
	`<centralService><serviceCode>c</serviceCode><implementingService id:objectType="SERVICE"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>1</id:memberCode>` +
	`<id:serviceCode>x</id:serviceCode></implementingService></centralService>` +
	`<globalSettings><memberClass><code>GOV</code><description>Government</description></memberClass><ocspFreshnessSeconds>3600</ocspFreshnessSeconds></globalSettings></x:conf>`

func TestSharedParamsReader(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, old, new string
		from, to       int // versions that accept it; 0 for none
	}{
		{"as it is", "", "", 6, 6},
		{"extension", `</globalSettings>`, `</globalSettings><y:ext xmlns:y="urn:y" a="b">text<z/><![CDATA[<]]></y:ext><z/>`, 6, 6},
		{"white space", `<source>`, " \r\n\t<source> <!-- a comment -->", 6, 6},
		{"other prefixes", `xmlns:x=`, `xmlns:q="urn:q" xmlns:x=`, 6, 6},
		{"schema location", `xmlns:x=`, `xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="a b" xmlns:x=`, 6, 6},
		{"base64 with white space", `<cert>AA==`, "<cert> A\r\nA== ", 6, 6},
		{"boolean as digit", `>false<`, `> 0 <`, 6, 6},
		{"no IDs of subsystems without clients", ` id="id1"`, ``, 0, 0},
		{"repeated client", `<client>id1</client>`, `<client>id1</client><client> id1 </client><client>id0</client>`, 6, 6},
		{"unknown element", `<name>Board</name>`, `<name>Board</name><x/>`, 0, 0},
		{"unknown attribute", `<name>Board`, `<name lang="en">Board`, 0, 0},
		{"qualified child", `<name>Board</name>`, `<x:name>Board</x:name>`, 0, 0},
		{"default namespace", head, strings.Replace(head, " ", ` xmlns="urn:y" `, 1), 0, 0},
		{"other root namespace", `xroad.xsd"`, `xroad.xsd2"`, 0, 0},
		{"order", `<memberCode>1</memberCode><name>Board</name>`, `<name>Board</name><memberCode>1</memberCode>`, 0, 0},
		{"missing element", `<name>Board</name>`, ``, 0, 0},
		{"text between elements", `<name>Board`, `x<name>Board`, 0, 0},
		{"CDATA between elements", `<name>Board`, `<![CDATA[ ]]><name>Board`, 0, 0},
		{"element in text", `Board`, `Bo<b/>ard`, 0, 0},
		{"dangling IDREF", `<client>id1`, `<client>id2`, 0, 0},
		{"owner is a subsystem", `<owner>id0`, `<owner>id1`, 0, 0},
		{"ID twice", `id="id1"`, `id="id0"`, 0, 0},
		{"bad ID", `id="id1"`, `id="1"`, 0, 0},
		{"blank code", `<memberCode>1<`, `<memberCode> <`, 0, 0},
		{"blank instance", `>DEV</instance`, `> </instance`, 0, 0},
		{"member twice", `<securityServer>`, `<member><memberClass><code>GOV</code><description/></memberClass><memberCode>1</memberCode><name/></member><securityServer>`, 0, 0},
		{"subsystem twice", `</subsystem>`, `</subsystem><subsystem><subsystemCode>s</subsystemCode></subsystem>`, 0, 0},
		{"server twice", `<globalGroup>`, `<securityServer><owner>id0</owner><serverCode>SS0</serverCode></securityServer><globalGroup>`, 0, 0},
		{"group twice", `<centralService>`, `<globalGroup><groupCode>g</groupCode><description/></globalGroup><centralService>`, 0, 0},
		{"class twice", `<ocspFreshnessSeconds>`, `<memberClass><code>GOV</code><description/></memberClass><ocspFreshnessSeconds>`, 0, 0},
		{"hash length", `47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=`, `2jmj7l5rSw0yVb/vlWAYkK/YBwk=`, 0, 0},
		{"group member type", `"SUBSYSTEM"`, `"MEMBER"`, 0, 0},
		{"group member kind", `"SUBSYSTEM"`, `"SERVER"`, 0, 0},
		{"no group member type", ` id:objectType="SUBSYSTEM"`, ``, 0, 0},
		{"unqualified type", ` id:objectType`, ` objectType`, 0, 0},
		{"central service type", `"SERVICE"`, `"MEMBER"`, 0, 0},
		{"cost type", `>FREE<`, `>CHEAP<`, 0, 0},
		{"boolean", `>false<`, `>no<`, 0, 0},
		{"base64", `>AA==<`, `>AB==<`, 0, 0},
		{"freshness", `>3600<`, `>0<`, 0, 0},
		{"negative freshness", `>3600<`, `>-1<`, 0, 0},
		{"huge freshness", `>3600<`, `>99999999999999999999<`, 0, 0},
		{"DOCTYPE", head, `<!DOCTYPE conf [<!ENTITY a "b">]>` + head, 0, 0},
		{"entity", `Board`, `&board;`, 0, 0},
		{"processing instruction", head, `<?x y?>` + head, 0, 0},
		{"other encoding", head, `<?xml version="1.0" encoding="ISO-8859-1"?>` + head, 0, 0},
		{"XML 1.1", head, `<?xml version="1.1"?>` + head, 0, 0},
		{"not UTF-8", `Board`, "Bo\xffard", 0, 0},
		{"NUL", `Board`, "Bo\x00ard", 0, 0},
		{"undeclared prefix", `<x:conf xmlns:x=`, `<x:conf xmlns:y=`, 0, 0},
		{"trailing element", `</x:conf>`, `</x:conf><y/>`, 0, 0},
		{"trailing text", `</x:conf>`, `</x:conf>y`, 0, 0},
		{"cut off", `</x:conf>`, ``, 0, 0},
		{"deep extension", `</globalSettings>`, `</globalSettings>` + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), 0, 0},
	} {
		doc := strings.Replace(full, tc.old, tc.new, 1)
		if tc.old != "" && doc == full {
			t.Errorf("%s: nothing to replace", tc.name)
		}
		for v := 1; v <= 7; v++ {
			_, err := globalconf.ParseSharedParams([]byte(doc), v)
			ok := tc.from <= v && v <= tc.to
			if v < globalconf.MinVersion || v > globalconf.CurrentVersion {
				if !errors.Is(err, globalconf.ErrVersion) {
					t.Errorf("version %d: %v", v, err)
				}
			} else if (err == nil) != ok || err != nil && !errors.Is(err, globalconf.ErrMalformed) {
				t.Errorf("%s in version %d: %v", tc.name, v, err)
			}
		}
	}
}

// TestVersionDifferences removes from the full document what each version does
// not know, and checks that it is refused before.
func TestVersionDifferences(t *testing.T) {
	t.Parallel()
	doc := full
	steps := []struct {
		version int
		cuts    []string
	}{
		{6, []string{`<costType>FREE</costType>`, `<defaultCsrFormat>DER</defaultCsrFormat>`, `<costType>PAID</costType>`}},
		{5, []string{`<subsystemName>n</subsystemName>`, `<inMaintenanceMode><message>soon</message></inMaintenanceMode>`}},
		{3, []string{`<source><address>cs.example</address><internalVerificationCert>AA==</internalVerificationCert><externalVerificationCert>AA==</externalVerificationCert></source>`,
			`<acmeServer><directoryURL>u</directoryURL><ipAddress>i</ipAddress><authenticationCertificateProfileId>5</authenticationCertificateProfileId><signingCertificateProfileId>6</signingCertificateProfileId></acmeServer>`}},
	}
	for _, s := range steps {
		var without string
		for _, cut := range s.cuts {
			// Each alone is refused by the version before.
			without = doc
			for _, other := range s.cuts {
				if other != cut {
					without = strings.Replace(without, other, "", 1)
				}
			}
			if s.version == 3 {
				without = strings.Replace(without, `47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=`, `2jmj7l5rSw0yVb/vlWAYkK/YBwk=`, 1)
			}
			if _, err := globalconf.ParseSharedParams([]byte(without), s.version-1); !errors.Is(err, globalconf.ErrMalformed) {
				t.Errorf("version %d knows %s: %v", s.version-1, cut, err)
			}
		}
		for _, cut := range s.cuts {
			doc = strings.Replace(doc, cut, "", 1)
		}
		if s.version > 3 {
			if _, err := globalconf.ParseSharedParams([]byte(doc), s.version-1); err != nil {
				t.Errorf("version %d: %v", s.version-1, err)
			}
		}
	}
	if _, err := globalconf.ParseSharedParams([]byte(doc), 2); !errors.Is(err, globalconf.ErrMalformed) {
		t.Errorf("version 2 with SHA-256: %v", err)
	}
	doc = strings.Replace(doc, `47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=`, `2jmj7l5rSw0yVb/vlWAYkK/YBwk=`, 1)
	if _, err := globalconf.ParseSharedParams([]byte(doc), 2); err != nil {
		t.Errorf("version 2: %v", err)
	}
	ext := strings.Replace(doc, `</globalSettings>`, `</globalSettings><z/>`, 1)
	if _, err := globalconf.ParseSharedParams([]byte(ext), 2); !errors.Is(err, globalconf.ErrMalformed) {
		t.Errorf("version 2 with an extension: %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	cert := globalconf.NewAuthCert(newEC(t, elliptic.P256(), "a").cert)
	sum := cert.SHA256
	if raw, _ := base64.StdEncoding.DecodeString(sum.Base64()); !bytes.Equal(raw, sum[:]) {
		t.Error(sum.Base64())
	}
	for name, change := range map[string]func(p *globalconf.SharedParams){
		"no instance":          func(p *globalconf.SharedParams) { p.Instance = " " },
		"no source":            func(p *globalconf.SharedParams) { p.Sources = nil },
		"freshness":            func(p *globalconf.SharedParams) { p.OCSPFreshness = 1500 * time.Millisecond },
		"cost type":            func(p *globalconf.SharedParams) { p.TSAs[0].CostType = "x" },
		"OCSP cost type":       func(p *globalconf.SharedParams) { p.CAs[0].Top.OCSP[0].CostType = "x" },
		"CSR format":           func(p *globalconf.SharedParams) { p.CAs[0].CSRFormat = "x" },
		"control character":    func(p *globalconf.SharedParams) { p.Members[0].Name = "\x01" },
		"not UTF-8":            func(p *globalconf.SharedParams) { p.Members[0].Name = "\xff" },
		"no character":         func(p *globalconf.SharedParams) { p.Members[0].Name = "\uffff" },
		"member twice":         func(p *globalconf.SharedParams) { p.Members = append(p.Members, p.Members[0]) },
		"subsystem of another": func(p *globalconf.SharedParams) { p.Members[0].Subsystems = p.Members[1].Subsystems },
		"foreign member":       func(p *globalconf.SharedParams) { p.Instance = "X" },
		"server twice":         func(p *globalconf.SharedParams) { p.Servers = append(p.Servers, p.Servers[0]) },
		"unknown client":       func(p *globalconf.SharedParams) { p.Servers[0].Clients = []id.Client{client(t, "DEV/GOV/1/x")} },
		"unknown owner":        func(p *globalconf.SharedParams) { p.Members, p.Servers[0].Clients = nil, nil },
		"shared certificate":   func(p *globalconf.SharedParams) { p.Servers[0].AuthCerts = p.Servers[1].AuthCerts },
		"no digest":            func(p *globalconf.SharedParams) { p.Servers[0].AuthCerts = []globalconf.AuthCert{{SHA1: cert.SHA1}} },
		"group twice":          func(p *globalconf.SharedParams) { p.Groups = append(p.Groups, p.Groups[0]) },
		"blank group":          func(p *globalconf.SharedParams) { p.Groups[0].Code = "" },
		"class twice":          func(p *globalconf.SharedParams) { p.MemberClasses = append(p.MemberClasses, p.MemberClasses[0]) },
	} {
		p := newCentre(t, newClock(), "DEV").shared
		change(p)
		if doc, err := p.Marshal(6); !errors.Is(err, globalconf.ErrMalformed) {
			t.Errorf("%s: %v, %d bytes", name, err, len(doc))
		}
	}
	p := newCentre(t, newClock(), "DEV").shared
	for _, v := range []int{1, 7} {
		if _, err := p.Marshal(v); !errors.Is(err, globalconf.ErrVersion) {
			t.Errorf("version %d: %v", v, err)
		}
	}
	p.Servers[0].AuthCerts[0].SHA1 = [20]byte{}
	if _, err := p.Marshal(2); !errors.Is(err, globalconf.ErrMalformed) {
		t.Errorf("version 2 without SHA-1: %v", err)
	}
	if _, err := (&globalconf.Anchor{Generated: start, Instance: "DEV", Sources: []globalconf.AnchorSource{{URL: "https://cs/x", Certs: [][]byte{{1}}}}}).Marshal(); err == nil {
		t.Error("an anchor that X-Road cannot use")
	}
}
