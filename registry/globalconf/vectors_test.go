// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"math/bits"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/pki/asic"
	"kontor/registry/globalconf"
)

// A View is what the verifier of evidence trusts.
var _ asic.Trust = (*globalconf.View)(nil)

const vectors = "../../../shared/vectors"

// vector reads a real X-Road file.
func vector(t testing.TB, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{vectors}, elem...)...))
	if err != nil {
		t.Skip("the X-Road test vectors are not at hand: ", err)
	}
	return b
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// centralServer is what the vectors of one version are verified with.
type centralServer struct {
	version            string
	folder             string
	internal, external []*x509.Certificate
}

func centralServers(t testing.TB) []centralServer {
	var all []centralServer
	for _, version := range []string{"V3", "V4", "V5", "V6"} {
		folders, _ := filepath.Glob(filepath.Join(vectors, "globalconf/central-server", version, "*", globalconf.FileSharedParams))
		if len(folders) != 1 {
			t.Skip("the X-Road test vectors are not at hand")
		}
		p := must(globalconf.ParseSharedParams(must(os.ReadFile(folders[0]))(t), int(version[1]-'0')))(t)
		s := centralServer{version: version, folder: filepath.Dir(folders[0])}
		for _, source := range p.Sources {
			for _, der := range source.InternalCerts {
				s.internal = append(s.internal, must(x509.ParseCertificate(der))(t))
			}
			for _, der := range source.ExternalCerts {
				s.external = append(s.external, must(x509.ParseCertificate(der))(t))
			}
		}
		if version == "V6" {
			a := must(globalconf.ParseAnchor(vector(t, "globalconf/anchor-internal.xml")))(t)
			s.internal = append(s.internal, a.Certificates()...)
		}
		all = append(all, s)
	}
	return all
}

func TestVectorDirectories(t *testing.T) {
	for _, cs := range centralServers(t) {
		for _, name := range []string{"internalconf", "externalconf"} {
			certs := cs.internal
			if name == "externalconf" {
				certs = cs.external
			}
			doc := vector(t, "globalconf/central-server", cs.version, name)
			d, err := globalconf.ParseDirectory(doc, certs)
			if err != nil {
				t.Errorf("%s/%s: %v", cs.version, name, err)
				continue
			}
			if d.Version != int(cs.version[1]-'0') {
				t.Errorf("%s/%s: version %d", cs.version, name, d.Version)
			}
			if at, ok := d.Generation(); !ok || at.Format("20060102150405") != filepath.Base(cs.folder)[:14] {
				t.Errorf("%s/%s: generation %v, %v", cs.version, name, at, ok)
			}
			for _, p := range d.Parts {
				err := p.Matches(must(os.ReadFile(filepath.Join(cs.folder, filepath.Base(p.Location))))(t))
				// Upstream edited this file after it had been signed.
				edited := cs.version == "V6" && name == "externalconf" && p.Identifier == globalconf.ContentSharedParams
				if edited != errors.Is(err, globalconf.ErrHash) || !edited && err != nil {
					t.Errorf("%s/%s: %s: %v", cs.version, name, p.Location, err)
				}
			}
			if _, err := globalconf.ParseDirectory(doc, nil); !errors.Is(err, globalconf.ErrSignature) {
				t.Errorf("%s/%s without certificates: %v", cs.version, name, err)
			}
			// The same with LF for CR LF is another document: its bytes are not
			// the signed ones.
			lf := bytes.ReplaceAll(doc, []byte("\r\n"), []byte("\n"))
			if _, err := globalconf.ParseDirectory(lf, certs); !errors.Is(err, globalconf.ErrSignature) {
				t.Errorf("%s/%s with LF: %v", cs.version, name, err)
			}
		}
	}
}

// TestVectorParameters parses every vector at its own version and re-writes it.
func TestVectorParameters(t *testing.T) {
	for _, cs := range centralServers(t) {
		v := int(cs.version[1] - '0')
		raw := must(os.ReadFile(filepath.Join(cs.folder, globalconf.FileSharedParams)))(t)
		p := must(globalconf.ParseSharedParams(raw, v))(t)
		if cs.version == "V3" {
			// An edited file: two servers share a certificate, which is read
			// but not written.
			if _, err := p.Marshal(v); !errors.Is(err, globalconf.ErrMalformed) {
				t.Errorf("a shared certificate is written: %v", err)
			}
			p.Servers[1].AuthCerts = nil
		}
		again := must(p.Marshal(v))(t)
		checkStructure(t, again, v)
		if b := must(must(globalconf.ParseSharedParams(again, v))(t).Marshal(v))(t); !bytes.Equal(b, again) {
			t.Errorf("%s: writing what was read changes it", cs.version)
		}
		private := must(os.ReadFile(filepath.Join(cs.folder, globalconf.FilePrivateParams)))(t)
		if p := must(globalconf.ParsePrivateParams(private, v))(t); p.ManagementProvider.String() == "" || p.TimestampInterval != time.Minute {
			t.Errorf("%s: private parameters %+v", cs.version, p)
		}
	}
}

