// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kontor/pki/asic"
	"kontor/pki/xades"
)

// exampleContainers builds one container of each shape.
func exampleContainers(w *world) map[string]*asic.Container {
	cred := w.credentials(w.memberOf(client(w.t, "DEV/COM/4321/TestClient")))
	head := restRequest("DEV/COM/4321/TestClient", "DEV/COM/1234/TestService/svc")
	body := bytes.Repeat([]byte("body "), 100)
	return map[string]*asic.Container{
		"plain, stamped alone":        w.container(cred, false, head),
		"plain, batch stamp":          w.container(cred, true, head),
		"body, batch stamp":           w.container(cred, true, head, body),
		"two attachments, batch":      w.container(cred, true, head, body, []byte("more")),
		"body, stamped alone":         w.container(cred, false, head, body),
		"batch signature and stamp":   w.batchContainer(cred, true, head, body),
		"batch signature, lone stamp": w.batchContainer(cred, false, head),
	}
}

// batchContainer is container for the second of three messages under one
// signature.
func (w *world) batchContainer(c *xades.Credentials, batch bool, parts ...[]byte) *asic.Container {
	w.t.Helper()
	k := w.container(c, batch, parts...)
	e := w.sign(c, [][]byte{[]byte("first")}, parts, [][]byte{[]byte("third")})[1]
	k.SigChainResult, k.SigChain, k.Signatures = e.ChainResult, e.Chain, e.Signature
	w.restamp(k, batch)
	return k
}

func TestContainerRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range exampleContainers(w) {
		data := archive(t, c)
		back, err := asic.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range []struct{ a, b []byte }{{c.Message, back.Message}, {c.Signatures, back.Signatures},
			{c.SigChainResult, back.SigChainResult}, {c.SigChain, back.SigChain}, {c.TSChainResult, back.TSChainResult},
			{c.TSChain, back.TSChain}, {c.Timestamp, back.Timestamp}} {
			if !bytes.Equal(p.a, p.b) || (p.a == nil) != (p.b == nil) {
				t.Errorf("%s: %.50q came back as %.50q", name, p.a, p.b)
			}
		}
		if len(back.Attachments) != len(c.Attachments) {
			t.Fatalf("%s: %d attachments came back as %d", name, len(c.Attachments), len(back.Attachments))
		}
		for i := range c.Attachments {
			if a, b := readAll(t, c.Attachments[i]), readAll(t, back.Attachments[i]); !bytes.Equal(a, b) || back.Attachments[i].Size != int64(len(a)) {
				t.Errorf("%s: attachment %d", name, i+1)
			}
		}
		for what, r := range map[string]*asic.Report{
			"file":    verify(t, data, w.trust),
			"memory":  asic.VerifyContainer(c, w.trust, asic.Options{}),
			"read":    asic.VerifyContainer(back, w.trust, asic.Options{}),
			"rewrite": verify(t, archive(t, back), w.trust),
		} {
			if !r.Valid {
				t.Errorf("%s, %s: %+v", name, what, r.Failed())
			}
		}
	}
}

