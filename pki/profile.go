// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"kontor/registry/id"
)

// ErrSubject: a certificate's subject does not name a member in the way its
// profile prescribes, or a subject cannot be made from what is known.
var ErrSubject = errors.New("certificate subject does not fit its profile")

// Profile is a certificate profile: how the subjects of an authority's
// certificates carry X-Road identifiers. It is chosen for each authority in the
// global configuration by the name of a Java class. Values are stateless and
// safe for concurrent use.
type Profile interface {
	// ClassName returns the full name of the Java class.
	ClassName() string
	// AuthSubject returns the DER subject of an authentication certificate for
	// p.Server.
	AuthSubject(p SubjectParams) ([]byte, error)
	// SignSubject returns the DER subject of a signing certificate for p.Member.
	SignSubject(p SubjectParams) ([]byte, error)
	// Member returns the member that the signing certificate c names. Instance
	// is used by the profiles whose subjects do not carry one: it is the
	// instance of the claimed sender.
	Member(c *x509.Certificate, instance string) (id.Member, error)
}

// SubjectParams is what a subject is made of. Each profile uses a part of it
// and refuses with ErrSubject if that part is missing.
type SubjectParams struct {
	Server     id.SecurityServer
	Member     id.Member // of a signing certificate
	MemberName string
	DNSName    string // of the security server
	Country    string // two letters
}

const classPrefix, classSuffix = "ee.ria.xroad.common.certificateprofile.impl.", "CertificateProfileInfoProvider"

// ProfileByClass finds a profile by the full name of its Java class, by its
// simple name or by its short name such as "FiVRK".
func ProfileByClass(class string) (Profile, bool) {
	short := strings.TrimSuffix(strings.TrimPrefix(class, classPrefix), classSuffix)
	for _, p := range profiles {
		if p.name == short {
			return p, true
		}
	}
	return nil, false
}

// Profiles lists all profiles.
func Profiles() []Profile {
	var all []Profile
	for _, p := range profiles {
		all = append(all, p)
	}
	return all
}

// attribute types of distinguished names.
var (
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSerialNumber = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidCountry      = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidOrganization = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrgUnit      = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidBusinessCat  = asn1.ObjectIdentifier{2, 5, 4, 15}
	oidOrgID        = asn1.ObjectIdentifier{2, 5, 4, 97}
)

// profile is one row of the table below. A nil function means that the profile
// cannot make such subjects.
type profile struct {
	name       string
	auth, sign func(SubjectParams) []attribute
	member     func(n subject, instance string) (id.Member, error)
}

var profiles = []*profile{
	{
		name: "Ejbca",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "instance", p.Server.Owner().Instance()}, {oidCommonName, "server code", p.Server.Code()}}
		},
		sign: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "instance", p.Member.Instance()}, {oidOrganization, "member class", p.Member.Class()},
				{oidCommonName, "member code", p.Member.Code()}}
		},
		member: ejbcaMember,
	},
	{
		name: "FiVRK",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", "FI"}, {oidOrganization, "member name", p.MemberName},
				{oidSerialNumber, "server", serial(p.Server.Owner().Instance(), p.Server.Code(), p.Server.Owner().Class())},
				{oidCommonName, "DNS name", p.DNSName}}
		},
		sign: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", "FI"}, {oidOrganization, "member name", p.MemberName},
				{oidSerialNumber, "server", serial(p.Member.Instance(), p.Server.Code(), p.Member.Class())},
				{oidCommonName, "member code", p.Member.Code()}}
		},
		member: fiMember,
	},
	{
		name: "Basic",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCommonName, "DNS name", p.DNSName}, {oidSerialNumber, "member code", p.Server.Owner().Code()},
				{oidCountry, "country", p.Country}, {oidOrganization, "member name", p.MemberName}}
		},
		sign: func(p SubjectParams) []attribute {
			return []attribute{{oidCommonName, "member name", p.MemberName}, {oidOrganization, "member name", p.MemberName},
				{oidBusinessCat, "member class", p.Member.Class()}, {oidCountry, "country", p.Country},
				{oidSerialNumber, "member code", p.Member.Code()}}
		},
		member: basicMember,
	},
	{
		name: "BasicACME",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", p.Country}, {oidOrganization, "member name", p.MemberName},
				{oidSerialNumber, "member code", p.Server.Owner().Code()}, {oidCommonName, "DNS name", p.DNSName}}
		},
		sign: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", p.Country}, {oidOrganization, "member name", p.MemberName},
				{oidBusinessCat, "member class", p.Member.Class()}, {oidSerialNumber, "member code", p.Member.Code()},
				{oidCommonName, "member name", p.MemberName}}
		},
		member: basicMember,
	},
	{
		name: "Is",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", "IS"}, {oidCommonName, "DNS name", p.DNSName},
				{oidSerialNumber, "server", serverSerial(p.Server)}}
		},
		sign: nordicSubject("IS"),
		member: func(n subject, instance string) (id.Member, error) {
			if !n.has(oidSerialNumber) && !n.has(oidOrgUnit) {
				return ejbcaMember(n, instance)
			}
			return nordicMember(n, "IS")
		},
	},
	{
		name: "Fo",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidCountry, "country", "FO"}, {oidOrganization, "instance", p.Server.Owner().Instance()},
				{oidCommonName, "server", serverSerial(p.Server)}}
		},
		sign:   nordicSubject("FO"),
		member: func(n subject, _ string) (id.Member, error) { return nordicMember(n, "FO") },
	},
	{
		name: "SkKlass3",
		auth: func(p SubjectParams) []attribute {
			return []attribute{{oidSerialNumber, "member code", p.Server.Owner().Code()}, {oidCommonName, "member name", p.MemberName}}
		},
		sign: func(p SubjectParams) []attribute {
			return []attribute{{oidSerialNumber, "member code", p.Member.Code()}, {oidCommonName, "member name", p.MemberName}}
		},
		member: skMember,
	},
	{
		name: "SkEsteId",
		member: func(n subject, instance string) (id.Member, error) {
			code, err := n.value(oidSerialNumber, "serial number")
			return member(err, instance, "PERSON", code)
		},
	},
}

