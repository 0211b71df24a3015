// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const maxState = 64 << 10

// state is what a Renewer remembers across restarts.
type state struct {
	// Key is the ID of the key that waits for a certificate, Order the address
	// of the order for it; empty: none.
	Key   string `json:"key,omitempty"`
	Order string `json:"order,omitempty"`
	// Certificate is the hash of the newest certificate, and Delivered says
	// that its owner knows of it.
	Certificate string `json:"certificate,omitempty"`
	Delivered   bool   `json:"delivered,omitempty"`
	// Forced demands a new certificate before its time.
	Forced bool `json:"forced,omitempty"`

	Failures int       `json:"failures,omitempty"` // in a row
	Error    string    `json:"error,omitempty"`    // the last of them
	Wait     time.Time `json:"wait,omitzero"`      // until then, after a failure

	// WindowStart and WindowEnd are what the authority suggested last, RenewAt
	// the instant chosen in between, AskAt when to ask again.
	WindowStart time.Time `json:"window_start,omitzero"`
	WindowEnd   time.Time `json:"window_end,omitzero"`
	RenewAt     time.Time `json:"renew_at,omitzero"`
	AskAt       time.Time `json:"ask_at,omitzero"`
}

func readState(file string) (state, error) {
	var s state
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if info.Size() > maxState {
		return s, fmt.Errorf("%s is larger than %d bytes", file, maxState)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w; remove it to begin anew", file, err)
	}
	return s, nil
}

// write replaces the file: after a crash the old or the new state is there.
func (s *state) write(file string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, once renamed
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
