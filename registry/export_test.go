// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

// OpenStore opens the journal's store on a file system of the test.
func OpenStore(dir string, fs vfs.FS) (Store, error) { return openPebble(dir, fs, zap.NewNop()) }

// NewState folds changes into an empty state, without a journal.
func NewState(changes ...Change) (*State, error) {
	return newState().try(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Author{}, changes)
}

// DecodeEntry reads the bytes of an entry.
func DecodeEntry(b []byte) (*Entry, error) { return decodeEntry(b) }

// EncodeEntry writes the bytes of an entry.
func EncodeEntry(e *Entry) ([]byte, error) { return encodeEntry(e) }

// KeepParts is how long replaced parts stay.
const KeepParts = keepParts
