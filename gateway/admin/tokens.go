// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Roles of API keys.
const (
	RoleOperator = "operator" // keys, clients, services, and all that an auditor may
	RoleAuditor  = "auditor"  // the message log
)

var (
	errKey  = errors.New("no valid API key")
	errRole = errors.New("role missing")
)

// APIKey is one key as it is stored: by its hash.
type APIKey struct {
	Name   string   `json:"name"`
	SHA256 string   `json:"sha256"`
	Roles  []string `json:"roles"`
}

func (k APIKey) hasOneOf(roles []string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(k.Roles, r) })
}

// Tokens are the API keys of a gateway, read once from their file.
type Tokens struct{ keys []APIKey }

// CreateTokens writes a file with one API key of the given roles to path, and
// returns the key itself, which nothing else keeps.
func CreateTokens(path, name string, roles ...string) (key string, err error) {
	key = rand.Text()
	hash := sha256.Sum256([]byte(key))
	b, err := json.MarshalIndent([]APIKey{{name, hex.EncodeToString(hash[:]), roles}}, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return key, os.WriteFile(path, append(b, '\n'), 0o600)
}

// LoadTokens reads the file.
func LoadTokens(path string) (*Tokens, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := new(Tokens)
	if err := json.Unmarshal(b, &t.keys); err != nil {
		return nil, fmt.Errorf("API keys %s: %w", path, err)
	}
	for _, k := range t.keys {
		if h, err := hex.DecodeString(k.SHA256); err != nil || len(h) != sha256.Size {
			return nil, fmt.Errorf("API keys %s: key %q has no SHA-256 hash", path, k.Name)
		}
		for _, r := range k.Roles {
			if r != RoleOperator && r != RoleAuditor {
				return nil, fmt.Errorf("API keys %s: key %q has the unknown role %q", path, k.Name, r)
			}
		}
	}
	return t, nil
}

// authenticate finds the key of an Authorization header. All keys are compared,
// in constant time each.
func (t *Tokens) authenticate(header string) (APIKey, error) {
	token, ok := tokenOf(header)
	if !ok {
		return APIKey{}, errKey
	}
	hash := sha256.Sum256([]byte(token))
	text := []byte(hex.EncodeToString(hash[:]))
	found, err := APIKey{}, errKey
	for _, k := range t.keys {
		if subtle.ConstantTimeCompare(text, []byte(k.SHA256)) == 1 {
			found, err = k, nil
		}
	}
	return found, err
}