func readAll(t *testing.T, a asic.Attachment) []byte {
	t.Helper()
	r, err := a.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestContainerBytes checks what auditors' tools see: names, order, methods,
// comment and the generated entries.
func TestContainerBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := exampleContainers(w)["body, batch stamp"]
	data := archive(t, c)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		if f.Method != zip.Deflate || !f.Modified.Equal(w.now) || f.Flags != 0x808 {
			t.Errorf("%s: method %d, date %v, flags %#x", f.Name, f.Method, f.Modified, f.Flags)
		}
	}
	want := []string{"mimetype", "message.xml", "META-INF/signatures.xml", "sig-hashchainresult.xml", "sig-hashchain.xml",
		"ts-hashchainresult.xml", "ts-hashchain.xml", "META-INF/manifest.xml", "META-INF/ASiCManifest.xml",
		"META-INF/timestamp.tst", "attachment1"}
	if !slices.Equal(names, want) {
		t.Errorf("entries %q", names)
	}
	if z.Comment != "mimetype=application/vnd.etsi.asic-e+zip" {
		t.Errorf("comment %q", z.Comment)
	}
	entries := readZip(t, data)
	if s := string(entry(entries, "mimetype")); s != "application/vnd.etsi.asic-e+zip" {
		t.Errorf("mimetype %q", s)
	}
	wantManifest := `<?xml version="1.0" encoding="UTF-8"?>
<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" manifest:version="1.2">
    <manifest:file-entry manifest:media-type="application/vnd.etsi.asic-e+zip" manifest:full-path="/"/>
    <manifest:file-entry manifest:media-type="text/xml" manifest:full-path="message.xml"/>
    <manifest:file-entry manifest:media-type="text/xml" manifest:full-path="sig-hashchainresult.xml"/>
    <manifest:file-entry manifest:media-type="text/xml" manifest:full-path="sig-hashchain.xml"/>
    <manifest:file-entry manifest:media-type="text/xml" manifest:full-path="ts-hashchainresult.xml"/>
    <manifest:file-entry manifest:media-type="text/xml" manifest:full-path="ts-hashchain.xml"/>
    <manifest:file-entry manifest:media-type="application/octet-stream" manifest:full-path="attachment1"/>
</manifest:manifest>
`
	if s := string(entry(entries, "META-INF/manifest.xml")); s != wantManifest {
		t.Errorf("manifest\n%s", s)
	}
}

func TestIncompleteContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, breakIt := range map[string]func(*asic.Container){
		"no message":     func(c *asic.Container) { c.Message = nil },
		"no signature":   func(c *asic.Container) { c.Signatures = nil },
		"no chain":       func(c *asic.Container) { c.SigChain = nil },
		"no result":      func(c *asic.Container) { c.SigChainResult = nil },
		"no token":       func(c *asic.Container) { c.Timestamp = nil },
		"no stamp chain": func(c *asic.Container) { c.TSChain = nil },
		"no attachment":  func(c *asic.Container) { c.Attachments = []asic.Attachment{{}} },
	} {
		c := exampleContainers(w)["body, batch stamp"]
		breakIt(c)
		if _, err := c.WriteTo(io.Discard); !errors.Is(err, asic.ErrContainer) {
			t.Errorf("%s: %v", name, err)
		}
		if r := asic.VerifyContainer(c, w.trust, asic.Options{}); r.Valid || !failed(r, asic.CheckContainer) {
			t.Errorf("%s: %+v", name, r.Failed())
		}
	}
}

func failed(r *asic.Report, name string) bool {
	return slices.ContainsFunc(r.Failed(), func(c asic.Check) bool { return c.Name == name })
}

type zipEntry struct {
	name string
	data []byte
}

func readZip(t testing.TB, data []byte) []zipEntry {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var entries []zipEntry
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, zipEntry{f.Name, b})
	}
	return entries
}

func entry(entries []zipEntry, name string) []byte {
	for _, e := range entries {
		if e.name == name {
			return e.data
		}
	}
	return nil
}

