// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kontor/integration/testnet"
	"kontor/registry"
)

// TestGlobalConf has X-Road's configuration client download each version of
// the global configuration with our anchor, validate it against X-Road's
// schemas and tell what it reads in it.
func TestGlobalConf(t *testing.T) {
	j := newJudge(t)
	description := "Grüße & <more>"
	monitor, fetch, ignore := testnet.ClientID(testnet.Portal), 600, true
	n := testnet.Start(t, testnet.Options{Settings: registry.Settings{MonitoringClient: &monitor, OCSPFetchInterval: &fetch, IgnoreOCSPNextUpdate: &ignore}})
	n.Apply(&registry.SetGroup{Code: "group", Description: description},
		&registry.AddGroupMember{Group: "group", Client: n.ClientID(testnet.Portal)})
	anchor := write(t, filepath.Join(t.TempDir(), "anchor.xml"), n.Anchor)

	var first []string
	for version := 2; version <= 6; version++ {
		t.Run(fmt.Sprint("V", version), func(t *testing.T) {
			j := &judge{t, j.in, j.out}
			dir := filepath.Join(t.TempDir(), "globalconf")
			words := j.must("download", anchor, fmt.Sprint(version), dir)
			if t.Failed() || words[0] != "true" {
				t.Fatal(words)
			}
			for _, kind := range []string{"shared", "private"} {
				j.must(kind, fmt.Sprint(version), filepath.Join(dir, testnet.Instance, kind+"-params.xml"))
			}
			facts := j.must("network", dir)
			for _, want := range []string{
				"instance TEST",
				"client SUBSYSTEM:TEST/GOV/1001/portal Member 1001, ",
				"client MEMBER:TEST/COM/4004 Member 4004, ",
				"class GOV", "class COM",
				"server SERVER:TEST/GOV/2002/ss2 " + n.B.IP() + " of MEMBER:TEST/GOV/2002",
				"registered SUBSYSTEM:TEST/GOV/2002/census at SERVER:TEST/GOV/2002/ss2",
				"ca Test CA " + n.State().CAs()[0].Profile,
				"tsa " + n.State().TSAs()[0].URL + " Test TSA",
				"group GLOBALGROUP:TEST/group " + description,
				"has SUBSYSTEM:TEST/GOV/1001/portal GLOBALGROUP:TEST/group",
				"management SUBSYSTEM:TEST/GOV/2002/population",
				"timestamping 1",
				"monitor SUBSYSTEM:TEST/GOV/1001/portal",
				"ocsp fetched every 600 s, next update verified: false",
			} {
				if !slices.ContainsFunc(facts, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("no %q in\n%s", want, strings.Join(facts, "\n"))
				}
			}
			if pending := "registered SUBSYSTEM:" + testnet.Pending; slices.ContainsFunc(facts, func(s string) bool { return strings.HasPrefix(s, pending) }) {
				t.Error(pending)
			}
			if first == nil {
				first = facts
			} else if !slices.Equal(first, facts) {
				t.Errorf("V%d tells\n%s\nV2 told\n%s", version, strings.Join(facts, "\n"), strings.Join(first, "\n"))
			}
		})
	}

	// What somebody else signed, or what was changed on the way, is refused.
	address := regexp.MustCompile(`http://([^/]+)/internalconf`).FindSubmatch(n.Anchor)
	if address == nil {
		t.Fatalf("%s", n.Anchor)
	}
	onTheWay := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: string(address[1])}) },
	}
	elsewhere := bytes.Replace(n.Anchor, address[1], []byte(n.Serve(104, onTheWay)), 1)
	cert := regexp.MustCompile("(?s)(<verificationCert>).*?(</verificationCert>)")
	for _, tt := range []struct {
		name    string
		anchor  []byte
		changed [3]string // what, from, to
		good    bool
	}{
		{"untouched", elsewhere, [3]string{}, true},
		{"another's certificate", cert.ReplaceAll(elsewhere, []byte("${1}"+base64.StdEncoding.EncodeToString(n.Identity("auth").Cert.Raw)+"$2")), [3]string{}, false},
		{"directory", elsewhere, [3]string{"/internalconf", "Expire-date: 202", "Expire-date: 203"}, false},
		{"parameters", elsewhere, [3]string{"/shared-params.xml", "Member", "Nember"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJudge(t) // it remembers certificates
			onTheWay.ModifyResponse = func(r *http.Response) error {
				b, err := io.ReadAll(r.Body)
				if what := tt.changed[0]; err == nil && what != "" && strings.HasSuffix(r.Request.URL.Path, what) {
					b = bytes.Replace(b, []byte(tt.changed[1]), []byte(tt.changed[2]), 1)
				}
				r.Body = io.NopCloser(bytes.NewReader(b))
				return err
			}
			question := []string{"download", write(t, filepath.Join(t.TempDir(), "anchor.xml"), tt.anchor), "6", t.TempDir()}
			if tt.good {
				j.must(question...)
			} else { // tried by HTTPS, too, it may tell of that failure
				j.refuses("global_conf_", question...)
			}
		})
	}
}
