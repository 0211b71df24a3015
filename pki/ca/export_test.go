// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"math/big"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

// Records is the store of issued certificates on a file system of the test.
type Records struct{ *records }

func OpenRecords(fs vfs.FS) (Records, error) {
	s, err := openPebble("db", fs, zap.NewNop())
	if err != nil {
		return Records{}, err
	}
	return Records{newRecords(s)}, nil
}

func (r Records) Put(rec *Record) error                { return r.put(rec) }
func (r Records) Get(serial *big.Int) (*Record, error) { return r.get(serial) }
