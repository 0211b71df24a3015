// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
)

const vectorDir = "../../../shared/vectors/asic"

// vectorTrust reads of the vectors' shared parameters what these tests need.
func vectorTrust(t testing.TB) *testTrust {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(vectorDir, "globalconf", "DEV", "shared-params.xml"))
	if err != nil {
		t.Skipf("the vectors are not here: %v", err)
	}
	var conf struct {
		Instance string `xml:"instanceIdentifier"`
		CA       []struct {
			Name    string `xml:"name"`
			Profile string `xml:"certificateProfileInfo"`
			Cert    string `xml:"topCA>cert"`
			OCSP    []struct {
				URL  string `xml:"url"`
				Cert string `xml:"cert"`
			} `xml:"topCA>ocsp"`
		} `xml:"approvedCA"`
		TSA []struct {
			Cert string `xml:"cert"`
		} `xml:"approvedTSA"`
		Freshness int `xml:"globalSettings>ocspFreshnessSeconds"`
	}
	if err := xml.Unmarshal(doc, &conf); err != nil {
		t.Fatal(err)
	}
	cert := func(text string) *x509.Certificate {
		der := decodeBase64(t, text)
		if block, _ := pem.Decode(der); block != nil { // this file has PEM inside base64
			der = block.Bytes
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	trust := &testTrust{policy: ocsp.Policy{Freshness: time.Duration(conf.Freshness) * time.Second}}
	for _, ca := range conf.CA {
		profile, ok := pki.ProfileByClass(ca.Profile)
		if !ok {
			t.Fatalf("no profile %s", ca.Profile)
		}
		a := &pki.Authority{Cert: cert(ca.Cert), Instance: conf.Instance, Name: ca.Name, Profile: profile}
		for _, r := range ca.OCSP {
			a.Responders = append(a.Responders, pki.Responder{URL: r.URL, Cert: cert(r.Cert)})
		}
		trust.authorities = append(trust.authorities, a)
	}
	for _, s := range conf.TSA {
		trust.tsas = append(trust.tsas, cert(s.Cert))
	}
	return trust
}

func TestVectors(t *testing.T) {
	t.Parallel()
	trust := vectorTrust(t)
	want := map[string]struct {
		sender, id, stamped string
		findings            []string // that must be among the failures, none for valid
	}{
		"valid-signed-message":         {"DEV/COM/4321/TestClient", "dd19fe68-7d37-41bd-b79c-8948ccdb36da", "2024-12-05", nil},
		"valid-non-batch-rest":         {"DEV/COM/1234/TestService", "DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86", "2024-07-11", nil},
		"valid-batch-ts":               {"DEV/COM/4321/TestClient", "366462d3-8c68-4bf4-a418-641bbdf1004c", "2024-12-05", nil},
		"wrong-message":                {"DEV/COM/4321/TestClient", "wrong id", "2024-12-05", []string{asic.CheckDigest + "message.xml"}},
		"invalid-digest":               {"DEV/COM/4321/TestClient", "dd19fe68-7d37-41bd-b79c-8948ccdb36da", "2024-12-05", []string{asic.CheckDigest + "signed properties"}},
		"invalid-incorrect-references": {"EE/BUSINESS/consumer", "0611f4be90ad4e5f22fc5944214c41b5", "", []string{asic.CheckReferences}},
	}
	files, err := filepath.Glob(filepath.Join(vectorDir, "*.asice"))
	if err != nil || len(files) != len(want) {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".asice")
		w, ok := want[name]
		if !ok {
			t.Errorf("nothing is known of %s", name)
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := verify(t, data, trust)
		var b strings.Builder
		if err := r.Print(&b); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s\n%s", name, b.String())
		if r.Valid != (w.findings == nil) || r.Sender.String() != w.sender || r.MessageID != w.id {
			t.Errorf("%s: valid %v, sender %s, id %s", name, r.Valid, r.Sender, r.MessageID)
		}
		if stamped := r.Stamped.UTC().Format(time.DateOnly); w.stamped != "" && stamped != w.stamped {
			t.Errorf("%s: stamped %s", name, stamped)
		}
		for _, f := range w.findings {
			if !failed(r, f) {
				t.Errorf("%s: %q is not among the findings %+v", name, f, r.Failed())
			}
		}
	}
}

// TestVectorsEveryByte changes bytes of the real containers: their foreign
// spellings must leave no room either.
func TestVectorsEveryByte(t *testing.T) {
	t.Parallel()
	trust := vectorTrust(t)
	stride := 211
	if everyByte() {
		stride = 3
	}
	for _, name := range []string{"valid-signed-message", "valid-non-batch-rest", "valid-batch-ts"} {
		data, err := os.ReadFile(filepath.Join(vectorDir, name+".asice"))
		if err != nil {
			t.Fatal(err)
		}
		entries := slices.DeleteFunc(readZip(t, data), func(e zipEntry) bool { return strings.HasSuffix(e.name, "/") })
		if r := verify(t, writeZip(t, entries), trust); !r.Valid {
			t.Fatalf("%s: %+v", name, r.Failed())
		}
		for i, e := range entries {
			good := e.data
			for at := i % stride; at < len(good); at += stride {
				for _, to := range []byte{good[at] ^ 1, good[at] ^ 0x20, ' ', '\n', '\t', 'A'} {
					if to == good[at] {
						continue
					}
					entries[i].data = bytes.Clone(good)
					entries[i].data[at] = to
					if r := verify(t, writeZip(t, entries), trust); r.Valid {
						t.Errorf("%s: byte %d of %s may be %q for %q: …%q", name, at, e.name, to, good[at], around(good, at))
					}
				}
			}
			entries[i].data = good
		}
	}
}

// A message that looks as logs without bodies leave it is no less wrong, but the
// finding says what may have happened.
func TestVectorsWithheld(t *testing.T) {
	t.Parallel()
	trust := vectorTrust(t)
	withMessage := func(name string, change func(string) string) *asic.Report {
		data, err := os.ReadFile(filepath.Join(vectorDir, name+".asice"))
		if err != nil {
			t.Fatal(err)
		}
		entries := slices.DeleteFunc(readZip(t, data), func(e zipEntry) bool { return strings.HasSuffix(e.name, "/") })
		for i, e := range entries {
			if e.name == "message.xml" {
				entries[i].data = []byte(change(string(e.data)))
			}
		}
		return verify(t, writeZip(t, entries), trust)
	}
	for _, tt := range []struct {
		file     string
		change   func(string) string
		withheld bool
	}{
		{"valid-non-batch-rest", func(m string) string {
			lines := slices.DeleteFunc(strings.SplitAfter(m, "\n"), func(l string) bool {
				return strings.Contains(l, ":") && !strings.HasPrefix(strings.ToLower(l), "x-road-")
			})
			return strings.Join(lines, "") + "x-road-more:1\r\n"
		}, true},
		{"valid-non-batch-rest", func(m string) string { return m + "accept:*\r\n" }, false},
		{"valid-signed-message", func(m string) string {
			from, to := strings.Index(m, "Body>")+5, strings.LastIndex(m, "Body>")
			return m[:from] + m[strings.LastIndex(m[:to], "</"):]
		}, true},
		{"valid-signed-message", func(m string) string { return m + " " }, false},
	} {
		r := withMessage(tt.file, tt.change)
		i := slices.IndexFunc(r.Checks, func(c asic.Check) bool { return c.Name == asic.CheckDigest+"message.xml" })
		if i < 0 || r.Valid || strings.Contains(r.Checks[i].Err, "keeps no bodies by policy") != tt.withheld {
			t.Errorf("%s: %+v", tt.file, r.Checks)
		}
	}
}