func (p *profile) ClassName() string { return classPrefix + p.name + classSuffix }

func (p *profile) String() string { return p.name }

func (p *profile) AuthSubject(s SubjectParams) ([]byte, error) { return p.make(p.auth, s) }

func (p *profile) SignSubject(s SubjectParams) ([]byte, error) { return p.make(p.sign, s) }

func (p *profile) make(attributes func(SubjectParams) []attribute, s SubjectParams) ([]byte, error) {
	if attributes == nil {
		return nil, fmt.Errorf("%w: profile %s makes no such subjects", ErrSubject, p.name)
	}
	return marshalSubject(attributes(s))
}

func (p *profile) Member(c *x509.Certificate, instance string) (id.Member, error) {
	n, err := parseSubject(c.RawSubject)
	if err != nil {
		return id.Member{}, err
	}
	return p.member(n, instance)
}

func ejbcaMember(n subject, _ string) (id.Member, error) {
	instance, err1 := n.value(oidCountry, "country")
	class, err2 := n.value(oidOrganization, "organization")
	code, err3 := n.value(oidCommonName, "common name")
	return member(errors.Join(err1, err2, err3), instance, class, code)
}

// fiMember reads the Finnish form, its predecessor without serial number, and
// the EJBCA form, which has neither serial number nor unit.
func fiMember(n subject, instance string) (id.Member, error) {
	if !n.has(oidSerialNumber) {
		if !n.has(oidOrgUnit) {
			return ejbcaMember(n, instance)
		}
		return unitMember(n, "FI")
	}
	if err := n.country("FI"); err != nil {
		return id.Member{}, err
	}
	server, err1 := n.value(oidSerialNumber, "serial number")
	_, err2 := n.value(oidOrganization, "organization")
	code, err3 := n.value(oidCommonName, "common name")
	parts := strings.Split(server, "/")
	if len(parts) != 3 {
		return id.Member{}, fmt.Errorf("%w: serial number %q is not instance/server/class", ErrSubject, server)
	}
	return member(errors.Join(err1, err2, err3), parts[0], parts[2], code)
}

// unitMember reads C, O=instance, OU=class, CN=code.
func unitMember(n subject, country string) (id.Member, error) {
	if err := n.country(country); err != nil {
		return id.Member{}, err
	}
	instance, err1 := n.value(oidOrganization, "organization")
	class, err2 := n.value(oidOrgUnit, "organizational unit")
	code, err3 := n.value(oidCommonName, "common name")
	return member(errors.Join(err1, err2, err3), instance, class, code)
}

// nordicMember is unitMember with a serial number that must be there and is not
// used.
func nordicMember(n subject, country string) (id.Member, error) {
	if _, err := n.value(oidSerialNumber, "serial number"); err != nil {
		return id.Member{}, err
	}
	return unitMember(n, country)
}

func nordicSubject(country string) func(SubjectParams) []attribute {
	return func(p SubjectParams) []attribute {
		return []attribute{{oidCountry, "country", country}, {oidOrganization, "instance", p.Member.Instance()},
			{oidOrgUnit, "member class", p.Member.Class()}, {oidCommonName, "member code", p.Member.Code()},
			{oidSerialNumber, "server", serverSerial(p.Server)}}
	}
}

