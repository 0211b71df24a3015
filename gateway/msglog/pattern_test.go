// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/gateway/msglog"
	"kontor/pki/asic"
)

// TestPatterns: documents of one signer are stored by what differs, and come
// back as they were, from tables and after a restart.
func TestPatterns(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	cfg := config(newClock(), &fakeTSA{})
	l := openMem(t, cfg, fs)
	var want []*msglog.Record
	fill := func(n int) {
		for range n {
			r := record(fmt.Sprintf("m%04d", len(want)))
			appendRecord(t, l, r)
			want = append(want, r)
		}
	}
	fill(5)
	for seq := uint64(1); seq <= 5; seq++ {
		b := must(l.Stored(seq))
		doc := len(want[seq-1].Evidence.Signature)
		// The first two of a kind are stored whole; the second is the pattern.
		if whole := len(b) > doc; whole != (seq <= 2) {
			t.Errorf("record %d: %d bytes for a signature of %d", seq, len(b), doc)
		}
	}
	odd := record("odd")
	odd.Evidence.Signature = append(odd.Evidence.Signature, '\n')
	appendRecord(t, l, odd)
	want = append(want, odd)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	l = openMem(t, cfg, fs)
	defer func() { closeLog(t, l) }()
	fill(3)
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, r := range want {
		e, err := l.Get(t.Context(), uint64(i+1))
		if err != nil || !bytes.Equal(e.Evidence.Signature, r.Evidence.Signature) {
			t.Errorf("record %d: %v", i+1, err)
		}
	}
	checkLog(t, l)

	// Without its pattern a record is worth nothing: Check must tell.
	if err := l.Rewrite(2, func(value []byte) { value[1] = 0xff }); err != nil {
		t.Fatal(err)
	}
	rep, err := l.Check(t.Context())
	if err != nil || !slices.ContainsFunc(rep.Problems, func(p string) bool { return strings.Contains(p, "record 3: record 2 has no pattern") }) {
		t.Errorf("%v %v", rep, err)
	}
}

// TestPatternsServeOneSegment: the first records of a segment need nothing of
// the one before.
func TestPatternsServeOneSegment(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	l, err := msglog.OpenSized(config(newClock(), &fakeTSA{}), fs, smallTables, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closeLog(t, l) }()
	whole := map[string]int{}
	for i := range 100 {
		r := record(fmt.Sprintf("m%04d", i))
		appendRecord(t, l, r)
		if path, _, _ := l.Place(r.Seq); len(must(l.Stored(r.Seq))) > len(r.Evidence.Signature) {
			whole[path]++
		}
	}
	if len(whole) < 3 {
		t.Errorf("only %d segments", len(whole))
	}
	for path, n := range whole {
		if n < 1 || n > 2 {
			t.Errorf("%d signatures stand in %s as they are", n, path)
		}
	}
	checkLog(t, l)
}

func TestDifference(t *testing.T) {
	t.Parallel()
	a, b := record("a").Evidence.Signature, record("b").Evidence.Signature
	diff, ok := msglog.Difference(a, b)
	if !ok || len(diff) > len(b)/4 {
		t.Fatalf("%v, %d bytes of %d", ok, len(diff), len(b))
	}
	if got, err := msglog.ApplyDifference(a, diff); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%v", err)
	}
	same, ok := msglog.Difference(a, a)
	if got, err := msglog.ApplyDifference(a, same); !ok || err != nil || !bytes.Equal(got, a) || len(same) > 4 {
		t.Errorf("equal documents: %v %v, %d bytes", ok, err, len(same))
	}
	if _, ok := msglog.Difference(bytes.Repeat([]byte("ab"), 500), bytes.Repeat([]byte("ba"), 500)); ok {
		t.Error("documents that have nothing in common")
	}
}

// FuzzDifference: what is told apart is put together again, and nothing else
// than whole documents comes out.
func FuzzDifference(f *testing.F) {
	a, b := record("a").Evidence.Signature, record("b").Evidence.Signature
	diff, _ := msglog.Difference(a, b)
	f.Add(a, b, diff)
	f.Add([]byte("0123456789"), []byte("0123x56789"), []byte{10, 0})
	f.Fuzz(func(t *testing.T, pattern, doc, diff []byte) {
		if len(pattern) == len(doc) {
			if d, ok := msglog.Difference(pattern, doc); ok {
				if got, err := msglog.ApplyDifference(pattern, d); err != nil || !bytes.Equal(got, doc) {
					t.Errorf("%v: %x and %x: got %x", err, pattern, doc, got)
				}
			}
		}
		if got, err := msglog.ApplyDifference(pattern, diff); err == nil && len(got) != len(pattern) {
			t.Errorf("%d bytes of %d", len(got), len(pattern))
		}
	})
}

// TestTerse: the documents of hash chains have no text left that is not coded.
func TestTerse(t *testing.T) {
	t.Parallel()
	digest := func(n int) asic.Digest { return sha512.Sum512([]byte{byte(n)}) }
	for _, n := range []int{2, 3, 7, 64, 256} {
		messages := make([][]asic.Digest, n)
		for i := range messages {
			messages[i] = []asic.Digest{digest(i)}
			if i%2 == 1 {
				messages[i] = append(messages[i], digest(-i))
			}
		}
		result, chains, err := asic.BuildChains(messages)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range append(chains, result) {
			b := msglog.Terse(doc)
			if got, err := msglog.FromTerse(b); err != nil || !bytes.Equal(got, doc) {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			if digests := bytes.Count(doc, []byte("<DigestValue>")); len(b) > bytes.Count(doc, []byte("\n"))+digests*sha512.Size {
				t.Errorf("%d of %d: %d bytes for %d digests:\n%s", i, n, len(b), digests, doc)
			}
		}
	}
}

// FuzzTerse: every document comes back, and only what was written is read.
func FuzzTerse(f *testing.F) {
	result, chains, err := asic.BuildChains([][]asic.Digest{{{1}}, {{2}, {3}}, {{4}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, doc := range append(chains, result) {
		f.Add(doc)
		f.Add(msglog.Terse(doc))
	}
	f.Add([]byte("    <DigestValue>\r\n</DigestValue>\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := msglog.FromTerse(msglog.Terse(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%v: %q became %q", err, b, got)
		}
		if doc, err := msglog.FromTerse(b); err == nil && !bytes.Equal(msglog.Terse(doc), b) {
			t.Errorf("%x is not what %q gives", b, doc)
		}
	})
}
