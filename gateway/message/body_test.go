// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"kontor/gateway/message"
)

// writers are the ways in which bytes get into a body.
var writers = map[string]func(b *message.Body, p []byte) error{
	"Write": func(b *message.Body, p []byte) error { _, err := b.Write(p); return err },
	"small writes": func(b *message.Body, p []byte) error {
		for len(p) > 0 {
			n := min(len(p), 1000)
			if _, err := b.Write(p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
		return nil
	},
	"ReadFrom": func(b *message.Body, p []byte) error { _, err := b.ReadFrom(bytes.NewReader(p)); return err },
	"ReadFrom with data and EOF": func(b *message.Body, p []byte) error {
		_, err := b.ReadFrom(iotest.DataErrReader(bytes.NewReader(p)))
		return err
	},
	"ReadFrom in halves": func(b *message.Body, p []byte) error {
		_, err := b.ReadFrom(iotest.HalfReader(bytes.NewReader(p)))
		return err
	},
	"mixed": func(b *message.Body, p []byte) error {
		half := len(p) / 2
		if _, err := b.Write(p[:half]); err != nil {
			return err
		}
		_, err := b.ReadFrom(bytes.NewReader(p[half:]))
		return err
	},
	"tee": func(b *message.Body, p []byte) error {
		var peer bytes.Buffer
		if _, err := io.Copy(&peer, io.TeeReader(bytes.NewReader(p), b)); err != nil {
			return err
		}
		if !bytes.Equal(peer.Bytes(), p) {
			return errors.New("the peer got other bytes")
		}
		return nil
	},
}

func TestBody(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	for name, write := range writers {
		for _, size := range []int{0, 1, 4096, 4097, 20000, limit - 1, limit, limit + 1, 3*limit + 17, 2 << 20} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				t.Parallel()
				s := spool(t)
				content := bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
				b := s.New()
				if err := write(b, content); err != nil {
					t.Fatal(err)
				}
				if b.Size() != int64(size) || b.Present() != (size > 0) {
					t.Errorf("size %d, present %v", b.Size(), b.Present())
				}
				if b.Digest() != sha512.Sum512(content) {
					t.Error("wrong digest")
				}
				p, inMemory := b.Bytes()
				if inMemory != (size <= limit) || inMemory && !bytes.Equal(p, content) || inMemory != (b.Path() == "") {
					t.Errorf("in memory: %v, path %q", inMemory, b.Path())
				}
				for range 2 {
					r, err := b.Open()
					if err != nil {
						t.Fatal(err)
					}
					have, err := io.ReadAll(r)
					if err != nil || !bytes.Equal(have, content) {
						t.Errorf("read back %d bytes, %v", len(have), err)
					}
					if _, err := r.Seek(0, io.SeekStart); err != nil {
						t.Error(err)
					}
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				}
				if err := b.Sync(); err != nil {
					t.Error(err)
				}
				if _, err := b.Write([]byte("x")); !errors.Is(err, message.ErrSealed) {
					t.Errorf("a sealed body was written to: %v", err)
				}
				if n := files(t, s); n != map[bool]int{true: 0, false: 1}[inMemory] {
					t.Errorf("%d files", n)
				}
				if err := errors.Join(b.Close(), b.Close()); err != nil {
					t.Error(err)
				}
				if n := files(t, s); n != 0 {
					t.Errorf("%d files are left", n)
				}
				if _, err := b.Open(); err == nil {
					t.Error("a closed body was opened")
				}
			})
		}
	}
}

func files(t *testing.T, s *message.Spool) int {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAbsentBody(t *testing.T) {
	t.Parallel()
	var b *message.Body
	if p, ok := b.Bytes(); p != nil || !ok || b.Present() || b.Size() != 0 || b.Path() != "" || b.Digest() != sha512.Sum512(nil) {
		t.Error("a nil body is not absent")
	}
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, r); n != 0 {
		t.Error("content")
	}
	b.Keep()
	if err := errors.Join(b.Sync(), b.Close()); err != nil {
		t.Error(err)
	}
}

func TestEmptyBodyThatIsPresent(t *testing.T) {
	t.Parallel()
	b := bodyOf(t, spool(t), "")
	b.MarkPresent()
	if !b.Present() || b.Size() != 0 {
		t.Error("not present")
	}
	if message.RequestHash([]byte("x"), b) == message.RequestHash([]byte("x"), nil) {
		t.Error("an empty body part must count in the request hash")
	}
}

