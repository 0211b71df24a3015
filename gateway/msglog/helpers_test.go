// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/gateway/msglog"
	"kontor/pki/asic"
	"kontor/pki/tsa"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// smallTables make flushes and compactions happen.
func smallTables(o *pebble.Options) { o.MemTableSize = 256 << 10 }

// undisturbed spares Pebble what it cannot do without a panic: to fail while a
// compaction runs, or to change the write-ahead log after it failed.
func undisturbed(o *pebble.Options) { o.DisableAutomaticCompactions = true }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func client(s string) id.Client   { return must(id.ParseClient(s)) }
func service(s string) id.Service { return must(id.ParseService(s)) }

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: epoch} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fakeTSA gives tokens that only say what they stamp, and can be down.
type fakeTSA struct {
	mu     sync.Mutex
	down   error
	asked  int
	stamps [][]byte
}

var errDown = errors.New("connection refused")

func (f *fakeTSA) Stamp(_ context.Context, data []byte) (*tsa.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.down != nil {
		return nil, f.down
	}
	h := sha512.Sum512(data)
	f.stamps = append(f.stamps, data)
	return &tsa.Token{Raw: append([]byte("token "), h[:]...), Time: epoch}, nil
}

func (f *fakeTSA) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// calls returns how often it was asked.
func (f *fakeTSA) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// signer makes real signature documents with a certificate of no authority.
type signer struct{ cred *xades.Credentials }

var testSigner = sync.OnceValue(func() *signer {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "test"},
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(time.Hour),
		KeyUsage: x509.KeyUsageContentCommitment,
	}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))))
	return &signer{&xades.Credentials{Key: key, Cert: cert, OCSP: [][]byte{[]byte("ocsp response")}}}
})

// evidence signs a head and bodies, nil for none, in the plain or chain form.
func (s *signer) evidence(head []byte, bodies ...[]byte) asic.Evidence {
	e := asic.Evidence{Message: sha512.Sum512(head)}
	ref := xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: e.Message[:]}
	for _, b := range bodies {
		if b != nil {
			e.Attachments = append(e.Attachments, sha512.Sum512(b))
		}
	}
	if e.Attachments != nil {
		result, chains, err := asic.BuildChains([][]asic.Digest{append([]asic.Digest{e.Message}, e.Attachments...)})
		if err != nil {
			panic(err)
		}
		e.ChainResult, e.Chain = result, chains[0]
		h := sha512.Sum512(result)
		ref.URI, ref.Digest = xades.URIChainResult, h[:]
	}
	e.Signature = must(xades.Sign(s.cred, ref, epoch))
	return e
}

// record makes the record of a message; a nil body means none.
func record(messageID string, bodies ...[]byte) *msglog.Record {
	head := fmt.Appendf(nil, "POST\r\n/r1/DEV/COM/222/sub/svc/path?q=1\r\nAccept:*/*\r\nx-road-id:%s\r\nX-Road-Client:DEV/GOV/111/sub\r\nx-road-request-id:r-%s\r\n", messageID, messageID)
	return &msglog.Record{
		Time: epoch, Side: msglog.Client, MessageID: messageID, RequestID: "r-" + messageID,
		Client: client("DEV/GOV/111/sub"), Service: service("DEV/COM/222/sub/svc"),
		ServiceServer: must(id.ParseSecurityServer("DEV/COM/222/ss1")),
		Head:          head, Evidence: testSigner().evidence(head, bodies...),
	}
}

// memBody is a body in memory, or in a file of a test's file system.
type memBody struct {
	data []byte
	path string
}

func (b *memBody) Size() int64               { return int64(len(b.data)) }
func (b *memBody) Digest() [sha512.Size]byte { return sha512.Sum512(b.data) }
func (b *memBody) Path() string              { return b.path }
func (b *memBody) Bytes() ([]byte, bool) {
	if b.path != "" {
		return nil, false
	}
	return b.data, true
}

// spooled writes a body to a file, without flushing it.
func spooled(fs vfs.FS, path string, data []byte) (*memBody, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(append([]byte(nil), data...))
	return &memBody{data: data, path: path}, errors.Join(err, f.Close())
}

// sources gives bodies to the log as the gateway would: large ones in files of
// the spool, named after the message.
func sources(fs vfs.FS, l *msglog.Log, messageID string, bodies [][]byte) ([]msglog.BodySource, error) {
	var list []msglog.BodySource
	for i, data := range bodies {
		if len(data) <= 1000 {
			list = append(list, &memBody{data: data})
			continue
		}
		b, err := spooled(fs, fs.PathJoin(l.SpoolDir(), fmt.Sprintf("%s-%d", messageID, i)), data)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func config(c *clock, f *fakeTSA) msglog.Config {
	return msglog.Config{Dir: "log", Stamp: f.Stamp, Now: c.Now}
}

func openMem(t testing.TB, cfg msglog.Config, fs vfs.FS) *msglog.Log {
	t.Helper()
	l, err := msglog.OpenFS(cfg, fs, smallTables)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *msglog.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func checkLog(t testing.TB, l *msglog.Log) *msglog.CheckReport {
	t.Helper()
	r, err := l.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Error("check:", p)
	}
	return r
}

func appendRecord(t testing.TB, l *msglog.Log, r *msglog.Record, bodies ...msglog.BodySource) {
	t.Helper()
	if err := l.AppendSource(t.Context(), r, bodies...); err != nil {
		t.Fatal(err)
	}
}
