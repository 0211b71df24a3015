// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Secret reads a PIN, passphrase or API key from a file that only its owner may
// read. key is what named the file, for errors: a key of the configuration, which
// ends in _file, or words.
func Secret(file, key string) ([]byte, error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(key, "_file") {
		return nil, fmt.Errorf("%s: %w; the role's init command makes it, or name the right file", key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: %s is open to others (mode %o); run: chmod 600 %s", key, file, mode, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pin := []byte(strings.TrimRight(string(b), "\r\n"))
	if len(pin) == 0 {
		return nil, fmt.Errorf("%s: %s is empty; write the secret into it", key, file)
	}
	return pin, nil
}

// NewSecret returns the secret in a file, which it makes if it does not exist.
func NewSecret(file, key string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		_, err = f.WriteString(rand.Text() + "\n")
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrExist):
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return Secret(file, key)
}

// ReadDER reads a PEM or DER file.
func ReadDER(file, kind string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	switch {
	case block == nil && len(b) > 0 && b[0] == 0x30:
		return b, nil
	case block == nil || block.Type != kind:
		return nil, fmt.Errorf("%s holds no %s", file, strings.ToLower(kind))
	}
	return block.Bytes, nil
}

// WritePEM writes one PEM block to a file.
func WritePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644)
}