// writeZip stores entries uncompressed, so that tests can write many.
func writeZip(t testing.TB, entries []zipEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		w, err := z.CreateRaw(&zip.FileHeader{Name: e.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(e.data),
			CompressedSize64: uint64(len(e.data)), UncompressedSize64: uint64(len(e.data))})
		if err == nil {
			_, err = w.Write(e.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestEveryByteCounts changes bytes of every entry of containers of all
// shapes: each change must be found.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stride := 67
	if everyByte() {
		stride = 1
	}
	for shape, c := range exampleContainers(w) {
		entries := readZip(t, archive(t, c))
		if r := verify(t, writeZip(t, entries), w.trust); !r.Valid {
			t.Fatalf("%s: %+v", shape, r.Failed())
		}
		for i, e := range entries {
			good := e.data
			for at := (i * 7) % stride; at < len(good); at += stride {
				for _, to := range []byte{good[at] ^ 1, good[at] ^ 0x20, good[at] ^ 0x80, ' ', '\n', '\t', 'A', '/', '0'} {
					if to == good[at] || stride > 1 && (at+int(to))%3 != 0 {
						continue
					}
					bad := bytes.Clone(good)
					bad[at] = to
					entries[i].data = bad
					r := verify(t, writeZip(t, entries), w.trust)
					if r.Valid {
						t.Errorf("%s: byte %d of %s may be %q for %q: …%q", shape, at, e.name, to, good[at], around(good, at))
					} else if !names(r, e.name) {
						t.Errorf("%s: byte %d of %s: findings %v do not name it", shape, at, e.name, r.Failed())
					}
				}
			}
			entries[i].data = good
		}
	}
}

func around(b []byte, at int) []byte { return b[max(0, at-40):min(len(b), at+20)] }

// names reports whether the findings lead to the changed entry.
func names(r *asic.Report, entry string) bool {
	fits := map[string][]string{
		"mimetype":                  {asic.CheckMimetype},
		"META-INF/manifest.xml":     {asic.CheckManifest},
		"META-INF/ASiCManifest.xml": {asic.CheckASiCManifest},
		"META-INF/signatures.xml":   {asic.CheckSignature, asic.CheckTSChain},
		"META-INF/timestamp.tst":    {asic.CheckTSA, asic.CheckTSImprint},
		"message.xml":               {asic.CheckDigest + entry},
		"sig-hashchainresult.xml":   {asic.CheckDigest + entry},
		"sig-hashchain.xml":         {asic.CheckHashChain},
		"ts-hashchainresult.xml":    {asic.CheckTSImprint},
		"ts-hashchain.xml":          {asic.CheckTSChain},
		"attachment1":               {asic.CheckDigest + entry},
		"attachment2":               {asic.CheckDigest + entry},
	}
	for _, name := range fits[entry] {
		if failed(r, name) {
			return true
		}
	}
	// Where a document holds several things, the finding may be about
	// one of them.
	return entry == "META-INF/signatures.xml" && len(r.Failed()) > 0
}

// TestEveryArchiveByte changes bytes of the archive itself: what goes
// unnoticed, such as dates, changes no entry.
func TestEveryArchiveByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := archive(t, exampleContainers(w)["body, batch stamp"])
	good := readZip(t, data)
	stride := 13
	if everyByte() {
		stride = 1
	}
	for at := 0; at < len(data); at += stride {
		for _, x := range []byte{1, 0x80} {
			bad := bytes.Clone(data)
			bad[at] ^= x
			if r := verify(t, bad, w.trust); r.Valid && !slices.EqualFunc(good, readZip(t, bad), func(a, b zipEntry) bool {
				return a.name == b.name && bytes.Equal(a.data, b.data)
			}) {
				t.Errorf("byte %d may change: %+v", at, r)
			}
		}
	}
}

// everyByte asks for the slow, complete form of the byte tests.
func everyByte() bool { return os.Getenv("KONTOR_TEST_EVERY_BYTE") != "" }

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := readZip(t, archive(t, exampleContainers(w)["body, batch stamp"]))
	plus := func(e ...zipEntry) []byte { return writeZip(t, append(slices.Clone(good), e...)) }
	without := func(name string) []byte {
		return writeZip(t, slices.DeleteFunc(slices.Clone(good), func(e zipEntry) bool { return e.name == name }))
	}
	bomb := func() []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, err := z.Create("META-INF/signatures.xml")
		if err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, 1<<20)
		for range 64 {
			if _, err := f.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	many := make([]zipEntry, 3000)
	for i := range many {
		many[i].name = fmt.Sprintf("attachment%d", i+1)
	}
	plain := writeZip(t, good)
	for name, data := range map[string][]byte{
		"empty file":           {},
		"not an archive":       []byte("<x/>"),
		"empty archive":        writeZip(t, nil),
		"entry twice":          plus(zipEntry{"message.xml", []byte("other")}),
		"unknown entry":        plus(zipEntry{"readme.txt", nil}),
		"second signature":     plus(zipEntry{"META-INF/signatures1.xml", nil}),
		"path":                 plus(zipEntry{"../message.xml", nil}),
		"absolute path":        plus(zipEntry{"/message.xml", nil}),
		"backslash":            plus(zipEntry{`META-INF\signatures.xml`, nil}),
		"other case":           plus(zipEntry{"Message.xml", nil}),
		"attachment 0":         plus(zipEntry{"attachment0", nil}),
		"attachment 01":        plus(zipEntry{"attachment01", nil}),
		"gap":                  plus(zipEntry{"attachment3", nil}),
		"far gap":              plus(zipEntry{"attachment999999", nil}),
		"other directory":      plus(zipEntry{"dir/", nil}),
		"too many":             plus(many...),
		"bomb":                 bomb(),
		"bytes before":         append([]byte("#!/bin/sh\n"), plain...),
		"bytes after":          append(slices.Clone(plain), "tail"...),
		"cut off":              plain[:len(plain)-1],
		"no message":           without("message.xml"),
		"no signature":         without("META-INF/signatures.xml"),
		"no chain":             without("sig-hashchain.xml"),
		"no chain result":      without("sig-hashchainresult.xml"),
		"no stamp chain":       without("ts-hashchain.xml"),
		"no token":             without("META-INF/timestamp.tst"),
		"two archives":         append(slices.Clone(plain), plain...),
		"name differs locally": bytes.Replace(plain, []byte("message.xml"), []byte("massage.xml"), 1),
		"hidden entry":         hidden(t, good),
		"comment":              append(plain[:len(plain)-2:len(plain)-2], "\x04\x00tail"...),
	} {
		if _, err := asic.Open(bytes.NewReader(data), int64(len(data))); !errors.Is(err, asic.ErrContainer) {
			t.Errorf("%s: %v", name, err)
		}
		if r := verify(t, data, w.trust); r.Valid || !failed(r, asic.CheckContainer) {
			t.Errorf("%s: %+v", name, r.Checks)
		}
	}
	for name, check := range map[string]string{
		"mimetype":                  asic.CheckMimetype,
		"META-INF/manifest.xml":     asic.CheckManifest,
		"META-INF/ASiCManifest.xml": asic.CheckASiCManifest,
	} {
		if r := verify(t, without(name), w.trust); r.Valid || !failed(r, check) {
			t.Errorf("without %s: %+v", name, r.Failed())
		}
	}
	// The order is free, directories may be listed.
	slices.Reverse(good)
	if r := verify(t, plus(zipEntry{"META-INF/", nil}), w.trust); !r.Valid {
		t.Errorf("another order: %+v", r.Failed())
	}
}

