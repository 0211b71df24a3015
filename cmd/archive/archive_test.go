// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/cmd/archive"
)

var pass = []byte("correct horse battery staple")

// sample makes a folder and its archive.
func sample(t testing.TB) (dir string, sealed []byte) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, content string, mode fs.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("keys/a.pem", "secret", 0o600)
	write("log/000001.sst", strings.Repeat("incompressible? no", 40_000), 0o644)
	write("log/LOCK", "", 0o600)
	write("empty", "", 0o400)
	big := make([]byte, 300_000) // several chunks, whatever gzip makes of it
	state := uint32(1)
	for i := range big {
		state = state*1664525 + 1013904223
		big[i] = byte(state >> 24)
	}
	write("log/random", string(big), 0o600)
	if err := os.Mkdir(filepath.Join(dir, "hollow"), 0o750); err != nil {
		t.Fatal(err)
	}
	single := filepath.Join(t.TempDir(), "x.pin")
	if err := os.WriteFile(single, []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	m := archive.Manifest{Role: "gateway", ID: "DEV/GOV/1/s", DataDir: dir, Created: time.Now()}
	skip := func(name string) bool { return filepath.Base(name) == "LOCK" }
	if err := archive.Write(&b, pass, m, []archive.File{{Name: "pin", Path: single}}, skip); err != nil {
		t.Fatal(err)
	}
	return dir, b.Bytes()
}

func restore(sealed, pass []byte, dir string) error {
	c, err := archive.Open(bytes.NewReader(sealed), pass)
	if err != nil {
		return err
	}
	return c.Unpack(dir)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir, sealed := sample(t)
	c, err := archive.Open(bytes.NewReader(sealed), pass)
	if err != nil {
		t.Fatal(err)
	}
	if c.Manifest.Role != "gateway" || c.Manifest.ID != "DEV/GOV/1/s" || string(c.Files["pin"]) != "4711\n" {
		t.Errorf("%+v", c)
	}
	out := filepath.Join(t.TempDir(), "new", "data")
	if err := c.Unpack(out); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "LOCK" || path == dir {
			return err
		}
		seen++
		rel, _ := filepath.Rel(dir, path)
		was, _ := os.Stat(path)
		is, err := os.Stat(filepath.Join(out, rel))
		if err != nil {
			return err
		}
		if was.Mode() != is.Mode() {
			t.Errorf("%s: mode %v, was %v", rel, is.Mode(), was.Mode())
		}
		if !d.IsDir() {
			a, _ := os.ReadFile(path)
			b, _ := os.ReadFile(filepath.Join(out, rel))
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs", rel)
			}
		}
		return nil
	})
	if err != nil || seen != 7 {
		t.Errorf("%d entries, %v", seen, err)
	}
	for _, gone := range []string{"log/LOCK", ".restoring"} {
		if _, err := os.Lstat(filepath.Join(out, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if err := restore(sealed, pass, out); !errors.Is(err, archive.ErrNotEmpty) {
		t.Errorf("into a folder with data: %v", err)
	}
	if bytes.Contains(sealed, []byte("DEV/GOV")) || bytes.Contains(sealed, []byte("secret")) {
		t.Error("it can be read without the passphrase")
	}
}

// Whatever is changed, cut off, put elsewhere or added is noticed, and then
// nothing is restored.
func TestTampering(t *testing.T) {
	t.Parallel()
	_, sealed := sample(t)
	const header, chunk = 34, 64<<10 + 16
	if len(sealed) < header+3*chunk {
		t.Fatalf("only %d bytes", len(sealed))
	}
	cut := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	first, second := sealed[header:header+chunk], sealed[header+chunk:header+2*chunk]
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                   {},
		"header only":             sealed[:header],
		"another magic":           flip(3),
		"less cost":               flip(17),
		"another salt":            flip(20),
		"a bit of the first":      flip(header),
		"a bit of the last":       flip(len(sealed) - 1),
		"a bit in between":        flip(header + chunk + 100),
		"last byte cut":           sealed[:len(sealed)-1],
		"cut between chunks":      sealed[:header+2*chunk],
		"cut after one chunk":     sealed[:header+chunk],
		"chunks exchanged":        cut(sealed[:header], second, first, sealed[header+2*chunk:]),
		"chunk left out":          cut(sealed[:header], first, sealed[header+2*chunk:]),
		"chunk twice":             cut(sealed[:header], first, first, sealed[header+chunk:]),
		"a byte added":            cut(sealed, []byte{0}),
		"another archive added":   cut(sealed, sealed),
		"no archive":              []byte(strings.Repeat("x", 1000)),
		"costly header":           append(append([]byte("kontor-archive-1\n"), 63), sealed[18:]...),
		"header of another, same": cut(sealed[:18], bytes.Repeat([]byte{7}, 16), sealed[header:]),
	} {
		dir := filepath.Join(t.TempDir(), "data")
		err := restore(b, pass, dir)
		if !errors.Is(err, archive.ErrSealed) && !errors.Is(err, archive.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("%s: restored %v", name, entries)
		}
	}
	if err := restore(sealed, []byte("another"), t.TempDir()); !errors.Is(err, archive.ErrSealed) {
		t.Errorf("wrong passphrase: %v", err)
	}
}

// Sockets are left out; links are not followed.
func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "a") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := archive.Write(&b, pass, archive.Manifest{DataDir: dir}, nil, nil); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := restore(b.Bytes(), pass, out); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(out); len(entries) != 0 {
		t.Errorf("restored %v", entries)
	}
}

func FuzzOpen(f *testing.F) {
	_, sealed := sample(f)
	f.Add(sealed[:200], []byte("x"))
	f.Add(sealed, pass)
	f.Fuzz(func(t *testing.T, b, pass []byte) {
		if len(b) > 17 && b[17] > 8 {
			return // slow by its own wish
		}
		if c, err := archive.Open(bytes.NewReader(b), pass); err == nil {
			_ = c.Unpack(t.TempDir()) // any error will do, but no panic
		}
	})
}
