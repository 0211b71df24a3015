// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

// Config tells where the configuration is.
type Config struct {
	Path string
	// Internal is this server's own TLS key and certificate: the certificate
	// passes for every client, and services that ask for one get it. Nil: none.
	// [Store.SetInternal] replaces it later.
	Internal *tls.Certificate
	Now      func() time.Time // nil: time.Now
}

// Store holds the configuration of a running security server. It is safe for
// concurrent use. One process at a time may write the file.
type Store struct {
	path     string
	now      func() time.Time
	conf     atomic.Pointer[Conf]
	internal atomic.Pointer[tls.Certificate]

	mu sync.Mutex // held while the file is read or written and conf or internal replaced
}

// Load opens the configuration at path with defaults. A missing file is
// fs.ErrNotExist; see [Create].
func Load(path string) (*Store, error) { return Open(Config{Path: path}) }

// Create writes a new configuration file, durably, and opens it. An existing
// file is fs.ErrExist.
func Create(cfg Config, m *Model) (*Store, error) {
	if _, err := os.Lstat(cfg.Path); err == nil {
		return nil, fmt.Errorf("%s: %w", cfg.Path, os.ErrExist)
	}
	b, err := encode(m)
	if err != nil {
		return nil, err
	}
	// What is written must be readable again.
	again, err := decode(b)
	if err != nil {
		return nil, err
	}
	if _, err := compile(again, time.Now, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Path, err)
	}
	if err := replace(cfg.Path, b); err != nil {
		return nil, err
	}
	return Open(cfg)
}

// Open reads the configuration.
func Open(cfg Config) (*Store, error) {
	s := &Store{path: cfg.Path, now: cfg.Now}
	s.internal.Store(cfg.Internal)
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Conf returns the current snapshot.
func (s *Store) Conf() *Conf { return s.conf.Load() }

// Reload reads the file again. If it is not acceptable, the snapshot stays.
func (s *Store) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.read()
	if err != nil {
		return err
	}
	return s.swap(m)
}

// Update changes the configuration: it reads the file, lets change alter the
// model, and replaces file and snapshot. Edits made to the file by hand since
// it was loaded are kept, its comments are not. When Update returns nil the
// change is durable; when it fails neither file nor snapshot has changed,
// unless the error says that the folder could not be synchronised or that old
// documents could not be removed.
func (s *Store) Update(change func(*Model) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.read()
	if err != nil {
		return err
	}
	if err := change(m); err != nil {
		return err
	}
	b, err := encode(m)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	// The snapshot is built from what a restart would read, and shares nothing
	// with the model in the caller's hands.
	if m, err = decode(b); err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	conf, err := compile(m, s.now, certificateOf(s.internal.Load()))
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if err := replace(s.path, b); err != nil {
		return err
	}
	s.conf.Store(conf)
	return s.sweep(m)
}

// Model returns what the file holds, for the caller to keep.
func (s *Store) Model() (*Model, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read()
}

// SetInternal replaces this server's own TLS key and certificate.
func (s *Store) SetInternal(own *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.internal.Store(own)
	conf := *s.conf.Load()
	conf.internal = certificateOf(own)
	s.conf.Store(&conf)
}

// certificateOf returns the DER form of the certificate of a key, nil if there
// is none.
func certificateOf(own *tls.Certificate) []byte {
	if own == nil || len(own.Certificate) == 0 {
		return nil
	}
	return own.Certificate[0]
}

// documents is the folder of the documents that the store keeps, beside the
// file. Their names are those of their contents, so none is ever written anew.
const documents = "descriptions"

// AddDocument keeps a document, durably, and returns the name by which a
// [DescriptionEntry] calls its file. extension is that of the file, with a dot.
// It is for use within an [Store.Update], at whose end documents go that no
// description names.
func (s *Store) AddDocument(content []byte, extension string) (string, error) {
	if len(content) > MaxDocument {
		return "", fmt.Errorf("a document has at most %d bytes", MaxDocument)
	}
	dir := filepath.Join(filepath.Dir(s.path), documents)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:16]) + extension
	if err := replace(filepath.Join(dir, name), content); err != nil {
		return "", err
	}
	return filepath.Join(documents, name), syncDir(filepath.Dir(s.path))
}

var documentName = regexp.MustCompile(`^[0-9a-f]{32}\.[a-z]+$`)

// sweep removes the kept documents that no description names.
func (s *Store) sweep(m *Model) error {
	dir := filepath.Join(filepath.Dir(s.path), documents)
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	named := map[string]bool{}
	for _, c := range m.Clients {
		for _, d := range c.Descriptions {
			named[filepath.Clean(d.File)] = true
		}
	}
	for _, f := range files {
		if documentName.MatchString(f.Name()) && !named[filepath.Join(documents, f.Name())] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("the change is made, but old documents are not removed: %w", err)
	}
	return nil
}

// Document reads the document of a description from its file. It is [Config.Path]'s
// folder that the file's name is relative to, and no link leads out of it.
func (s *Store) Document(d *Description) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Dir(s.path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(d.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err == nil && len(b) > MaxDocument {
		err = fmt.Errorf("%s: larger than %d bytes", d.File, MaxDocument)
	}
	return b, err
}

func (s *Store) read() (*Model, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", s.path, maxFile)
	}
	m, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return m, nil
}

func (s *Store) swap(m *Model) error {
	conf, err := compile(m, s.now, certificateOf(s.internal.Load()))
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	s.conf.Store(conf)
	return nil
}

// replace writes a file so that after a crash either the old or the new
// content is there, and after it returns nil the new one.
func replace(path string, b []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("synchronise folder %s: %w", dir, err)
	}
	return nil
}
