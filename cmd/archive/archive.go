// SPDX-License-Identifier: Apache-2.0

// Package archive keeps the files of a role in one file, sealed with a
// passphrase: a tar archive, compressed by gzip, encrypted and authenticated.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Manifest says what an archive is of. It is sealed with the rest.
type Manifest struct {
	Role    string    `json:"role"`     // registry, gateway or trust
	ID      string    `json:"id"`       // whose: instance, security server
	DataDir string    `json:"data_dir"` // where the data came from
	Created time.Time `json:"created"`
}

// File is a single file that belongs to a role but lies elsewhere.
type File struct {
	Name string // in the archive
	Path string
}

const (
	manifestName = "manifest.json"
	dataPrefix   = "data/"
	filePrefix   = "files/"

	maxManifest = 64 << 10
	maxFile     = 16 << 20 // of single files; data may be as large as it likes
)

// Write archives the folder m.DataDir and the files, sealed with the
// passphrase. Only regular files and folders are kept; those that skip names, by
// their path in the folder, are not. Nothing may change the folder meanwhile.
func Write(w io.Writer, passphrase []byte, m Manifest, files []File, skip func(string) bool) error {
	sealed, err := newSealer(w, passphrase)
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(sealed)
	t := tar.NewWriter(zipped)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := addBytes(t, manifestName, b, m.Created); err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if len(b) > maxFile {
			return fmt.Errorf("%s is larger than %d bytes", f.Path, maxFile)
		}
		if err := addBytes(t, filePrefix+f.Name, b, m.Created); err != nil {
			return err
		}
	}
	if err := addFolder(t, m.DataDir, skip); err != nil {
		return err
	}
	return errors.Join(t.Close(), zipped.Close(), sealed.Close())
}

func addBytes(t *tar.Writer, name string, b []byte, at time.Time) error {
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o600, ModTime: at, Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}

func addFolder(t *tar.Writer, dir string, skip func(string) bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if skip != nil && skip(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dataPrefix + name + "/", Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX})
		}
		if !d.Type().IsRegular() {
			return nil // a socket; nothing else is there
		}
		return addFile(t, root, name)
	})
}

func addFile(t *tar.Writer, root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dataPrefix + name, Size: info.Size(), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(f, info.Size()))
	if err == nil && n != info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}

// ErrNotEmpty says that a folder to restore into holds something.
var ErrNotEmpty = errors.New("the folder is not empty")

// stagingDir is where an archive is unpacked until it has been read to its end.
const stagingDir = ".restoring"

// Contents is an opened archive, whose manifest and files have been read.
type Contents struct {
	Manifest Manifest
	Files    map[string][]byte // by name
	t        *tar.Reader
	zipped   *gzip.Reader
	first    *tar.Header // of the data; nil: there is none
}

// Open reads the beginning of an archive.
func Open(r io.Reader, passphrase []byte) (*Contents, error) {
	sealed, err := newOpener(r, passphrase)
	if err != nil {
		return nil, err
	}
	zipped, err := gzip.NewReader(sealed)
	if err != nil {
		return nil, damaged(err)
	}
	c := &Contents{Files: map[string][]byte{}, t: tar.NewReader(zipped), zipped: zipped}
	h, err := c.t.Next()
	if err != nil {
		return nil, damaged(err)
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return nil, ErrFormat
	}
	b, err := io.ReadAll(c.t)
	if err == nil {
		err = json.Unmarshal(b, &c.Manifest)
	}
	if err != nil {
		return nil, damaged(err)
	}
	for {
		h, err := c.t.Next()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, damaged(err)
		}
		name, single := strings.CutPrefix(h.Name, filePrefix)
		if !single {
			c.first = h
			return c, nil
		}
		if _, double := c.Files[name]; double || h.Size > maxFile {
			return nil, ErrFormat
		}
		if c.Files[name], err = io.ReadAll(c.t); err != nil {
			return nil, damaged(err)
		}
	}
}

// damaged marks an error of unpacking: what is authentic is well formed.
func damaged(err error) error {
	if errors.Is(err, ErrSealed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSealed, err)
}

// Unpack writes the data into a folder, which must be empty or not exist. The
// files appear there only when the archive has been read, and found whole, to
// its end. It may be called once.
func (c *Contents) Unpack(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if entries, err := fs.ReadDir(root.FS(), "."); err != nil {
		return err
	} else if len(entries) > 0 {
		return fmt.Errorf("%w: %s holds %s", ErrNotEmpty, dir, entries[0].Name())
	}
	if err := root.Mkdir(stagingDir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(stagingDir)) }()
	staging, err := root.OpenRoot(stagingDir)
	if err != nil {
		return err
	}
	defer staging.Close()
	folders := map[string]fs.FileMode{}
	for h := c.first; h != nil; {
		if err := unpack(staging, h, c.t, folders); err != nil {
			return err
		}
		if h, err = c.t.Next(); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
	}
	// Padding after the archive's end is authentic, too, or this fails.
	if n, err := io.Copy(io.Discard, io.LimitReader(c.zipped, maxFile)); err != nil || n == maxFile {
		return damaged(errors.Join(err, errors.New("data after the end")))
	}
	for name, mode := range folders {
		if err := staging.Chmod(name, mode); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(staging.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := root.Rename(path.Join(stagingDir, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func unpack(staging *os.Root, h *tar.Header, r io.Reader, folders map[string]fs.FileMode) error {
	name, ok := strings.CutPrefix(h.Name, dataPrefix)
	name = strings.TrimSuffix(name, "/")
	if !ok || !filepath.IsLocal(name) || path.Clean(name) != name {
		return fmt.Errorf("%w: entry %q", ErrFormat, h.Name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		folders[name] = fs.FileMode(h.Mode) & fs.ModePerm
		return staging.Mkdir(name, 0o700)
	case tar.TypeReg:
		f, err := staging.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&fs.ModePerm)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err != nil {
			err = damaged(err)
		}
		return errors.Join(err, f.Sync(), f.Close(), staging.Chtimes(name, h.ModTime, h.ModTime))
	}
	return fmt.Errorf("%w: entry %q", ErrFormat, h.Name)
}