func TestVectorTooNewForOldSchema(t *testing.T) {
	servers := centralServers(t)
	raw := must(os.ReadFile(filepath.Join(servers[3].folder, globalconf.FileSharedParams)))(t)
	for v := 2; v <= 5; v++ {
		if _, err := globalconf.ParseSharedParams(raw, v); !errors.Is(err, globalconf.ErrMalformed) {
			t.Errorf("version 6 read as %d: %v", v, err)
		}
	}
	raw = must(os.ReadFile(filepath.Join(servers[0].folder, globalconf.FileSharedParams)))(t)
	for v := 3; v <= 6; v++ {
		if _, err := globalconf.ParseSharedParams(raw, v); err != nil {
			t.Errorf("version 3 read as %d: %v", v, err)
		}
	}
}

func TestVectorFolder(t *testing.T) {
	vector(t, "asic/globalconf/instance-identifier")
	v := must(globalconf.LoadDir(filepath.Join(vectors, "asic/globalconf")))(t)
	if v.Instance() != "DEV" || v.Version() != 3 || !v.Expires().IsZero() || v.Valid(time.Now()) != nil || len(v.Problems()) > 0 {
		t.Errorf("%s, version %d, expires %v, %v", v.Instance(), v.Version(), v.Expires(), v.Problems())
	}
	if len(v.AllAuthorities()) != 1 || v.AllAuthorities()[0].Profile == nil || len(v.TSACertificates()) != 1 {
		t.Errorf("authorities %v, TSAs %d", v.AllAuthorities(), len(v.TSACertificates()))
	}
	ca := v.AllAuthorities()[0]
	if got := v.Authorities(ca.Cert.RawSubject); len(got) != 1 || got[0] != ca {
		t.Error("the authority is not found by its subject")
	}
	if r := v.OCSPResponders(ca.Instance, ca.Cert); len(r.Authorised) != 1 || len(ca.Responders) != 1 {
		t.Errorf("responders %+v", r)
	}
	p := v.Providers(client(t, "DEV/COM/4321/TestClient"))
	if len(p) != 1 || p[0].Address != "ss1" || p[0].ID.String() != "DEV/COM/4321/SS1" {
		t.Errorf("providers %v", p)
	}
	if s, ok := v.ServerByCert(p[0].AuthCerts[0]); !ok || s != p[0] {
		t.Error("the server is not found by its certificate")
	}
}

func TestVectorAnchor(t *testing.T) {
	raw := vector(t, "globalconf/anchor-internal.xml")
	a := must(globalconf.ParseAnchor(raw))(t)
	if a.Instance != "DEV" || len(a.Sources) != 2 || a.Sources[0].URL != "http://cs/internalconf" || len(a.Certificates()) != 1 || a.Generated.IsZero() {
		t.Errorf("%+v", a)
	}
	again := must(globalconf.ParseAnchor(must(a.Marshal())(t)))(t)
	if !again.Generated.Equal(a.Generated) || !slices.EqualFunc(again.Sources, a.Sources, func(x, y globalconf.AnchorSource) bool {
		return x.URL == y.URL && slices.EqualFunc(x.Certs, y.Certs, bytes.Equal)
	}) {
		t.Errorf("%+v", again)
	}
	if f := globalconf.Fingerprint(raw); len(f) != 56 || f != strings.ToUpper(f) {
		t.Error(f)
	}
}

