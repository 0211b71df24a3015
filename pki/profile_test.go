// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"kontor/pki"
	"kontor/registry/id"
)

const classPrefix = "ee.ria.xroad.common.certificateprofile.impl."

func mustMember(t testing.TB, instance, class, code string) id.Member {
	t.Helper()
	m, err := id.NewMember(instance, class, code)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// raw makes a DER subject of "C=FI" and the like; "+" joins to a multi-valued
// name.
func raw(t testing.TB, parts ...string) []byte {
	t.Helper()
	types := map[string]asn1.ObjectIdentifier{
		"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3},
		"SN": {2, 5, 4, 5}, "BC": {2, 5, 4, 15}, "OI": {2, 5, 4, 97},
	}
	var names pkix.RDNSequence
	for _, p := range parts {
		var set pkix.RelativeDistinguishedNameSET
		for a := range strings.SplitSeq(p, "+") {
			k, v, _ := strings.Cut(a, "=")
			set = append(set, pkix.AttributeTypeAndValue{Type: types[k], Value: v})
		}
		names = append(names, set)
	}
	der, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func text(t testing.TB, der []byte) string {
	t.Helper()
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &names); err != nil {
		t.Fatal(err)
	}
	short := map[string]string{"2.5.4.6": "C", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.3": "CN", "2.5.4.5": "SN", "2.5.4.15": "BC"}
	var parts []string
	for _, rdn := range names {
		parts = append(parts, short[rdn[0].Type.String()]+"="+rdn[0].Value.(string))
	}
	return strings.Join(parts, ", ")
}

func TestProfileSubjects(t *testing.T) {
	t.Parallel()
	owner := mustMember(t, "DEV", "GOV", "1234")
	server, err := id.NewSecurityServer(owner, "ss1")
	if err != nil {
		t.Fatal(err)
	}
	params := pki.SubjectParams{Server: server, Member: mustMember(t, "DEV", "COM", "77"), MemberName: "Büro", DNSName: "ss1.example", Country: "EE"}
	for _, tt := range []struct {
		class, auth, sign string
		same              bool // the signing subject leads back to the member
	}{
		{"Ejbca", "C=DEV, CN=ss1", "C=DEV, O=COM, CN=77", true},
		{"FiVRK", "C=FI, O=Büro, SN=DEV/ss1/GOV, CN=ss1.example", "C=FI, O=Büro, SN=DEV/ss1/COM, CN=77", true},
		{"Basic", "CN=ss1.example, SN=1234, C=EE, O=Büro", "CN=Büro, O=Büro, BC=COM, C=EE, SN=77", true},
		{"BasicACME", "C=EE, O=Büro, SN=1234, CN=ss1.example", "C=EE, O=Büro, BC=COM, SN=77, CN=Büro", true},
		{"Is", "C=IS, CN=ss1.example, SN=DEV/GOV/1234/ss1", "C=IS, O=DEV, OU=COM, CN=77, SN=DEV/GOV/1234/ss1", true},
		{"Fo", "C=FO, O=DEV, CN=DEV/GOV/1234/ss1", "C=FO, O=DEV, OU=COM, CN=77, SN=DEV/GOV/1234/ss1", true},
		{"SkKlass3", "SN=1234, CN=Büro", "SN=77, CN=Büro", false},
		{"SkEsteId", "", "", false},
	} {
		t.Run(tt.class, func(t *testing.T) {
			t.Parallel()
			p, ok := pki.ProfileByClass(tt.class)
			if full, ok2 := pki.ProfileByClass(classPrefix + tt.class + "CertificateProfileInfoProvider"); !ok || !ok2 || full != p {
				t.Fatal("not found by both names")
			}
			if p.ClassName() != classPrefix+tt.class+"CertificateProfileInfoProvider" {
				t.Errorf("class name %s", p.ClassName())
			}
			for what, c := range map[string]struct {
				make func(pki.SubjectParams) ([]byte, error)
				want string
			}{"auth": {p.AuthSubject, tt.auth}, "sign": {p.SignSubject, tt.sign}} {
				der, err := c.make(params)
				if c.want == "" {
					if !errors.Is(err, pki.ErrSubject) {
						t.Errorf("%s: got %v", what, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := text(t, der); got != c.want {
					t.Errorf("%s: got %s, want %s", what, got, c.want)
				}
				if _, err := c.make(pki.SubjectParams{}); !errors.Is(err, pki.ErrSubject) {
					t.Errorf("%s of nothing: got %v", what, err)
				}
			}
			if !tt.same {
				return
			}
			der, _ := p.SignSubject(params)
			m, err := p.Member(&x509.Certificate{RawSubject: der}, "DEV")
			if err != nil || m != params.Member {
				t.Errorf("back: %v, %v", m, err)
			}
		})
	}
	if _, ok := pki.ProfileByClass("com.example.Other"); ok {
		t.Error("found a profile that is not there")
	}
	if len(pki.Profiles()) != 8 {
		t.Errorf("%d profiles", len(pki.Profiles()))
	}
}

func TestProfileMember(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		class   string
		subject []string
		want    string // "" refused
	}{
		{"Ejbca", []string{"C=DEV", "O=GOV", "CN=1"}, "DEV/GOV/1"},
		{"Ejbca", []string{"CN=1", "O=GOV", "C=DEV"}, "DEV/GOV/1"},
		{"Ejbca", []string{"C=dev", "O=gov", "CN=a b"}, "dev/gov/a%20b"},
		{"Ejbca", []string{"O=GOV", "CN=1"}, ""},
		{"Ejbca", []string{"C=DEV", "O= ", "CN=1"}, ""},
		{"Ejbca", []string{"C=DEV", "O=GOV", "CN=1", "CN=2"}, "DEV/GOV/2"},
		{"Ejbca", []string{"C=DEV", "O=GOV", "CN=1+OU=x"}, ""},
		{"Ejbca", []string{"C=DEV", "O=GOV", "CN=1", "OU=x+SN=y"}, "DEV/GOV/1"},
		{"FiVRK", []string{"C=FI", "O=x", "SN=DEV/ss/GOV", "CN=1"}, "DEV/GOV/1"},
		{"FiVRK", []string{"C=SE", "O=x", "SN=DEV/ss/GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=fi", "O=x", "SN=DEV/ss/GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=FI", "SN=DEV/ss/GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=FI", "O=x", "SN=DEV/GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=FI", "O=x", "SN=DEV/ss/GOV/", "CN=1"}, ""},
		{"FiVRK", []string{"C=FI", "O=x", "SN=/ss/GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=FI", "O=DEV", "OU=GOV", "CN=1"}, "DEV/GOV/1"},
		{"FiVRK", []string{"C=SE", "O=DEV", "OU=GOV", "CN=1"}, ""},
		{"FiVRK", []string{"C=DEV", "O=GOV", "CN=1"}, "DEV/GOV/1"},
		{"FiVRK", []string{"C=DEV", "O=GOV", "CN=1", "SN="}, ""},
		{"Basic", []string{"BC=GOV", "SN=1"}, "OWN/GOV/1"},
		{"Basic", []string{"SN=1"}, ""},
		{"BasicACME", []string{"BC=GOV", "SN=1", "CN=x"}, "OWN/GOV/1"},
		{"Is", []string{"C=IS", "O=DEV", "OU=GOV", "CN=1", "SN=x"}, "DEV/GOV/1"},
		{"Is", []string{"C=IS", "O=DEV", "OU=GOV", "CN=1"}, ""},
		{"Is", []string{"C=DEV", "O=GOV", "CN=1"}, "DEV/GOV/1"},
		{"Fo", []string{"C=FO", "O=DEV", "OU=GOV", "CN=1", "SN=x"}, "DEV/GOV/1"},
		{"Fo", []string{"C=FO", "O=DEV", "OU=GOV", "CN=1"}, ""},
		{"Fo", []string{"C=IS", "O=DEV", "OU=GOV", "CN=1", "SN=x"}, ""},
		{"SkKlass3", []string{"OI=NTREE-10747013"}, "OWN/COM/10747013"},
		{"SkKlass3", []string{"OI=GO:EE-70006317"}, "OWN/GOV/70006317"},
		{"SkKlass3", []string{"OI=NP:EE-80000000"}, "OWN/NGO/80000000"},
		{"SkKlass3", []string{"OI=VATLV-1"}, "OWN/NEE/VATLV-1"},
		{"SkKlass3", []string{"OI=NTREE-"}, ""},
		{"SkKlass3", []string{"SN=10747013"}, "OWN/COM/10747013"},
		{"SkKlass3", []string{"SN=70006317"}, "OWN/GOV/70006317"},
		{"SkKlass3", []string{"SN=90000000"}, "OWN/NGO/90000000"},
		{"SkKlass3", []string{"SN=00000000"}, ""},
		{"SkKlass3", []string{"SN=1074701"}, ""},
		{"SkKlass3", []string{"SN=1074701x"}, ""},
		{"SkEsteId", []string{"SN=38001010000"}, "OWN/PERSON/38001010000"},
		{"SkEsteId", []string{"CN=x"}, ""},
	} {
		p, ok := pki.ProfileByClass(tt.class)
		if !ok {
			t.Fatal(tt.class)
		}
		m, err := p.Member(&x509.Certificate{RawSubject: raw(t, tt.subject...)}, "OWN")
		if tt.want == "" {
			if !errors.Is(err, pki.ErrSubject) || !m.IsZero() {
				t.Errorf("%s of %v: got %v, %v", tt.class, tt.subject, m, err)
			}
			continue
		}
		if err != nil || m.String() != tt.want {
			t.Errorf("%s of %v: got %v, %v, want %s", tt.class, tt.subject, m, err, tt.want)
		}
	}
}

// FuzzProfileSubject: no subject makes a profile fail otherwise than by
// ErrSubject, and what is read is a proper member.
func FuzzProfileSubject(f *testing.F) {
	f.Add(raw(f, "C=FI", "O=x", "SN=DEV/ss/GOV", "CN=1"))
	f.Add(raw(f, "C=DEV", "O=GOV", "CN=1+OU=2"))
	f.Add(raw(f, "OI=NTREE-1", "SN=10747013"))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, subject []byte) {
		for _, p := range pki.Profiles() {
			m, err := p.Member(&x509.Certificate{RawSubject: subject}, "OWN")
			if (err == nil) == m.IsZero() || err != nil && !errors.Is(err, pki.ErrSubject) {
				t.Fatalf("%s: %v, %v", p.ClassName(), m, err)
			}
			if err == nil {
				if again, err := id.ParseMember(m.String()); err != nil || again != m {
					t.Fatalf("%s: %v does not survive: %v", p.ClassName(), m, err)
				}
			}
		}
	})
}
