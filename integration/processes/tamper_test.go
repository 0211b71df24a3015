// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type entry struct {
	zip.FileHeader
	content []byte
}

func openContainer(t testing.TB, file string) (entries []entry, comment string) {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{f.FileHeader, b})
	}
	return entries, z.Comment
}

// zipAgain writes a container with correct check sums, whatever it holds.
func zipAgain(t testing.TB, file string, entries []entry, comment string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if err := z.SetComment(comment); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		w, err := z.CreateHeader(&zip.FileHeader{Name: e.Name, Method: e.Method, Modified: e.Modified})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, file, b.Bytes())
}

// blames says which words in the verdict name what is broken when an entry is.
// Whatever it says may name the entry itself.
var blames = map[string]string{
	"mimetype":                    `mimetype`,
	"message.xml":                 `digest of message|message\.xml|sender|hash chain`,
	"attachment1":                 `attachment1`,
	"META-INF/signatures.xml":     `signature|certificate|hash chain|time-stamp`,
	"sig-hashchainresult.xml":     `hash chain|sig-hashchainresult|digest`,
	"sig-hashchain.xml":           `hash chain|sig-hashchain`,
	"META-INF/timestamp.tst":      `time-stamp`,
	"ts-hashchainresult.xml":      `time-stamp`,
	"ts-hashchain.xml":            `time-stamp`,
	"META-INF/manifest.xml":       `manifest`,
	"META-INF/ASiCManifest.xml":   `manifest`,
	"META-INF/ASiCManifest-1.xml": `manifest`,
}

// auditor runs one of the two programs that judge documents.
type auditor struct {
	name    string
	command []string
}

func auditors(t testing.TB) []auditor {
	all := []auditor{{"kontor-verify", []string{binary(t, "kontor-verify")}}}
	if r := command(t, binary(t, "kontor"), "verify"); r.status == 0 {
		t.Log("kontor verify does nothing yet; only kontor-verify is tested")
		return all
	}
	return append(all, auditor{"kontor verify", []string{binary(t, "kontor"), "verify"}})
}

func (a auditor) run(t testing.TB, args ...string) result {
	t.Helper()
	return command(t, a.command[0], slices.Concat(a.command[1:], args)...)
}

// tampering changes bytes of containers, entry by entry.
func tampering(t *testing.T, n *network, containers []string) {
	judge := []string{"--anchor", n.Anchor, "--conf", n.Gateways[0].globalconf()}
	programs := auditors(t)
	for i, a := range programs {
		t.Run(a.name, func(t *testing.T) {
			auditing(t, a, n, containers, judge)
			for _, c := range containers {
				if i > 0 && c != containers[0] { // they are the same inside
					continue
				}
				entries, comment := openContainer(t, c)
				dir := t.TempDir()
				same := zipAgain(t, filepath.Join(dir, "same.asice"), entries, comment)
				if r := a.run(t, append([]string{same}, judge...)...); r.status != 0 {
					t.Fatalf("unchanged, zipped again: %s", r)
				}
				seen := map[string]bool{}
				for i, e := range entries {
					seen[e.Name] = true
					blame, ok := blames[e.Name]
					if !ok {
						t.Fatalf("%s: unknown entry %s", c, e.Name)
					}
					for _, at := range []int{0, len(e.content) / 2, len(e.content) - 1} {
						changed := slices.Clone(entries)
						changed[i].content = slices.Clone(e.content)
						changed[i].content[at] ^= 0x01
						file := zipAgain(t, filepath.Join(dir, "changed.asice"), changed, comment)
						r := a.run(t, append([]string{file}, judge...)...)
						verdict := r.out[strings.LastIndex(strings.TrimSpace(r.out), "\n")+1:]
						if r.status != 1 || !regexp.MustCompile(`INVALID.*(`+blame+`|`+regexp.QuoteMeta(e.Name)+`)`).MatchString(verdict) {
							t.Errorf("%s: byte %d of %s changed from %q: %s", filepath.Base(c), at, e.Name, e.content[at], r)
						}
					}
				}
				for _, must := range []string{"mimetype", "message.xml", "META-INF/signatures.xml", "META-INF/timestamp.tst", "META-INF/manifest.xml"} {
					if !seen[must] {
						t.Errorf("%s has no %s", c, must)
					}
				}
			}
		})
	}
}

// auditing tests what an auditor's program does besides judging.
func auditing(t *testing.T, a auditor, n *network, containers, judge []string) {
	r := a.run(t, append(slices.Clone(containers), judge...)...)
	if r.status != 0 || r.err != "" || !strings.Contains(r.out, fmt.Sprintf("VALID: %d of %d", len(containers), len(containers))) {
		t.Errorf("unchanged: %s", r)
	}
	r = a.run(t, containers[0], "--anchor", n.Anchor) // downloads the configuration
	if r.status != 0 {
		t.Errorf("with the anchor alone: %s", r)
	}
	r = a.run(t, containers[0], "--conf", n.Gateways[1].globalconf())
	if r.status != 0 {
		t.Errorf("with the configuration alone: %s", r)
	}

	// JSON, valid and not.
	broken := write(t, filepath.Join(t.TempDir(), "broken.asice"), []byte("no container at all"))
	for file, want := range map[string]int{containers[0]: 0, broken: 1} {
		r := a.run(t, append([]string{file, "--output", "json"}, judge...)...)
		var report struct {
			Valid   bool
			Reports []struct {
				Valid  bool
				File   string
				Checks []struct {
					Name, Error string
					OK          bool
				}
			}
		}
		if err := json.Unmarshal([]byte(r.out), &report); err != nil {
			t.Errorf("%v: %s", err, r)
		}
		if r.status != want || report.Valid != (want == 0) || len(report.Reports) != 1 || len(report.Reports[0].Checks) == 0 || report.Reports[0].File != file {
			t.Errorf("want status %d: %s", want, r)
		}
	}

	// Wrong usage.
	for _, args := range [][]string{{}, judge, {containers[0]}, {containers[0], "--no-such-flag"}, append([]string{containers[0], "--output", "yaml"}, judge...)} {
		if r := a.run(t, args...); r.status != 2 || r.err == "" || r.out != "" {
			t.Errorf("%q: want exit status 2, got %s", args, r)
		}
	}
	// Right usage, nothing to judge by.
	for _, args := range [][]string{
		{"no-such-file.asice", "--conf", n.Gateways[0].globalconf()},
		{containers[0], "--conf", t.TempDir()},
		{containers[0], "--anchor", containers[0], "--conf", n.Gateways[0].globalconf()},
	} {
		if r := a.run(t, args...); r.status != 1 || r.err == "" {
			t.Errorf("%q: want exit status 1, got %s", args, r)
		}
	}
	// A configuration that somebody has changed.
	forged := t.TempDir()
	if err := os.CopyFS(forged, os.DirFS(n.Gateways[0].globalconf())); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(forged, n.Instance, "shared-params.xml")
	write(t, shared, append(read(t, shared), ' '))
	if r := a.run(t, containers[0], "--anchor", n.Anchor, "--conf", forged); r.status != 1 || r.err == "" {
		t.Errorf("a forged configuration: %s", r)
	}
}

type issuedCert struct {
	Serial, Usage, Subject, Status string
}

// issued lists the certificates of the authority.
func issued(t testing.TB, n *network) []issuedCert {
	t.Helper()
	var all []issuedCert
	r := kontor(t, 0, "trust", "list", "--config", n.Trust.Config, "--output", "json")
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	return all
}

func bigInt(t testing.TB, decimal string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		t.Fatalf("%q is not a number", decimal)
	}
	return n
}
