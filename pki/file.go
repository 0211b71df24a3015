// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const tempPrefix = ".new-"

// writeFile replaces a file so that after a crash either the old or the new
// content is there, whole, and the new one once writeFile has returned.
func writeFile(name string, content []byte) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, tempPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

// readFile reads a small private file: ErrPermissions if others may read it.
func readFile(name string, limit int64) ([]byte, error) {
	if err := checkMode(name, false); err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrDamaged, name, limit)
	}
	return b, nil
}