// hidden puts an entry between the others that the directory does not list.
func hidden(t *testing.T, good []zipEntry) []byte {
	t.Helper()
	extra := writeZip(t, []zipEntry{{"message.xml", []byte("forged")}})
	extra = extra[:bytes.Index(extra, []byte("PK\x01\x02"))]
	b := writeZip(t, good)
	dir := bytes.Index(b, []byte("PK\x01\x02"))
	out := slices.Concat(b[:dir], extra, b[dir:])
	end := len(out) - 22
	offset := uint32(dir + len(extra))
	out[end+16], out[end+17], out[end+18], out[end+19] = byte(offset), byte(offset>>8), byte(offset>>16), byte(offset>>24)
	return out
}

// TestUncoveredAttachment adds an attachment the signature knows nothing of.
func TestUncoveredAttachment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range exampleContainers(w) {
		check := asic.CheckReferences
		if c.SigChain != nil {
			check = asic.CheckHashChain
		}
		c.Attachments = append(c.Attachments, attachment([]byte("smuggled")))
		if r := verify(t, archive(t, c), w.trust); r.Valid || !failed(r, check) {
			t.Errorf("%s: %+v", name, r.Failed())
		}
	}
}

// TestMissingAttachment: a signed attachment that was not logged is reported,
// as X-Road's own verifier does.
func TestMissingAttachment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := exampleContainers(w)["body, batch stamp"]
	c.Attachments = nil
	r := verify(t, archive(t, c), w.trust)
	if !r.Valid || len(r.Unverified) != 1 || r.Unverified[0].Part != "attachment1" || len(r.Unverified[0].Digest) != 128 {
		t.Errorf("%+v, %+v", r.Unverified, r.Failed())
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil || !strings.Contains(b.String(), "! attachment1") ||
		!strings.HasSuffix(b.String(), "\nVALID, except for parts that are not in the container: attachment1\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestWrongSender(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cred := w.credentials(w.memberOf(client(t, "DEV/COM/4321/TestClient")))
	service := "DEV/COM/1234/TestService/svc"
	response := []byte("200\r\nOK\r\nx-road-id:1\r\nx-road-client:DEV/COM/4321/TestClient\r\nx-road-service:" + service + "\r\nx-road-request-id:2\r\n")
	for name, tt := range map[string]struct {
		message []byte
		check   string
	}{
		"response signed by the client": {response, asic.CheckCertificate},
		"another client":                {restRequest("DEV/COM/4322/TestClient", service), asic.CheckCertificate},
		"another instance":              {restRequest("EST/COM/4321/TestClient", service), asic.CheckChain},
		"no client":                     {restRequest("", service), asic.CheckSender},
		"garbage":                       {[]byte("hello"), asic.CheckSender},
	} {
		r := verify(t, archive(t, w.container(cred, true, tt.message)), w.trust)
		if r.Valid || !failed(r, tt.check) {
			t.Errorf("%s: %+v", name, r.Failed())
		}
	}
}

func TestNoTimestamp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := exampleContainers(w)["plain, batch stamp"]
	c.TSChain, c.TSChainResult, c.Timestamp = nil, nil, nil
	r := verify(t, archive(t, c), w.trust)
	if r.Valid || !failed(r, asic.CheckTSImprint) || len(r.Failed()) != 1 || !r.Stamped.IsZero() {
		t.Errorf("%+v", r.Failed())
	}
	// A stamp by an authority nobody approved.
	c = exampleContainers(w)["plain, batch stamp"]
	w.trust.tsas = nil
	if r := verify(t, archive(t, c), w.trust); r.Valid || !failed(r, asic.CheckTSA) {
		t.Errorf("%+v", r.Failed())
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := verify(t, archive(t, exampleContainers(w)["body, batch stamp"]), w.trust)
	if r.Protocol != "REST" || r.Direction != "request" || r.Sender.String() != "DEV/COM/4321/TestClient" ||
		r.Service != "DEV/COM/1234/TestService/svc" || r.MessageID != "DEV-d75ea6fd" ||
		r.RequestID != "78b890f3-b1eb-45b2-a512-beec5d7ead23" || !r.Stamped.Equal(w.now) || r.Member.String() != "DEV/COM/4321" {
		t.Errorf("%+v", r)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DEV/COM/4321/TestClient", "✓ digest of attachment1", "2026-03-04T05:06:07Z", "\nVALID\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	var j bytes.Buffer
	if err := asic.NewResults("here", []*asic.Report{r}).PrintJSON(&j); err != nil {
		t.Fatal(err)
	}
	var back asic.Results
	if err := json.Unmarshal(j.Bytes(), &back); err != nil || !back.Valid || back.Reports[0].Sender != r.Sender ||
		len(back.Reports[0].Checks) != len(r.Checks) {
		t.Errorf("%v\n%s", err, j.Bytes())
	}
	r = &asic.Report{MessageID: "\x1b[2J\r\nVALID", Checks: []asic.Check{{Name: "sender", Err: "no\nVALID"}}}
	b.Reset()
	if err := r.Print(&b); err != nil || strings.ContainsAny(b.String(), "\x1b\r") || strings.Contains(b.String(), "\nVALID") {
		t.Errorf("a message takes over the terminal: %q", b.String())
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	containers := exampleContainers(w)
	tool := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed")
		}
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	unpack := func(t *testing.T, c *asic.Container) string {
		t.Helper()
		dir := t.TempDir()
		file := filepath.Join(dir, "c.asice")
		if err := os.WriteFile(file, archive(t, c), 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "unzip", "-t", file)
		tool(t, "unzip", "-q", file, "-d", dir)
		return dir
	}
	pem := func(t *testing.T, name string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pemOf(w.ca.cert), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Run("xmlsec1", func(t *testing.T) {
		for _, name := range []string{"plain, batch stamp", "body, batch stamp", "plain, stamped alone"} {
			dir := unpack(t, containers[name])
			tool(t, "xmlsec1", "--verify", "--trusted-pem", pem(t, "ca.pem"), "--verification-time", "2026-03-04 05:06:07",
				"--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties",
				"--url-map:/message.xml", filepath.Join(dir, "message.xml"),
				"--url-map:/sig-hashchainresult.xml", filepath.Join(dir, "sig-hashchainresult.xml"),
				filepath.Join(dir, "META-INF", "signatures.xml"))
		}
	})
	t.Run("openssl ts", func(t *testing.T) {
		dir := unpack(t, containers["body, batch stamp"])
		out := tool(t, "openssl", "ts", "-verify", "-token_in", "-in", filepath.Join(dir, "META-INF", "timestamp.tst"),
			"-data", filepath.Join(dir, "ts-hashchainresult.xml"), "-CAfile", pem(t, "ca.pem"), "-attime", fmt.Sprint(w.now.Unix()))
		if !strings.Contains(out, "Verification: OK") {
			t.Error(out)
		}
	})
}

func FuzzOpenContainer(f *testing.F) {
	w := newWorld(f)
	for _, c := range exampleContainers(w) {
		f.Add(archive(f, c))
		f.Add(writeZip(f, readZip(f, archive(f, c))))
	}
	good := make(map[string]bool)
	for _, c := range exampleContainers(w) {
		good[string(c.Message)] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := asic.Open(bytes.NewReader(data), int64(len(data)))
		r := verify(t, data, w.trust)
		if r.Valid && (err != nil || !good[string(c.Message)]) {
			t.Errorf("valid: %v", err)
		}
		if err == nil {
			var b bytes.Buffer
			if _, err := c.WriteTo(&b); err != nil {
				return // a damaged attachment shows when it is read
			}
			if _, err := asic.Open(bytes.NewReader(b.Bytes()), int64(b.Len())); err != nil {
				t.Errorf("what was opened and written cannot be opened: %v", err)
			}
		}
	})
}

// TestLargeContainer reads a container of more than 4 GiB, most of which is a
// hole in a file.
func TestLargeContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const size = 4<<30 + 5
	f, err := os.Create(filepath.Join(t.TempDir(), "large.asice"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sparse := &sparseWriter{f: f}
	z := zip.NewWriter(sparse)
	for _, e := range append([]zipEntry{{name: "attachment1"}}, readZip(t, archive(t, exampleContainers(w)["body, batch stamp"]))...) {
		h := &zip.FileHeader{Name: e.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(e.data), Flags: 0x8,
			CompressedSize64: uint64(len(e.data)), UncompressedSize64: uint64(len(e.data))}
		large := e.data == nil
		if large {
			h.CompressedSize64, h.UncompressedSize64 = size, size
		} else if e.name == "attachment1" {
			continue
		}
		out, err := z.CreateRaw(h)
		if err != nil {
			t.Fatal(err)
		}
		if large {
			if err := z.Flush(); err != nil {
				t.Fatal(err)
			}
			zeros := make([]byte, 1<<20)
			sparse.hole = zeros
			for left := int64(size); left > 0; left -= int64(len(zeros)) {
				if _, err := out.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		if _, err := out.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := asic.Open(f, sparse.at)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Attachments) != 1 || c.Attachments[0].Size != size || !bytes.HasPrefix(c.Message, []byte("POST")) {
		t.Errorf("%d attachments, message %q", len(c.Attachments), c.Message)
	}
}

// sparseWriter leaves holes where it is given pieces of hole.
type sparseWriter struct {
	f    *os.File
	at   int64
	hole []byte
}

func (s *sparseWriter) Write(p []byte) (int, error) {
	var err error
	if len(p) < 4096 || s.hole == nil || &p[0] != &s.hole[0] {
		_, err = s.f.WriteAt(p, s.at)
	}
	s.at += int64(len(p))
	return len(p), err
}
