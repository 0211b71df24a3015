// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"kontor/gateway/message"
	"kontor/gateway/msglog"
	"kontor/pki/asic"
	"kontor/registry/id"
)

func TestAppendSurvivesReopen(t *testing.T) {
	t.Parallel()
	cfg := config(newClock(), &fakeTSA{})
	cfg.Dir = t.TempDir()
	l, err := msglog.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	spool := &message.Spool{Dir: l.SpoolDir()}
	small, large := []byte(`{"name":"Rex"}`), bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	want := map[string][][]byte{"none": nil, "empty": {{}}, "small": {small}, "large": {large}, "several": {small, large, {}, large[1:]}}
	names := []string{"none", "empty", "small", "large", "several"}
	for i, name := range names {
		r := record(name, want[name]...)
		for _, data := range want[name] {
			a := spool.NewAttachment(message.Part{})
			if _, err := a.Body.Write(data); err != nil {
				t.Fatal(err)
			}
			r.Attachments = append(r.Attachments, a)
		}
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if r.Seq != uint64(i+1) {
			t.Errorf("%s: number %d", name, r.Seq)
		}
		// The gateway goes on using the bodies, then closes them.
		for _, a := range r.Attachments {
			f, err := a.Body.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Attachments.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(t.Context(), &msglog.Record{}); !errors.Is(err, msglog.ErrInvalid) {
		t.Errorf("empty record: %v", err)
	}
	for range 2 {
		checkLog(t, l)
		for i, name := range names {
			e, err := l.Get(t.Context(), uint64(i+1))
			if err != nil {
				t.Fatal(err)
			}
			proto := record(name, want[name]...)
			if e.MessageID != name || e.RequestID != proto.RequestID || !e.Time.Equal(epoch) || e.Side != msglog.Client ||
				e.Client != proto.Client || e.Service != proto.Service || e.ServiceServer != proto.ServiceServer ||
				!e.ClientServer.IsZero() || !bytes.Equal(e.Head, proto.Head) || e.Evidence.Message != proto.Evidence.Message {
				t.Errorf("%s: got %+v", name, e)
			}
			if got := readBodies(t, l, e); !slices.EqualFunc(got, want[name], bytes.Equal) {
				t.Errorf("%s: %d bodies", name, len(got))
			}
		}
		if _, err := l.Get(t.Context(), 99); !errors.Is(err, msglog.ErrNotFound) {
			t.Errorf("unknown number: %v", err)
		}
		if s := l.Stats(); s.Records != 5 || s.BodyFiles != 3 || s.BodyBytes != int64(3*len(large)-1) || s.Unstamped != 5 {
			t.Errorf("stats %+v", s)
		}
		closeLog(t, l)
		// A crash leaves a file in the spool and one without record.
		stray := filepath.Join(l.SpoolDir(), "body-x.spool")
		orphan := filepath.Join(cfg.Dir, "bodies", "000000000000", "0000000000000006-0011223344556677")
		for _, f := range []string{stray, orphan} {
			if err := os.WriteFile(f, []byte("left behind"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if l, err = msglog.Open(cfg); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{stray, orphan} {
			if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
	if _, err := msglog.Open(cfg); err == nil {
		t.Error("opened twice")
	}
	closeLog(t, l)
	if err := l.Append(t.Context(), record("late", nil)); !errors.Is(err, msglog.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestRefusesContradictions(t *testing.T) {
	t.Parallel()
	l := openMem(t, config(newClock(), &fakeTSA{}), vfs.NewMem())
	defer closeLog(t, l)
	body := &memBody{data: []byte("body")}
	for name, change := range map[string]func(r *msglog.Record) msglog.BodySource{
		"no side":       func(r *msglog.Record) msglog.BodySource { r.Side = 0; return nil },
		"no id":         func(r *msglog.Record) msglog.BodySource { r.MessageID = ""; return nil },
		"no client":     func(r *msglog.Record) msglog.BodySource { r.Client = id.Client{}; return nil },
		"no service":    func(r *msglog.Record) msglog.BodySource { r.Service = id.Service{}; return nil },
		"no signature":  func(r *msglog.Record) msglog.BodySource { r.Evidence.Signature = nil; return nil },
		"half a chain":  func(r *msglog.Record) msglog.BodySource { r.Evidence.Chain = nil; return nil },
		"other head":    func(r *msglog.Record) msglog.BodySource { r.Head = append(r.Head, 'x'); return nil },
		"other body":    func(r *msglog.Record) msglog.BodySource { return &memBody{data: []byte("other")} },
		"unsigned body": func(r *msglog.Record) msglog.BodySource { r.Evidence.Attachments = nil; return body },
		"no body":       func(r *msglog.Record) msglog.BodySource { return nil },
		"time":          func(r *msglog.Record) msglog.BodySource { r.Time = time.Unix(-1, 0); return body },
		"far time":      func(r *msglog.Record) msglog.BodySource { r.Time = time.Unix(1<<40, 0); return body },
	} {
		r := record("m", []byte("body"))
		source := change(r)
		if err := l.AppendSource(t.Context(), r, source); !errors.Is(err, msglog.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := l.Stats(); s.Records != 0 {
		t.Errorf("%d records", s.Records)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, record("m", nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	l := openMem(t, config(newClock(), &fakeTSA{}), vfs.NewMem())
	defer closeLog(t, l)
	proto := record("m", nil)
	const writers, each = 64, 20
	seqs := make([][]uint64, writers)
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				r := *proto
				r.MessageID = fmt.Sprintf("m-%d-%d", g, i)
				if err := l.Append(t.Context(), &r); err != nil {
					t.Error(err)
					return
				}
				seqs[g] = append(seqs[g], r.Seq)
				if e, err := l.Get(t.Context(), r.Seq); err != nil || e.MessageID != r.MessageID {
					t.Errorf("record %d: %v %v", r.Seq, e, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := l.StampNow(t.Context()); err != nil {
				t.Error(err)
			}
			checkLog(t, l)
		}
	})
	wg.Wait()
	var all []uint64
	for _, s := range seqs {
		if !slices.IsSorted(s) {
			t.Error("numbers of one writer do not increase")
		}
		all = append(all, s...)
	}
	slices.Sort(all)
	for i, seq := range all {
		if seq != uint64(i+1) {
			t.Fatalf("number %d at place %d", seq, i+1)
		}
	}
	if rep := checkLog(t, l); rep.Records != writers*each {
		t.Errorf("%d records", rep.Records)
	}
	if s := l.Stats(); s.Appended != writers*each || s.InFlight != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestFailedFlush fails one flush of a segment: nothing is accepted
// any more, though the disk would work again.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	var broken atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".seg") && broken.Swap(false) {
			return errors.New("input/output error")
		}
		return nil
	}))
	cfg := config(newClock(), &fakeTSA{})
	l, err := msglog.OpenFS(cfg, fs, undisturbed)
	if err != nil {
		t.Fatal(err)
	}
	appendRecord(t, l, record("before", nil), nil)
	broken.Store(true)
	err = l.Append(t.Context(), record("hit", nil))
	if !errors.Is(err, msglog.ErrFailed) || !strings.Contains(err.Error(), "input/output error") || !strings.Contains(err.Error(), "restart") {
		t.Errorf("got %v", err)
	}
	if err := l.Append(t.Context(), record("after", nil)); !errors.Is(err, msglog.ErrFailed) {
		t.Errorf("append after a failed flush: %v", err)
	}
	if err := l.StampNow(t.Context()); !errors.Is(err, msglog.ErrFailed) {
		t.Errorf("stamp after a failed flush: %v", err)
	}
	if err := l.Run(t.Context()); !errors.Is(err, msglog.ErrFailed) {
		t.Errorf("run: %v", err)
	}
	if l.Stats().Failed == nil {
		t.Error("stats hide the failure")
	}
	if _, err := l.Get(t.Context(), 1); err != nil {
		t.Errorf("reading: %v", err)
	}
	_ = l.Close()
	again := openMem(t, cfg, mem.CrashClone(vfs.CrashCloneCfg{}))
	defer closeLog(t, again)
	checkLog(t, again)
	appendRecord(t, again, record("again", nil), nil)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	c := newClock()
	cfg := config(c, &fakeTSA{})
	cfg.Reserve = 1 << 20
	l := openMem(t, cfg, fs)
	defer closeLog(t, l)
	usage := func(free uint64) {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40})
		c.Advance(time.Second)
	}
	usage(1 << 30)
	appendRecord(t, l, record("fits", nil), nil)
	usage(1<<20 + 1000)
	err := l.Append(t.Context(), record("full", nil))
	if !errors.Is(err, msglog.ErrDiskFull) || !strings.Contains(err.Error(), "reserve") {
		t.Errorf("got %v", err)
	}
	if err := l.StampNow(t.Context()); err != nil {
		t.Errorf("the reserve is for stamps: %v", err)
	}
	usage(1 << 30)
	appendRecord(t, l, record("again", nil), nil)
	// Between two looks at the disk the appends are counted.
	usage(3 << 20)
	for i := 0; ; i++ {
		if err = l.Append(t.Context(), record("m", nil)); err != nil {
			break
		}
		if i > 60 {
			break
		}
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1<<20 + 1, TotalBytes: 1 << 40})
	}
	if !errors.Is(err, msglog.ErrDiskFull) {
		t.Errorf("a burst filled the disk: %v", err)
	}
}

func TestWithoutBodies(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	cfg := config(newClock(), &fakeTSA{})
	cfg.BodyPolicy = msglog.NoBodies
	l := openMem(t, cfg, fs)
	defer closeLog(t, l)
	body := bytes.Repeat([]byte("x"), 100_000)
	b, err := spooled(fs, fs.PathJoin(l.SpoolDir(), "b"), body)
	if err != nil {
		t.Fatal(err)
	}
	r := record("m", body)
	appendRecord(t, l, r, b)
	response := record("m", nil)
	response.Response = true
	response.Head = []byte("200\r\nOK\r\nContent-Type:text/plain\r\nx-road-id:m\r\nx-road-request-hash:h\r\n")
	response.Evidence = testSigner().evidence(response.Head, nil)
	appendRecord(t, l, response, nil)
	const envelope = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:x="http://x-road.eu/xsd/xroad.xsd" xmlns:i="http://x-road.eu/xsd/identifiers">` +
		`<s:Header><x:client i:objectType="SUBSYSTEM"><i:xRoadInstance>DEV</i:xRoadInstance><i:memberClass>GOV</i:memberClass><i:memberCode>111</i:memberCode><i:subsystemCode>sub</i:subsystemCode></x:client>` +
		`<x:service i:objectType="SERVICE"><i:xRoadInstance>DEV</i:xRoadInstance><i:memberClass>COM</i:memberClass><i:memberCode>222</i:memberCode><i:subsystemCode>sub</i:subsystemCode><i:serviceCode>svc</i:serviceCode></x:service>` +
		`<x:id>soap</x:id><x:protocolVersion>4.0</x:protocolVersion></s:Header><s:Body>%s</s:Body></s:Envelope>`
	soap := record("soap", nil)
	soap.Head = fmt.Appendf(nil, envelope, "<svc>secret</svc>")
	soap.Evidence = testSigner().evidence(soap.Head, nil)
	appendRecord(t, l, soap, nil)
	for seq, want := range map[uint64]string{
		3: fmt.Sprintf(envelope, ""),
		1: "POST\r\n/r1/DEV/COM/222/sub/svc\r\nx-road-id:m\r\nX-Road-Client:DEV/GOV/111/sub\r\nx-road-request-id:r-m\r\n",
		2: "200\r\nOK\r\nx-road-id:m\r\nx-road-request-hash:h\r\n",
	} {
		e, err := l.Get(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Head) != want || !e.HeadWithheld {
			t.Errorf("record %d: head %q", seq, e.Head)
		}
		if seq == 1 && (len(e.Bodies) != 1 || e.Bodies[0].State != msglog.BodyWithheld || e.BodySize != int64(len(body))) {
			t.Errorf("bodies %v of %d bytes", e.Bodies, e.BodySize)
		}
	}
	for seq := range uint64(3) {
		if c, err := l.Container(t.Context(), seq+1, true); err != nil || len(c.Attachments) != 0 || len(c.Message) == 0 {
			t.Errorf("container %d: %v %v", seq+1, c, err)
		}
	}
	checkLog(t, l)
}

// TestCheckFindsDamage changes what is stored and expects a word about it.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(l *msglog.Log, fs *vfs.MemFS, b *pebble.Batch) error
		want   string
	}{
		"gap": {func(l *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error {
			path, _, end := l.Place(2)
			must(fs.UnsafeGetFileDataBuffer(path))[end-1] ^= 1
			return nil
		}, "records 2 to 2 are missing"},
		"zeros": {func(l *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error {
			path, from, end := l.Place(2)
			clear(must(fs.UnsafeGetFileDataBuffer(path))[from:end])
			return nil
		}, "zeros instead of a group"},
		"end": {func(l *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error {
			path, from, end := l.Place(4)
			clear(must(fs.UnsafeGetFileDataBuffer(path))[from:end])
			return nil
		}, "records 4 to 4 are missing"},
		"header": {func(l *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error {
			path, _, _ := l.Place(1)
			must(fs.UnsafeGetFileDataBuffer(path))[20] ^= 1
			return nil
		}, "at offset 0: header"},
		"damaged": {func(l *msglog.Log, _ *vfs.MemFS, _ *pebble.Batch) error {
			return l.Rewrite(2, func(value []byte) { value[1] = 0xff })
		}, "not a canonical record"},
		"stamp": {func(_ *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error { return b.Delete(msglog.StampKey(3), nil) }, "should be time-stamped"},
		"damaged stamp": {func(_ *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			return b.Set(msglog.StampKey(3), []byte{1}, nil)
		}, "time-stamp of record 3"},
		"index": {func(l *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			return b.Delete(msglog.IDKey(must(l.Get(t.Context(), 1))), nil)
		}, "record 1: missing in index i"},
		"index of blocks": {func(l *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			return b.Delete(msglog.TimeKey(must(l.Get(t.Context(), 1)), 1), nil)
		}, "record 1: missing in index t"},
		"block": {func(l *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error { return b.Delete(msglog.BlockKey(1), nil) }, "record 1: missing in index B"},
		"surplus index": {func(l *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			e := must(l.Get(t.Context(), 1))
			e.MessageID = "other"
			return b.Set(msglog.IDKey(e), nil, nil)
		}, "index i has 5 entries for 4 records"},
		"surplus block": {func(l *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			return b.Set(msglog.TimeKey(must(l.Get(t.Context(), 1)), 77), nil, nil)
		}, "index t names block 77"},
		"other head": {func(l *msglog.Log, _ *vfs.MemFS, _ *pebble.Batch) error {
			return l.Rewrite(1, func(value []byte) {
				at := bytes.Index(value, must(l.Get(t.Context(), 1)).Head)
				value[at] ^= 1
			})
		}, "record 1: head does not match"},
		"other signature": {func(l *msglog.Log, _ *vfs.MemFS, _ *pebble.Batch) error {
			return l.Rewrite(2, func(value []byte) {
				at := bytes.Index(value, must(l.Get(t.Context(), 2)).Evidence.Signature)
				value[at+100] ^= 1
			})
		}, "record 2 is not what its time-stamp covers"},
		"body lost": {func(_ *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error { return fs.RemoveAll("log/bodies") }, "record 3: body"},
		"body index": {func(_ *msglog.Log, _ *vfs.MemFS, b *pebble.Batch) error {
			return b.DeleteRange([]byte("b"), []byte("c"), nil)
		}, "is not noted"},
		"foreign file": {func(_ *msglog.Log, fs *vfs.MemFS, _ *pebble.Batch) error {
			_, err := spooled(fs, "log/bodies/000000000000/x", nil)
			return err
		}, "foreign file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			l := openMem(t, config(newClock(), &fakeTSA{}), fs)
			defer closeLog(t, l)
			for i := range 4 {
				if i == 3 {
					if err := l.StampNow(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				r := *crashRecords()[i]
				appendRecord(t, l, &r, must(sources(fs, l, r.MessageID, crashBodies(i)))...)
			}
			checkLog(t, l)
			if err := l.Tamper(func(b *pebble.Batch) error { return test.change(l, fs, b) }); err != nil {
				t.Fatal(err)
			}
			rep, err := l.Check(t.Context())
			if err != nil && name != "body lost" {
				t.Fatal(err)
			}
			if err == nil && !slices.ContainsFunc(rep.Problems, func(p string) bool { return strings.Contains(p, test.want) }) {
				t.Errorf("got %q", rep.Problems)
			}
		})
	}
}

func genRecord(t *rapid.T) *msglog.Entry {
	part := rapid.StringN(1, 8, 30).Filter(func(s string) bool { return strings.TrimSpace(s) != "" })
	gen := func() id.Client {
		m, err := id.NewMember(part.Draw(t, "instance"), part.Draw(t, "class"), part.Draw(t, "code"))
		if err != nil {
			t.Skip()
		}
		c, err := id.NewClient(m, part.Draw(t, "subsystem"))
		if err != nil {
			t.Skip()
		}
		return c
	}
	e := &msglog.Entry{}
	e.Seq = rapid.Uint64().Draw(t, "seq")
	e.Time = time.Unix(0, rapid.Int64Min(0).Draw(t, "time")).UTC()
	e.Side = rapid.SampledFrom([]msglog.Side{msglog.Client, msglog.Server}).Draw(t, "side")
	e.Response = rapid.Bool().Draw(t, "response")
	e.HeadWithheld = rapid.Bool().Draw(t, "withheld")
	e.MessageID, e.RequestID = rapid.String().Draw(t, "id"), rapid.String().Draw(t, "request id")
	e.Client = gen()
	var err error
	if rapid.Bool().Draw(t, "versioned") {
		e.Service, err = id.NewServiceVersion(gen().Member().Client(), part.Draw(t, "service"), part.Draw(t, "version"))
	} else {
		e.Service, err = id.NewService(gen(), part.Draw(t, "service"))
	}
	if err != nil {
		t.Skip()
	}
	if rapid.Bool().Draw(t, "server") {
		e.ClientServer = must(id.NewSecurityServer(e.Client.Member(), "ss"))
	}
	blob := rapid.SliceOfN(rapid.Byte(), 1, 300)
	e.Head, e.Evidence.Signature = blob.Draw(t, "head"), blob.Draw(t, "signature")
	withheld := rapid.Bool().Draw(t, "bodies withheld")
	for range rapid.IntRange(0, 3).Draw(t, "attachments") {
		e.Evidence.Attachments = append(e.Evidence.Attachments, asic.Digest{1, 2, 3})
		state := msglog.BodyWithheld
		if !withheld {
			state = rapid.SampledFrom([]msglog.BodyState{msglog.BodyInline, msglog.BodyFile}).Draw(t, "state")
		}
		e.SetBodies(state, blob.Draw(t, "body"))
	}
	return e
}

func TestEncodingRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := genRecord(t)
		b := msglog.Encode(e)
		got, err := msglog.Decode(e.Seq, b)
		if err != nil {
			t.Fatal(err)
		}
		if again := msglog.Encode(got); !bytes.Equal(again, b) {
			t.Fatalf("not canonical:\n%x\n%x", b, again)
		}
		if fmt.Sprint(got) != fmt.Sprint(e) {
			t.Fatalf("got %v\nof  %v", got, e)
		}
	})
}

// FuzzDecode: whatever is read is written the same.
func FuzzDecode(f *testing.F) {
	for _, bodies := range [][][]byte{nil, {[]byte("body")}, {[]byte("one"), {}, []byte("three")}} {
		for _, state := range []msglog.BodyState{msglog.BodyInline, msglog.BodyWithheld} {
			e := &msglog.Entry{Record: *record("m", bodies...)}
			e.SetBodies(state, bodies...)
			f.Add(msglog.Encode(e))
		}
	}
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := msglog.Decode(1, b)
		if err != nil {
			return
		}
		if again := msglog.Encode(e); !bytes.Equal(again, b) {
			t.Errorf("read %x\nwrote %x", b, again)
		}
	})
}

// FuzzDecodeStamp likewise.
func FuzzDecodeStamp(f *testing.F) {
	f.Add(uint64(1), append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, 1, 'T', 0, 0))
	f.Fuzz(func(t *testing.T, last uint64, b []byte) {
		again, err := msglog.DecodeStamp(last, b)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("read %x\nwrote %x", b, again)
		}
	})
}

// BenchmarkAppend is to be compared by its CPU time: how long a flush takes is
// the disk's matter.
func BenchmarkAppend(b *testing.B) {
	var records []*msglog.Record
	for i := range 64 {
		r := record(fmt.Sprint("message-", i), nil)
		r.Client, r.Service = client(fmt.Sprintf("DEV/GOV/111/sub%d", i%4)), service(fmt.Sprintf("DEV/COM/222/sub/svc%d", i%4))
		records = append(records, r)
	}
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			cfg := config(newClock(), &fakeTSA{})
			cfg.Dir, cfg.Now = b.TempDir(), nil
			var syncs atomic.Int64
			cfg.ObserveSync = func(time.Duration) { syncs.Add(1) }
			l, err := msglog.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime(b)
			var wg sync.WaitGroup
			for g := range writers {
				wg.Go(func() {
					for n := left.Add(-1); n >= 0; n = left.Add(-1) {
						r := *records[g%len(records)]
						r.MessageID, r.Seq, r.Time = fmt.Sprint("message-", n/2), 0, time.Time{}
						if err := l.Append(context.Background(), &r); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(l.Stats().Bytes)/float64(b.N), "disk-B/op")
			b.ReportMetric(float64(b.N)/float64(max(syncs.Load(), 1)), "appends/sync")
			closeLog(b, l)
		})
	}
}

// cpuTime is that of the process.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
