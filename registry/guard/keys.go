// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrNoKey says that a call carries no valid API key.
	ErrNoKey = errors.New("no valid API key")
	// ErrKeyExists says that an API key of that name exists.
	ErrKeyExists = errors.New("an API key of this name exists already")
	// ErrKeyUnknown says that there is no API key of that name.
	ErrKeyUnknown = errors.New("there is no API key of this name")
	// ErrKeyInvalid says that a key of that name or with those roles cannot be.
	ErrKeyInvalid = errors.New("not possible")
	// ErrLastKey says that nobody could manage API keys without that one.
	ErrLastKey = errors.New("no other API key could manage API keys")
)

// maxKeys bounds what is compared at every call.
const maxKeys = 1000

// isKeyName reports whether a key may be called so: up to 64 letters, numbers
// and some marks, the first a letter or number. (A regular expression with
// classes of Unicode would take a megabyte.)
func isKeyName(name string) bool {
	for i, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && (i == 0 || !strings.ContainsRune(" ._@+-", r)) {
			return false
		}
	}
	return name != "" && utf8.RuneCountInString(name) <= 64
}

// Key is one API key as it is stored: by its hash.
type Key struct {
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"`
	Roles   []string  `json:"roles"`
	Created time.Time `json:"created,omitzero"`
}

// HasOneOf reports whether the key has at least one of the roles.
func (k Key) HasOneOf(roles []string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(k.Roles, r) })
}

// Keys are the API keys in a file. They are safe for concurrent use; only one
// process may change the file.
type Keys struct {
	path  string
	roles []string

	mu   sync.RWMutex
	keys []Key
}

// CreateKeys writes a file with one API key of the given roles to path, and
// returns the key itself, which nothing else keeps.
func CreateKeys(path, name string, roles ...string) (secret string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	k := &Keys{path: path, roles: roles}
	return k.Add(name, roles, time.Now())
}

// LoadKeys reads the file. Its keys may have the given roles and no others.
func LoadKeys(path string, roles ...string) (*Keys, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k := &Keys{path: path, roles: roles}
	if err := json.Unmarshal(b, &k.keys); err != nil {
		return nil, fmt.Errorf("API keys %s: %w", path, err)
	}
	for _, key := range k.keys {
		if h, err := hex.DecodeString(key.SHA256); err != nil || len(h) != sha256.Size {
			return nil, fmt.Errorf("API keys %s: key %q has no SHA-256 hash", path, key.Name)
		}
		for _, r := range key.Roles {
			if !slices.Contains(roles, r) {
				return nil, fmt.Errorf("API keys %s: key %q has the unknown role %q", path, key.Name, r)
			}
		}
	}
	return k, nil
}

// List returns all keys in the order in which they were added.
func (k *Keys) List() []Key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.keys)
}

// Add makes a key, durably, and returns the key itself, which nothing else
// keeps.
func (k *Keys) Add(name string, roles []string, at time.Time) (secret string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !isKeyName(name):
		return "", fmt.Errorf("%w: the name must begin with a letter or digit and have at most 64 letters, digits, spaces and . _ @ + -", ErrKeyInvalid)
	case len(roles) == 0:
		return "", fmt.Errorf("%w: a key without roles may do nothing; give at least one of %s", ErrKeyInvalid, strings.Join(k.roles, ", "))
	case len(k.keys) >= maxKeys:
		return "", fmt.Errorf("%w: there are %d keys already; delete those that nobody uses", ErrKeyInvalid, len(k.keys))
	case slices.ContainsFunc(k.keys, func(key Key) bool { return key.Name == name }):
		return "", ErrKeyExists
	}
	roles = slices.Compact(slices.Sorted(slices.Values(roles)))
	for _, r := range roles {
		if !slices.Contains(k.roles, r) {
			return "", fmt.Errorf("%w: there is no role %q; use %s", ErrKeyInvalid, r, strings.Join(k.roles, ", "))
		}
	}
	secret = rand.Text()
	hash := sha256.Sum256([]byte(secret))
	if err := k.replace(append(slices.Clone(k.keys), Key{name, hex.EncodeToString(hash[:]), roles, at.UTC().Truncate(time.Second)})); err != nil {
		return "", err
	}
	return secret, nil
}

// Delete makes a key invalid, durably. The last key with the role that manages
// keys stays.
func (k *Keys) Delete(name, managing string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(k.keys), func(key Key) bool { return key.Name == name })
	if len(rest) == len(k.keys) {
		return ErrKeyUnknown
	}
	if !slices.ContainsFunc(rest, func(key Key) bool { return slices.Contains(key.Roles, managing) }) {
		return ErrLastKey
	}
	return k.replace(rest)
}

// replace writes the file, whole or not at all, and then takes the keys over.
func (k *Keys) replace(keys []Key) error {
	b, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(k.path, append(b, '\n')); err != nil {
		return err
	}
	k.keys = keys
	return nil
}

// Authenticate finds the key of an Authorization header. All keys are compared,
// in constant time each.
func (k *Keys) Authenticate(header string) (Key, error) {
	const prefix = "x-road-apikey token="
	if len(header) < len(prefix) || !bytes.EqualFold([]byte(header[:len(prefix)]), []byte(prefix)) {
		return Key{}, ErrNoKey
	}
	hash := sha256.Sum256([]byte(header[len(prefix):]))
	text := []byte(hex.EncodeToString(hash[:]))
	k.mu.RLock()
	defer k.mu.RUnlock()
	found, err := Key{}, ErrNoKey
	for _, key := range k.keys {
		if subtle.ConstantTimeCompare(text, []byte(key.SHA256)) == 1 {
			found, err = key, nil
		}
	}
	return found, err
}

// WriteFile writes a file that only its owner may read, durably: after a crash
// the old or the new content is there.
func WriteFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