func TestBodyIsAdopted(t *testing.T) {
	t.Parallel()
	s := spool(t)
	s.MemoryLimit = 10
	content := strings.Repeat("x", 1000)
	b := bodyOf(t, s, content)
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	adopted := filepath.Join(s.Dir, "adopted")
	if err := os.Rename(b.Path(), adopted); err != nil {
		t.Fatal(err)
	}
	b.Keep()
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	if have, err := io.ReadAll(r); err != nil || string(have) != content {
		t.Errorf("%d bytes, %v", len(have), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if have, err := os.ReadFile(adopted); err != nil || string(have) != content {
		t.Errorf("the adopted file is gone: %v", err)
	}
}

func TestCleanRemovesLeftovers(t *testing.T) {
	t.Parallel()
	s := &message.Spool{Dir: filepath.Join(t.TempDir(), "new"), MemoryLimit: 1, Reserve: -1}
	if err := s.Clean(); err != nil {
		t.Fatal(err)
	}
	crashed := s.New()
	if _, err := crashed.Write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(crashed.Path()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	other := filepath.Join(s.Dir, "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Clean(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(crashed.Path()); !os.IsNotExist(err) {
		t.Error("the leftover is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("another's file was removed")
	}
	crashed.Close()
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 200<<10)
	for name, write := range writers {
		for _, max := range []int64{1, 1000, 100 << 10, 200<<10 - 1} {
			s := spool(t)
			s.MaxSize = max
			b := s.New()
			if err := write(b, content); !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%s, %d: %v", name, max, err)
			}
			if b.Size() > max {
				t.Errorf("%s: %d bytes were taken, %d allowed", name, b.Size(), max)
			}
			if _, err := b.Write([]byte("x")); !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%s: the error was forgotten: %v", name, err)
			}
			if _, err := b.Open(); !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%s: half a body was opened: %v", name, err)
			}
			if err := b.Sync(); !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%s: half a body was synced: %v", name, err)
			}
			if err := b.Close(); err != nil || files(t, s) != 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		s := spool(t)
		s.MaxSize = int64(len(content))
		b := s.New()
		if err := write(b, content); err != nil {
			t.Errorf("%s: exactly the limit: %v", name, err)
		}
		b.Close()
	}
}

func TestSpaceIsReserved(t *testing.T) {
	t.Parallel()
	for name, write := range writers {
		s := spool(t)
		s.Reserve = 10 << 20
		left := int64(13 << 20)
		asked := 0
		s.Free = func(dir string) (int64, error) {
			if dir != s.Dir {
				t.Errorf("asked for %s", dir)
			}
			asked++
			return left - spooled(t, dir), nil
		}
		b := s.New()
		if err := write(b, make([]byte, 4<<20)); !errors.Is(err, message.ErrNoSpace) {
			t.Errorf("%s: %v", name, err)
		}
		if b.Size() > 3<<20 {
			t.Errorf("%s: the reserve was touched", name)
		}
		if asked > 10 {
			t.Errorf("%s: the file system was asked %d times", name, asked)
		}
		b.Close()
	}
	broken := spool(t)
	broken.Reserve = 0
	broken.Free = func(string) (int64, error) { return 0, errors.New("no answer") }
	b := broken.New()
	if _, err := b.Write(make([]byte, 65<<10)); err == nil {
		t.Error("written without knowing the space")
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("the error was forgotten")
	}
	b.Close()
	small := broken.New()
	if _, err := small.Write([]byte("x")); err != nil {
		t.Errorf("a small body needs no disk: %v", err)
	}
	small.Close()
}

func TestRealDisk(t *testing.T) {
	t.Parallel()
	for reserve, want := range map[int64]error{1: nil, 1 << 62: message.ErrNoSpace} {
		s := spool(t)
		s.Reserve = reserve
		b := s.New()
		if _, err := b.Write(make([]byte, 65<<10)); !errors.Is(err, want) {
			t.Errorf("reserve %d: %v", reserve, err)
		}
		b.Close()
	}
}

func spooled(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += st.Size()
	}
	return n
}

func TestMissingSpoolDirectory(t *testing.T) {
	t.Parallel()
	s := &message.Spool{Dir: filepath.Join(t.TempDir(), "missing"), Reserve: -1}
	b := s.New()
	if _, err := b.Write(make([]byte, 65<<10)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestBrokenSource(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10, 100 << 10} {
		gone := errors.New("gone")
		b := spool(t).New()
		n, err := b.ReadFrom(io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(gone)))
		if !errors.Is(err, gone) || n != int64(size) || b.Size() != n {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		b.Close()
	}
}

func TestBodyIsReadByMany(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 300 << 10} {
		b := bodyOf(t, spool(t), strings.Repeat("x", size))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				r, err := b.Open()
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if n, err := io.Copy(io.Discard, r); n != int64(size) || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				b.Digest()
				b.Bytes()
				if err := b.Sync(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// A large memory limit must not make bodies slow or wrong.
func TestLargeMemoryLimit(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	for name, write := range writers {
		s := spool(t)
		s.MemoryLimit = 4 << 20
		b := s.New()
		if err := write(b, content); err != nil {
			t.Fatal(err)
		}
		if p, ok := b.Bytes(); !ok || !bytes.Equal(p, content) {
			t.Errorf("%s: in memory %v", name, ok)
		}
		b.Close()
	}
}

func ExampleBody() {
	s := &message.Spool{Dir: os.TempDir()}
	body := s.New()
	defer body.Close()
	// Stream to the peer and keep the bytes for the log, in one go.
	var peer strings.Builder
	if _, err := io.Copy(&peer, io.TeeReader(strings.NewReader(`{"name":"Rex"}`), body)); err != nil {
		fmt.Println(err)
	}
	fmt.Println(peer.String(), body.Size(), body.Present())
	// Output: {"name":"Rex"} 14 true
}
