// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// readSandbox reads what a sandbox tells of itself; nil if there is none in dir.
func readSandbox(dir string) (*sandboxFile, error) {
	b, err := os.ReadFile(filepath.Join(dir, "sandbox.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := new(sandboxFile)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "sandbox.json"), err)
	}
	for _, c := range f.Clients {
		if c.Gateway < 0 || c.Gateway >= len(f.Gateways) {
			return nil, fmt.Errorf("%s: client %s is on no gateway of the sandbox", filepath.Join(dir, "sandbox.json"), c.ID)
		}
	}
	return f, nil
}

// client returns the client of that name, or the first that may call something.
func (f *sandboxFile) client(name string) (sandboxClient, error) {
	for _, c := range f.Clients {
		if c.ID == name || name == "" && c.Allowed {
			return c, nil
		}
	}
	return sandboxClient{}, usageError{fmt.Errorf("client %q is not in the sandbox; see clients in its sandbox.json, or give --gateway", name)}
}
