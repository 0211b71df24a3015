// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"kontor/cmd/archive"
	"kontor/config"
)

// BackupSet is what belongs into the backup of a role: its data directory and
// what it needs beside it.
type BackupSet struct {
	Role    string
	ID      string // whose it is
	DataDir string
	Files   []archive.File
	// hold keeps the role from running until release; may be nil.
	hold func() (release func(), err error)
}

// Names of single files in a backup.
const (
	BackupConfig = "config.yaml"
	backupSecret = "secret"
	backupAnchor = "anchor.xml"
)

// RegistryBackup returns what belongs to a registry.
func RegistryBackup(file string, cfg *config.Registry) *BackupSet {
	return &BackupSet{Role: "registry", ID: cfg.Instance, DataDir: cfg.DataDir,
		Files: []archive.File{{Name: BackupConfig, Path: file}, {Name: backupSecret, Path: cfg.PINFile}}}
}

// GatewayBackup returns what belongs to a gateway.
func GatewayBackup(file string, cfg *config.Gateway) *BackupSet {
	return &BackupSet{Role: "gateway", ID: cfg.Server.String(), DataDir: cfg.DataDir,
		hold: func() (func(), error) { return holdGateway(cfg) },
		Files: []archive.File{{Name: BackupConfig, Path: file}, {Name: backupSecret, Path: cfg.PINFile},
			{Name: backupAnchor, Path: cfg.Anchor}}}
}

// TrustBackup returns what belongs to trust services.
func TrustBackup(file string, cfg *config.Trust) *BackupSet {
	return &BackupSet{Role: "trust", ID: cfg.URL, DataDir: cfg.DataDir,
		Files: []archive.File{{Name: BackupConfig, Path: file}, {Name: backupSecret, Path: cfg.PassphraseFile}}}
}

// minPassphrase is the least length of a backup's passphrase, in bytes: who has
// the archive has all the time in the world.
const minPassphrase = 12

// passphrase reads that of a backup.
func passphrase(file string) ([]byte, error) {
	pass, err := Secret(file, "passphrase file")
	if errors.Is(err, fs.ErrNotExist) { // no role makes it
		err = fmt.Errorf("passphrase file: %s does not exist; name the one with the passphrase of the backup", file)
	}
	return pass, err
}

func backupPassphrase(file string) ([]byte, error) {
	pass, err := passphrase(file)
	if err == nil && len(pass) < minPassphrase {
		err = fmt.Errorf("passphrase file: %s holds fewer than %d characters; write a longer passphrase", file, minPassphrase)
	}
	return pass, err
}

// Backup writes the archive of a role that does not run to a new file, sealed
// with the passphrase in passFile.
func Backup(set *BackupSet, out, passFile string, now func() time.Time) (err error) {
	pass, err := backupPassphrase(passFile)
	if err != nil {
		return err
	}
	release, err := set.stopped()
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("%s exists; choose another name for the backup", out)
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".backup-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	self, _ := filepath.Rel(set.DataDir, f.Name())
	m := archive.Manifest{Role: set.Role, ID: set.ID, DataDir: set.DataDir, Created: now().UTC().Truncate(time.Second)}
	err = archive.Write(f, pass, m, set.Files, func(name string) bool { return isLock(name) || name == filepath.ToSlash(self) })
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return err
	}
	return f.Close()
}

// isLock tells lock files, which have no content.
func isLock(name string) bool {
	return path.Base(name) == "LOCK" || strings.HasSuffix(name, ".lock")
}

// stopped makes sure that the role does not run, and keeps it from starting
// until release: it holds the locks of its databases.
func (s *BackupSet) stopped() (release func(), err error) {
	var held []func()
	free := func() {
		for _, r := range held {
			r()
		}
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	running := fmt.Errorf("the %s of %s runs; stop it for the time of the backup", s.Role, s.DataDir)
	if _, err := os.Stat(s.DataDir); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if s.hold != nil {
		r, err := s.hold()
		if errors.Is(err, ErrRunning) {
			err = running
		}
		if err != nil {
			return nil, err
		}
		held = append(held, r)
	}
	err = filepath.WalkDir(s.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "LOCK" || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		ok, err := tryLockRecord(f)
		if err == nil && !ok {
			err = running
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		held = append(held, func() { f.Close() })
		return nil
	})
	return free, err
}

// OpenBackup opens a backup with the passphrase in passFile. What the archive
// holds of the role's files is complete when it returns; the data follow with
// Restore.
func OpenBackup(in, passFile, role string) (c *archive.Contents, done func() error, err error) {
	pass, err := passphrase(passFile)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(in)
	if err != nil {
		return nil, nil, err
	}
	c, err = archive.Open(f, pass)
	if err == nil && c.Manifest.Role != role {
		err = fmt.Errorf("it is the backup of a %s; use kontor %s restore", c.Manifest.Role, c.Manifest.Role)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", in, err), f.Close())
	}
	return c, f.Close, nil
}

// Restore puts the data of a backup into the empty data directory of a set and
// its files where the set has them. A file that is there already must be the
// same.
func Restore(c *archive.Contents, set *BackupSet) error {
	if c.Manifest.ID != set.ID {
		return fmt.Errorf("it is the backup of %s, and the configuration is of %s", c.Manifest.ID, set.ID)
	}
	for _, f := range set.Files {
		content, ok := c.Files[f.Name]
		if !ok {
			return fmt.Errorf("the backup holds no %s", f.Name)
		}
		have, err := os.ReadFile(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case f.Name != BackupConfig && !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(content)):
			return fmt.Errorf("%s exists and differs from the backup; move it away", f.Path)
		}
	}
	if err := c.Unpack(set.DataDir); err != nil {
		if errors.Is(err, archive.ErrNotEmpty) {
			err = fmt.Errorf("data_dir: %w; a backup is restored into an empty one only", err)
		}
		return err
	}
	for _, f := range set.Files {
		if err := WriteNew(f.Path, c.Files[f.Name]); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// WriteNew writes a file that must not exist, readable by its owner only.
func WriteNew(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
