// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"errors"
	"sync"

	"github.com/smallstep/nosql/database"
)

// tables is the database of step-ca's ACME server, kept in the authority's
// store. Only what that server does with it is supported.
type tables struct {
	store store
	mu    sync.Mutex // makes compare and swap a unit
}

func tableKey(bucket, key []byte) []byte {
	return bytes.Join([][]byte{{acmePrefix}, bucket, {0}, key}, nil)
}

func (t *tables) Get(bucket, key []byte) ([]byte, error) {
	value, err := t.store.Get(tableKey(bucket, key))
	if errors.Is(err, errNoKey) {
		return nil, database.ErrNotFound
	}
	return value, err
}

func (t *tables) Set(bucket, key, value []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store.Set(tableKey(bucket, key), value)
}

func (t *tables) Del(bucket, key []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store.Delete(tableKey(bucket, key))
}

// CmpAndSwap writes the new value if the old one is what the caller thinks; a
// nil value means that there is none.
func (t *tables) CmpAndSwap(bucket, key, old, value []byte) ([]byte, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	current, err := t.store.Get(tableKey(bucket, key))
	if err != nil && !errors.Is(err, errNoKey) {
		return nil, false, err
	}
	if !bytes.Equal(current, old) || (current == nil) != (old == nil) {
		return current, false, nil
	}
	if value == nil {
		err = t.store.Delete(tableKey(bucket, key))
	} else {
		err = t.store.Set(tableKey(bucket, key), value)
	}
	if err != nil {
		return nil, false, err
	}
	return value, true, nil
}

func (*tables) CreateTable([]byte) error              { return nil } // tables are prefixes
func (*tables) Open(string, ...database.Option) error { return database.ErrOpNotSupported }
func (*tables) Close() error                          { return database.ErrOpNotSupported } // the authority's business
func (*tables) DeleteTable([]byte) error              { return database.ErrOpNotSupported }
func (*tables) Update(*database.Tx) error             { return database.ErrOpNotSupported }

func (*tables) List([]byte) ([]*database.Entry, error) { return nil, database.ErrOpNotSupported }