func basicMember(n subject, instance string) (id.Member, error) {
	class, err1 := n.value(oidBusinessCat, "business category")
	code, err2 := n.value(oidSerialNumber, "serial number")
	return member(errors.Join(err1, err2), instance, class, code)
}

// skMember reads the Estonian forms: an organization identifier of ETSI EN 319
// 412-1, or a register code whose first digit tells the register.
func skMember(n subject, instance string) (id.Member, error) {
	org, err := n.optional(oidOrgID)
	if err != nil {
		return id.Member{}, err
	}
	if org != "" {
		for _, r := range []struct{ prefix, class string }{{"NTREE-", "COM"}, {"GO:EE-", "GOV"}, {"NP:EE-", "NGO"}} {
			if code, ok := strings.CutPrefix(org, r.prefix); ok {
				return member(nil, instance, r.class, code)
			}
		}
		return member(nil, instance, "NEE", org)
	}
	code, err := n.value(oidSerialNumber, "serial number")
	if err != nil {
		return id.Member{}, err
	}
	if len(code) != 8 || strings.Trim(code, "0123456789") != "" {
		return id.Member{}, fmt.Errorf("%w: serial number %q is not a register code of 8 digits", ErrSubject, code)
	}
	switch {
	case code[0] >= '1' && code[0] <= '6':
		return member(nil, instance, "COM", code)
	case code[0] == '7':
		return member(nil, instance, "GOV", code)
	case code[0] >= '8':
		return member(nil, instance, "NGO", code)
	}
	return id.Member{}, fmt.Errorf("%w: register code %q is of no known register", ErrSubject, code)
}

// member makes the identifier unless a part was not found.
func member(err error, instance, class, code string) (id.Member, error) {
	if err != nil {
		return id.Member{}, err
	}
	m, err := id.NewMember(instance, class, code)
	if err != nil {
		return id.Member{}, fmt.Errorf("%w: %w", ErrSubject, err)
	}
	return m, nil
}

// serial joins three parts, or is empty if one is missing.
func serial(parts ...string) string {
	for _, p := range parts {
		if p == "" {
			return ""
		}
	}
	return strings.Join(parts, "/")
}

func serverSerial(s id.SecurityServer) string {
	o := s.Owner()
	return serial(o.Instance(), o.Class(), o.Code(), s.Code())
}

// attribute is one single-valued RDN to write; what names it in errors.
type attribute struct {
	oid   asn1.ObjectIdentifier
	what  string
	value string
}

func marshalSubject(attributes []attribute) ([]byte, error) {
	var names pkix.RDNSequence
	for _, a := range attributes {
		if strings.TrimSpace(a.value) == "" {
			return nil, fmt.Errorf("%w: the %s is missing", ErrSubject, a.what)
		}
		names = append(names, pkix.RelativeDistinguishedNameSET{{Type: a.oid, Value: a.value}})
	}
	der, err := asn1.Marshal(names)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSubject, err)
	}
	return der, nil
}

// subject is a parsed distinguished name.
type subject pkix.RDNSequence

func parseSubject(raw []byte) (subject, error) {
	var names pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &names); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: malformed", ErrSubject)
	}
	return subject(names), nil
}

func (n subject) has(oid asn1.ObjectIdentifier) bool {
	for _, rdn := range n {
		for _, a := range rdn {
			if a.Type.Equal(oid) {
				return true
			}
		}
	}
	return false
}

// optional returns the value of an attribute, "" if there is none. Where a type
// occurs more than once, the last in the encoding counts: it comes first in the
// string form of RFC 2253, which is what X-Road reads.
func (n subject) optional(oid asn1.ObjectIdentifier) (string, error) {
	for i := len(n) - 1; i >= 0; i-- {
		for _, a := range n[i] {
			if !a.Type.Equal(oid) {
				continue
			}
			if len(n[i]) > 1 {
				return "", fmt.Errorf("%w: attribute %v is part of a multi-valued name", ErrSubject, oid)
			}
			s, ok := a.Value.(string)
			if !ok {
				return "", fmt.Errorf("%w: attribute %v is not a string", ErrSubject, oid)
			}
			return s, nil
		}
	}
	return "", nil
}

func (n subject) value(oid asn1.ObjectIdentifier, what string) (string, error) {
	s, err := n.optional(oid)
	if err == nil && s == "" {
		err = fmt.Errorf("%w: no %s", ErrSubject, what)
	}
	return s, err
}

func (n subject) country(want string) error {
	c, err := n.value(oidCountry, "country")
	if err == nil && c != want {
		err = fmt.Errorf("%w: country %q is not %s", ErrSubject, c, want)
	}
	return err
}
