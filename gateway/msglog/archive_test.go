// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"kontor/gateway/msglog"
)

// archived reads the archives of a folder in the order of their links and
// checks the links. It returns the names of all containers.
func archived(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	files, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	type file struct {
		name, digest string
		containers   []string
	}
	byPrevious := map[string]file{}
	for _, name := range files {
		if strings.HasSuffix(name, ".part") {
			t.Errorf("unfinished archive %s", name)
			continue
		}
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b := must(io.ReadAll(f))
		f.Close()
		z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		previous, digest, containers := checkLinks(t, z)
		if !strings.HasSuffix(name, "-"+digest[:16]+".zip") {
			t.Errorf("archive %s ends with digest %s", name, digest)
		}
		if other, ok := byPrevious[previous]; ok {
			t.Errorf("%s and %s follow the same archive", name, other.name)
		}
		byPrevious[previous] = file{name, digest, containers}
	}
	var all []string
	for at, n := "- -", 0; n < len(byPrevious); n++ {
		f, ok := byPrevious[at]
		if !ok {
			t.Fatalf("no archive follows %q", at)
		}
		all = append(all, f.containers...)
		at = f.digest + " " + f.name
	}
	return all
}

func checkLinks(t *testing.T, z *zip.Reader) (previous, digest string, containers []string) {
	t.Helper()
	last := z.File[len(z.File)-1]
	if last.Name != "linkinginfo" {
		t.Fatalf("last entry is %s", last.Name)
	}
	lines := strings.Split(strings.TrimSuffix(string(readEntry(t, last)), "\n"), "\n")
	previous, ok := strings.CutSuffix(lines[0], " SHA-512")
	if !ok || len(lines) != len(z.File) {
		t.Fatalf("linkinginfo %q", lines)
	}
	digest, _, _ = strings.Cut(previous, " ")
	digest = strings.TrimPrefix(digest, "-")
	for i, f := range z.File[:len(z.File)-1] {
		sum := sha512.Sum512(readEntry(t, f))
		next := sha512.Sum512([]byte(digest + hex.EncodeToString(sum[:])))
		digest = hex.EncodeToString(next[:])
		if want := digest + " " + f.Name; lines[i+1] != want {
			t.Errorf("link %q, want %q", lines[i+1], want)
		}
		containers = append(containers, f.Name)
	}
	return previous, digest, containers
}

func readEntry(t *testing.T, f *zip.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return must(io.ReadAll(r))
}

// fillOld appends the first n records, an hour apart from each other.
func fillOld(fs vfs.FS, l *msglog.Log, n int) error {
	for i := range n {
		r := *crashRecords()[i]
		r.Time = epoch.Add(time.Duration(i) * time.Hour)
		bodies, err := sources(fs, l, r.MessageID, crashBodies(i))
		if err != nil {
			return err
		}
		if err := l.AppendSource(context.Background(), &r, bodies...); err != nil {
			return err
		}
	}
	return nil
}

func TestPrune(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", "archive"} {
		t.Run("archive="+dir, func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			if err := fs.MkdirAll("archive", 0o700); err != nil {
				t.Fatal(err)
			}
			c := newClock()
			cfg := config(c, &fakeTSA{})
			cfg.Retention = msglog.Retention{Keep: 10 * time.Hour, ArchiveDir: dir, MaxArchive: 12_000}
			l := openMem(t, cfg, fs)
			if err := fillOld(fs, l, 12); err != nil {
				t.Fatal(err)
			}
			c.Advance(16*time.Hour + time.Minute)
			if n, err := l.Prune(t.Context()); n != 0 || err != nil {
				t.Errorf("pruned %d unstamped records: %v", n, err)
			}
			if err := l.StampNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n, err := l.Prune(t.Context()); n != 7 || err != nil {
				t.Errorf("pruned %d records: %v", n, err)
			}
			for range 2 {
				if rep := checkLog(t, l); rep.First != 8 || rep.Last != 12 || rep.Records != 5 || rep.BodyFiles != 3 {
					t.Errorf("check %+v", rep)
				}
				if s := l.Stats(); s.First != 8 || s.Records != 5 || s.BodyFiles != 3 || s.Unstamped != 0 {
					t.Errorf("stats %+v", s)
				}
				if _, err := l.Get(t.Context(), 7); !errors.Is(err, msglog.ErrNotFound) {
					t.Errorf("pruned record: %v", err)
				}
				if _, err := l.Container(t.Context(), 8, false); err != nil {
					t.Error(err)
				}
				closeLog(t, l)
				l = openMem(t, cfg, fs)
			}
			if dir != "" {
				var want []string
				for i := range 7 {
					want = append(want, fmt.Sprintf("m%d-request-%d.asice", i, i+1))
				}
				if got := archived(t, fs, dir); !slices.Equal(got, want) {
					t.Errorf("archived %q", got)
				}
			}
			// The numbers go on even when everything is gone.
			c.Advance(1000 * time.Hour)
			if n, err := l.Prune(t.Context()); n != 5 || err != nil {
				t.Errorf("pruned %d records: %v", n, err)
			}
			closeLog(t, l)
			l = openMem(t, cfg, fs)
			defer closeLog(t, l)
			r := record("next", nil)
			appendRecord(t, l, r, nil)
			if r.Seq != 13 {
				t.Errorf("number %d", r.Seq)
			}
			checkLog(t, l)
			if dir != "" {
				archived(t, fs, dir)
			}
		})
	}
}

// TestPruneCrash cuts the power before each operation of archiving: afterwards
// each record is in the log or in exactly one archive.
func TestPruneCrash(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	var armed atomic.Bool
	var crashes []*vfs.MemFS
	seen := 0
	rng := rand.New(rand.NewPCG(3, 4))
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			if seen++; seen%stride != 0 {
				return nil
			}
			for _, percent := range []int{0, 50, 100} {
				crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
			}
		}
		return nil
	}))
	if err := errors.Join(fs.MkdirAll("archive", 0o700), must(fs.OpenDir("")).Sync()); err != nil {
		t.Fatal(err)
	}
	c := newClock()
	cfg := config(c, &fakeTSA{})
	cfg.Retention = msglog.Retention{Keep: time.Hour, ArchiveDir: "archive", MaxArchive: 12_000}
	l, err := msglog.OpenSized(cfg, fs, undisturbed, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fillOld(fs, l, 8), l.StampNow(t.Context())); err != nil {
		t.Fatal(err)
	}
	c.Advance(100 * time.Hour)
	armed.Store(true)
	if n, err := l.Prune(t.Context()); n != 8 || err != nil {
		t.Fatalf("pruned %d: %v", n, err)
	}
	armed.Store(false)
	closeLog(t, l)
	t.Logf("%d crashes", len(crashes))
	for i, crashed := range crashes {
		l := openMem(t, cfg, crashed)
		checkLog(t, l)
		if _, err := l.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkLog(t, l)
		if got := archived(t, crashed, "archive"); len(got) != 8 {
			t.Errorf("crash %d: archived %q", i, got)
		}
		closeLog(t, l)
		if t.Failed() {
			t.Fatalf("after crash %d", i)
		}
	}
}