// TestEveryByteCounts changes each byte of real directories. Every change must
// be refused, except for these, which mean nothing and lie outside of the signed
// bytes: the case of a letter in a header name, in a media type, in a parameter
// name, or in the charset's name.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	free := [][]byte{[]byte("Content-Type: multipart/related; charset=UTF-8; boundary="), []byte("Content-Type: multipart/mixed; charset=UTF-8; boundary="),
		[]byte("Content-Type:"), []byte("Content-Transfer-Encoding:"), []byte("Signature-Algorithm-Id:"),
		[]byte("Verification-certificate-hash:"), []byte("; hash-algorithm-id=")}
	for _, cs := range centralServers(t) {
		doc := vector(t, "globalconf/central-server", cs.version, "internalconf")
		d := must(globalconf.ParseDirectory(doc, cs.internal))(t)
		start := bytes.Index(doc, []byte("Expire-date"))
		end := bytes.LastIndex(doc, []byte("Content-Type"))
		value := bytes.LastIndex(doc, []byte("\r\n\r\n"))
		mayFold := make([]bool, len(doc))
		for _, phrase := range free {
			for at := 0; ; {
				i := bytes.Index(doc[at:], phrase)
				if i < 0 {
					break
				}
				for j := range phrase {
					mayFold[at+i+j] = at+i < start || at+i >= end
				}
				at += i + len(phrase)
			}
		}
		for i := range doc {
			original := doc[i]
			// All values outside of what is signed; elsewhere one bit after the
			// other will do, and one bit in the other versions.
			exhaustive := cs.version == "V6" && (i < start || i >= end && i < value)
			for x := 1; x < 256; x++ {
				if !exhaustive && (bits.OnesCount8(uint8(x)) > 1 || cs.version != "V6" && x != 1<<(i%8)) {
					continue
				}
				doc[i] = original ^ byte(x)
				got, err := globalconf.ParseDirectory(doc, cs.internal)
				if err == nil && !(mayFold[i] && doc[i]^original == 0x20 && isLetter(original)) {
					t.Errorf("%s: byte %d %q may become %q: %+v", cs.version, i, original, doc[i], got)
				}
				if err == nil && (!got.Expires.Equal(d.Expires) || len(got.Parts) != len(d.Parts) || !bytes.Equal(got.Parts[0].Hash, d.Parts[0].Hash)) {
					t.Errorf("%s: byte %d changes the meaning", cs.version, i)
				}
			}
			doc[i] = original
		}
		for i := range doc {
			// The line end after the closing boundary may be missing.
			if _, err := globalconf.ParseDirectory(doc[:i], cs.internal); err == nil && i != len(doc)-2 {
				t.Errorf("%s: cut to %d of %d bytes", cs.version, i, len(doc))
			}
		}
		if _, err := globalconf.ParseDirectory(append(slices.Clone(doc), '\n'), cs.internal); err == nil {
			t.Errorf("%s: trailing data", cs.version)
		}
	}
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// TestVectorViews serves the vectors as the central server did.
func TestVectorViews(t *testing.T) {
	t.Parallel()
	for _, cs := range centralServers(t) {
		for _, name := range []string{"internalconf", "externalconf"} {
			certs := cs.internal
			if name == "externalconf" {
				certs = cs.external
			}
			d := must(globalconf.ParseDirectory(vector(t, "globalconf/central-server", cs.version, name), certs))(t)
			a := globalconf.Anchor{Generated: start, Instance: d.Parts[0].Instance, Sources: []globalconf.AnchorSource{{URL: "http://cs/" + name + "?version=" + cs.version[1:]}}}
			for _, c := range certs {
				a.Sources[0].Certs = append(a.Sources[0].Certs, c.Raw)
			}
			cfg := globalconf.ClientConfig{Anchor: must(a.Marshal())(t), External: name == "externalconf", Dir: t.TempDir(), Now: func() time.Time { return start },
				HTTP: &http.Client{Transport: vectorServer(cs.version)}}
			c := newClient(t, cfg)
			err := c.Update(t.Context())
			if cs.version == "V6" && name == "externalconf" {
				if !errors.Is(err, globalconf.ErrHash) || c.View() != nil || len(snapshot(t, cfg.Dir)) > 0 {
					t.Errorf("%s/%s: %v", cs.version, name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s/%s: %v", cs.version, name, err)
				continue
			}
			v := c.View()
			shared := 0
			for _, p := range v.Problems() {
				if strings.Contains(p.Error(), "several security servers claim it") {
					shared++
				}
			}
			if want := map[bool]int{true: 1}[cs.version == "V3"]; shared != want || len(v.Problems()) != want || len(v.AllAuthorities()) == 0 {
				t.Errorf("%s/%s: %d authorities, problems %v", cs.version, name, len(v.AllAuthorities()), v.Problems())
			}
			n := 0
			for c := range v.Clients(v.Instance()) {
				if !v.Known(c) {
					t.Errorf("%s is not known", c)
				}
				n++
			}
			if n == 0 {
				t.Errorf("%s/%s: no clients", cs.version, name)
			}
			if w := must(globalconf.LoadSignedDir(cfg.Dir, cfg.Anchor))(t); w.Generation() != v.Generation() {
				t.Errorf("%s/%s: the folder holds something else", cs.version, name)
			}
		}
	}
}

// vectorServer serves the files of one version over http.
type vectorServer string

func (v vectorServer) RoundTrip(r *http.Request) (*http.Response, error) {
	path := filepath.Join(vectors, "globalconf/central-server", r.URL.Path)
	if !strings.HasPrefix(r.URL.Path, "/V") {
		path = filepath.Join(vectors, "globalconf/central-server", string(v), r.URL.Path)
	}
	b, err := os.ReadFile(path)
	if err != nil || r.URL.Scheme != "http" {
		return nil, errors.New("not here")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(b)), Request: r}, nil
}

func vectorShared(version string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(vectors, "globalconf/central-server", version, "*", globalconf.FileSharedParams))
	if err != nil || len(files) == 0 {
		return nil, errors.New("no vectors")
	}
	return os.ReadFile(files[0])
}
